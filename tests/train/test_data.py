"""Examples in files, and on disk as token ids."""

from __future__ import annotations

import gzip
import json
import lzma

import numpy as np
import pytest
from builders.encoders import write_stanford

from colbert_core.train import (
    ColBERT,
    Example,
    Examples,
    TrainConfig,
    prepare,
    read_examples,
    read_id_triples,
    read_texts,
    write_examples,
)
from colbert_core.train.batches import Batches, example_numbers

CAT = Example("what sound does a cat make", "cats purr", ("dogs bark", "rust is a language"))
DOG = Example("what sound does a dog make", "dogs bark", ("cats purr",))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_stanford(tmp_path_factory.mktemp("base"))
    return ColBERT.from_pretrained(folder, TrainConfig(query_length=12, passage_length=20))


@pytest.fixture
def prepared(model, tmp_path):
    return prepare([CAT, DOG], model, tmp_path / "data")


def write(path, text):
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return path


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


def test_texts_are_stored_once_as_the_ids_that_the_model_reads(prepared, model):
    assert (len(prepared), len(prepared.queries), len(prepared.passages)) == (2, 2, 3)
    assert prepared.query_numbers.tolist() == [0, 1]
    assert prepared.passage_numbers.tolist() == [0, 1, 2, 1, 0]
    assert prepared.offsets.tolist() == [0, 3, 5]
    assert prepared.scores is None
    (expected,) = model.inputs.queries([DOG.query])
    padded = prepared.queries.padded(np.array([1]), 0)
    assert padded.ids[0].tolist() == expected.ids.tolist()
    assert padded.attended.tolist() == [expected.attended]
    assert np.flatnonzero(padded.kept[0]).tolist() == expected.windows[0].kept.tolist()
    assert prepared.manifest["arrays"]["query_ids"]["dtype"] == "<u2"


def test_padding_and_skipped_tokens_are_not_kept(model, tmp_path):
    examples = prepare([Example("cat", "the cat, sat."), Example("dog", "purr")], model, tmp_path / "data")
    padded = examples.passages.padded(np.array([1, 0]), pad_id=0)
    # [CLS] [D] the cat , sat . [SEP] and [CLS] [D] purr [SEP]
    assert padded.ids.shape == (2, 8)
    assert padded.kept.tolist() == [[True] * 4 + [False] * 4, [True] * 4 + [False, True, False, True]]
    assert padded.attended.tolist() == [4, 8]


def test_a_passage_longer_than_the_window_is_cut_to_its_first(model, tmp_path):
    long = "the cat sat on a mat and " * 10
    examples = prepare([Example("cat", long), Example("dog", "bark")], model, tmp_path / "data")
    (first, *others) = model.inputs.passages([long])
    assert others
    assert examples.passages.ids(0).tolist() == first.ids.tolist()
    assert len(examples.passages) == 2
    assert examples.manifest["counts"]["cut_passages"] == 1


def test_many_texts_are_tokenized_in_their_order(model, tmp_path):
    words = ["cat", "dog", "mat", "pets", "rust"]
    texts = [f"{words[i % 5]} {chr(97 + i % 26)} {chr(97 + i // 26 % 26)} {chr(97 + i // 676)}" for i in range(3000)]
    examples = prepare([Example("cat", text) for text in texts], model, tmp_path / "data")
    assert len(examples.passages) == 3000
    for number in (0, 1023, 1024, 2999):
        (expected,) = model.inputs.passages([texts[number]])
        assert examples.passages.ids(number).tolist() == expected.ids.tolist()


def test_the_same_sources_are_not_read_again(model, tmp_path):
    source = write(tmp_path / "train.tsv", "cat\tpurr\n")
    first = prepare(read_examples(source), model, tmp_path / "data", sources=[source])

    def unread():
        raise AssertionError("read")
        yield

    again = prepare(unread(), model, tmp_path / "data", sources=[source])
    assert again.digest == first.digest
    write(source, "dog\tbark\n")
    with pytest.raises(FileExistsError, match="holds other examples"):
        prepare(read_examples(source), model, tmp_path / "data", sources=[source])


def test_the_same_examples_are_kept_and_others_are_an_error(model, prepared):
    assert prepare([CAT, DOG], model, prepared.folder).digest == prepared.digest
    with pytest.raises(FileExistsError, match=r"holds other examples.*2 for .*base.*, not 1 for .*base"):
        prepare([CAT], model, prepared.folder)


def test_a_failure_leaves_nothing_and_a_killed_one_is_redone(model, tmp_path):
    def failing():
        yield CAT
        raise KeyboardInterrupt

    (tmp_path / ".data.unfinished" / "left by a process that was killed").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        prepare(failing(), model, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []
    assert len(prepare([CAT], model, tmp_path / "data")) == 1


def test_folders_of_similar_names_are_left_alone_and_may_be_prepared_at_the_same_time(model, tmp_path):
    (tmp_path / ".set-backup").mkdir()
    (tmp_path / ".set-backup" / "thesis.txt").write_text("precious")

    def meanwhile():
        yield CAT
        for name in ("set", "*", "set-de?"):
            prepare([DOG], model, tmp_path / name)
        yield DOG

    assert len(prepare(meanwhile(), model, tmp_path / "set-dev")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["*", ".set-backup", "set", "set-de?", "set-dev"]
    assert (tmp_path / ".set-backup" / "thesis.txt").read_text() == "precious"


def test_nothing_to_prepare_and_a_folder_of_something_else_are_errors(model, tmp_path):
    with pytest.raises(ValueError, match="There are no examples to prepare"):
        prepare([], model, tmp_path / "data")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("x")
    with pytest.raises(FileExistsError, match="holds something else"):
        prepare([CAT], model, tmp_path / "taken")
    with pytest.raises(FileNotFoundError, match="holds no prepared examples"):
        Examples.open(tmp_path / "taken")


def test_a_file_of_another_size_is_an_error(prepared):
    with (prepared.folder / "query_ids").open("ab") as file:
        file.write(b"12")
    with pytest.raises(ValueError, match="query_ids has .* bytes where"):
        Examples.open(prepared.folder)
    (prepared.folder / "query_ids").unlink()
    with pytest.raises(ValueError, match="query_ids is missing"):
        Examples.open(prepared.folder)


def test_examples_for_another_model_name_both(prepared, model, tmp_path):
    prepared.check_model(model)
    other = ColBERT.from_pretrained(write_stanford(tmp_path / "other"), TrainConfig(query_length=10, passage_length=20))
    with pytest.raises(ValueError, match=r"was prepared for .*base.*, .* than .*other \(query_length: 12 there, 10 here\)"):
        prepared.check_model(other)


def test_every_epoch_is_another_permutation_and_goes_on_anywhere():
    batches = example_numbers(10, 4, seed=1, first=0)
    taken = np.concatenate([next(batches) for _ in range(10)])
    epochs = taken.reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4
    for first in range(10):
        resumed = example_numbers(10, 4, seed=1, first=first)
        assert next(resumed).tolist() == taken[4 * first : 4 * first + 4].tolist()
    assert next(example_numbers(10, 4, seed=2, first=0)).tolist() != taken[:4].tolist()


def test_a_batch_holds_each_passage_once_and_no_known_positive_as_a_negative(prepared):
    batch = Batches(prepared, most_negatives=63, pad_id=0).batch(np.array([0, 1]))
    assert batch.passage_ids.shape[0] == 3
    assert batch.own.tolist() == [[0, 1, 2], [1, 0, 1]]  # the third of the second is a place holder
    assert batch.own_mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.candidates.tolist() == [[True, True, True], [True, True, True]]


def test_another_positive_of_the_same_query_is_no_candidate(model, tmp_path):
    examples = [Example("cat", "purr"), Example("cat", "cats purr", ("purr", "dogs bark")), Example("dog", "bark")]
    data = prepare(examples, model, tmp_path / "data")
    batch = Batches(data, most_negatives=63, pad_id=0).batch(np.array([1, 2]))
    # Columns: purr, cats purr, dogs bark, bark. "purr" answers the first query too, though its example is not in the batch.
    assert batch.own.tolist()[0] == [1, 0, 2]
    assert batch.own_mask.tolist()[0] == [True, False, True]
    assert batch.candidates.tolist() == [[False, True, True, True], [True, True, True, True]]


def test_the_first_negatives_are_used_and_scores_go_with_them(model, tmp_path):
    example = Example("cat", "purr", ("bark", "rust", "mat"), (4.0, 3.0, 2.0, 1.0))
    data = prepare([example], model, tmp_path / "data")
    batch = Batches(data, most_negatives=2, pad_id=0).batch(np.array([0]))
    assert batch.own.shape == (1, 3)
    assert batch.teacher.tolist() == [[4.0, 3.0, 2.0]]
