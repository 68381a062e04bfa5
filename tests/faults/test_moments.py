"""Processes that are killed, and calls that Ctrl-C ends, at random moments of any verb: the index is whole, and goes on.

``pytest tests/faults/test_moments.py --kills 5000 --interrupts 2000`` does so that often.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from builders.processes import environment

DRIVER = Path(__file__).parents[1] / "builders" / "fault_driver.py"


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("what", ["kills", "interrupts"])
def test_an_index_is_whole_whenever_a_verb_ends(tmp_path, request, what):
    n = request.config.getoption(f"--{what}")
    command = [sys.executable, str(DRIVER), str(tmp_path), "0", what, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    tried = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(tried) == n
    assert [moment for moment in tried if moment["problem"]] == []
    within = sum(moment["within"] for moment in tried)
    assert within >= n / (2 if what == "kills" and n > 1000 else 4), f"only {within} of {n} came within a write"
