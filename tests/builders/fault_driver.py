"""Runs the verbs of an index while something happens to them, and prints a line of JSON for each time: what, and what went wrong.

``python fault_driver.py FOLDER SEED calls SHARE [VERB ...]`` lets one system call fail each time, a share of all that there are;
it has to be started with ``failing_calls.c`` preloaded. ``... kills N`` and ``... interrupts N`` kill the process, and press
Ctrl-C, at N random moments.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from colbert_core import ColBERTError, Index, IndexNotFoundError, Passage
from colbert_core.index import writing
from colbert_core.index.batches import dump_all
from colbert_core.storage import files
from colbert_core.storage.sources import Source
from colbert_core.storage.store import made_aside
from colbert_core.vectors.embeddings import vectors_for

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
    with Index.create(folder / "x.idx", dim=4, words="words", nbits=4) as index:
        add(index, MANY)
        add(index, BASE)
        index.delete(MANY)
        add(index, ["late0"])
    with Index.create(folder / "other.idx", dim=4, words="words", nbits=32) as index:
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
    with made_aside(folder / "new.idx") as path, Index.create(path, dim=4, words="words") as index:
        add(index, MANY)


def put_file(index):
    """What a sync commits: a file with two passages."""
    ids = ["many0", "many1"]
    windows = vectors_for(passages(ids), vectors(ids), 4)(passages(ids))
    file = writing.FileChanges(["f", "f"], {"f": Source("f", "/f", 1, 1, n_passages=2)}, {"f": None})
    writing.commit_batch(index._store, index._versions, passages(ids), dump_all(passages(ids)), windows, [], files=file)


ADDED = BEFORE["x.idx"] | set(MANY)
# Each verb, and what it changes: the ids of an index afterwards.
VERBS = {
    "create": (lambda folder: Index.create(folder / "new.idx", dim=4, words="words").close(), {"new.idx": set()}),
    "overwrite": (
        lambda folder: Index.create(folder / "other.idx", dim=4, words="words", overwrite=True).close(),
        {"other.idx": set()},
    ),
    "make aside": (aside, {"new.idx": set(MANY)}),
    "search": (search, {}),
    "verify": (verify, {}),
    "add a row": (writes(lambda index: add(index, ["many0"])), {"x.idx": BEFORE["x.idx"] | {"many0"}}),
    "add a file": (writes(lambda index: add(index, MANY)), {"x.idx": ADDED}),
    "replace": (writes(lambda index: add(index, [*BASE, *MANY])), {"x.idx": ADDED}),
    "delete": (writes(lambda index: index.delete(["base3"])), {"x.idx": BEFORE["x.idx"] - {"base3"}}),
    "change metadata": (
        writes(lambda index: index.update_metadata({"new": "x" * 300}, where={"n": {"$lt": 9}})),
        {"x.idx": {f"{name} changed" if int(name[4:]) < 9 else name for name in BEFORE["x.idx"]}},
    ),
    "put a file": (writes(put_file), {"x.idx": BEFORE["x.idx"] | {"many0", "many1"}}),
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
    """The ids of an index that is found whole, and which have other metadata; None if there is none."""
    try:
        with Index.open(path) as index:
            assert index.verify().problems == []
            ids = set(index.ids())
            assert {hit.passage.id for hit in index.search(QUERY, k=99)} == ids == {p.id for p in index.get(sorted(ids))}
            return {p.id if p == passages([p.id])[0] else f"{p.id} changed" for p in index.passages()}
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
        told = f"raw {type(problem).__name__}: {problem}\n{traceback.format_exc()}"
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
    changes = VERBS[verb][1]
    for name, before in BEFORE.items():
        after = changes.get(name, before)
        try:
            now = ids_of(folder / name)
        except BaseException as error:
            return f"{name} is not whole: {type(error).__name__}: {error}"
        problem = wrong_state(now, before, after, told)
        if problem:
            return f"{name} {problem}: {told}"
    return problem_of_going_on(verb, folder, changes)


def wrong_state(now, before, after, told):
    """What is wrong with what an index holds now, by what it held before, what it should after, and what was said."""
    if now not in (before, after):
        return f"holds {now}"
    if now != after and told is None:
        return "is not changed, and nobody was told"
    if before != after and "the index is as before" in (told or "") and now != before:
        return "is not as before"
    if "all the same" in (told or "") and now != after:
        return "is not changed"
    return None


def problem_of_going_on(verb, folder, changes):
    """What is wrong with calling the verb once more."""
    try:
        VERBS[verb][0](folder)
    except BaseException as error:
        now = {name: ids_of(folder / name) for name in changes}
        if not changes or now != changes:  # it may have been done already
            return f"it does not work again: {type(error).__name__}: {error}"
    left = [path.name for path in folder.rglob("*") if path.name.endswith(".unfinished") or path.name.startswith(".")]
    return f"left behind: {left}" if left else None


def fail_calls(base, work, chosen, share, *verbs):
    """Let a share of all system calls fail, one at a time."""
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
                    renew(base, work)
                    told, failed = tried(verb, work, call, place, error, chosen.random() < 0.5)
                    if failed:
                        problem = problem_of(verb, work, told)
                        say(verb=verb, call=call, error=error, place=place, told=told, problem=problem)


def seconds_of(verb, base, work):
    """How long a verb takes."""
    renew(base, work)
    started = time.perf_counter()
    VERBS[verb][0](work)
    return time.perf_counter() - started


def kill(base, work, chosen, n):
    """Kill a process: four times of five at a random step of a write, by itself, and else at a random moment of a verb."""
    shared = mmap.mmap(-1, 1)  # with the forked process: whether it is within a write
    steps, last = 0, None

    def note(event, arguments):
        nonlocal steps
        if event == "colbert_core.step":
            shared[0] = arguments[0] != "collected"
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(note)
    seconds, n_steps = {}, {}
    for verb in VERBS:
        steps = 0
        seconds[verb] = seconds_of(verb, base, work)
        n_steps[verb] = steps
    for number in range(int(n)):
        at_a_step = number % 5 < 4
        verb = chosen.choice([verb for verb in VERBS if n_steps[verb] or not at_a_step])
        renew(base, work)
        shared[0], steps, last = 0, 0, chosen.randint(1, n_steps[verb]) if at_a_step else None
        pid = os.fork()
        if not pid:
            signal.alarm(SECONDS)
            VERBS[verb][0](work)
            shared[0] = 0
            time.sleep(SECONDS)
        if not at_a_step:
            time.sleep(chosen.uniform(0, 1.2) * seconds[verb])
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        last = None
        say(verb=verb, within=shared[0] == 1, problem=problem_of(verb, work, "killed"))


def interrupt(base, work, chosen, n):
    """Press Ctrl-C at random moments of a verb, and go on in the same process."""
    seconds = {verb: seconds_of(verb, base, work) for verb in VERBS}
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    for _ in range(int(n)):
        verb, told = chosen.choice(list(VERBS)), None
        renew(base, work)
        try:
            signal.setitimer(signal.ITIMER_REAL, chosen.uniform(1e-6, 1.2 * seconds[verb]))
            VERBS[verb][0](work)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            told = "interrupted"
        except BaseException as error:
            told = f"raw {type(error).__name__}: {error}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        say(verb=verb, within=told is not None, problem=problem_of(verb, work, told))


def renew(base, work):
    """Begin with the same indexes again."""
    writing.FIRST_FIT = 2**17
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(base, work)


def say(**line):
    print(json.dumps(line), flush=True)


def main(where, seed, what, *arguments):
    work, base = Path(where) / "work", Path(where) / "base"
    base.mkdir(parents=True)
    write_base(base)
    for verb in VERBS:  # everything is imported and compiled before the first fork
        renew(base, work)
        VERBS[verb][0](work)
    {"calls": fail_calls, "kills": kill, "interrupts": interrupt}[what](base, work, random.Random(int(seed)), *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
