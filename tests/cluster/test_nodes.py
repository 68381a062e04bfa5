"""The cluster that is connected to: its address, its room, its version, and workers that die."""

from __future__ import annotations

import socket
import sys
import time

import pytest
from builders.cluster import Fatal, build_here
from builders.encoders import WordEncoder

from colbert_core import MissingExtraError
from colbert_core.cluster import ShardedIndex, build, building, nodes, sharded
from colbert_core.errors import ClusterError, ClusterUnreachableError, ShardUnavailableError

# Ray Data warns of its own settings when it copies them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")


def test_what_kills_every_worker_is_given_up(nodes_of, source, tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "_TRIES", 2)
    (tmp_path / "calls").mkdir()
    with pytest.raises(ClusterError, match="was the end of 2 workers"):
        build_here(source, tmp_path / "out", shards=1, workers=1, encoder=Fatal(tmp_path / "calls", at=range(1, 9)))


def test_nodes_of_another_version_are_refused(nodes_of, built, source, tmp_path, monkeypatch):
    monkeypatch.setattr(sharded, "version", lambda: "0.0.1")
    with pytest.raises(ClusterError, match=r"has colbert-retrievers .*, and this process has 0\.0\.1; install the same"):
        ShardedIndex.open(built[2])
    monkeypatch.setattr(building, "version", lambda: "0.0.1")
    with pytest.raises(ClusterError, match=r"this process has 0\.0\.1"):
        build_here(source, tmp_path / "out", shards=1, workers=1)


def test_an_address_that_does_not_answer_is_an_error_in_time(built, source, tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        for named in (address, f"ray://{address}"):
            with pytest.raises(ClusterUnreachableError, match=f"Nothing at {named} answered within 0.5 s"):
                ShardedIndex.open(built[2], address=named, timeout=0.5)
        with pytest.raises(ClusterUnreachableError, match="answered within 0.5 s"):
            build(source, tmp_path / "out", shards=1, encoder=WordEncoder(), address=address, timeout=0.5)
        assert time.monotonic() - start < 10
    with pytest.raises(ClusterUnreachableError, match="ray status"):
        ShardedIndex.open(built[2], address=address)
    with pytest.raises(ValueError, match="host:port"):
        ShardedIndex.open(built[2], address="host:")


def test_a_cluster_without_room_is_an_error_in_time(nodes_of, built, source, tmp_path):
    with pytest.raises(ClusterError, match="None of 1 workers was there within 1 s; the cluster has 3 CPUs"):
        build_here(source, tmp_path / "out", shards=1, workers=1, num_cpus=64, timeout=1)
    with pytest.raises(ShardUnavailableError, match="within 1 s"):
        ShardedIndex.open(built[2], num_cpus=64, timeout=1)


def test_without_ray_the_pip_line_is_named(built, source, tmp_path, monkeypatch, run):
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ray\[data\]"):
        ShardedIndex.open(built[2])
    with pytest.raises(MissingExtraError, match=r"pip install 'ray\[data\]"):
        build(source, tmp_path / "out", shards=2)
    assert not (tmp_path / "out").exists()
    code, _, error = run("search", str(built[2]), "cat")
    assert code == 1
    assert "pip install" in error
    code, printed, _ = run("plan", "--passages", "8.8e6", "--tokens-per-passage", "68", "--nbits", "2")
    assert code == 0
    assert printed.startswith("8,800,000 passages, 598,400,000 tokens, dim 128, 2 bits, 65,536 centroids")
