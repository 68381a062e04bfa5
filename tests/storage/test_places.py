"""Where folders are made: mount points, folders of somebody else's, and folders with files that nobody put there on purpose."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders.encoders import WordEncoder

from colbert_core import Encoder, Index, IndexExistsError, Passage
from colbert_core.evaluation import BM25
from colbert_core.storage.aside import contents, folder_aside, folder_begun, is_free, remove_leftovers
from colbert_core.storage.durable import put_in_place

LITTER = [".DS_Store", "._x", "lost+found", ".gitkeep", "Thumbs.db", "desktop.ini", ".nfs0001", ".Trash-1000"]
needs_permissions = pytest.mark.skipif(sys.platform == "win32", reason="folders have other permissions there")


def littered(folder):
    folder.mkdir(exist_ok=True)
    for name in LITTER:
        (folder / name).mkdir() if name == "lost+found" else (folder / name).write_bytes(b"\0")
    return folder


def memory():
    index = Index.create(None, WordEncoder())
    index.add([Passage("a", "cats purr"), Passage("b", "dogs bark")])
    return index


def test_what_nobody_put_there_counts_for_nothing(tmp_path):
    folder = littered(tmp_path / "new")
    assert contents(folder) == []
    assert is_free(folder)
    (folder / "notes.txt").write_text("mine")
    assert contents(folder) == ["notes.txt"]
    assert not is_free(folder)


def test_an_index_is_made_opened_and_overwritten_beside_it(tmp_path):
    with Index.create(littered(tmp_path / "i.idx"), WordEncoder()) as index:
        index.add([Passage("a", "cats purr")])
    memory().save(littered_again := tmp_path / "i.idx", overwrite=True)
    with Index.open(littered_again, WordEncoder()) as index:
        assert len(index) == 2
        assert index.verify().ok
    with Index.create(tmp_path / "i.idx", WordEncoder(), overwrite=True) as index:
        assert len(index) == 0
    (tmp_path / "i.idx" / "files" / ".DS_Store").write_bytes(b"\0")
    memory().save(tmp_path / "i.idx", overwrite=True)
    assert {*LITTER} <= {entry.name for entry in (tmp_path / "i.idx").iterdir()}


def test_a_strange_file_is_named(tmp_path):
    memory().save(tmp_path / "i.idx")
    (tmp_path / "i.idx" / "notes.txt").write_text("mine")
    with pytest.raises(IndexExistsError, match="holds 'notes.txt', which is no part of an index"):
        memory().save(tmp_path / "i.idx", overwrite=True)
    (tmp_path / "i.idx" / "notes.txt").unlink()
    (tmp_path / "i.idx" / "files" / "cat.png").write_bytes(b"")
    with pytest.raises(IndexExistsError, match="holds 'files/cat.png'"):
        Index.create(tmp_path / "i.idx", WordEncoder(), overwrite=True)
    for name in "abcde":
        (tmp_path / "i.idx" / name).write_text("")
    with pytest.raises(IndexExistsError, match="holds 'a', 'b', 'c' and 3 more"):
        Index.create(tmp_path / "i.idx", WordEncoder(), overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexExistsError, match="is a file; choose another path"):
        Index.create(tmp_path / "file", WordEncoder())


def test_models_and_indexes_of_bm25_are_saved_beside_it(stanford, tmp_path):
    stanford.save(littered(tmp_path / "model"), format="pylate")
    assert Encoder.from_pretrained(tmp_path / "model").dim == stanford.dim
    with pytest.raises(FileExistsError, match="holds something already"):
        stanford.save(tmp_path / "model", format="pylate")
    BM25.build([Passage("a", "cats purr")], progress=False).save(littered(tmp_path / "bm25"))
    assert len(BM25.load(tmp_path / "bm25")) == 1


def test_a_folder_is_made_inside_where_nothing_can_be_made_beside(tmp_path, monkeypatch):
    import tempfile

    real, target = tempfile.mkdtemp, tmp_path / "own"
    target.mkdir()

    def only_inside(*, prefix, dir):  # noqa: A002 -- as tempfile names it
        if Path(dir) != target:
            raise PermissionError(13, "Permission denied", str(dir))
        return real(prefix=prefix, dir=dir)

    monkeypatch.setattr(tempfile, "mkdtemp", only_inside)
    with folder_aside(target) as work:
        assert work.parent == target
        assert is_free(target)
        (work / "half").write_text("done")
    assert list(target.iterdir()) == []
    with pytest.raises(PermissionError), folder_aside(tmp_path / "missing"):
        pass
    left = real(prefix=".own.making-", dir=target)
    remove_leftovers(target)
    assert not Path(left).exists()


def test_the_folder_of_several_calls_is_inside_where_nothing_can_be_made_beside(tmp_path, monkeypatch):
    real, target = Path.mkdir, tmp_path / "own"
    beside = folder_begun(target)
    (beside / "half").write_text("kept")
    assert beside.parent == tmp_path
    assert folder_begun(target) == beside
    assert (beside / "half").read_text() == "kept"
    shutil.rmtree(beside)
    target.mkdir()

    def only_inside(path, *arguments, **options):
        if path.parent == tmp_path:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", only_inside)
        inside = folder_begun(target)
        with pytest.raises(PermissionError):
            folder_begun(tmp_path / "missing")
    assert inside.parent == target
    assert is_free(target)
    (inside / "half").write_text("kept")
    assert folder_begun(target) == inside  # also where something could be made beside it by now
    put_in_place(inside, target)
    assert [path.name for path in target.iterdir()] == ["half"]


WORK = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from builders.encoders import WordEncoder
from colbert_core import Index, Passage
from colbert_core.evaluation import BM25
base = Path({base!r})
index = Index.create(None, WordEncoder())
index.add([Passage("a", "cats purr")])
index.save(base / "saved")
from colbert_core.storage.store import Store, made_aside
with made_aside(base / "aside") as aside:
    index.save(aside)
BM25.build([Passage("a", "cats purr")], progress=False).save(base / "bm25")
for name in ("saved", "aside"):
    with Index.open(base / name, WordEncoder()) as opened:
        assert [hit.passage.id for hit in opened.search("cats")] == ["a"], name
        assert opened.verify().ok
try:
    index.save(base / "other")
except Exception as error:
    print(error)
"""


WORK_OF_SEVERAL_CALLS = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from builders.colbertv1 import passages_of
from builders.encoders import WordEncoder
from builders.training import CAT, DOG
from colbert_core.colbertv1 import ivfpq
from colbert_core.colbertv1.encoded import encode_collection
from colbert_core.train import ColBERT, TrainConfig, prepare
base, elsewhere = Path({base!r}), Path({elsewhere!r})
encode_collection(passages_of(60), WordEncoder(), elsewhere / "vectors", progress=False)

def build():
    return ivfpq.IVFPQ.build(elsewhere / "vectors", base / "ivfpq", nbits=4, progress=False)

bar = ivfpq.progress_bar
ivfpq.progress_bar = lambda *_: 1 / 0
try:
    build()
except ZeroDivisionError:
    ivfpq.progress_bar, ivfpq._sample = bar, None  # what was trained is kept, in the folder itself
assert [path.name for path in (base / "ivfpq").iterdir()] == [".ivfpq.unfinished"]
build()
assert len(ivfpq.IVFPQ.open(base / "ivfpq", WordEncoder()).search_many(["cat"], 3)[0]) == 3

model = ColBERT.from_pretrained({model!r}, TrainConfig(query_length=12, passage_length=20))
(base / "data" / ".data.unfinished" / "left by a process that was killed").mkdir(parents=True)
assert len(prepare([CAT, DOG], model, base / "data", progress=False)) == 2
assert len(prepare([CAT, DOG], model, base / "data", progress=False)) == 2
try:
    prepare([CAT], model, base / "data", progress=False)
except FileExistsError:
    pass
try:
    build()
except Exception as error:
    print(error)
try:
    prepare([CAT], model, base / "other", progress=False)
except OSError as error:
    print(error)
"""


def run_in_a_folder_of_somebody_else_s(code, base, names):
    """What a process prints that may write to folders of these names in ``base``, but not to ``base`` itself."""
    for name in names:
        (base / name).mkdir(parents=True)
    command = [sys.executable, "-c", code]
    if os.geteuid() == 0:  # to whom permissions do not apply
        if not shutil.which("setpriv"):
            pytest.skip("setpriv is not installed")
        command = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", *command]
    base.chmod(0o555)
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(path.name for path in base.iterdir()) == sorted(names)
        for folder in base.iterdir():
            assert not [path.name for path in folder.iterdir() if "making" in path.name or "unfinished" in path.name]
        return done.stdout
    finally:
        base.chmod(0o755)


@needs_permissions
def test_folders_of_ones_own_in_a_folder_of_somebody_else_s_are_filled(tmp_path):
    code = WORK.format(tests=str(Path(__file__).parents[1]), base=str(tmp_path / "base"))
    printed = run_in_a_folder_of_somebody_else_s(code, tmp_path / "base", ["saved", "aside", "bm25"])
    assert "could not be written" in printed


@needs_permissions
def test_what_several_calls_make_is_made_in_a_folder_of_ones_own_as_well(tmp_path, stanford_folder):
    (tmp_path / "elsewhere").mkdir()
    code = WORK_OF_SEVERAL_CALLS.format(
        tests=str(Path(__file__).parents[1]),
        base=str(tmp_path / "base"),
        elsewhere=str(tmp_path / "elsewhere"),
        model=str(stanford_folder),
    )
    printed = run_in_a_folder_of_somebody_else_s(code, tmp_path / "base", ["ivfpq", "data"])
    assert "There is something at" in printed
    assert "Permission denied" in printed
