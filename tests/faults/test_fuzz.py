"""Whatever is changed in files from others, they are refused by name or read right.

``pytest tests/faults/test_fuzz.py -n 2 --fuzz 100000`` tries that many inputs, of other seeds than the default run.
"""

from __future__ import annotations

import sys

import pytest
from faults import fuzz
from faults.fuzz_kinds import MAKERS, make_kinds

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the memory of processes it forks")
# What the default run tries of each group; together it takes a few seconds.
_DEFAULT = 160


@pytest.mark.timeout(0)
@pytest.mark.parametrize("group", MAKERS)
def test_a_changed_file_is_refused_by_name_or_read_right(group, request, tmp_path):
    n = request.config.getoption("--fuzz")
    kinds = make_kinds(tmp_path, [group])
    counts, faults = fuzz.run(kinds, n // len(MAKERS), first=0 if n == _DEFAULT else 10_000)
    print(*(f"{name}: {dict(counts[name])}" for name in counts), sep="\n")
    assert faults == []
    assert all(sum(counts[kind.name].values()) for kind in kinds)


# The tool itself


class Crashing:
    """A kind whose inputs end the process, hang, take memory, or raise, by their seed."""

    name = "crashing"

    def change(self, dice, folder):
        folder.mkdir()
        (folder / "seed").write_text(str(dice.randrange(10**6)))

    def use(self, folder, work):
        import os
        import signal
        import time

        global _number
        _number += 1
        if _number == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        if _number == 3:
            raise KeyError("raw")
        if _number == 4:
            bytearray(2**33)
        if _number == 5:
            raise ValueError("not in words of the package")
        if _number == 6:
            time.sleep(60)


_number = 0


def test_a_crash_a_hang_and_a_raw_error_are_seen_and_named_with_their_seed(monkeypatch):
    faults = []
    for begun in range(1, 6):
        monkeypatch.setattr(sys.modules[__name__], "_number", begun)
        faults += fuzz.run([Crashing()], 1, first=begun, seconds=0.5)[1]
    assert [(name, seed) for name, seed, _ in faults] == [("crashing", seed) for seed in (1, 2, 3, 4, 5)]
    whats = [what.split(":")[0] for _, _, what in faults]
    assert whats == ["a crash (SIGSEGV)", "KeyError", "MemoryError", "ValueError", "a hang"]


def test_after_a_crash_the_inputs_that_follow_are_tried_as_well():
    counts, faults = fuzz.run([Crashing()], 3, seconds=5)
    assert [seed for _, seed, _ in faults] == [1]
    assert sum(counts["crashing"].values()) == 3
