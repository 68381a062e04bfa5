"""Models and examples that several of these tests train with."""

from __future__ import annotations

import pytest
import torch
from builders.encoders import write_stanford
from builders.training import CAT, DOG, write_base

from colbert_core.train import ColBERT, TrainConfig, prepare


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_stanford(tmp_path_factory.mktemp("base"))
    return ColBERT.from_pretrained(folder, TrainConfig(query_length=12, passage_length=20))


@pytest.fixture
def prepared(model, tmp_path):
    return prepare([CAT, DOG], model, tmp_path / "data")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Two threads may add in another order; and what ``set_num_threads`` was told, every new encoder tells torch again."""
    before = torch.get_num_threads()
    monkeypatch.setattr("colbert_core.threads._chosen", 1)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def base_without_dropout(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"), dropout=0.0)
