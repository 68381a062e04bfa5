"""An index folder that is renamed, replaced, removed or made twice while somebody has it open: nothing of another index is touched."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from builders.indexes import in_a_process

from colbert_core import Index, IndexExistsError, IndexNotFoundError, Passage, StorageError
from colbert_core.storage import durable, files
from colbert_core.storage.aside import folder_aside

ONE = np.ones((1, 16), np.float32)
TOLD = "was overwritten with a new one; open it again"


@pytest.fixture(autouse=True)
def _few_passages_make_a_file(monkeypatch):
    monkeypatch.setattr(files, "_LARGEST_ROW", 2000)


def build(path, name, n=30):
    """An index of ``n`` passages; 30 of them have a file of their own."""
    rng = np.random.default_rng(len(name))
    with Index.create(path, dim=16, nbits=32) as index:
        index.add([Passage(f"{name}{i}", "text") for i in range(n)], embeddings=list(rng.standard_normal((n, 4, 16))))


def rename(old, new, at):
    at.rename(at.with_name("gone.idx"))
    new.rename(at)


def flip_a_link(old, new, at):
    at.with_name("link").symlink_to(new)
    at.with_name("link").replace(at)


def remove_and_save(old, new, at):
    shutil.rmtree(at)
    with Index.open(new) as index:
        index.save(at)


def remove_and_move(old, new, at):
    shutil.rmtree(at)
    shutil.move(new, at)


SWAPS = [rename, flip_a_link, remove_and_save, remove_and_move]


@pytest.fixture(params=SWAPS, ids=lambda swap: swap.__name__)
def swap(request, tmp_path):
    """The path of an index, and what puts another one there."""
    old, new, at = tmp_path / "old.idx", tmp_path / "new.idx", tmp_path / "at.idx"
    build(old, "old")
    build(new, "new")
    if request.param is flip_a_link:
        at.symlink_to(old)
    else:
        old.rename(at)
    return at, lambda: request.param(old, new, at)


def check_is_new(at):
    with Index.open(at) as index:
        assert len(index) == 30 and "new0" in index
        assert index.verify().ok


CALLS = {
    "search": lambda index: index.search(ONE),
    "len": len,
    "get": lambda index: index.get(["old0"]),
    "verify": lambda index: index.verify(),
    "save": lambda index: index.save(f"{index._store.folder}.copy"),
    "add": lambda index: index.add([Passage("mine", "text")], embeddings=[ONE]),
    "add much": lambda index: index.add([Passage(str(i), "text") for i in range(30)], embeddings=[np.ones((4, 16))] * 30),
    "delete": lambda index: index.delete(["old0"]),
    "clear": lambda index: index.clear(),
    "compact": lambda index: index.compact(),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_handle_of_before_is_told_and_leaves_the_new_index_alone(swap, call):
    at, put_new = swap
    index = Index.open(at)
    index.search(ONE)
    put_new()
    with pytest.raises(StorageError, match=TOLD):
        CALLS[call](index)
    index.close()
    check_is_new(at)


def test_searches_go_on_with_a_new_index_of_the_same_encoder_and_writes_are_refused(tmp_path, words):
    at, new, third = tmp_path / "at.idx", tmp_path / "new.idx", tmp_path / "third.idx"
    for path, nbits, text in [(at, None, "the cat sat"), (new, 32, "the cat purrs"), (third, 2, "a cat meows")]:
        with Index.create(path, words, nbits=nbits) as index:
            index.add([Passage(text, text)])
    index = Index.open(at, words)
    assert index.search("cat")[0].passage.id == "the cat sat"
    for path in (new, third):
        found = Index.open(path, words).search("cat")
        at.rename(tmp_path / f"before {path.name}")
        path.rename(at)
        assert index.search("cat") == found
        assert index.ids() == [found[0].passage.id]
        with pytest.raises(StorageError, match=TOLD):
            index.add([Passage("mine", "a cat of mine")])
        assert len(index) == 1
    index.save(tmp_path / "copy.idx")
    assert Index.open(tmp_path / "copy.idx", words).ids() == ["a cat meows"]
    at.rename(third)
    (tmp_path / "before new.idx").rename(at)  # its own is back
    index.add([Passage("mine", "a cat of mine")])
    assert set(index.ids()) == {"the cat sat", "mine"}


def test_searches_do_not_go_on_with_an_index_of_another_encoder(tmp_path, words):
    at, new = tmp_path / "at.idx", tmp_path / "new.idx"
    Index.create(at, words).close()
    Index.create(new, dim=words.dim).close()
    index = Index.open(at, words)
    rename(at, new, at)
    with pytest.raises(StorageError, match=TOLD):
        index.search("cat")


@pytest.mark.parametrize("moment", ["locked", "file written", "file renamed", "rows written", "committed", "collected"])
def test_a_swap_in_the_middle_of_a_write_harms_neither(swap, moment, monkeypatch):
    at, put_new = swap
    index = Index.open(at)

    def swap_there(name, real=durable.step):
        real(name)
        if name == moment and swap_there.left:
            swap_there.left = False
            put_new()

    swap_there.left = True
    for module in ("store", "files", "transaction", "durable"):
        monkeypatch.setattr(f"colbert_core.storage.{module}.step", swap_there)
    try:
        CALLS["add much"](index)
        index.delete(["old0"])
    except StorageError:
        pass
    assert not swap_there.left
    index.close()
    check_is_new(at)


def test_a_removed_index_takes_no_write(tmp_path):
    path = tmp_path / "x.idx"
    build(path, "old", 20)
    index = Index.open(path)
    len(index)
    shutil.rmtree(path)
    for call in ("search", "add", "add much", "delete", "len"):
        with pytest.raises(IndexNotFoundError, match=r"is gone|There is no index"):
            CALLS[call](index)
    assert not path.exists()


def test_closing_a_handle_of_before_leaves_the_log_of_the_new_index(tmp_path):
    at, new = tmp_path / "at.idx", tmp_path / "new.idx"
    build(at, "old", 20)
    build(new, "new", 20)
    old, writer = Index.open(at), Index.open(new)
    len(old)
    writer.add([Passage("mine", "text")], embeddings=[ONE])  # in the log of the new index
    rename(at, new, at)
    old.close()
    assert (at / "index.sqlite-wal").stat().st_size
    with Index.open(at) as index:
        assert "mine" in index


def test_reading_the_database_of_an_open_index_gives_up_no_lock_of_this_process(tmp_path):
    """Closing any descriptor of a file gives up all locks of the process on it. Another process then removed SQLite's log."""
    path = tmp_path / "x.idx"
    index = Index.create(path, dim=16)
    index.add([Passage("a", "text")], embeddings=[ONE])
    Index.open(path).close()
    with pytest.raises(IndexExistsError):
        Index.create(path, dim=16)
    index.save(tmp_path / "copy.idx")
    in_a_process("Index.open(sys.argv[1]).close()", path)
    index.add([Passage("b", "text")], embeddings=[ONE])
    assert in_a_process("print(len(Index.open(sys.argv[1])))", path) == "2\n"


# Made twice


def test_who_makes_an_index_where_another_one_is_being_saved_is_told_or_first(tmp_path, monkeypatch):
    build(tmp_path / "source.idx", "new")
    target, said = tmp_path / "target.idx", []

    def make():
        try:
            with Index.create(target, dim=16) as index:
                index.add([Passage("mine", "text")], embeddings=[ONE])
        except IndexExistsError as error:
            said.append(str(error))

    thread = threading.Thread(target=make)

    def meanwhile(name, real=durable.step):
        real(name)
        if name == "schema written" and not thread.ident:
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()  # it waits for the lock

    monkeypatch.setattr("colbert_core.storage.store.step", meanwhile)
    with Index.open(tmp_path / "source.idx") as index:
        index.save(target)
    thread.join()
    assert said == [f"{target} has become an index meanwhile; open it with Index.open."]
    check_is_new(target)


def test_processes_that_make_the_same_index_make_one_and_lose_nothing(tmp_path):
    build(tmp_path / "source.idx", "new")
    out = in_a_process(
        """
        import shutil
        from pathlib import Path
        from colbert_core.storage.store import made_aside

        folder = Path(sys.argv[1])
        target = folder / "target.idx"

        def create():
            with Index.create(target, dim=16) as index:
                index.add([Passage("mine", "text")], embeddings=[np.ones((1, 16))])

        def save():
            with Index.open(folder / "source.idx") as source:
                source.save(target)

        def convert():
            with Index.open(folder / "source.idx") as source, made_aside(target) as aside:
                source.save(aside)

        def forked(make):
            start, end = os.pipe()
            child = os.fork()
            if not child:
                os.close(end)
                os.read(start, 1)
                try:
                    make()
                except IndexExistsError:
                    os._exit(1)
                except BaseException as error:
                    print(type(error), error, flush=True)
                    os._exit(2)
                os._exit(0)
            os.close(start)
            return child, end

        for makers in [(create, create), (create, save), (save, save), (create, convert), (convert, save)] * 3:
            children = [forked(make) for make in makers]
            for _, end in children:
                os.close(end)
            codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child, _ in children]
            assert sorted(codes) == [0, 1], (makers, codes)
            with Index.open(target) as index:
                assert len(index) == (1 if makers[codes.index(0)] is create else 30), makers
                assert index.verify().ok
            shutil.rmtree(target)
        print(sorted(path.name for path in folder.iterdir()))
        """,
        tmp_path,
    )
    assert out == "['source.idx']\n"


# What a killed process leaves beside its target

LEFT = {
    "an index": """
from colbert_core.storage.store import made_aside
with made_aside(target) as aside:
    Index.create(aside, dim=4).close()
    end()
""",
    "a saved index": """
index = Index.create(None, dim=4)
index.add([Passage(str(i), "t") for i in range(900)], embeddings=[np.ones((100, 4))] * 900)
sys.addaudithook(lambda event, values: values == ("rows written",) and end())
index.save(target)
""",
    "a file that several processes write": """
from colbert_core.storage.durable import written_aside
with written_aside(target, shared=True) as unfinished:
    unfinished.write_text("half")
    end()
""",
    "an index of BM25": """
from colbert_core.evaluation import bm25
real = bm25.put_in_place
bm25.put_in_place = lambda *paths: (end(), real(*paths))
bm25.BM25.build([Passage("a", "cats purr")]).save(target)
""",
}


@pytest.mark.parametrize("what", LEFT)
def test_what_killed_processes_left_is_gone_after_the_next_call(tmp_path, what):
    in_a_process(
        f"""
        from pathlib import Path
        target, work = Path(sys.argv[1]) / "x", {LEFT[what]!r}
        for is_killed in (True, True, True, False):
            def end():
                if is_killed:
                    os.kill(os.getpid(), 9)
            child = os.fork()
            if not child:
                exec(work, globals())
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (-9 if is_killed else 0)
        """,
        tmp_path,
    )
    assert (tmp_path / "x").exists()
    assert [path for path in tmp_path.rglob("*") if path.name.startswith(".") or path.name.endswith(".unfinished")] == []


def test_a_folder_of_somebody_who_is_at_work_is_not_taken_for_one_that_was_left(tmp_path):
    with folder_aside(tmp_path / "x") as one:
        (one / "mine").touch()
        (tmp_path / ".x.making-of").mkdir()  # of the user
        (tmp_path / ".x.making-of" / "notes").touch()
        with folder_aside(tmp_path / "x") as other:
            assert one != other
            assert (one / "mine").exists()
    assert [path.name for path in tmp_path.rglob("*")] == [".x.making-of", "notes"]


def test_what_could_not_be_removed_is_removed_by_the_next_call(tmp_path, monkeypatch):
    real = Path.unlink

    def refuse(path, **options):
        if path.name == "half":
            raise PermissionError(13, "not now", str(path))
        real(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        with folder_aside(tmp_path / "x") as one:
            (one / "half").touch()
    assert (one / "half").exists()
    with folder_aside(tmp_path / "x"):
        assert not one.exists()
    assert list(tmp_path.iterdir()) == []
