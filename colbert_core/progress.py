"""Progress bars of long work, on terminals and in notebooks.

tqdm's own lock is shared with forked processes: one that is killed while it holds it stops the bars of all others for ever.
So bars here have a lock of their process alone, and where none is shown there is none.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

# Seconds of work before a bar that nobody asked for is shown.
_PATIENCE = 1.0
# Consoles over a notebook's kernel, which show text only; by these variables tqdm knows them, too.
_CONSOLES = ("QT_API", "SPYDER")


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
        progress: True shows the bar, False does not, None shows it on a terminal or in a notebook once a second has passed.
        done: units that were done earlier.
    """
    delay = _PATIENCE if progress is None else 0
    # The standard error of a notebook is no terminal.
    if progress is False or (progress is None and not (in_notebook() or (sys.stderr and sys.stderr.isatty()))):
        return _Hidden()
    # miniters: ask the clock at each update. tqdm's way to ask less often takes a thread that looks after all bars.
    settings = {"total": total, "desc": what, "unit": f" {unit}", "initial": done, "miniters": 1}
    widget = _widget_bar() if _has_widgets() else None
    if widget is None:
        return _text_bar()(delay=delay, **settings)  # type: ignore[no-any-return]
    return _Late(functools.partial(widget, **settings), delay) if delay else widget(**settings)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, or of another page or console that shows what a kernel sends.

    Asked as tqdm asks it. IPython is not imported for that: in its kernel it is.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    names = [kind.__name__ for kind in type(shell).__mro__]
    return "ZMQInteractiveShell" in names or "IPKernelApp" in getattr(shell, "config", ())


def _has_widgets() -> bool:
    """Whether what shows this process's output may show widgets; a process forked from a kernel cannot send any."""
    return in_notebook() and not _is_forked and not any(name.startswith(_CONSOLES) for name in os.environ)


class _Hidden:
    """A bar that is not shown."""

    def update(self, n: int = 1) -> None: ...

    def set_postfix(self, *, refresh: bool, **figures: str) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...


class _OwnLock:
    """What a bar of tqdm's has of ours. Users' own bars keep their lock."""

    monitor_interval = 0
    _lock = threading.RLock()

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> None:  # noqa: ARG002
        """Show the bar as it is now. tqdm's own would keep the lock if Ctrl-C came meanwhile."""
        with self._lock:
            super().refresh(nolock=True)  # type: ignore[misc]


@functools.cache
def _text_bar() -> Any:
    """The class of bars of text; made late, since the import of tqdm takes as long as an answer by words."""
    from tqdm import tqdm

    return type("_Shown", (_OwnLock, tqdm), {})


@functools.cache
def _widget_bar() -> Any:
    """The class of bars that are widgets; None where ipywidgets is not installed, or not for this IPython."""
    try:
        from tqdm.notebook import IProgress, tqdm_notebook
    except Exception:  # tqdm.auto, too, takes text then: work must not fail for want of a bar
        return None
    return None if IProgress is None else type("_Widget", (_OwnLock, tqdm_notebook), {})


class _Late:
    """A widget that is made once some time has passed, since every one that is made stays in memory and in the notebook."""

    def __init__(self, make: Callable[[], Any], delay: float) -> None:
        self._make, self._delay, self._begun = make, delay, time.monotonic()
        self._n = 0
        self._figures: dict[str, str] = {}
        self._bar: Any = None

    def update(self, n: int = 1) -> None:
        if self._bar is not None:
            self._bar.update(n)
            return
        self._n += n
        waited = time.monotonic() - self._begun
        if waited >= self._delay:
            self._bar = self._make()
            self._bar.start_t -= waited  # from which it computes the time that is left
            self._bar.last_print_t -= waited
            self._bar.set_postfix(refresh=False, **self._figures)
            self._bar.update(self._n)

    def set_postfix(self, *, refresh: bool, **figures: str) -> None:
        self._figures = figures
        if self._bar is not None:
            self._bar.set_postfix(refresh=refresh, **figures)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


_is_forked = False


def _after_fork_in_child() -> None:
    global _is_forked
    _is_forked = True
    _OwnLock._lock = threading.RLock()  # a thread of the parent, which is not here, may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

if in_notebook():
    # transformers and LlamaIndex import it, and it advises to install ipywidgets, which nobody has asked for.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        importlib.import_module("tqdm.auto")
