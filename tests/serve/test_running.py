"""The command ``colbert serve`` in processes of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from builders.processes import environment

from colbert_core import Collections, Index, Passage

SEARCH = "/v1/indexes/wiki/search"


@pytest.fixture
def folder(tmp_path):
    with Index.create(tmp_path / "wiki") as index:
        index.add([Passage("cats", "Cats purr when they are content."), Passage("rust", "Rust is a systems language.")])
    return tmp_path / "wiki"


@contextlib.contextmanager
def command(*arguments):
    """Run ``colbert serve`` at a free port; gives its process and its address once it is ready."""
    line = [sys.executable, "-m", "colbert_core.cli", "serve", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        said = process.stderr.readline()
        assert said.startswith("colbert: Serving at http://"), said + process.stderr.read()
        url = said.split()[3].rstrip(";")
        wait_until(lambda: asks(url, "/ready"))
        yield process, url
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def asks(url, path):
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url + path, timeout=30).status_code == 200
    return False


def wait_until(holds, seconds=120):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "It did not happen in time."
        time.sleep(0.05)


def found(url, query="What do happy cats do?"):
    return [hit["id"] for hit in httpx.post(url + SEARCH, json={"query": query, "k": 1}, timeout=60).json()["hits"]]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_it_answers_takes_writes_and_ends_at_sigterm_when_what_is_under_way_is_done(folder):
    with command(folder, "--writable") as (process, url):
        assert found(url) == ["cats"]
        passages = [{"id": f"p{n}", "text": f"Page {n} is about trains and stations."} for n in range(300)]
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{url}/v1/indexes/wiki/passages", json={"passages": passages}, timeout=120).status_code
            )
        )
        thread.start()
        wait_until(lambda: "colbert_requests_in_progress 2.0" in httpx.get(f"{url}/metrics").text)
        process.send_signal(signal.SIGTERM)
        thread.join()
        assert process.wait(60) in (0, -signal.SIGTERM)
        assert process.stdout.read() == ""
    assert answers == [200]
    with Index.open(folder) as index:
        assert len(index) == 302


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_sighup_opens_the_indexes_anew(tmp_path, folder):
    with command(folder) as (process, url):
        assert found(url) == ["cats"]
        other = Index.create(tmp_path / "other")
        other.add([Passage("new", "Cats are content.")])
        other.close()
        folder.rename(tmp_path / "before")
        (tmp_path / "other").rename(folder)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: found(url) == ["new"])
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130, -signal.SIGINT)


class Traffic:
    """Threads that write and read over HTTP until they are told to stop."""

    def __init__(self, url):
        self.url, self.acknowledged, self.n_answered, self.stopped = url, [], 0, threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(seed,)) for seed in range(2)]
        self.threads.append(threading.Thread(target=self.read))
        for thread in self.threads:
            thread.start()

    def write(self, seed):
        n = 0
        while not self.stopped.is_set():
            n += 1
            passages = [{"id": f"{seed}-{n}-{part}", "text": f"Train {n} leaves."} for part in range(3)]
            with contextlib.suppress(httpx.TransportError):  # its worker was killed
                answer = httpx.post(f"{self.url}/v1/indexes/wiki/passages", json={"passages": passages}, timeout=120)
                self.acknowledged += answer.json()["ids"] if answer.status_code == 200 else []

    def read(self):
        while not self.stopped.is_set():
            with contextlib.suppress(httpx.TransportError):
                self.n_answered += found(self.url, "cats") != []

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def workers_of(process):
    listed = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pgrep"), reason="pgrep is not installed")
def test_a_worker_that_is_killed_while_it_writes_loses_nothing_that_it_has_answered(folder):
    with command(folder, "--writable", "--workers", "2") as (process, url):
        wait_until(lambda: len(workers_of(process)) == 2)
        traffic = Traffic(url)
        for _ in range(3):
            n_written, killed = len(traffic.acknowledged), workers_of(process)[0]
            wait_until(lambda n=n_written: len(traffic.acknowledged) > n + 30)
            os.kill(killed, signal.SIGKILL)
            n_answered = traffic.n_answered
            wait_until(lambda n=n_answered: traffic.n_answered > n)  # the other one answers on
            wait_until(lambda gone=killed: len(workers_of(process)) == 2 and gone not in workers_of(process))
            wait_until(lambda: asks(url, "/ready"))
        traffic.stop()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    with Index.open(folder) as index:
        assert set(traffic.acknowledged) <= set(index.ids())
        assert not index.verify().problems
    assert len(traffic.acknowledged) > 90


def test_wrong_settings_are_one_line(tmp_path, folder):
    token = tmp_path / "token"
    token.write_text("short")
    long_enough = tmp_path / "long-enough"
    long_enough.write_text("0123456789abcdef")

    def refused(*arguments):
        line = [sys.executable, "-m", "colbert_core.cli", "serve", *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, env=environment(), timeout=60)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        return done.stderr

    assert "could ask without a token; give --token-file FILE" in refused(folder, "--host", "0.0.0.0", "--port", "0")
    assert "at least 16 printable ASCII characters, got 5" in refused(folder, "--token-file", token)
    assert "nowhere is no index, and no folder of indexes" in refused(tmp_path / "nowhere")
    assert "port is a number from 0 to 65535, got 99999" in refused(folder, "--port", "99999")
    assert "port is a number from 0 to 65535, got -1" in refused(folder, "--port", "-1")
    assert "cannot be listened at" in refused(folder, "--host", "no.such.host.invalid", "--token-file", long_enough)
    assert "no-such-token" in refused(folder, "--token-file", tmp_path / "no-such-token")
    assert "workers must be at least 1" in refused(folder, "--workers", "0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port} cannot be listened at" in refused(folder, "--port", port)


def test_a_folder_of_collections_is_served_with_a_token(tmp_path):
    kb = Collections(tmp_path / "kb")
    for name in ("acme", "globex"):
        with kb.create(name) as index:
            index.add([Passage(name, f"{name} sells cats.")])
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    with command(tmp_path / "kb", "--token-file", token) as (_, url):
        assert httpx.get(f"{url}/v1/indexes").status_code == 401
        headers = {"Authorization": "Bearer 0123456789abcdef"}
        names = [index["name"] for index in httpx.get(f"{url}/v1/indexes", headers=headers).json()["indexes"]]
        assert names == ["acme", "globex"]
        hits = httpx.post(f"{url}/v1/indexes/acme/search", json={"query": "cats"}, headers=headers).json()["hits"]
        assert [hit["id"] for hit in hits] == ["acme"]


def test_without_an_index_it_reranks_and_encodes_only():
    with command() as (_, url):
        body = {"query": "happy pets", "documents": ["Rust is a language.", "Cats purr when they are content."]}
        ranked = httpx.post(f"{url}/v2/rerank", json=body, timeout=60).json()["results"]
        assert [each["index"] for each in ranked] == [1, 0]
        assert len(httpx.post(f"{url}/v1/encode", json={"texts": ["happy pets"]}, timeout=60).json()["vectors"]) == 1
        assert httpx.post(f"{url}{SEARCH}", json={"query": "happy pets"}, timeout=60).status_code == 404
