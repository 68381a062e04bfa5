"""Every system call of every verb fails once, by a library between the program and the C library: nothing is lost or left by half.

The default run tries one in two hundred; ``pytest tests/faults/test_system_calls.py --faults 1`` tries all and prints the counts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from builders.processes import environment

BUILDERS = Path(__file__).parents[1] / "builders"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Lets a system call fail."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    path = tmp_path_factory.mktemp("library") / "failing_calls.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", path, BUILDERS / "failing_calls.c", "-ldl"], check=True)
    return path


@pytest.mark.timeout(3600)
def test_an_index_is_whole_after_any_system_call_failed_and_what_is_said_of_it_is_true(library, tmp_path, request, capsys):
    share = request.config.getoption("--faults")
    command = [sys.executable, str(BUILDERS / "fault_driver.py"), str(tmp_path), "0", "calls", str(share)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(LD_PRELOAD=str(library)))
    assert done.returncode == 0, done.stderr
    tried = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(tried) > 3000 * share
    assert [failure for failure in tried if failure["problem"]] == []
    assert all(failure["told"] is None or "raw" not in failure["told"][:3] for failure in tried)
    if share == 1:
        with capsys.disabled():
            print("\n".join(table(tried)))


def table(tried):
    """Failures by verb and call: how many were tried, and of how many the caller was told."""
    counts = Counter((failure["verb"], failure["call"]) for failure in tried)
    told = Counter((failure["verb"], failure["call"]) for failure in tried if failure["told"] is not None)
    calls = sorted({call for _, call in counts})
    yield f"| verb | {' | '.join(calls)} |"
    yield f"|---|{'---|' * len(calls)}"
    for verb in dict.fromkeys(failure["verb"] for failure in tried):
        yield f"| {verb} | {' | '.join(f'{told[verb, call]} of {counts[verb, call]}' for call in calls)} |"
