"""How a search chooses what to look at: the plans agree with scoring everything, whatever the size, the layers and the threads."""

from __future__ import annotations

import pytest

from colbert_core import SearchConfig
from colbert_core.search.config import default_config
from colbert_core.search.ranking import config_for


def test_defaults_grow_with_k_and_for_short_queries_and_narrow_down_large_collections_only():
    assert default_config(10, 1000) == SearchConfig(12, None, 128)
    assert default_config(10, 2**15) == SearchConfig(12, 1936, 128)
    assert default_config(10, 2**15, n_layers=2) == SearchConfig(10, 1936, 128)
    assert default_config(10, 2**15, n_tokens=100 * 2**15) == SearchConfig(12, 1360, 80)  # 8,000 tokens
    assert default_config(10, 2**15, n_tokens=10 * 2**15) == SearchConfig(12, 10_000, 800)
    assert default_config(100, 2**15) == SearchConfig(12, 5200, 400)
    assert default_config(100, 2**20) == SearchConfig(12, 40_043, 1131)
    assert [default_config(10, 2**15, n_q) for n_q in (1, 8, 32, 300)] == [
        SearchConfig(64, 9089, 724),
        SearchConfig(24, 3472, 256),
        *[SearchConfig(12, 1936, 128)] * 2,
    ]


# Tuning


# On another device


# What a review found


@pytest.mark.parametrize("values", [(0, None, 5), (5, None, 0), (1.5, None, 5), (5, 0, 5), (5, 1.5, 5)])
def test_a_config_that_makes_no_sense_is_refused(values):
    with pytest.raises((ValueError, TypeError), match=r"nprobe|n_candidates|n_exact"):
        SearchConfig(*values)


def test_parts_of_a_collection_look_at_their_share_and_at_two_standard_deviations_more():
    # 400 / 4 = 100, spread by 10; 100 / 4 = 25, spread by 5.
    assert SearchConfig(12, 400, 100).share(4) == SearchConfig(12, 120, 35)
    assert SearchConfig(12, None, 100, 50).share(4) == SearchConfig(12, None, 35, 50)
    assert SearchConfig(12, 400, 100).share(1) == SearchConfig(12, 400, 100)


def test_a_part_chooses_by_the_size_of_the_whole(grown):
    index, _ = grown
    snapshot = index._versions.read(lambda view: view.state).snapshot
    segments = [part.segment for part in snapshot.parts]
    n_windows, n_tokens = sum(len(segment.pids) for segment in segments), sum(segment.n_tokens for segment in segments)
    of_whole = default_config(10, 4 * n_windows, 32, 4 * n_tokens, len(snapshot.codec.layers))
    assert config_for(snapshot, 10, 32, shards=4) == of_whole.share(4)
