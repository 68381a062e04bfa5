"""One encoder for equal requests in a process: loading takes a second and 90 MB, and a program asks for the same one often."""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

from colbert_core.threads import new_lock

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Hashable
    from pathlib import Path

T = TypeVar("T")


class Shared(Generic[T]):
    """Values by what was asked for, each made once and kept for as long as somebody else has it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._values: weakref.WeakValueDictionary[Hashable, T] = weakref.WeakValueDictionary()  # type: ignore[type-var, unused-ignore]
        self._making: weakref.WeakValueDictionary[Hashable, threading.Lock] = weakref.WeakValueDictionary()
        self._lock = new_lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key; made now if there is none, while whoever asks for the same one waits and others do not."""
        with self._lock:
            making = self._making.setdefault(key, new_lock())
        with making:
            value = self._values.get(key)
            if value is None:
                value = self._values[key] = make()
            return value


def state_of(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """What tells the files of a checkpoint from others that take their place: name, size, time of change and inode of each.

    Args:
        path: a folder, or a file.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    states = []
    for file in files:
        with contextlib.suppress(OSError):  # gone meanwhile; whoever reads it says so
            stat = file.stat()
            states.append((str(file), stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return tuple(states)
