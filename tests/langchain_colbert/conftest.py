"""What several tests of the LangChain adapters start from."""

from __future__ import annotations

import pytest
from builders.documents import TAGGED_DOCUMENTS

from langchain_colbert import ColBERTVectorStore


@pytest.fixture
def store(words):
    store = ColBERTVectorStore(words)
    store.add_documents(TAGGED_DOCUMENTS)
    return store
