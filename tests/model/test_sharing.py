"""Equal requests for a model get one encoder, for as long as somebody has it and its files are what they were."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import threading
import time
import weakref

import pytest
import torch

from colbert_core import Encoder, Index, Reranker
from colbert_core.model import encoder as encoder_module
from colbert_core.model.sharing import Shared


def test_equal_requests_get_the_same_encoder(stanford_folder):
    one = Encoder.from_pretrained(stanford_folder)
    assert Encoder.from_pretrained(str(stanford_folder)) is one
    assert pickle.loads(pickle.dumps(one)) is one
    assert Index.create(None, str(stanford_folder)).encoder is one
    assert Reranker(str(stanford_folder)).encoder is one


def test_equal_requests_get_the_same_encoder_also_beside_one_that_was_asked_for_otherwise(stanford_folder):
    otherwise = Encoder.from_pretrained(stanford_folder, device="cpu", query_length=9)
    one = Encoder.from_pretrained(stanford_folder, query_length=9)
    assert Encoder.from_pretrained(str(stanford_folder), query_length=9) is one
    assert one._backbone is otherwise._backbone


def test_a_model_is_loaded_by_one_thread_and_pytorch_has_its_own_number_afterwards(stanford_folder, monkeypatch):
    before, seen = torch.get_num_threads(), []
    read = encoder_module.read_checkpoint

    def read_and_look(*arguments, **settings):
        seen.append(torch.get_num_threads())
        return read(*arguments, **settings)

    monkeypatch.setattr(encoder_module, "read_checkpoint", read_and_look)
    torch.set_num_threads(3)
    try:
        Encoder.from_pretrained(stanford_folder, passage_length=17)
        assert (seen, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "other",
    [
        {"query_length": 8},
        {"passage_length": 16},
        {"dtype": "bfloat16"},
        {"dtype": "float32"},  # a pickle of it loads it in float32 elsewhere, too
        {"device": "cpu"},
        {"local_files_only": True},
    ],
)
def test_other_requests_get_another_encoder(stanford_folder, other):
    one = Encoder.from_pretrained(stanford_folder)
    assert Encoder.from_pretrained(stanford_folder, **other) is not one


def test_an_encoder_that_nobody_has_is_gone(stanford_folder):
    one = Encoder.from_pretrained(stanford_folder, query_length=9)
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


def test_files_that_have_changed_make_a_new_encoder(stanford_folder, tmp_path):
    folder = shutil.copytree(stanford_folder, tmp_path / "model")
    one = Encoder.from_pretrained(folder)
    assert Encoder.from_pretrained(folder) is one
    weights = next(folder.glob("*.safetensors"))
    os.utime(weights, ns=(time.time_ns(), weights.stat().st_mtime_ns + 1_000_000))
    assert Encoder.from_pretrained(folder) is not one


def test_a_model_that_takes_the_place_of_another_is_loaded(stanford_folder, tmp_path):
    old, new = (shutil.copytree(stanford_folder, tmp_path / name) for name in ("model", "new"))
    one = Encoder.from_pretrained(old)
    shutil.rmtree(old)
    new.rename(old)
    assert Encoder.from_pretrained(old) is not one


def test_a_longer_query_shares_the_weights(stanford_folder):
    one = Encoder.from_pretrained(stanford_folder)
    longer = one.with_query_length(15)
    assert longer.config.query_length == 15
    assert longer._runner is one._runner
    assert one.config.query_length == 12


# The registry


class Value:
    pass


def test_who_asks_for_the_same_waits_and_who_asks_for_another_does_not():
    shared, begun, go, made = Shared(), threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        assert go.wait(30)
        made.append(Value())
        return made[-1]

    found = []
    threads = [threading.Thread(target=lambda: found.append(shared.get("slow", slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    assert isinstance(shared.get("other", Value), Value)  # while the slow one is being made
    go.set()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert all(value is made[0] for value in found)


def test_an_error_is_the_callers_and_the_next_one_tries_again():
    shared = Shared()

    def fails():
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        shared.get("key", fails)
    assert isinstance(shared.get("key", Value), Value)
