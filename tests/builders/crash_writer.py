"""A process that writes to an index without end, says what it does, and is killed: by its parent, or by itself at a named step.

    python crash_writer.py FOLDER SEED [STEP [OCCURRENCE]]

On standard output, before each call a line of JSON that tells what the passages will be, and after it the line "done".
"""

import contextlib
import json
import os
import signal
import sys

import numpy as np

import colbert_core.storage.files as files_module
from colbert_core import Index, IndexExistsError, Passage
from colbert_core.index import writing

DIM = 16


def say(line):
    os.write(1, (line + "\n").encode())


def vectors(name, version):
    return np.random.default_rng([int(name[1:]), version]).standard_normal((3 + version % 40, DIM)).astype(np.float32)


def kill_at(step, occurrence):
    seen = 0

    def hook(event, arguments):
        nonlocal seen
        if event == "colbert_core.step" and arguments[0] == step:
            seen += 1
            if seen == occurrence:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main():
    folder, seed = sys.argv[1], int(sys.argv[2])
    if len(sys.argv) > 3:
        kill_at(sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 1)
    writing.FIRST_FIT = 500  # small, so that the codec is fitted, and fitted again, within seconds
    writing._GROWTH = 2
    files_module._LARGEST_ROW = 2**12  # and files are written as well as rows
    rng = np.random.default_rng(seed)
    say("ready")
    with contextlib.suppress(IndexExistsError):
        Index.create(folder, dim=DIM, words="words", nbits=4).close()
    say("created")
    index = Index.open(folder)
    version = seed * 1000
    while True:
        version += 1
        verb = rng.choice(["add", "add", "add", "set", "delete", "compact", "clear"], p=[0.2, 0.2, 0.2, 0.17, 0.15, 0.06, 0.02])
        if verb == "add":
            names = [f"p{n}" for n in rng.choice(300, size=int(rng.integers(1, 40)), replace=False).tolist()]
            say(json.dumps({"add": names, "version": version}))
            index.add(
                [Passage(name, f"{name} version {version}", {"version": version}) for name in names],
                embeddings=[vectors(name, version) for name in names],
            )
        elif verb == "delete":
            names = [f"p{n}" for n in rng.choice(300, size=int(rng.integers(1, 60)), replace=False).tolist()]
            say(json.dumps({"delete": names}))
            index.delete(names)
        elif verb == "set":
            names = [f"p{n}" for n in rng.choice(300, size=int(rng.integers(1, 200)), replace=False).tolist()]
            say(json.dumps({"set": names, "mark": version}))
            index.update_metadata({"mark": version}, ids=names)
        elif verb == "compact":
            say(json.dumps({"compact": True}))
            index.compact()
        else:
            say(json.dumps({"clear": True}))
            index.clear()
        say("done")


if __name__ == "__main__":
    main()
