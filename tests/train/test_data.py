"""Examples on disk as the token ids that the model reads."""

from __future__ import annotations

import numpy as np
import pytest
from builders.encoders import write_stanford
from builders.training import CAT, DOG, write

from colbert_core.train import ColBERT, Example, Examples, TrainConfig, prepare, read_examples


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
