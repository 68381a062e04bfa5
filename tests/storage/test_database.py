"""Connections: other writers and threads, forks, Ctrl-C, and disks that are full or cannot be written to."""

from __future__ import annotations

import os
import subprocess
import textwrap
import threading
import time

import numpy as np
import pytest
from builders.indexes import THREE, in_a_process

from colbert_core import (
    Index,
    IndexLockedError,
    Passage,
    ReadOnlyIndexError,
)

# Other writers


def test_a_second_writer_waits_and_then_gets_a_named_error(path, words):
    index = Index.create(path, words)
    other = Index.open(path, words, timeout=0.2)
    with index._store.write():
        assert len(other.search("cat")) == 0  # readers do not wait
        with pytest.raises(IndexLockedError, match="Another writer has held .* for 0.2 s"):
            other.add(THREE)
    other.add(THREE)
    assert len(index) == 3


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_second_thread_waits_and_then_gets_a_named_error(place, path, words):
    index = Index.create(None if place == "memory" else path, words, timeout=0.1)
    held, done = threading.Event(), threading.Event()

    def hold():
        with index._store.write():
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    with pytest.raises(IndexLockedError, match="Another writer has held .* for 0.1 s"):
        index.add(THREE)
    assert index.search("cat") == []
    done.set()
    thread.join()
    index.add(THREE)
    assert len(index) == 3


def test_closing_and_compacting_wait_for_nobody(path, words):
    index, other = Index.create(path, words), Index.open(path, words, timeout=30)
    index.add(THREE)
    started = time.monotonic()
    with index._store.write():
        other.close()
    with index._store.read() as reader:
        reader.rows()
        Index.open(path, words, timeout=30).compact()
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("timeout", [-1, None, "1", float("nan"), True])
def test_a_timeout_is_a_number_of_seconds(path, timeout):
    with pytest.raises(ValueError, match="timeout is a number of seconds, at least 0"):
        Index.create(path, dim=3, timeout=timeout)
    assert not path.exists()


def test_waiting_for_ever_is_allowed(path):
    with Index.create(path, dim=3, timeout=float("inf")) as index:
        assert index.add([Passage("x", "x")], embeddings=[np.ones((1, 3))]) == ["x"]


# Forks and threads


def test_what_a_forked_child_adds_outlives_the_parent_s_closing(path):
    out = in_a_process(
        """
        index = Index.create(sys.argv[1], dim=4)
        index.add([Passage(str(n), "text") for n in range(5)], embeddings=[np.ones((1, 4))] * 5)
        index.search(np.ones((1, 4), np.float32))
        first, second = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            assert len(index) == 5
            os.write(first[1], b"x")
            os.read(second[0], 1)  # the parent has closed its own
            index.add([Passage("child", "text")], embeddings=[np.ones((1, 4))])
            assert len(index.search(np.ones((1, 4), np.float32), k=99)) == 6
            os._exit(0)
        os.read(first[0], 1)
        index.close()
        os.write(second[1], b"x")
        assert os.waitpid(child, 0)[1] == 0
        print(len(Index.open(sys.argv[1])))
        """,
        path,
    )
    assert out == "6\n"


def test_a_fork_while_threads_search_and_write_hangs_nobody(path):
    in_a_process(
        """
        index = Index.create(sys.argv[1], dim=4)
        memory = Index.create(None, dim=4)
        for each in (index, memory):
            each.add([Passage(str(n), "text") for n in range(50)], embeddings=[np.ones((1, 4))] * 50)
        stop = False
        def work(call):
            while not stop:
                call()
        query = np.ones((1, 4), np.float32)
        calls = [lambda: index.search(query), lambda: memory.search(query), lambda: index.add([Passage("x", "x")], embeddings=[query])]
        threads = [threading.Thread(target=work, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                for each in (index, memory):
                    try:
                        each.search(query)
                    except StorageError as error:
                        assert "was forked while another thread" in str(error), error
                assert len(Index.open(sys.argv[1]).search(query)) == 10
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        stop = True
        for thread in threads:
            thread.join()
        """,
        path,
    )


def test_an_index_in_memory_is_closed_while_threads_search(words):
    in_a_process(
        """
        for _ in range(5):
            index = Index.create(None, dim=4)
            index.add([Passage(str(n), "text", {"n": n}) for n in range(50)], embeddings=[np.ones((1, 4))] * 50)
            def search():
                try:
                    while True:
                        index.search(np.ones((1, 4), np.float32), where={"n": {"$gt": 3}})
                except ValueError as error:
                    assert "closed" in str(error), error
            threads = [threading.Thread(target=search) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.1)
            index.close()
            for thread in threads:
                thread.join()
        """
    )


# Ctrl-C


def test_ctrl_c_at_any_moment_leaves_no_lock_behind(path):
    in_a_process(
        """
        import signal, random
        index = Index.create(sys.argv[1], dim=4, timeout=0.5)
        def interrupt(*_):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, interrupt)
        moments = random.Random(0)
        for n in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.0001, 0.006))
                until = time.monotonic() + 0.1  # Python swallows an interrupt that comes within a __del__, as of a tqdm bar
                while time.monotonic() < until:
                    index.add([Passage(str(n), "text")], embeddings=[np.ones((1, 4))])
                    index.delete([str(n)])
            except KeyboardInterrupt as error:
                kept = error  # as a notebook keeps it, with all its frames
            index.add([Passage("after", "text")], embeddings=[np.ones((1, 4))])
            assert len(index) in (1, 2)
            index.delete([str(n)])
        result = []
        thread = threading.Thread(target=lambda: result.append(index.delete(["after"])))
        thread.start()
        thread.join()
        assert result == [1] and index.verify().ok
        assert Index.open(sys.argv[1], timeout=0.5).add([Passage("z", "z")], embeddings=[np.ones((1, 4))]) == ["z"]
        """,
        path,
    )


def test_ctrl_c_at_each_line_of_the_connections_leaves_them_to_readers_and_to_the_next_write(path):
    out = in_a_process(
        """
        import linecache
        from colbert_core.storage import database
        index = Index.create(sys.argv[1], dim=4, timeout=0.5)
        pool = index._store.connections
        def interrupt_at(line):
            def trace(frame, event, _):
                nonlocal line
                if frame.f_code.co_filename == database.__file__:
                    line -= event == "line" and not linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip().startswith("with ")
                    if not line and event == "line":
                        raise KeyboardInterrupt
                    return trace
            return trace
        n = 0
        while True:
            n += 1
            try:
                sys.settrace(interrupt_at(n))
                index.add([Passage("x", "text")], embeddings=[np.ones((1, 4))])
                sys.settrace(None)
                break  # there are not so many lines
            except KeyboardInterrupt as error:
                sys.settrace(None)
                kept = error
            with pool.used() as reader:  # the one that was given back last, of the interrupted write
                index.add([Passage("after", "text")], embeddings=[np.ones((1, 4))])
                assert reader.execute("SELECT 1").fetchone() == (1,)
            assert len(index) in (1, 2)
            index.delete(["x"])
        print(n)
        """,
        path,
    )
    assert int(out) > 100


# Places that cannot be written to


def on_a_tiny_disk(tmp_path, size, code):
    """Run code in a process that sees a small file system of its own at ``disk``."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"""
        import subprocess
        from pathlib import Path
        disk = Path({str(disk)!r})
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size={size}", "tmpfs", disk], check=True)
        """
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    return in_a_process(textwrap.dedent(mount) + textwrap.dedent(code), launcher=namespace)


def can_mount():
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    try:
        return not subprocess.run(
            ["unshare", *as_root, "--mount", "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True
        ).returncode
    except OSError:  # no such programs here
        return False


needs_mount = pytest.mark.skipif(not can_mount(), reason="this machine lets no test mount a file system")


@needs_mount
def test_a_full_disk_is_a_named_error_and_the_index_is_as_before(tmp_path):
    out = on_a_tiny_disk(
        tmp_path,
        "1500k",
        """
        rng = np.random.default_rng(0)
        index = Index.create(disk / "x.idx", dim=64)
        index.add([Passage(str(i), "text", {"n": i}) for i in range(20)], embeddings=[rng.standard_normal((5, 64)) for _ in range(20)])
        query = np.ones((1, 64), np.float32)
        before = index.search(query, k=99)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(400_000))
        for n, tokens in ((300, 40), (3, 3000), (2500, 1)):
            passages = [Passage(f"new{i}", "some text " * 50, {"n": i}) for i in range(n)]
            try:
                index.add(passages, embeddings=[rng.standard_normal((tokens, 64)) for _ in range(n)])
            except (IndexWriteError, PartialAddError) as error:
                print(type(error.__cause__ if isinstance(error, PartialAddError) else error).__name__, error)
                ballast.unlink()  # deleting needs a little room as well
                index.delete(getattr(error, "added", []))
                index.compact()
                ballast.write_bytes(bytes(400_000))
            else:
                raise AssertionError(f"{n} passages of {tokens} tokens fit")
            assert index.search(query, k=99) == before, "changed"
            assert index.verify().ok
        index.close()
        with Index.open(disk / "x.idx") as index:
            assert index.search(query, k=99) == before
            assert index.delete(["0"]) == 1
        """,
    )
    assert "could not be written" in out
    assert out.count("IndexWriteError") == 3


@needs_mount
def test_a_read_only_file_system_is_searched_and_not_changed(tmp_path):
    on_a_tiny_disk(
        tmp_path,
        "4m",
        """
        rng = np.random.default_rng(0)
        query = np.ones((1, 8), np.float32)
        with Index.create(disk / "x.idx", dim=8) as index:
            index.add([Passage(str(i), "text", {"n": i}) for i in range(20)], embeddings=[rng.standard_normal((5, 8)) for _ in range(20)])
            before = index.search(query, k=99)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with Index.open(disk / "x.idx") as index:
            assert index.search(query, k=99) == before
            assert index.search(query, k=99, where={"n": {"$lt": 3}}) != []
            assert index.verify().ok
            for write in (lambda: index.delete(["1"]), lambda: index.add([Passage("x", "x")], embeddings=[np.ones((1, 8))]), index.clear, index.compact):
                try:
                    write()
                except ReadOnlyIndexError as error:
                    assert "cannot be written to" in str(error), error
                else:
                    raise AssertionError("it was written")
            assert index.search(query, k=99) == before
        try:
            Index.create(disk / "y.idx", dim=8)
        except IndexWriteError as error:
            assert "y.idx" in str(error)
        else:
            raise AssertionError("it was made")
        """,
    )


def test_a_folder_without_permission_is_searched_and_not_changed(path, words, monkeypatch):
    """The same for a user who is not root, told by what the operating system says of the folder."""
    with Index.create(path, words) as index:
        index.add(THREE)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Index.open(path, words) as index:
        assert len(index.search("cat", k=9)) == 3
        with pytest.raises(ReadOnlyIndexError, match="cannot be written to"):
            index.delete(["a"])
