"""The cluster that is connected to: its address, its room, its version, and workers that die."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest
from builders.cluster import PASSAGES, Fatal, build_here
from builders.encoders import WordEncoder
from builders.kernels import needs_linux

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


# Ray that is started here


@pytest.fixture
def starts(monkeypatch):
    """What Ray is started with, and the environment then; it is not started."""
    import ray

    started = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **given: started.append((given, dict(os.environ))))
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that what a start sets is taken away again
        monkeypatch.delenv(name)
    return started


def test_ray_is_started_with_a_token_and_for_the_loopback_interface(starts, monkeypatch):
    import ray

    monkeypatch.setattr(ray._private.services, "canonicalize_bootstrap_address", lambda _: None)
    nodes.connect(None, 1)
    nodes.connect(None, 1)
    (given, environment), (_, again) = starts
    assert given == {"address": "local", "include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    assert environment["RAY_AUTH_MODE"] == "token"
    assert len(environment["RAY_AUTH_TOKEN"]) == 64
    assert again["RAY_AUTH_TOKEN"] == environment["RAY_AUTH_TOKEN"]
    assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_of_the_users_own_is_kept(name, starts, monkeypatch):
    import ray

    monkeypatch.setattr(ray._private.services, "canonicalize_bootstrap_address", lambda _: None)
    monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    nodes.connect(None, 1)
    ((_, environment),) = starts
    assert environment[name] == os.environ[name] == "mine"
    assert environment["RAY_AUTH_MODE"] == "disabled"
    assert {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(environment) == {name}


def test_a_cluster_that_is_at_hand_is_connected_to_as_it_is(starts, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    nodes.connect(None, 1)
    ((given, environment),) = starts
    assert given == {"address": None, "log_to_driver": False, "logging_level": "ERROR"}
    assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"} & set(environment)
    assert "RAY_AUTH_MODE" not in os.environ


STARTED = """
import psutil, os, subprocess, sys
from colbert_core.cluster.nodes import _TOKEN, connect

ray = connect(None, 5)
assert ray.get(ray.remote(lambda: 1).options(num_cpus=0).remote()) == 1
own = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
hosts = {of.laddr.ip for of in psutil.net_connections("tcp") if of.status == psutil.CONN_LISTEN and of.pid in own}
assert hosts and all(host.removeprefix("::ffff:").startswith("127.") or host == "::1" for host in hosts), hosts
address = ray.get_runtime_context().gcs_address
ask = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1]).internal_kv_keys(b'', None, timeout=20)"
for mode, is_known in (
    ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}, True),
    ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}, False),
    ({"RAY_AUTH_MODE": "disabled"}, False),
):
    asked = subprocess.run([sys.executable, "-c", ask, address], env={**os.environ, **mode}, capture_output=True, text=True, timeout=60)
    assert (asked.returncode == 0) == is_known, asked.stderr
    assert is_known or "AuthenticationError" in asked.stderr, asked.stderr
ray.shutdown()
assert connect(None, 5).is_initialized()  # once more
"""


@pytest.mark.slow  # starts Ray
@needs_linux
def test_ray_that_is_started_here_refuses_strangers(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path), "RAY_ADDRESS": "local"}  # not the cluster of these tests, which is at hand
    done = subprocess.run([sys.executable, "-c", STARTED], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / ".ray").exists()  # the token is nowhere to be read


def test_without_ray_the_pip_line_is_named(built, source, tmp_path, monkeypatch, run):
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, None)
    for needed in ({"address": "auto"}, {"replicas": 2}):
        with pytest.raises(MissingExtraError, match=r"pip install 'ray\[data\]"):
            ShardedIndex.open(built[2], **needed)
    with pytest.raises(MissingExtraError, match=r"pip install 'ray\[data\]"):
        build(source, tmp_path / "out", shards=2)
    assert not (tmp_path / "out").exists()
    code, _, error = run("cluster", "build", str(source), "--out", str(tmp_path / "out"), "--shards", "2")
    assert code == 1
    assert "pip install" in error
    with ShardedIndex.open(built[2], WordEncoder()) as index:  # what is here needs no Ray
        assert index.search(PASSAGES[5].text, 1)[0].passage.id == PASSAGES[5].id
    code, printed, _ = run("plan", "--passages", "8.8e6", "--tokens-per-passage", "68", "--nbits", "2")
    assert code == 0
    assert printed.startswith("8,800,000 passages, 598,400,000 tokens, dim 128, 2 bits, 65,536 centroids")
