"""How many cores this process really has: those it may run on, less what a container's quota keeps from it."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_MOUNTED = Path("/sys/fs/cgroup")


def count_cores() -> int:
    """Count the cores that this process may keep busy, at least one.

    On Linux a quota of its control group or of one above it counts (``cpu.max``; ``cpu.cfs_quota_us`` in version 1), as
    ``docker run --cpus`` and Kubernetes' limits set it. One and a half cores count as two, so that none of it is left unused.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


@functools.cache  # reading takes .1 ms, and every search asks
def _quota() -> float | None:
    return read_quota(_GROUPS, _MOUNTED)


def read_quota(groups: Path, mounted: Path) -> float | None:
    """The cores that the control groups of a process grant; None without a limit.

    Args:
        groups: the process's list of them, lines of ``number:controllers:path``.
        mounted: where their file systems are.
    """
    quotas = []
    with contextlib.suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = mounted / controllers if controllers else mounted
            # A container sees its own group as the root, though the list may name it by its path on the host.
            group = top / path.lstrip("/")
            for folder in (group, *group.parents):
                quotas += _read_group(folder)
                if folder == top:
                    break
    return min(quotas, default=None)


def _read_group(folder: Path) -> list[float]:
    """The quota that a group has of its own, in cores, if it has one."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if quota != "max" and int(quota) > 0:
            return [int(quota) / int(period)]
    return []
