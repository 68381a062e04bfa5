"""Runs every verb of an index with one system call failing, each in a forked process. Started with ``failing_calls.c`` preloaded.

``python fault_driver.py FOLDER SHARE SEED [VERB ...]`` prints a line of JSON for each failure that was tried: which, what the
caller was told, and what was wrong with that; SHARE is the part of all failures that is tried.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from colbert_core import ColBERTError, Index, IndexNotFoundError, Passage
from colbert_core.index import writing
from colbert_core.storage import files
from colbert_core.storage.store import made_aside

CALLS = ["write", "fsync", "truncate", "rename", "unlink", "open", "mmap", "stat", "mkdir"]
ERRORS = ["EIO", "ENOSPC", "EMFILE", "EACCES"]
SECONDS = 60

files._LARGEST_ROW = 2000  # so that a few passages make a file

QUERY = np.ones((1, 4), np.float32)
BASE = [f"base{i}" for i in range(12)]
MANY = [f"many{i}" for i in range(30)]


def vectors(ids):
    return [np.random.default_rng([len(name), int(name[4:])]).standard_normal((8, 4)) for name in ids]


def passages(ids):
    return [Passage(name, f"text of {name}", {"n": int(name[4:])}) for name in ids]


def add(index, ids):
    index.add(passages(ids), embeddings=vectors(ids))


def write_base(folder):
    """An index with several segments, dead windows, files and rows; and another one."""
    with Index.create(folder / "x.idx", dim=4, nbits=4) as index:
        add(index, MANY)
        add(index, BASE)
        index.delete(MANY)
        add(index, ["late0"])
    with Index.create(folder / "other.idx", dim=4, nbits=32) as index:
        add(index, ["othe0"])


BEFORE = {"x.idx": {*BASE, "late0"}, "other.idx": {"othe0"}, "new.idx": None}


def search(folder):
    with Index.open(folder / "x.idx") as index:
        assert len(index.search(QUERY, k=5)) == 5
        assert index.get(["base1"])[0].text == "text of base1"


def verify(folder):
    with Index.open(folder / "x.idx") as index:
        assert index.verify().ok


def writes(call):
    def run(folder):
        with Index.open(folder / "x.idx") as index:
            call(index)

    return run


def compress(index):
    writing.FIRST_FIT = 1
    add(index, ["many0"])


def aside(folder):
    with made_aside(folder / "new.idx") as path, Index.create(path, dim=4) as index:
        add(index, MANY)


ADDED = BEFORE["x.idx"] | set(MANY)
# Each verb, and what it changes: the ids of an index afterwards.
VERBS = {
    "create": (lambda folder: Index.create(folder / "new.idx", dim=4).close(), {"new.idx": set()}),
    "overwrite": (lambda folder: Index.create(folder / "other.idx", dim=4, overwrite=True).close(), {"other.idx": set()}),
    "make aside": (aside, {"new.idx": set(MANY)}),
    "search": (search, {}),
    "verify": (verify, {}),
    "add a row": (writes(lambda index: add(index, ["many0"])), {"x.idx": BEFORE["x.idx"] | {"many0"}}),
    "add a file": (writes(lambda index: add(index, MANY)), {"x.idx": ADDED}),
    "replace": (writes(lambda index: add(index, [*BASE, *MANY])), {"x.idx": ADDED}),
    "delete": (writes(lambda index: index.delete(["base3"])), {"x.idx": BEFORE["x.idx"] - {"base3"}}),
    "clear": (writes(lambda index: index.clear()), {"x.idx": set()}),
    "compact": (writes(lambda index: index.compact()), {}),
    "compress": (writes(compress), {"x.idx": BEFORE["x.idx"] | {"many0"}}),
    "save": (lambda folder: writes(lambda index: index.save(folder / "new.idx"))(folder), {"new.idx": BEFORE["x.idx"]}),
    "save over": (
        lambda folder: writes(lambda index: index.save(folder / "other.idx", overwrite=True))(folder),
        {"other.idx": BEFORE["x.idx"]},
    ),
}


def ids_of(path):
    """The ids of an index that is found whole; None if there is none."""
    try:
        with Index.open(path) as index:
            assert index.verify().problems == []
            ids = set(index.ids())
            assert {hit.passage.id for hit in index.search(QUERY, k=99)} == ids == {p.id for p in index.get(sorted(ids))}
            return ids
    except IndexNotFoundError:
        return None


def child(verb, folder, call, place, error, dies):
    """Run a verb with a failure in this process, which ends; what the caller was told goes to standard output."""
    library = ctypes.CDLL(None)
    told = None
    library.fail_call(CALLS.index(call), place, getattr(errno, error), f"{folder}/".encode())
    try:
        VERBS[verb][0](folder)
    except ColBERTError as problem:
        told = f"{type(problem).__name__}: {problem}"
    except BaseException as problem:
        told = f"raw {type(problem).__name__}: {problem}"
    failed = library.stop_failing()
    return told, bool(failed)


def tried(verb, folder, call, place, error, dies):
    """Run a verb with a failure in a forked process; its report, None if the verb makes no such call any more."""
    reading, writing_ = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(SECONDS)
        told, failed = child(verb, folder, call, place, error, dies)
        os.write(writing_, json.dumps([told, failed]).encode())
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    os.close(writing_)
    with os.fdopen(reading) as pipe:
        report = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != (-signal.SIGKILL if dies else 0) or not report:
        return f"the process ended with {code}", True
    return json.loads(report)


def problem_of(verb, folder, told):
    """What is wrong with an outcome, if anything."""
    if told is not None and told.startswith(("raw ", "the process")):
        return told
    wanted = VERBS[verb][1]
    for name, before in BEFORE.items():
        after = wanted.get(name, before)
        try:
            now = ids_of(folder / name)
        except BaseException as error:
            return f"{name} is not whole: {type(error).__name__}: {error}"
        if now not in (before, after):
            return f"{name} holds {now}"
        if name in wanted and told is None and now != after:
            return f"{name} is not changed, and nobody was told"
        if name in wanted and before != after and told is not None:
            if "as before" in told and now != before:
                return f"{name} is not as before: {told}"
            if "all the same" in told and now != after:
                return f"{name} is not changed: {told}"
    try:  # and it goes on
        VERBS[verb][0](folder)
    except BaseException as error:
        if not (now := ids_of(folder / next(iter(wanted), "x.idx"))) == next(iter(wanted.values()), now):
            return f"it does not work again: {type(error).__name__}: {error}"
    left = [path.name for path in folder.rglob("*") if path.name.endswith(".unfinished") or path.name.startswith(".")]
    return f"left behind: {left}" if left else None


def main(where, share, seed, *verbs):
    work, base, chosen = Path(where) / "work", Path(where) / "base", random.Random(int(seed))
    base.mkdir(parents=True)
    write_base(base)
    shutil.copytree(base, work)
    for name in VERBS:  # everything is imported and compiled before the first fork
        VERBS[name][0](work)
        shutil.rmtree(work)
        shutil.copytree(base, work)
        writing.FIRST_FIT = 2**17
    for verb in verbs or VERBS:
        for call in CALLS:
            for error in ERRORS:
                place, failed = -1, True
                while failed:
                    place += 1
                    if chosen.random() > float(share):
                        if place > 300:
                            break
                        continue
                    shutil.rmtree(work)
                    shutil.copytree(base, work)
                    told, failed = tried(verb, work, call, place, error, chosen.random() < 0.5)
                    if failed:
                        problem = problem_of(verb, work, told)
                        line = {"verb": verb, "call": call, "error": error, "place": place, "told": told, "problem": problem}
                        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
