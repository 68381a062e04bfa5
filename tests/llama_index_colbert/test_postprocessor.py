"""What the node postprocessors share: which model they load, copies, pickles and settings."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from builders.encoders import WordEncoder
from builders.nodes import ids

from llama_index_colbert import ColBERTRerank


def test_a_changed_model_takes_effect(words, candidates):
    other = WordEncoder(dim=32)
    rerank = ColBERTRerank(model=words)
    assert rerank.postprocess_nodes(candidates, query_str="bird")[0].node.node_id == "bird"
    for changed in (rerank.model_copy(update={"model": other}), rerank):
        changed.model = other
        changed.postprocess_nodes(candidates, query_str="bird")
        assert changed._reranker().encoder is other


def test_a_copied_reranker_works_and_shares_the_model(stanford, candidates):
    rerank = ColBERTRerank(model=stanford)
    expected = rerank.postprocess_nodes(candidates, query_str="the cat")
    copied = copy.deepcopy(rerank)
    assert copied.model is stanford
    assert copied.postprocess_nodes(candidates, query_str="the cat") == expected


def test_a_pickled_reranker_works_and_one_that_cannot_be_pickled_is_an_error(stanford, candidates):
    rerank = ColBERTRerank(model=stanford, top_n=2, score_scale="maxsim")
    expected = rerank.postprocess_nodes(candidates, query_str="the cat")
    pickled = pickle.loads(pickle.dumps(rerank))
    assert pickled.postprocess_nodes(candidates, query_str="the cat") == expected

    class Local(WordEncoder):
        pass

    with pytest.raises((AttributeError, pickle.PicklingError)):  # never the model in the box in its place
        pickle.dumps(ColBERTRerank(model=Local()))


def test_settings_of_a_reranker_go_to_a_dict_and_back(stanford, stanford_folder, candidates, default_encoder):
    for model in (stanford, stanford_folder, str(stanford_folder)):
        rerank = ColBERTRerank(model=model, device="cpu", top_n=2, metadata_mode="none", score_threshold=0.1)
        settings = json.loads(rerank.to_json())
        assert settings["model"] == str(stanford_folder)
        again = ColBERTRerank.from_dict(settings)
        assert again.to_dict() == rerank.to_dict()
        # A name does not say the dtype: the fixture is float32, what is loaded by name takes the processor's fastest.
        named = rerank.model_copy(update={"model": str(stanford_folder)})
        assert ids(again.postprocess_nodes(candidates, query_str="the cat")) == ids(
            named.postprocess_nodes(candidates, query_str="the cat")
        )
    for model in (None, default_encoder):
        assert ColBERTRerank(model=model).to_dict() == {
            "model": None,
            "top_n": 5,
            "device": None,
            "show_progress": None,
            "keep_retrieval_score": False,
            "metadata_mode": "embed",
            "batch_size": 256,
            "score_threshold": None,
            "score_scale": "relevance",
            "class_name": "ColBERTRerank",
        }


def test_the_device_is_that_of_the_model(stanford_folder, candidates):
    with pytest.raises(ValueError, match="no-such-device"):
        ColBERTRerank(model=stanford_folder, device="no-such-device").postprocess_nodes(candidates, query_str="the cat")
    rerank = ColBERTRerank(model=stanford_folder, device="cpu")
    rerank.postprocess_nodes(candidates, query_str="the cat")
    assert str(rerank._reranker().encoder.device) == "cpu"
