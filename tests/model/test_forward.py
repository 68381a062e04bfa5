"""The forward pass: batches, threads and half precision change nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from builders import checkpoints
from builders.checkpoints import BACKBONES
from builders.parity import load, rows_of

from colbert_core import Encoder
from colbert_core.model.checkpoint import DEFAULT_MODEL

TEXTS = [
    "the cat sat on a mat",
    "dogs bark.",
    "what sound does a cat make?",
    "",
    "rust is a language of systems; happy pets purr and bark, or sat on the mat and purr!",
    "cats",
]


def test_batches_give_the_same_as_one_by_one(stanford, monkeypatch):
    monkeypatch.setattr("colbert_core.model.forward._CPU_BATCH_TOKENS", 64)
    together = stanford.encode_passages(TEXTS)
    alone = [stanford.encode_passages([text]) for text in TEXTS]
    np.testing.assert_allclose(together.vectors, np.concatenate([one.vectors for one in alone]), atol=1e-5)
    for name in ("token_spans", "doclens", "window_spans"):
        np.testing.assert_array_equal(getattr(together, name), np.concatenate([getattr(one, name) for one in alone]))
    assert together.owners.tolist() == [i for i, one in enumerate(alone) for _ in one.owners]

    queries = [text for text in TEXTS if text]
    for vectors, query in zip(stanford.encode_queries(queries), queries, strict=True):
        np.testing.assert_allclose(vectors, stanford.encode_queries([query])[0], atol=1e-5)


def test_threads_give_the_same_as_one_after_the_other(stanford):
    expected = stanford.encode_passages(TEXTS).vectors
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: stanford.encode_passages(TEXTS).vectors, range(24)):
            np.testing.assert_array_equal(found, expected)


def test_all_vectors_have_length_one(stanford, untrained):
    for encoder in (stanford, untrained):
        rows = np.concatenate([encoder.encode_passages(TEXTS).vectors, *encoder.encode_queries(["cat", "what sound"])])
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_bfloat16_is_close_to_float32(stanford, stanford_folder):
    rough = Encoder.from_pretrained(str(stanford_folder), device="cpu", dtype="bfloat16")
    cosines = (rough.encode_passages(TEXTS).vectors * stanford.encode_passages(TEXTS).vectors).sum(axis=1)
    assert rough.dtype == torch.bfloat16
    assert np.mean(cosines) > 0.995


def assert_close(exact, rough):
    cosines = (exact * rough).sum(axis=1)
    assert cosines.mean() >= 0.9999
    assert np.percentile(cosines, 1) >= 0.9998


def test_bfloat16_is_as_close_to_float32_as_promised_for_the_model_in_the_box():
    from colbert_core.cli.reading import demo_passages

    texts = [passage.text for passage in demo_passages()]
    exact, rough = (load(DEFAULT_MODEL, dtype=dtype).encode_passages(texts).vectors for dtype in ("float32", "bfloat16"))
    assert_close(exact, rough)


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("write", [checkpoints.stanford, checkpoints.pylate], ids=["stanford", "pylate"])
def test_bfloat16_is_as_close_to_float32_for_every_backbone(tmp_path, write, kind):
    folder = write(tmp_path / "model", kind)
    assert_close(*(np.concatenate(rows_of(load(folder, dtype=dtype))) for dtype in ("float32", "bfloat16")))
