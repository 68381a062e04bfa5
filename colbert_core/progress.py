"""Progress bars of long work.

tqdm's own lock is shared with forked processes: one that is killed while it holds it stops the bars of all others for ever.
So bars here have a lock of their process alone, and where none is shown there is none.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class ProgressBar(Protocol):
    """Counts what is done. It is a context, which closes it."""

    def update(self, n: int = 1) -> object:
        """Count ``n`` units."""

    def set_postfix(self, *, refresh: bool, **figures: str) -> None:
        """Show figures behind the bar."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> object: ...


def progress_bar(what: str, total: int | None, unit: str, progress: bool | None, done: int = 0) -> ProgressBar:
    """Make a progress bar.

    Args:
        what: what is done, such as "Encoding".
        total: how many units there are; None where it is not known.
        unit: what is counted, in the singular.
        progress: True shows the bar, False does not, None shows it on a terminal once a second has passed.
        done: units that were done earlier.
    """
    is_default = progress is None
    if progress is False or (is_default and not (sys.stderr and sys.stderr.isatty())):
        return _Hidden()
    # miniters: ask the clock at each update. tqdm's way to ask less often takes a thread that looks after all bars.
    return _Shown(total=total, desc=what, unit=unit, delay=1 if is_default else 0, initial=done, miniters=1)


class _Hidden:
    """A bar that is not shown."""

    def update(self, n: int = 1) -> None: ...

    def set_postfix(self, *, refresh: bool, **figures: str) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...


class _Shown(tqdm):  # type: ignore[type-arg, misc, unused-ignore]
    """A bar that is shown. Users' own bars keep their lock."""

    monitor_interval = 0
    _lock = threading.RLock()

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> None:  # noqa: ARG002
        """Show the bar as it is now. tqdm's own would keep the lock if Ctrl-C came meanwhile."""
        with self._lock:
            super().refresh(nolock=True)


if hasattr(os, "register_at_fork"):
    # A thread of the parent, which is not here, may have held the lock.
    os.register_at_fork(after_in_child=lambda: _Shown.set_lock(threading.RLock()))
