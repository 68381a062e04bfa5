"""When a document compressor loads its model, which model that is, and who waits for it."""

from __future__ import annotations

import threading

from builders.documents import DOCUMENTS, ids
from builders.encoders import WordEncoder

from colbert_core.model import encoder
from langchain_colbert import ColBERTRerank


def test_the_model_is_loaded_at_the_first_use_and_once(stanford_folder, monkeypatch):
    loaded = []
    load = encoder.as_encoder
    monkeypatch.setattr(encoder, "as_encoder", lambda *args, **kwargs: loaded.append(args) or load(*args, **kwargs))
    rerank = ColBERTRerank(model=str(stanford_folder), device="cpu")
    assert loaded == []
    threads = [threading.Thread(target=rerank.compress_documents, args=(DOCUMENTS, "cat")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [(str(stanford_folder),)]


def test_a_changed_model_takes_effect(words):
    other = WordEncoder(dim=32)
    rerank = ColBERTRerank(model=words)
    assert ids(rerank.compress_documents(DOCUMENTS, "bird sings"))[0] == "bird"
    assert rerank.model_copy(update={"model": other})._reranker().encoder is other
    rerank.model = other
    assert rerank._reranker().encoder is other


def test_a_reranker_that_is_loaded_does_not_wait_for_one_that_loads(words, monkeypatch):
    loaded, slow = ColBERTRerank(model=words), ColBERTRerank(model="slow")
    expected = loaded.compress_documents(DOCUMENTS, "dog barks")
    go_on = threading.Event()
    monkeypatch.setattr(encoder, "as_encoder", lambda *_, **__: go_on.wait(10))
    thread = threading.Thread(target=slow._reranker)
    thread.start()
    try:
        assert loaded.compress_documents(DOCUMENTS, "dog barks") == expected
        assert thread.is_alive()
    finally:
        go_on.set()
        thread.join()
