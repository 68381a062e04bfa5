"""Passages of files: what the record's own metadata are, and what says where a piece comes from."""

from __future__ import annotations

import json

from colbert_core import Passage
from colbert_core.documents.pieces import read_file
from colbert_core.evaluation.trec import by_document
from colbert_core.types import Hit

LONG = "the cat sat on the mat. " * 20


def pieces_of(tmp_path, stanford, **record):
    file = tmp_path / "talks.jsonl"
    file.write_text(json.dumps({"id": "talk", "text": LONG, **record}))
    return list(read_file(file, "talks.jsonl", stanford))


def test_a_record_keeps_its_keys_in_every_piece(tmp_path, stanford):
    own = {"start": 12.5, "end": 80.25, "document_id": "episode", "source": "radio"}
    pieces = pieces_of(tmp_path, stanford, **own)
    assert len(pieces) > 2
    for piece in pieces:
        assert {key: piece.metadata[key] for key in own} == own
        assert piece.metadata["piece_document_id"] == "talk"
        assert LONG[piece.metadata["piece_start"] : piece.metadata["piece_end"]] == piece.text


def test_one_key_of_its_own_renames_all_of_ours(tmp_path, stanford):
    piece = pieces_of(tmp_path, stanford, end="soon")[0]
    assert piece.metadata == {
        "source": "talks.jsonl",
        "end": "soon",
        "piece_document_id": "talk",
        "piece_start": 0,
        "piece_end": len(piece.text),
    }


def test_a_run_names_the_document_of_a_piece_whatever_its_own_document_id(tmp_path, stanford):
    for own in ({}, {"document_id": "episode"}):
        pieces = pieces_of(tmp_path, stanford, **own)
        hits = [Hit(piece, 9.0 - rank, 0.5, rank + 1, (0, 1)) for rank, piece in enumerate(pieces)]
        assert by_document(hits) == [("talk", 9.0)]
    assert by_document([Hit(Passage("a#1", "x", {"document_id": "b"}), 1.0, 0.5, 1, (0, 1))]) == [("a#1", 1.0)]
