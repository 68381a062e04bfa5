"""Ctrl-C at each line of a write: the next read sees all of it or nothing, and the next write works."""

from __future__ import annotations

import pytest
from builders.indexes import in_a_process

INTERRUPTED = """
import linecache
from colbert_core.storage import connection, database, files, store, transaction
from colbert_core.index import writing

traced = {module.__file__ for module in (connection, database, files, store, transaction, writing)}
files._LARGEST_ROW = 100  # so that vectors are files
index = Index.create(None if sys.argv[1] == "memory" else sys.argv[1], dim=4, words="words", timeout=5)

def interrupt_at(line):
    def trace(frame, event, _):
        nonlocal line
        code = frame.f_code
        if code.co_filename in traced:
            # Between acquiring a lock and entering the block no signal is looked at, but a trace function is called.
            if event == "line" and not linecache.getline(code.co_filename, frame.f_lineno).strip().startswith("with "):
                line -= 1
                if not line:
                    raise KeyboardInterrupt
            return trace
    return trace

def add(name):
    index.add([Passage(name, f"text of {name}")], embeddings=[np.ones((20, 4))])

add("first")
n = 0  # lines before the next interrupt
while True:
    n += int(sys.argv[2])
    try:
        sys.settrace(interrupt_at(n))
        add("x")
        sys.settrace(None)
        break  # there are not so many lines
    except KeyboardInterrupt as error:
        sys.settrace(None)
        kept = error  # and with it every frame that was interrupted
    before = set(index.ids())
    assert before in ({"first"}, {"first", "x"}), before
    found = {hit.passage.id for hit in index.search(np.ones((1, 4), np.float32), k=9)}
    assert found == before, (n, found, before)
    add("after")
    assert set(index.ids()) == before | {"after"}, n
    assert index.delete(["x", "after"]) == len(before)
assert index.verify().problems == []
index.compact()
assert len(index) == 2 and index.verify().ok
if sys.argv[1] != "memory":
    assert len(os.listdir(sys.argv[1] + "/files")) == 1
print(n)
"""


@pytest.mark.parametrize(("place", "step"), [("memory", 1), ("disk", 3), pytest.param("disk", 1, marks=pytest.mark.slow)])
def test_ctrl_c_at_each_line_of_a_write_leaves_all_of_it_or_nothing(tmp_path, place, step):
    out = in_a_process(INTERRUPTED, "memory" if place == "memory" else tmp_path / "x.idx", step)
    assert int(out) > 150
