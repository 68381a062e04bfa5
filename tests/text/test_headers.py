"""First lines that name the columns of tab-separated values, and those that do not."""

from __future__ import annotations

import pytest

from colbert_core.text.headers import QUERIES, TEXTS, column_names, named_row


@pytest.mark.parametrize("name", ["id", "_id", "pid", "docid", "doc_id", "DocID", "passage_id", "passage-id", "Passage ID"])
@pytest.mark.parametrize("text", ["text", "passage", "contents", "Document", '"text"', "TEXT"])
def test_the_usual_spellings_name_id_and_text(name, text):
    assert column_names([name, text]) == ["id", "text"]
    assert column_names([text, "Title", name]) == ["text", "title", "id"]
    assert column_names(["\ufeff" + name, text, "year"]) == ["id", "text", "year"]


def test_queries_have_names_of_their_own():
    assert column_names(["qid", "query"], QUERIES) == ["id", "text"]
    assert column_names(["query-id", "question"], TEXTS) == ["id", "text"]
    assert column_names(["pid", "passage"], QUERIES) is None


@pytest.mark.parametrize(
    "row",
    [
        ["7", "text"],
        ["d1", "a passage of text"],
        ["d1", "passage"],
        ["id", "a cat"],
        ["d1", "Text"],
        ["docid"],
        ["document"],
        [""],
    ],
)
def test_a_row_is_no_line_of_names(row):
    assert column_names(row) is None


def test_text_alone_names_a_column_as_it_stands():
    assert column_names(["text"]) == ["text"]
    assert column_names(["year", "text"]) == ["year", "text"]


def test_of_two_ids_the_likelier_is_the_id():
    assert column_names(["docid", "id", "contents", "text"]) == ["docid", "id", "contents", "text"]


def test_a_row_has_a_value_for_each_name():
    assert named_row(["id", "text"], ["a", "b"]) == {"id": "a", "text": "b"}
    with pytest.raises(ValueError, match=r"it has 3 columns where 2 belong \(id, text\)"):
        named_row(["id", "text"], ["a", "b", "c"])
