"""Examples in files: triples, JSON lines, and texts by their ids."""

from __future__ import annotations

import gzip
import json
import lzma

import pytest
from builders.training import CAT, DOG, write

from colbert_core.train import Example, read_examples, read_id_triples, read_texts, write_examples


def test_triples_are_tab_separated_texts(tmp_path):
    file = write(tmp_path / "triples.train.small.tsv", "a query\tgood\tbad\nanother\tfine\tworse\tworst\n")
    assert list(read_examples(file)) == [Example("a query", "good", ("bad",)), Example("another", "fine", ("worse", "worst"))]


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_json_lines_may_be_compressed_and_have_titles_negatives_scores_and_other_keys(tmp_path, suffix):
    lines = [
        {"query": "q", "positive": "p", "title": "T", "source": "somewhere"},
        {"query": "q", "positive": "p", "negatives": ["n"], "scores": [2, -1.5]},
    ]
    file = write(tmp_path / f"train.jsonl{suffix}", "\n\n".join(map(json.dumps, lines)))
    assert list(read_examples(file)) == [Example("q", "T p"), Example("q", "p", ("n",), (2, -1.5))]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("a.tsv", "only a query", "line 2: it has 1 column"),
        ("a.tsv", " \tp\tn", "line 2: The query of an example is blank"),
        ("a.jsonl", "{", "line 2: it is no JSON"),
        ("a.jsonl", "[1]", "line 2: it is a JSON list where an object belongs"),
        ("a.jsonl", '{"query": "q"}', 'line 2: it needs "query" and "positive", its keys are query'),
        ("a.jsonl", '{"query": "q", "positive": 3}', "line 2: The positive of an example must be a str, got int"),
        ("a.jsonl", '{"query": "q", "positive": "p", "negatives": "n"}', 'line 2: "negatives" and "scores" must be lists'),
        (
            "a.jsonl",
            '{"query": "q", "positive": "p", "scores": [1, 2]}',
            "line 2: An example has 2 scores for its positive and 0",
        ),
        ("a.jsonl", '{"query": "q", "positive": "p", "scores": [NaN]}', "line 2: The scores of an example must be finite"),
    ],
)
def test_a_malformed_line_is_an_error_with_file_and_line(tmp_path, name, line, message):
    good = '{"query": "q", "positive": "p"}' if name.endswith("jsonl") else "q\tp"
    file = write(tmp_path / name, f"{good}\n{line}\n")
    with pytest.raises(ValueError) as caught:
        list(read_examples(file))
    assert f"{file}, {message}" in str(caught.value)


def test_a_file_of_another_kind_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"neither \.jsonl nor \.tsv"):
        read_examples(tmp_path / "a.csv.gz")


def test_a_file_that_is_cut_short_or_no_text_is_an_error(tmp_path):
    whole = lzma.compress(b'{"query": "q", "positive": "p"}\n' * 1000)
    (tmp_path / "cut.jsonl.xz").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="is damaged behind line"):
        list(read_examples(tmp_path / "cut.jsonl.xz"))
    (tmp_path / "latin.tsv").write_bytes("q\tcafé\n".encode("latin-1"))
    with pytest.raises(ValueError, match="line 1 is not UTF-8"):
        list(read_examples(tmp_path / "latin.tsv"))


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_a_byte_that_is_no_text_is_named_by_its_line(tmp_path, suffix):
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(suffix, open)
    file, read = tmp_path / f"train.tsv{suffix}", []
    with opener(file, "wb") as binary:
        binary.writelines(b"q\tp \xff\tn\r\n" if number == 50 else b"q\tp %d\tn\r\n" % number for number in range(1, 101))
    with pytest.raises(ValueError, match="line 50 is not UTF-8"):
        read.extend(example.positive for example in read_examples(file))
    assert read == [f"p {number}" for number in range(1, 50)]


@pytest.mark.parametrize("line", ["[1, [2], [3]]", "[1, [], 3]", "[1, [2, 0.5, 3], 3]"])
def test_a_passage_that_is_no_pair_of_id_and_score_is_an_error(tmp_path, line):
    with pytest.raises(ValueError, match=r"triples.json, line 1: a passage is an id, or a pair of id and score, not \["):
        list(read_id_triples(write(tmp_path / "triples.json", line), {"1": "q"}, {"2": "a", "3": "b"}))


def test_triples_of_ids_read_their_texts_with_or_without_scores(tmp_path):
    queries = read_texts(write(tmp_path / "queries.tsv", "1\twhat\n2\twho\n"))
    passages = read_texts(
        write(tmp_path / "passages.jsonl", '{"_id": "a", "title": "T", "text": "x"}\n{"id": 7, "text": "y"}\n')
    )
    assert passages == {"a": "T x", "7": "y"}
    file = write(tmp_path / "triples.tsv", "1\ta\t7\n")
    assert list(read_id_triples(file, queries, passages)) == [Example("what", "T x", ("y",))]
    file = write(tmp_path / "triples.json", '[2, "a", 7]\n[2, ["a", 3.5], [7, 1]]\n')
    assert list(read_id_triples(file, queries, passages)) == [
        Example("who", "T x", ("y",)),
        Example("who", "T x", ("y",), (3.5, 1)),
    ]


def test_an_id_without_a_text_or_with_two_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"triples.tsv, line 1: there is no passage '9' among the 1 texts"):
        list(read_id_triples(write(tmp_path / "triples.tsv", "1\t9\n"), {"1": "q"}, {"8": "p"}))
    with pytest.raises(ValueError, match="the id '1' comes a second time as its text 2"):
        read_texts(write(tmp_path / "queries.tsv", "1\ta\n1\tb\n"))


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_written_examples_are_read_again_and_replace_what_was_there_only_when_whole(tmp_path, suffix):
    file = tmp_path / f"mined.jsonl{suffix}"
    scored = Example("café", "positive", ("negative",), (1.5, -2.0))
    assert write_examples([CAT, scored], file) == 2
    assert list(read_examples(file)) == [CAT, scored]

    def failing():
        yield DOG
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_examples(failing(), file)
    assert list(read_examples(file)) == [CAT, scored]
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(ValueError, match="is not .jsonl"):
        write_examples([], tmp_path / "mined.tsv")


# Lines of names


@pytest.mark.parametrize(
    "names", ["query\tpositive\tnegative", "\ufeffAnchor\tPositive\tNegative_1", "question\tpos_passage\tneg"]
)
def test_a_line_of_names_is_no_example(tmp_path, names):
    file = write(tmp_path / "triples.tsv", f"{names}\nq\ta\tb\n")
    (example,) = read_examples(file)
    assert example == Example("q", "a", ("b",))
    assert example.place == (str(file), 2)


def test_columns_of_examples_go_by_their_names(tmp_path):
    file = write(tmp_path / "triples.tsv", "negative\tquery\tpositive\nb\tq\ta\n")
    assert list(read_examples(file)) == [Example("q", "a", ("b",))]


def test_texts_of_a_first_line_that_only_begins_like_names_are_an_example(tmp_path):
    file = write(tmp_path / "triples.tsv", "query\twhat is a query\tno\n")
    assert list(read_examples(file)) == [Example("query", "what is a query", ("no",))]


def test_texts_by_id_may_stand_under_names(tmp_path):
    assert read_texts(write(tmp_path / "a.tsv", "pid\ttitle\tpassage\n1\tT\ta\n2\t\tb\n")) == {"1": "T a", "2": "b"}
    assert read_texts(write(tmp_path / "b.tsv", "QID\tQuery\n1\ta\n")) == {"1": "a"}
    assert read_texts(write(tmp_path / "c.tsv", "1\tpassage\n2\tb\n")) == {"1": "passage", "2": "b"}


def test_triples_of_ids_may_stand_under_names(tmp_path):
    file = write(tmp_path / "triples.tsv", "qid\tpid+\tpid-\n1\ta\tb\n")
    assert list(read_id_triples(file, {"1": "q"}, {"a": "x", "b": "y"})) == [Example("q", "x", ("y",))]
    passages = {"a": "x", "b": "y", "pid+": "z", "pid-": "y"}
    assert [example.query for example in read_id_triples(file, {"1": "q", "qid": "r"}, passages)] == ["r", "q"]
