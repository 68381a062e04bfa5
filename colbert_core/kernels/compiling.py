"""Compile functions, and keep their machine code on disk so that each processor compiles them once.

Numba's own cache looks only at the file that defines a function. It would run an old kernel after a change in ``vector``. The
names of the files here depend on the sources of all kernels, on the versions of Python, Numba and LLVM, and on the processor.
Each signature has a file of its own, which is written under another name and then renamed, so any number of processes may
share the folder. A folder that cannot be written to is still read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import pickle
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
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_HERE = Path(__file__).parent


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
        for folder in _folders():
            # Ignore a file that was cut short or comes from elsewhere, and compile.
            with contextlib.suppress(Exception):
                checksum, content = (kept := (folder / name).read_bytes())[:32], kept[32:]
                if hashlib.sha256(content).digest() == checksum:  # never run machine code with a flipped bit
                    return CompileResult._rebuild(target_context, *pickle.loads(content))  # noqa: S301
        _announce()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        name, content = self._file_name(sig, data.codegen), pickle.dumps(data._reduce(), protocol=pickle.HIGHEST_PROTOCOL)
        content = hashlib.sha256(content).digest() + content
        for folder in _folders():
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
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
