"""Attention within sequences laid end to end, by hand and against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from colbert_core.model.packed.layers import Sequences, Window, slow_for_narrow_heads


def attend(sequences, q, k, v, *options, **settings):
    """What each token gets, without the rows that fill the pass up, whose values are not to be seen."""
    n_fill = len(sequences.tokens) - len(q)
    q, k, v = (torch.cat([part, torch.full((n_fill, *part.shape[1:]), 1000.0)]) for part in (q, k, v))
    return sequences.attend(q, k, v, *options, **settings)[: sequences.n_tokens]


def test_a_pass_is_filled_up_with_sequences_of_one_token_to_a_multiple_of_16():
    sequences = Sequences([np.array([5, 6, 7]), np.array([8])], [3, 1])
    assert sequences.n_tokens == 4
    assert sequences.tokens.tolist() == [5, 6, 7, 8] + [5] * 12
    assert sequences.positions.tolist() == [0, 1, 2] + [0] * 13
    assert len(Sequences([np.zeros(16, np.int64)], [16]).tokens) == 16


def means_seen(lengths, attended, values, **options):
    """Context of queries and keys of zeros, which weigh all that they see alike: the mean of its values."""
    zeros = torch.zeros(len(values), 1, 1)
    sequences = Sequences([np.zeros(length, np.int64) for length in lengths], attended)
    context = attend(sequences, zeros, zeros, torch.tensor(values)[:, None, None], **options)
    return context.flatten().tolist()


def test_a_token_sees_its_sequence_and_no_other():
    assert means_seen([2, 1, 2], [2, 1, 2], [1.0, 3.0, 7.0, 10.0, 20.0]) == [2, 2, 7, 15, 15]
    assert means_seen([3], [2], [1.0, 3.0, 100.0]) == [2, 2, 2]


def test_a_window_of_one_sees_a_neighbour_to_each_side():
    window = Window(1, torch.float32)
    assert means_seen([4], [4], [1.0, 2.0, 3.0, 4.0], window=window) == [1.5, 2, 3, 3.5]
    assert means_seen([2, 3], [2, 3], [1.0, 2.0, 6.0, 7.0, 8.0], window=window) == [1.5, 1.5, 6.5, 7, 7.5]


def test_a_token_that_sees_nothing_it_may_attend_to_has_zeros():
    assert means_seen([4], [1], [8.0, 1.0, 1.0, 1.0], window=Window(1, torch.float32)) == [8, 8, 0, 0]
    far = means_seen([400], [1], [8.0] + [1.0] * 399, window=Window(1, torch.float32))  # in blocks that see no key at all
    assert far == [8, 8] + [0] * 398


@pytest.mark.parametrize("written_out", [False, True])
@pytest.mark.parametrize(("reach", "length", "attended"), [(None, 300, 77), (3, 300, 300), (200, 500, 450), (64, 129, 129)])
def test_attention_is_its_definition(reach, length, attended, written_out):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2 * length, 4, 8)
    window = None if reach is None else Window(reach, torch.float32)
    sequences = Sequences([np.zeros(length, np.int64)] * 2, [attended] * 2)
    found = attend(sequences, q, k, v, window, written_out=written_out).view(2, length, 4, 8)
    at = torch.arange(length)
    seen = (at < attended)[None] & ((at[:, None] - at).abs() <= (length if reach is None else reach))
    for n in range(2):
        rows = slice(n * length, (n + 1) * length)
        scores = torch.einsum("ihd,jhd->hij", q[rows], k[rows]) / 8**0.5
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        torch.testing.assert_close(found[n], torch.einsum("hij,jhd->ihd", weights, v[rows]), atol=1e-5, rtol=1e-5)


def test_local_attention_takes_no_more_keys_than_a_block_sees():
    for queries, keys, mask in Window(64, torch.float32).blocks(8192, 8192):
        assert mask.shape == (queries.stop - queries.start, keys.stop - keys.start)
        assert mask.numel() <= 128 * 256


@pytest.mark.parametrize(("amx", "slow"), [(True, False), (False, True)])
def test_attention_is_written_out_for_narrow_heads_in_bfloat16_without_matrix_instructions(monkeypatch, amx, slow):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx}, raising=False)
    assert slow_for_narrow_heads(torch.bfloat16, 32) is slow
    assert not slow_for_narrow_heads(torch.bfloat16, 64)
    assert not slow_for_narrow_heads(torch.float32, 32)
