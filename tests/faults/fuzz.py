"""Feeds changed files to whatever reads them, in child processes, so that a crash, a hang and too much memory are seen.

``pytest tests/faults/test_fuzz.py --fuzz 100000`` tries so many inputs. ``PYTHONPATH=tests python -m faults.fuzz --fuzz 10000``
does so outside of pytest; with ``--kind`` and ``--seed`` it repeats one input, which is the same on every machine.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import colbert_core
from colbert_core.errors import ColBERTError, FilterWarning

# Seconds for one input; and bytes that a child may ask for beyond those that it began with.
_SECONDS, _MEMORY = 20, 2**31
# Inputs of a child before it is renewed.
_INPUTS = 400
_PACKAGE = str(Path(colbert_core.__file__).parent)


def is_named(error: BaseException) -> bool:
    """Whether an error is one of the package's, or says in words of the package what is wrong with a value."""
    if isinstance(error, ColBERTError) or (isinstance(error, FileNotFoundError) and error.filename):
        return True
    frame = traceback.extract_tb(error.__traceback__)[-1]
    ours = frame.filename.startswith(_PACKAGE) and (frame.line or "").startswith("raise ")
    return ours and isinstance(error, ValueError | TypeError | OSError)


def try_input(kind, seed: int, folder: Path) -> str:
    """Change the files of a kind by this seed, and use them.

    Returns:
        "refused", "right", or what is wrong.
    """
    dice = random.Random(f"{kind.name} {seed}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", FilterWarning)  # the change may have been one of a field's name
            kind.change(dice, folder / "it")
            kind.use(folder / "it", folder)
    except BaseException as error:  # what Rust code panics about is no Exception
        if is_named(error):
            return "refused"
        frames = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-4:]]
        return f"{type(error).__name__}: {str(error)[:300]!r} at {' '.join(frames)}"
    return "right"


def run(kinds, n: int, *, first: int = 0, seconds: float = _SECONDS):
    """Try inputs of each kind in turn.

    Args:
        kinds: see ``fuzz_kinds``.
        n: how many inputs.
        first: the first seed.
        seconds: for one input; after that it counts as a hang.

    Returns:
        How many inputs of each kind were refused and right; and the faults as (kind, seed, what).
    """
    counts, faults = defaultdict(Counter), []
    # A kind's inputs come together, so that a child keeps what it has loaded for it.
    shares = [n * (number + 1) // len(kinds) - n * number // len(kinds) for number in range(len(kinds))]
    for kind, share in zip(kinds, shares, strict=True):
        done = 0
        while done < share:
            some = min(_INPUTS, share - done)
            results = _in_a_child(kind, range(first + done, first + done + some), seconds)
            for number, result in enumerate(results):
                if result in ("refused", "right"):
                    counts[kind.name][result] += 1
                else:
                    counts[kind.name]["faults"] += 1
                    faults.append((kind.name, first + done + number, result))
            done += len(results)
    return counts, faults


def _in_a_child(kind, seeds, seconds):
    """What came of these seeds, up to the one that ended the child, if one did."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that a fork leaves behind
        child = os.fork()
    if not child:
        os.close(reading)
        _be_a_child(kind, seeds, seconds, writing)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
        results = [line.rstrip("\n") for line in lines]
    _, status = os.waitpid(child, 0)
    if len(results) < len(seeds):
        signal_name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status}"
        results.append("a hang" if signal_name == "SIGALRM" else f"a crash ({signal_name})")
    return results


def _be_a_child(kind, seeds, seconds, writing):
    try:
        os.setsid()
        faulthandler.disable()  # pytest's would print what is expected here
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
        if pages:
            limit = pages * resource.getpagesize() + _MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        home = "/dev/shm" if Path("/dev/shm").is_dir() else None
        folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=home))
        try:
            for seed in seeds:
                signal.setitimer(signal.ITIMER_REAL, seconds)
                result = try_input(kind, seed, folder / "input")
                os.write(writing, f"{result}\n".replace("\r", " ").encode("utf-8", "replace"))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(writing, f"the child failed: {error!r:.200}\n".encode())
    finally:
        os._exit(0)


def main(arguments=None):
    """Run from a shell."""
    from faults.fuzz_kinds import MAKERS, make_kinds

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fuzz", type=int, default=1000, help="inputs in all (default: %(default)s)")
    parser.add_argument("--group", action="append", choices=MAKERS, help="only these kinds; several times for several")
    parser.add_argument("--kind", default="", help="only the kinds whose names hold this")
    parser.add_argument("--first", type=int, default=0, help="first seed (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="repeat this input here, and show where it fails")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        kinds = [kind for kind in make_kinds(Path(work), chosen.group or MAKERS) if chosen.kind in kind.name]
        if chosen.seed is not None:
            for kind in kinds:
                kind.change(random.Random(f"{kind.name} {chosen.seed}"), Path(work) / "it")
                kind.use(Path(work) / "it", Path(work))
            return 0
        n_faults = 0
        for kind in kinds:
            started = time.monotonic()
            counts, faults = run([kind], chosen.fuzz // len(kinds), first=chosen.first)
            n, n_faults = sum(counts[kind.name].values()), n_faults + len(faults)
            rate = n / max(time.monotonic() - started, 1e-9)
            print(f"{kind.name:30} {n:7} inputs, {dict(counts[kind.name])}, {rate:.0f}/s", flush=True)
            seen = Counter(what.split(" at ")[-1] for _, _, what in faults)
            for place, times in seen.most_common():
                name, seed, what = next(fault for fault in faults if fault[2].split(" at ")[-1] == place)
                print(f"  {times} x ({name}, {seed}): {what}", flush=True)
    return int(n_faults > 0)


if __name__ == "__main__":
    sys.exit(main())
