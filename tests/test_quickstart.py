"""The demonstration: the model in the box answers all of its questions, and keyword search does not.

The collection and its questions are a hand-made illustration, chosen to show where words alone mislead; no measure of
quality. Those are in the model card.
"""

from __future__ import annotations

import json

import bm25s
import pytest
import Stemmer

from colbert_core import Encoder, Index
from colbert_core.cli import main as cli
from colbert_core.cli.reading import demo_passages, demo_questions


@pytest.fixture(scope="module")
def questions():
    return demo_questions()


@pytest.fixture(scope="module")
def passages():
    return demo_passages()


def test_the_collection_is_what_the_readme_says(passages, questions):
    assert 140 <= len(passages) <= 170
    assert len({passage.id for passage in passages}) == len(passages)
    about_ghibli = [passage.id for passage in passages].index("studio-ponoc") + 1  # the file begins with them
    assert 0.3 <= about_ghibli / len(passages) <= 0.4
    assert questions[0]["question"] == "What animation studio did Miyazaki found?"
    assert len(questions) == 6
    assert {question["answer_id"] for question in questions} <= {passage.id for passage in passages}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_model_in_the_box_ranks_the_right_passage_first_for_every_question(passages, questions, dtype):
    index = Index.create(None, Encoder.from_pretrained(device="cpu", dtype=dtype))
    index.add(passages)
    found = index.search_many([question["question"] for question in questions], k=2)
    assert [hits[0].passage.id for hits in found] == [question["answer_id"] for question in questions]


@pytest.mark.parametrize("stopwords", ["english", "english_plus"])
def test_bm25_does_so_for_three_at_most(passages, questions, stopwords):
    stemmer = Stemmer.Stemmer("english")
    options = {"stopwords": stopwords, "stemmer": stemmer, "show_progress": False}
    retriever = bm25s.BM25(k1=0.9, b=0.4)
    retriever.index(bm25s.tokenize([passage.text for passage in passages], **options), show_progress=False)
    tokens = bm25s.tokenize([question["question"] for question in questions], **options)
    firsts, _ = retriever.retrieve(tokens, k=1, show_progress=False)
    right = [passages[row].id == question["answer_id"] for (row,), question in zip(firsts, questions, strict=True)]
    assert sum(right) <= 3


def test_quickstart_shows_six_answers_and_the_exact_prompt(capsys, questions):
    assert cli.main(["quickstart", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    blocks = {block.split("\n")[0]: block for block in out.split("\n\n")}
    for question in questions:
        first = blocks[question["question"]].split("\n")[1]
        assert first.strip().startswith("1.")
        assert f"[{question['answer_id']}]" in first
    prompt = out[out.index("exact prompt") :]
    assert "established in June 1985" in prompt
    assert "Question: What animation studio did Miyazaki found?" in prompt
    assert "chat_model" in prompt


def test_quickstart_json_is_one_line_per_question(capsys, questions):
    assert cli.main(["quickstart", "--json", "--device", "cpu", "-k", "2"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["question"] for answer in answers] == [question["question"] for question in questions]
    assert all(len(answer["hits"]) == 2 for answer in answers)


def test_quickstart_keeps_its_index_where_it_is_told_to_and_replaces_none(run, tmp_path, questions):
    folder = tmp_path / "demo.idx"
    code, out, _ = run("quickstart", "--device", "cpu", "--ask", questions[0]["question"], "--out", str(folder))
    assert code == 0
    assert f"158 passages indexed in {folder} " in out
    assert out.rstrip().endswith(f"colbert serve {folder}")
    with Index.open(folder) as index:
        assert index.search(questions[0]["question"], 1)[0].passage.id == questions[0]["answer_id"]
    code, _, err = run("quickstart", "--device", "cpu", "--out", str(folder))
    assert code != 0
    assert str(folder) in err
