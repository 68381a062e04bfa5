"""Passages of a small index, the files in an index's folder, and processes that use an index."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from builders.processes import environment
from colbert_core import Passage

THREE = [Passage("a", "the cat sat", {"n": 1}), Passage("b", "a dog barks", {"n": 2}), Passage("c", "a bird sings", {"n": 3})]


def ids(hits):
    return [hit.passage.id for hit in hits]


def flip(path, place):
    """Turn all bits of one byte of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)


def files_of(path):
    """The files of vectors in an index's folder."""
    return sorted((path / "files").iterdir())


def in_a_process(code, *arguments, launcher=()):
    """Run code in a process of its own, and return what it printed.

    ``launcher`` is a command before Python's, such as ``unshare``.
    """
    script = "import os, sys, threading, time\nimport numpy as np\nfrom colbert_core import *\n" + textwrap.dedent(code)
    command = [*launcher, sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout
