"""Passages of files: what the record's own metadata are, and what says where a piece comes from."""

from __future__ import annotations

import json
import re

from colbert_core import Passage
from colbert_core.documents.part import Part
from colbert_core.documents.pieces import cut, read_file
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


class Words:
    """Cuts a text into so many words, and counts words."""

    piece_tokens = 30

    def count_tokens(self, text):
        return len(text.split())

    def split(self, text, document_id, *, size=None):
        words = [match.span() for match in re.finditer(r"\S+", text)]
        cuts = [words[start : start + size] for start in range(0, len(words), size)]
        spans = [(cut[0][0], cut[-1][1]) for cut in cuts]
        return [
            Passage(f"{document_id}#{n}", text[start:end], {"document_id": document_id, "start": start, "end": end})
            for n, (start, end) in enumerate(spans, 1)
        ]


def test_a_piece_begins_with_the_file_the_title_and_the_headings_above_it():
    text = "# Npm\n\nIntro.\n\n## Deprecate\n\n" + "warn " * 30 + "\n\n```\n# no heading\n```\n\n### Undo\n\n" + "mend " * 30
    pieces = list(cut(Part(text, "Npm", is_markdown=True), "docs/cli.md", Words(), 30))
    firsts = [piece.text.partition("\n\n")[0] for piece in pieces]
    assert firsts == ["cli.md", "cli.md > Npm > Deprecate", *["cli.md > Npm > Deprecate > Undo"] * 2]
    for piece in pieces:
        body = piece.text.partition("\n\n")[2]
        assert body == text[piece.metadata["start"] : piece.metadata["end"]]
        assert len(piece.text.split()) <= 30
    assert [piece.id for piece in pieces] == [f"docs/cli.md#{n}" for n in range(1, 5)]
    assert pieces[0].metadata["title"] == "Npm"


def test_what_a_piece_begins_with_says_nothing_twice():
    def first(part, name="docs/npm-deprecate.md", most=30):
        return next(cut(part, name, Words(), most)).text.partition("\n\n")[0]

    assert first(Part("Words.", "npm-deprecate")) == "npm-deprecate.md"
    assert first(Part("# Deprecate\n\nWords.", "Deprecate", is_markdown=True)) == "npm-deprecate.md"
    assert first(Part("# no heading\n\nWords.")) == "npm-deprecate.md"
    assert (
        first(Part("Words.", "A title", ("Chapter", "Section"), {"page": 3}))
        == "npm-deprecate.md > A title > Chapter > Section"
    )
    assert first(Part("Words.", label="src/shop/cart.py", headings=("Cart", "add"))) == "src/shop/cart.py > Cart > add"
    assert first(Part("Words.", "long " * 40)) == f"npm-deprecate.md > {('long ' * 40)[:99]}…"[:14] + "md"


def test_a_long_way_of_headings_is_shortened_to_a_third_of_a_piece():
    part = Part("Words.", "A title of words", ("Chapter of words", "Section of words", "Last"))
    heads = {most: next(cut(part, "a.md", Words(), most)).text.partition("\n\n")[0] for most in (60, 45, 15, 9, 2)}
    assert heads == {
        60: "a.md > A title of words > Chapter of words > Section of words > Last",
        45: "a.md > Section of words > Last",
        15: "a.md > Last",
        9: "a.md > Last",
        2: "Words.",
    }
