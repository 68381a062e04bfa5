"""Plans of an index's size, time and nodes, before it is built."""

from __future__ import annotations

import pytest
from builders.cluster import passages_of
from builders.encoders import WordEncoder

from colbert_core import Index
from colbert_core.cluster import Rates, measured_rates, plan, planning


def test_a_plan_is_near_what_an_index_takes(tmp_path):
    words = WordEncoder(dim=128)
    passages = passages_of(2000, seed=5)
    with Index.create(tmp_path / "index", words, nbits=2) as index:
        index.add(passages)
        index.compact()
        stats = index.stats()
    made = plan(len(passages), stats.tokens / len(passages), nbits=2)
    assert made.tokens == stats.tokens
    assert made.centroids == stats.centroids
    assert made.vector_bytes == pytest.approx(stats.vector_bytes, rel=0.2)


def test_plans_grow_with_the_collection_and_shrink_with_nodes():
    one, two, double = plan(1e7, 68), plan(1e7, 68, nodes=2), plan(2e7, 68)
    assert (one.nodes, one.shards, two.shards) == (1, 8, 10)
    assert one.build_hours > two.build_hours > one.build_hours / 2
    assert double.disk_bytes == pytest.approx(2 * one.disk_bytes, rel=0.01)
    assert one.latency_ms > two.latency_ms
    assert plan(1000, 68).shards == 1
    assert plan(1e6, 68, nbits=32).vector_bytes > 1e6 * 68 * 512
    assert plan(1e6, 68, rates=Rates(encode=490)).build_hours > 5 * plan(1e6, 68).build_hours
    for wrong in (
        {"passages": 0},
        {"passages": float("nan")},
        {"tokens_per_passage": 0},
        {"nbits": 3},
        {"nodes": 0},
        {"cores": 0},
    ):
        with pytest.raises(ValueError):
            plan(**{"passages": 10, "tokens_per_passage": 10, **wrong})


def test_pooled_vectors_are_encoded_all_and_kept_in_part():
    whole, half = plan(1e6, 60), plan(1e6, 60, pool_factor=2)
    assert (whole.tokens, whole.vectors, half.tokens, half.vectors) == (60_000_000, 60_000_000, 60_000_000, 30_000_000)
    assert half.vector_bytes == pytest.approx(whole.vector_bytes / 2, rel=0.1)
    encoding = 60e6 / Rates().encode / 8 / 3600
    assert encoding < half.build_hours < whole.build_hours
    with pytest.raises(ValueError, match="pool_factor"):
        plan(10, 10, pool_factor=0.5)


def test_what_breaks_first_comes_first():
    made = plan(1e9, 68, nbits=2)
    assert made.memory_bytes > 64e9
    shares = made.shares(64e9)
    assert shares == {
        "memory": made.memory_bytes / 64e9,
        "build": made.build_hours / 24,
        "search": made.latency_ms / 200,
    }
    assert list(shares) == sorted(shares, key=lambda name: -shares[name])
    assert next(iter(plan(1e9, 68, nbits=2, nodes=8).shares(1e15))) == "build"
    assert next(iter(plan(1e6, 68, nbits=2).shares(1e6))) == "memory"
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="memory must be a number above 0"):
            made.shares(wrong)


def test_rates_are_measured_on_this_machine(monkeypatch):
    monkeypatch.setattr(planning, "_RANDOM_PASSAGES", 2**9)
    rates = measured_rates(WordEncoder(), [passage.text for passage in passages_of(50)])
    assert min(rates.encode, rates.compress, rates.per_centroid, rates.search, rates.per_million) > 0
    assert rates.per_million / rates.search == pytest.approx(Rates().per_million / Rates().search)
    assert rates.scatter == Rates().scatter
