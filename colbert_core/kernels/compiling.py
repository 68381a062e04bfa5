"""Compile functions, and keep their machine code on disk so that each processor compiles them once.

Numba's own cache looks only at the file that defines a function. It would run an old kernel after a change in ``vector``. The
names of the files here depend on the sources of all kernels, on the versions of Python, Numba and LLVM, and on the processor.
Each signature has a file of its own, which is written under another name and then renamed, so any number of processes may
share the folder. A folder that cannot be written to is still read.

The files are pickles of machine code: who can write one runs code as its reader. So a folder is used only if it, all folders
above it and the file itself belong to the user, to root or to the owner of this file's own code, and nobody else can write
to them. On Windows this is not checked: there the user's folders are the user's by its own rules.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import pickle
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llvmlite
import numba
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

_SOURCE = Path(__file__)
_HERE = _SOURCE.parent


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call, or take what an earlier process compiled. It runs without the GIL."""
    dispatcher = numba.njit(nogil=True)(function)
    dispatcher._cache = _KernelCache(function)
    return dispatcher


class _KernelCache(_Cache):
    """Machine code of one function. Numba asks here before it compiles, and hands over what it compiled."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = function.__name__

    @property
    def cache_path(self) -> str:
        return str(_folders()[0])

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        name = self._file_name(sig, target_context.codegen())
        for folder in _safe_folders():
            # Ignore a file that was cut short or comes from elsewhere, and compile.
            with contextlib.suppress(Exception):
                checksum, content = (kept := _read(folder / name))[:32], kept[32:]
                if hashlib.sha256(content).digest() == checksum:  # never run machine code with a flipped bit
                    return CompileResult._rebuild(target_context, *pickle.loads(content))  # noqa: S301
        _announce()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        name, content = self._file_name(sig, data.codegen), pickle.dumps(data._reduce(), protocol=pickle.HIGHEST_PROTOCOL)
        content = hashlib.sha256(content).digest() + content
        for folder in _safe_folders():
            with contextlib.suppress(OSError):
                _make(folder)
                with tempfile.NamedTemporaryFile(dir=folder, delete=False) as aside:
                    try:
                        aside.write(content)
                        aside.close()
                        Path(aside.name).chmod(0o644)  # so that all users run what an administrator's first search compiled
                        Path(aside.name).replace(folder / name)  # not synced: what a power failure damages is compiled again
                    except BaseException:
                        Path(aside.name).unlink(missing_ok=True)
                        raise
                return

    def _file_name(self, sig: Any, codegen: Any) -> str:
        key = repr((sig, codegen.magic_tuple(), _sources(), sys.version, numba.__version__, llvmlite.__version__))
        return f"{self._name}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.kernel"

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...


@functools.cache
def _sources() -> str:
    """Return a digest of the source text of all kernels."""
    digest = hashlib.sha256()
    for path in sorted(_HERE.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _folders() -> list[Path]:
    """Return the folders for machine code, best first: the one Numba is told to use, else the sources' and the user's cache."""
    if numba.config.CACHE_DIR:
        return [Path(numba.config.CACHE_DIR) / "colbert_core"]
    try:
        if sys.platform == "win32":
            home = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            home = Path.home() / "Library" / "Caches"
        else:
            home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home
        return [_HERE / "__pycache__"]
    return [_HERE / "__pycache__", home / "colbert-retrievers"]


def _safe_folders() -> Iterator[Path]:
    """Yield the folders for machine code that nobody can write to whom this process need not trust, best first."""
    for folder in _folders():
        if open_to := _open_to_others(folder):
            _warn_of(str(folder), open_to)
        else:
            yield folder


def _open_to_others(folder: Path) -> str:
    """Say what of a folder, or of those above it, others can write to; nothing if they can nowhere."""
    if sys.platform == "win32":
        return ""
    here = folder.resolve()
    for path in (here, *here.parents):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            about = path.lstat()
            # In a folder such as /tmp others can make files, but not take away or rename what is not theirs.
            if not _is_trusted(about, sticky=path != here):
                return f"{path} ({stat.filemode(about.st_mode)}, owned by user {about.st_uid})"
    return ""


def _is_trusted(about: os.stat_result, *, sticky: bool = False) -> bool:
    """Tell whether only the user, root or the owner of this package can write to a file or folder."""
    if about.st_uid not in {0, os.geteuid(), _SOURCE.stat().st_uid}:
        return False
    return not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or (sticky and bool(about.st_mode & stat.S_ISVTX))


def _read(path: Path) -> bytes:
    """Read a file of machine code.

    Raises:
        OSError: it is not there, or others could have written it.
    """
    with path.open("rb") as file:
        if sys.platform != "win32" and not _is_trusted(os.fstat(file.fileno())):
            _warn_of(str(path.parent), f"{path.name} in it")
            raise PermissionError(str(path))
        return file.read()


def _make(folder: Path) -> None:
    """Make a folder that others can read but not write to, and those above it, which are the user's own."""
    for above in reversed(folder.parents):
        above.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o755 if folder.parent == _HERE else 0o700, exist_ok=True)


@functools.cache
def _warn_of(folder: str, open_to: str) -> None:
    logger.warning(
        "Compiled kernels are neither read from %s nor kept there: others can write to %s, and so could have code run here. "
        "Take that right away (chmod go-w), or set NUMBA_CACHE_DIR to a folder that is yours alone.",
        folder, open_to,
    )  # fmt: skip


# Fork only while no other thread holds the compiler's lock: in the child nobody would release it.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


@functools.cache
def _announce() -> None:
    # Tell a user at a terminal why nothing happens. For a log that nobody watches this is no warning.
    level = logging.WARNING if sys.stderr.isatty() else logging.INFO
    logger.log(level, "Compiling for this processor what searches and builds indexes; this takes some seconds, once.")
