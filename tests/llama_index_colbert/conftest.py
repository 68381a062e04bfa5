"""What several tests of the LlamaIndex adapters start from."""

from __future__ import annotations

import pytest
from builders.nodes import documents, nodes, stored_nodes
from llama_index.core import Settings
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import NodeWithScore

from llama_index_colbert import ColBERTIndex, ColBERTVectorStore


@pytest.fixture(autouse=True)
def fake_llm(monkeypatch):
    monkeypatch.setattr(Settings, "_llm", MockLLM())


@pytest.fixture
def candidates():
    return [NodeWithScore(node=node, score=0.1 * n) for n, node in enumerate(nodes())]


@pytest.fixture(params=["memory", "disk"])
def store(request, words, tmp_path):
    store = ColBERTVectorStore(words, None if request.param == "memory" else tmp_path / "index")
    store.add(stored_nodes())
    return store


@pytest.fixture
def splitter():
    return SentenceSplitter(chunk_size=60, chunk_overlap=0)


@pytest.fixture(params=["memory", "disk"])
def index(request, words, splitter, tmp_path):
    path = None if request.param == "memory" else tmp_path / "on disk from the start"
    return ColBERTIndex.from_documents(documents(), model_name=words, transformations=[splitter], index_path=path)
