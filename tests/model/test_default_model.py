"""The model in the box: what ships, and that it loads like any other checkpoint."""

from __future__ import annotations

import hashlib
import socket

import numpy as np
import pytest

from colbert_core import Encoder, Reranker
from colbert_core.model.checkpoint import DEFAULT_MODEL
from colbert_core.types import Passage


def test_it_is_under_thirty_megabytes_with_its_card_licence_and_notice():
    names = {path.name for path in DEFAULT_MODEL.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "artifact.metadata", "README.md", "NOTICE"} <= names
    assert sum(path.stat().st_size for path in DEFAULT_MODEL.iterdir()) <= 30_000_000


def test_its_card_names_the_sha256_of_its_weights():
    digest = hashlib.sha256((DEFAULT_MODEL / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (DEFAULT_MODEL / "README.md").read_text(encoding="utf-8")


def test_its_vectors_have_128_components_and_length_one(default_encoder):
    assert default_encoder.dim == 128
    vectors = default_encoder.encode_passages(["Cats purr when they are content."]).vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_passage_has_the_same_vectors_alone_and_beside_longer_ones(default_encoder):
    """Its last layer looks at all tokens of a text, and at none of what fills up a batch."""
    texts = ["Cats purr.", "Rust is a systems language, " * 10, "The river flows to the sea."]
    together = default_encoder.encode_passages(texts).vectors
    alone = np.concatenate([default_encoder.encode_passages([text]).vectors for text in texts])
    np.testing.assert_allclose(together, alone, atol=2e-2)  # bfloat16 where that is faster


def test_it_loads_by_its_folder_as_without_a_name(default_encoder):
    by_folder = Encoder.from_pretrained(DEFAULT_MODEL, device="cpu")
    assert by_folder.config == default_encoder.config
    np.testing.assert_array_equal(by_folder.encode_queries(["cats"])[0], default_encoder.encode_queries(["cats"])[0])


def test_it_needs_no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert Encoder.from_pretrained(device="cpu").encode_queries(["cats"])[0].shape[1] == 128


@pytest.mark.parametrize(
    ("query", "right", "wrong"),
    [
        ("happy pets", "Cats purr when they are content.", "Rust is a systems language."),
        (
            "Which planet is the largest?",
            "Jupiter outweighs all its neighbours taken together.",
            "The largest hotel is in Mecca.",
        ),
        ("how to fix a flat tyre", "Mending a puncture takes a patch and some glue.", "Her apartment has a view of the park."),
    ],
)
def test_it_understands_other_words_for_the_same_thing(default_encoder, query, right, wrong):
    hits = Reranker(default_encoder).rank(query, [Passage("wrong", wrong), Passage("right", right)])
    assert [hit.passage.id for hit in hits] == ["right", "wrong"]
