"""Test sets on disk and from ir-datasets: passages, queries and splits."""

from __future__ import annotations

import hashlib
import json
import sys
from types import SimpleNamespace

import pytest

from colbert_core import MissingExtraError, Passage
from colbert_core.evaluation.datasets import open_dataset, split_by_hash
from colbert_core.storage.durable import checksum_files


def write_beir(folder, *, header=True, qrels="q1\tb\t1\nq1\ta\t0\nq2\ta\t2\n"):
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": "a", "title": "Cats", "text": "They purr."}, {"_id": "b", "title": "", "text": "Rust is a language."}]
    queries = [{"_id": "q1", "text": "systems language"}, {"_id": "q2", "text": "pets"}, {"_id": "q3", "text": "unjudged"}]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in corpus))
    (folder / "queries.jsonl").write_text("".join(json.dumps(record) + "\n" for record in queries))
    (folder / "qrels" / "test.tsv").write_text(("query-id\tcorpus-id\tscore\n" if header else "") + qrels)
    return folder


def write_msmarco(folder):
    folder.mkdir()
    (folder / "collection.tsv").write_text('0\tCats "purr".\n1\tRust is a language.\n')
    (folder / "queries.train.tsv").write_text("10\tpets\n11\tnot judged\n")
    (folder / "queries.dev.tsv").write_text("20\tsystems language\n21\tnot judged\n")
    (folder / "qrels.train.tsv").write_text("10\t0\t0\t1\n")
    (folder / "qrels.dev.small.tsv").write_text("20\t1\t1\n")
    return folder


# BEIR


def test_a_beir_passage_has_the_title_in_front_of_the_text(tmp_path):
    collection = open_dataset(write_beir(tmp_path / "beir"))
    assert list(collection.passages()) == [
        Passage("a", "Cats They purr.", {"title": "Cats"}),
        Passage("b", "Rust is a language."),
    ]
    assert collection.n_passages == 2


@pytest.mark.parametrize("header", [True, False])
def test_a_beir_split_is_the_name_of_its_judgements_with_or_without_a_header(tmp_path, header):
    collection = open_dataset(write_beir(tmp_path / "beir", header=header))
    assert collection.splits == ("test",)
    assert collection.qrels("test") == {"q1": {"b": 1, "a": 0}, "q2": {"a": 2}}


def test_the_queries_of_a_beir_split_are_those_with_a_positive_judgement(tmp_path):
    collection = open_dataset(write_beir(tmp_path / "beir", qrels="q1\tb\t1\nq2\ta\t0\n"))
    assert collection.queries("test") == {"q1": "systems language"}
    assert list(collection.queries()) == ["q1", "q2", "q3"]


def test_a_sound_collection_passes_the_check(tmp_path):
    open_dataset(write_beir(tmp_path / "beir")).check()
    open_dataset(write_msmarco(tmp_path / "msmarco")).check()


def test_a_judgement_of_an_unknown_passage_is_an_error_with_file_line_and_id(tmp_path):
    collection = open_dataset(write_beir(tmp_path / "beir", qrels="q1\tb\t1\n\nq2\tzebra\t1\n"))
    with pytest.raises(ValueError, match=r"test\.tsv, line 4 judges the passage 'zebra', which is not in .*corpus\.jsonl"):
        collection.check()
    with pytest.raises(ValueError, match="zebra"):
        collection.check("test")


def test_judged_passages_that_are_not_there_are_found(tmp_path):
    dataset = open_dataset(write_beir(tmp_path / "data", qrels="q1\tz\t1\nq1\ta\t0\nq2\tb\t2\nq2\ty\t0\nq2\tz\t1\n"))
    assert dataset.missing_passages("test") == ["z", "y"]
    assert open_dataset(write_beir(tmp_path / "whole")).missing_passages("test") == []


def test_a_judged_query_without_text_is_an_error_with_file_line_and_id(tmp_path):
    collection = open_dataset(write_beir(tmp_path / "beir", qrels="q1\tb\t1\nq9\ta\t1\n"))
    for look in (collection.check, lambda: collection.queries("test")):
        with pytest.raises(ValueError, match=r"test\.tsv, line 3 judges the query 'q9', which has no text"):
            look()


def test_a_passage_that_comes_twice_is_an_error_with_file_and_line(tmp_path):
    folder = write_beir(tmp_path / "beir")
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "a", "text": "again"}\n')
    with pytest.raises(ValueError, match=r"corpus\.jsonl, line 3 has the id 'a' a second time"):
        open_dataset(folder).check()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{broken", "line 3: it is no JSON"),
        ('["a", "b"]', 'line 3: it has no "_id" and "text", but list'),
        ('{"_id": "c", "body": "x"}', 'line 3: it has no "_id" and "text", but _id, body'),
        ('{"_id": "c", "text": 7}', "line 3: Text of passage 'c' must be a str, got int"),
        ('{"_id": "", "text": "x"}', "line 3: Passage id is empty"),
    ],
)
def test_a_bad_line_of_a_corpus_is_an_error_with_its_number(tmp_path, line, problem):
    folder = write_beir(tmp_path / "beir")
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=rf"corpus\.jsonl, {problem}"):
        list(open_dataset(folder).passages())


def test_an_empty_split_is_an_error(tmp_path):
    collection = open_dataset(write_beir(tmp_path / "beir", qrels=""))
    with pytest.raises(ValueError, match="Split 'test' of .* has no judgements"):
        collection.qrels("test")
    with pytest.raises(ValueError, match="no judgements"):
        collection.check()


def test_a_split_without_a_positive_judgement_is_an_error(tmp_path):
    collection = open_dataset(write_beir(tmp_path / "beir", qrels="q1\ta\t0\n"))
    with pytest.raises(ValueError, match="no query with a positive judgement"):
        collection.queries("test")


def test_an_unknown_split_is_an_error_that_names_those_there_are(tmp_path):
    collection = open_dataset(write_beir(tmp_path / "beir"))
    with pytest.raises(ValueError, match="has no split 'dev'; it has test"):
        collection.qrels("dev")


def test_passages_are_found_by_id_and_a_missing_one_is_an_error(tmp_path):
    collection = open_dataset(write_beir(tmp_path / "beir"))
    assert collection.get(["b"]) == {"b": Passage("b", "Rust is a language.")}
    with pytest.raises(ValueError, match="1 of 2 passages are not in .*'zebra'"):
        collection.get(["b", "zebra"])


# MS MARCO


def test_an_msmarco_folder_has_splits_by_the_names_of_its_files(tmp_path):
    collection = open_dataset(write_msmarco(tmp_path / "msmarco"))
    assert collection.splits == ("dev", "dev.small", "train")
    assert list(collection.passages()) == [Passage("0", 'Cats "purr".'), Passage("1", "Rust is a language.")]
    assert collection.queries("train") == {"10": "pets", "11": "not judged"}  # its own file, as it is
    assert collection.queries("dev.small") == {"20": "systems language"}  # none of its own: those judged
    assert collection.qrels("train") == {"10": {"0": 1}}
    assert collection.qrels("dev.small") == {"20": {"1": 1}}
    with pytest.raises(ValueError, match="'dev' of .* has queries but no judgements; .* dev.small, train"):
        collection.qrels("dev")


@pytest.mark.parametrize("names", ["pid\tpassage", "id\ttext", "\ufeffDocID\tContents", "_id\tdocument"])
def test_a_line_of_names_is_no_passage_and_no_query(tmp_path, names):
    folder = write_msmarco(tmp_path / "msmarco")
    plain = open_dataset(folder)
    passages, queries = list(plain.passages()), plain.queries("train")
    for file, line in (("collection.tsv", names), ("queries.train.tsv", "qid\tquery")):
        (folder / file).write_text(f"{line}\n{(folder / file).read_text()}", encoding="utf-8")
    named = open_dataset(folder)
    assert (list(named.passages()), named.queries("train"), named.n_passages) == (passages, queries, 2)


def test_columns_go_by_their_names(tmp_path):
    folder = write_msmarco(tmp_path / "msmarco")
    (folder / "collection.tsv").write_text("Title\tURL\tpassage\tpid\nPets\thttp://x\tCats purr.\t7\n")
    assert list(open_dataset(folder).passages()) == [Passage("7", "Pets Cats purr.", {"title": "Pets"})]
    (folder / "collection.tsv").write_text("pid\tpassage\n7\tCats\tpurr\n")
    with pytest.raises(ValueError, match=r"collection\.tsv, line 2: it has 3 columns where 2 belong \(id, text\)"):
        list(open_dataset(folder).passages())


def test_a_line_of_an_msmarco_file_with_other_columns_is_an_error_with_its_number(tmp_path):
    folder = write_msmarco(tmp_path / "msmarco")
    (folder / "collection.tsv").write_text("0\tCats\n1\n")
    with pytest.raises(ValueError, match=r"collection\.tsv, line 2: it has 1 columns"):
        list(open_dataset(folder).passages())
    (folder / "queries.train.tsv").write_text("10 pets\n")
    with pytest.raises(ValueError, match=r"queries\.train\.tsv, line 1: it has 1 columns"):
        open_dataset(folder).queries("train")


def test_a_folder_that_is_no_collection_says_what_it_lacks(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"neither corpus\.jsonl \(BEIR\) nor collection\.tsv \(MS MARCO\), but notes\.txt"):
        open_dataset(tmp_path)
    with pytest.raises(ValueError, match="There is no folder"):
        open_dataset(tmp_path / "nowhere")


# ir-datasets


def test_a_name_for_ir_datasets_without_the_package_names_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(MissingExtraError, match="pip install ir-datasets"):
        open_dataset("irds:beir/scifact")


class FakeDataset:
    def __init__(self, qrels=None):
        self.qrels = qrels

    def has_docs(self):
        return True

    def has_queries(self):
        return True

    def has_qrels(self):
        return self.qrels is not None

    def docs_count(self):
        return 1

    def docs_iter(self):
        return iter([SimpleNamespace(doc_id="a", title="Cats", text="They purr.")])

    def queries_iter(self):
        return iter([SimpleNamespace(query_id="q", text="pets")])

    def qrels_iter(self):
        if isinstance(self.qrels, Exception):
            raise self.qrels
        return iter(self.qrels)


def fake_ir_datasets(monkeypatch, qrels):
    datasets = {"beir/scifact": FakeDataset(), "beir/scifact/test": FakeDataset(qrels), "beir/fiqa": FakeDataset()}
    monkeypatch.setitem(sys.modules, "ir_datasets", SimpleNamespace(load=lambda name: datasets[name], registry=list(datasets)))


def test_a_data_set_of_ir_datasets_reads_like_a_folder(monkeypatch):
    fake_ir_datasets(monkeypatch, [SimpleNamespace(query_id="q", doc_id="a", relevance=1)])
    collection = open_dataset("irds:beir/scifact")
    assert collection.splits == ("test",)
    assert collection.n_passages == 1
    assert list(collection.passages()) == [Passage("a", "Cats They purr.", {"title": "Cats"})]
    assert collection.queries("test") == {"q": "pets"}
    assert collection.qrels("test") == {"q": {"a": 1}}
    collection.check()
    assert set(collection.checksums()) == {"passages", "queries", "qrels/test"}


def test_a_data_set_that_cannot_be_downloaded_says_so(monkeypatch):
    fake_ir_datasets(monkeypatch, ConnectionError("no route to host"))
    with pytest.raises(ValueError, match="ir-datasets cannot get irds:beir/scifact .no route to host"):
        open_dataset("irds:beir/scifact").qrels("test")
    with pytest.raises(ValueError, match="knows no data set 'beir/sciffact'"):
        open_dataset("irds:beir/sciffact")


# Checksums and splits


def test_checksums_are_sizes_and_sha256_of_the_files(tmp_path):
    folder = write_beir(tmp_path / "beir")
    sums = open_dataset(folder).checksums()
    assert set(sums) == {"corpus.jsonl", "queries.jsonl", "qrels/test.tsv"}
    content = (folder / "corpus.jsonl").read_bytes()
    assert sums["corpus.jsonl"] == (len(content), hashlib.sha256(content).hexdigest())
    assert checksum_files([folder / "corpus.jsonl"])[str(folder / "corpus.jsonl")] == sums["corpus.jsonl"]


def test_a_split_by_hash_depends_on_the_ids_alone():
    ids = [f"q{number}" for number in range(100)]
    train, held_out = split_by_hash(ids)
    assert len(train) == 80
    assert len(held_out) == 20
    assert sorted(train + held_out) == sorted(ids)
    backwards = split_by_hash(reversed(ids))
    assert [set(side) for side in backwards] == [set(train), set(held_out)]
    assert train != ids[:80]


def test_a_split_by_hash_leaves_at_least_one_on_each_side_and_refuses_the_impossible():
    assert [len(side) for side in split_by_hash(["a", "b"])] == [1, 1]
    for ids, share in ((["a"], 0.2), (["a", "a"], 0.2), (["a", "b"], 0.0), (["a", "b"], 1.0)):
        with pytest.raises(ValueError):
            split_by_hash(ids, share)
