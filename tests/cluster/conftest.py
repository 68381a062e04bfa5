"""A Ray cluster of three nodes on this machine, and indexes built on it."""

from __future__ import annotations

import json
import random

import pyarrow
import pyarrow.parquet
import pytest
import ray
from builders import cluster as cluster_builders
from builders import encoders
from builders.cluster import PASSAGES, as_record, build_here

from colbert_core.vectors.codec import ResidualCodec


@pytest.fixture(scope="package")
def source(tmp_path_factory):
    """Three files, with the passages in order."""
    folder = tmp_path_factory.mktemp("source")
    for number, name in enumerate(["a.jsonl", "deep/b.jsonl"]):
        (folder / name).parent.mkdir(exist_ok=True)
        passages = PASSAGES[80 * number : 80 * number + 80]
        (folder / name).write_text("".join(f"{json.dumps(as_record(passage))}\n" for passage in passages))
    table = pyarrow.table({"id": [p.id for p in PASSAGES[160:]], "text": [p.text for p in PASSAGES[160:]]})
    years = pyarrow.array([p.metadata["year"] for p in PASSAGES[160:]])
    pyarrow.parquet.write_table(table.append_column("year", years), folder / "z.parquet")
    return folder


@pytest.fixture(scope="package")
def nodes_of(tmp_path_factory):
    """A cluster of three nodes with one core each."""
    from ray.cluster_utils import Cluster

    ray.cloudpickle.register_pickle_by_value(encoders)
    ray.cloudpickle.register_pickle_by_value(cluster_builders)
    # A killed node is noticed after 20 s. With 5 a busy machine loses nodes that are only late.
    quick = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 20}
    # Idle workers stay: by default one beyond a node's core is ended after a second, and the next task starts another.
    quick |= {"num_workers_soft_limit": 4, "idle_worker_killing_time_threshold_ms": 60_000}
    quick |= {"worker_niceness": 0}  # by default 15: other tests would go first, and these wait for minutes
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": quick, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(encoders)
    ray.cloudpickle.unregister_pickle_by_value(cluster_builders)


@pytest.fixture(scope="package")
def built(nodes_of, source, tmp_path_factory):
    """The same passages in 1, 2 and 5 shards."""
    folder = tmp_path_factory.mktemp("built")
    return {shards: build_here(source, folder / str(shards), shards=shards, workers=min(shards, 2))[0] for shards in (1, 2, 5)}


@pytest.fixture(scope="package")
def objects():
    """An S3 server."""
    from builders.object_storage import object_server

    with object_server() as server:
        yield server


@pytest.fixture(scope="package")
def codec(stanford):
    """A codec of the vectors of a small ColBERT model."""
    texts = [" ".join(random.Random(seed).choices(encoders.WORDS, k=12)) for seed in range(100)]
    return ResidualCodec.fit(stanford.encode_passages(texts, progress=False).vectors, 16, 4)
