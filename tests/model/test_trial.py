"""A backbone is tried when it is loaded: what cannot run fails there, and what looks at its padding is read without any."""

from __future__ import annotations

import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
import transformers
from builders import checkpoints
from builders.checkpoints import HIDDEN, edit_json, matrix
from builders.parity import assert_same, load, rows_of

from colbert_core import CheckpointError, Encoder, Index, Passage, UnsupportedCheckpointError
from colbert_core.cli.main import main
from colbert_core.model.backbone import hidden_size, most_tokens, sees_padding
from colbert_core.train import Example, train

TEXTS = ["cats", "The cat sat on a mat; dogs bark.", "dogs bark, pets purr", "what"]
EXAMPLES = [Example(f"question {i}", f"cats purr {i}", (f"dogs bark {i}",)) for i in range(4)]


def train_one_step(base, out, **options):
    result = train(
        EXAMPLES, base, out=out, preset="colbertv1", steps=1, batch_size=2, dim=16, passage_length=40, progress=False, **options
    )
    return load(result.model)


# Padding


@pytest.mark.parametrize("kind", ["convbert", "mobilebert", "nystromformer"])
def test_models_that_read_the_padding_encode_each_text_as_if_it_were_alone(tmp_path, kind):
    encoder = load(checkpoints.stanford(tmp_path / "model", kind, query_maxlen=9))
    assert sees_padding(encoder._backbone)
    together = encoder.encode_passages(TEXTS).vectors
    alone = np.concatenate([encoder.encode_passages([text]).vectors for text in TEXTS])
    assert (together * alone).sum(axis=1).min() >= 0.99999


@pytest.mark.parametrize("kind", ["electra", "distilbert", "squeezebert", "deberta-v2", "modernbert"])
def test_models_that_do_not_are_read_in_batches_of_several_lengths(tmp_path, kind):
    encoder = load(checkpoints.stanford(tmp_path / "model", kind))
    assert not sees_padding(encoder._backbone)
    inputs = list(encoder._inputs.passages(TEXTS))
    assert len(list(encoder._runner._batches(inputs))) == 1


def test_batches_of_one_length_hold_all_texts_of_it(tmp_path):
    encoder = load(checkpoints.stanford(tmp_path / "model", "convbert"))
    inputs = list(encoder._inputs.passages(["cats", "dogs bark", "dogs", "cats purr", "the"]))
    batches = list(encoder._runner._batches(inputs))
    assert [sorted(batch) for batch in batches] == [[1, 3], [0, 2, 4]]


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}},
        {"rope_scaling": {"type": "longrope"}},
        {"rope_parameters": {"full_attention": {"rope_type": "longrope"}, "sliding_attention": {"rope_type": "default"}}},
        {"attention_type": "block_sparse"},
    ],
)
def test_what_only_long_texts_show_is_known_by_its_setting(settings):
    from types import SimpleNamespace

    from colbert_core.model.backbone import _counts_by_longest

    assert _counts_by_longest(SimpleNamespace(**settings))
    assert not _counts_by_longest(SimpleNamespace(rope_parameters={"rope_type": "default"}, attention_type="full"))


def test_a_model_that_cannot_run_is_refused_when_it_is_loaded(tmp_path):
    folder = checkpoints.stanford(tmp_path / "model", "electra")
    edit_json(folder / "config.json", num_attention_heads=-4)
    with pytest.raises(UnsupportedCheckpointError, match="describes no model that loads here"):
        load(folder)


# Widths


@pytest.mark.parametrize("kind", ["distilbert", "gpt2", "flaubert"])
def test_models_that_call_their_width_otherwise_are_trained_saved_and_read(tmp_path, kind):
    model = checkpoints.write_backbone(tmp_path / "base", kind)
    assert "hidden_size" not in (tmp_path / "base" / "config.json").read_text()
    checkpoints.save(checkpoints.tensors_of(model), tmp_path / "base" / "model.safetensors")
    trained = train_one_step(tmp_path / "base", tmp_path / "run")
    assert (trained.dim, trained.describe()["hidden"], hidden_size(trained._backbone)) == (16, HIDDEN, HIDDEN)
    for format in ("stanford", "pylate", "sentence-transformers"):
        trained.save(tmp_path / format, format=format)
        assert_same(trained, load(tmp_path / format))


@pytest.mark.parametrize("write", [checkpoints.stanford, checkpoints.pylate, checkpoints.flagembedding])
def test_a_head_of_another_width_is_refused_by_both_numbers(tmp_path, write):
    folder = write(tmp_path / "model", "distilbert")
    wrong = matrix(16, 48)
    if write is checkpoints.stanford:
        from safetensors.torch import load_file

        checkpoints.save(load_file(folder / "model.safetensors") | {"linear.weight": wrong}, folder / "model.safetensors")
    elif write is checkpoints.pylate:
        checkpoints.save({"linear.weight": wrong}, folder / "1_Dense" / "model.safetensors")
        edit_json(folder / "1_Dense" / "config.json", in_features=48)
    else:
        torch.save({"weight": wrong}, folder / "colbert_linear.pt")
    with pytest.raises(CheckpointError, match="48.* 32"):
        load(folder)


def test_a_model_of_texts_and_images_is_as_wide_as_its_part_for_text(tmp_path):
    """Its config.json keeps the settings of that part under text_config."""
    folder = tmp_path / "model"
    n_tokens = checkpoints.write_backbone(folder, "bert").config.vocab_size
    text = {
        "vocab_size": n_tokens,
        "hidden_size": HIDDEN,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 48,
        "max_position_embeddings": 130,
        "pad_token_id": 0,
    }
    image = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 28}
    config = transformers.Gemma3Config(text_config=text, vision_config=image | {"patch_size": 14}, mm_tokens_per_image=4)
    config.save_pretrained(folder)
    model = transformers.AutoModel.from_config(config).eval()
    checkpoints.save(
        {name: tensor.clone() for name, tensor in checkpoints.tensors_of(model).items()}, folder / "model.safetensors"
    )
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        checkpoints.dense(folder / "1_Dense", HIDDEN, 16),
    ]
    checkpoints.write_json(folder / "modules.json", modules)
    recipe = {"model_type": "ColBERT", "query_prefix": "", "document_prefix": "", "query_length": 24, "document_length": 60}
    checkpoints.write_json(folder / "config_sentence_transformers.json", recipe)
    encoder = load(folder)
    assert (encoder.dim, encoder.describe()["hidden"]) == (16, HIDDEN)
    encoder.save(tmp_path / "copy", format="pylate")
    assert_same(encoder, load(tmp_path / "copy"))


def test_a_model_with_its_own_code_tells_its_width_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = checkpoints.own_code(tmp_path / "model")
    edit_json(folder / "config.json", hidden_size=...)
    assert load(folder, trust_remote_code=True).describe()["hidden"] == HIDDEN
    from safetensors.torch import load_file

    checkpoints.save(load_file(folder / "model.safetensors") | {"linear.weight": matrix(16, 48)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="the head takes 48 components but the backbone's hidden size is 32"):
        load(folder, trust_remote_code=True)


def test_a_model_without_a_longest_text_reads_any(tmp_path):
    model = torch.nn.Module()
    model.config = transformers.XLNetConfig()
    assert model.config.max_position_embeddings == -1
    assert most_tokens(model) == sys.maxsize


# Languages


@pytest.fixture
def xmod(tmp_path):
    return checkpoints.stanford(tmp_path / "xmod", "xmod")


def test_a_model_of_several_languages_needs_one(xmod, caplog):
    with pytest.raises(CheckpointError, match="has layers for en_XX, fr_XX, .* names no default_language; pass language="):
        load(xmod)
    english, french = load(xmod, language="en_XX"), load(xmod, language="fr_XX")
    assert not caplog.records
    assert french is not english
    assert not np.allclose(rows_of(english)[0], rows_of(french)[0], atol=1e-3)
    assert french.describe()["language"] == "fr_XX"
    assert "language    fr_XX" in repr(french)


def test_a_language_that_config_json_names_is_used_and_said(xmod, caplog):
    edit_json(xmod / "config.json", default_language="fr_XX")
    encoder = load(xmod)
    assert "reads texts of every language with its layers for fr_XX" in caplog.text
    assert_same(encoder, load(xmod, language="fr_XX"))


def test_an_unknown_language_is_refused_with_those_there_are(xmod, stanford_folder, tmp_path):
    with pytest.raises(ValueError, match="language='de_DE': .* has layers for en_XX, fr_XX; pass one of these"):
        load(xmod, language="de_DE")
    edit_json(xmod / "config.json", default_language="it_IT")
    with pytest.raises(CheckpointError, match="names the default_language 'it_IT'; pass language="):
        load(xmod)
    for folder in (stanford_folder, checkpoints.pylate(tmp_path / "other", "electra")):
        with pytest.raises(ValueError, match="language='fr_XX': .* has no layers of its own for a language; leave it out"):
            load(folder, language="fr_XX")


def test_the_only_language_needs_no_name(xmod):
    from safetensors.torch import load_file

    edit_json(xmod / "config.json", languages=["fr_XX"])
    weights = {name: tensor for name, tensor in load_file(xmod / "model.safetensors").items() if "en_XX" not in name}
    checkpoints.save(weights, xmod / "model.safetensors")
    assert load(xmod).describe()["language"] == "fr_XX"


@pytest.mark.parametrize("format", ["stanford", "pylate", "sentence-transformers"])
def test_a_copy_a_pickle_and_an_index_keep_the_language(xmod, tmp_path, format):
    encoder = load(xmod, language="fr_XX")
    encoder.save(tmp_path / "copy", format=format)
    assert_same(encoder, load(tmp_path / "copy", language="fr_XX"))
    assert load(tmp_path / "copy").describe()["language"] == "fr_XX"
    assert pickle.loads(pickle.dumps(encoder)) is encoder
    with Index.create(tmp_path / "index", encoder) as index:
        index.add([Passage("a", "cats purr")])
    with Index.open(tmp_path / "index") as index:
        assert index.search("cats")[0].passage.id == "a"
        assert index.encoder.describe()["language"] == "fr_XX"


def test_a_training_keeps_the_language(xmod, tmp_path):
    with pytest.raises(CheckpointError, match="pass language="):
        train_one_step(xmod, tmp_path / "none")
    trained = train_one_step(xmod, tmp_path / "run", language="fr_XX")
    assert trained.describe()["language"] == "fr_XX"
    with pytest.raises(ValueError, match="language"):
        train_one_step(xmod, tmp_path / "run", language="en_XX")


def test_commands_take_a_language(xmod, capsys, tmp_path):
    assert main(["inspect", str(xmod)]) == 1
    assert "pass language=" in capsys.readouterr().err
    assert main(["inspect", str(xmod), "--language", "fr_XX"]) == 0
    assert "language    fr_XX" in capsys.readouterr().out
    (tmp_path / "texts.txt").write_text("cats purr\ndogs bark\n")
    assert main(["rerank", "cats", str(tmp_path / "texts.txt"), "--model", str(xmod), "--language", "en_XX", "--quiet"]) == 0


def test_an_encoder_is_loaded_from_parts_without_a_trial(tmp_path):
    encoder = load(checkpoints.stanford(tmp_path / "model"))
    parts = Encoder(encoder._backbone, encoder._head, encoder._tokenizer, encoder.config, name="parts")
    shutil.rmtree(tmp_path / "model")
    assert parts.dim == 16
