"""A retriever and a reranker over the URL of an index that a service has."""

from __future__ import annotations

import pickle

import pytest
from builders.documents import TAGGED_DOCUMENTS
from builders.encoders import SpanEncoder
from builders.service import serving
from langchain_core.documents import Document
from langchain_core.language_models import ParrotFakeChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from colbert_core import Index, ServiceUnreachableError
from langchain_colbert import ColBERTRerank, ColBERTRetriever


@pytest.fixture(scope="module")
def index():
    index = Index.create(None, SpanEncoder())
    ColBERTRetriever(index=index).add_documents(TAGGED_DOCUMENTS)
    return index


@pytest.fixture(scope="module")
def url(index):
    with serving({"wiki": index}, writable=True) as url:
        yield f"{url}/v1/indexes/wiki"


@pytest.fixture(params=["index", "from_index"])
def retriever(request, url):
    made = ColBERTRetriever(index=url, k=3) if request.param == "index" else ColBERTRetriever.from_index(url, k=3)
    yield made
    made.index.close()


QUESTIONS = [document.page_content for document in TAGGED_DOCUMENTS]


async def test_a_retriever_over_a_url_finds_what_one_over_the_index_finds(retriever, index):
    local = ColBERTRetriever(index=index, k=3)
    for question in QUESTIONS:
        expected = local.invoke(question)
        for found in (retriever.invoke(question), await retriever.ainvoke(question)):
            assert [(document.id, document.page_content) for document in found] == [
                (document.id, document.page_content) for document in expected
            ]
            assert [dict(document.metadata) for document in found] == [dict(document.metadata) for document in expected]
    assert retriever.batch(QUESTIONS) == local.batch(QUESTIONS)


def test_evidence_and_modes_come_through(url, index):
    for options in ({"evidence": True}, {"mode": "words"}, {"mode": "maxsim", "text": "window", "evidence": True}):
        local, remote = ColBERTRetriever(index=index, **options), ColBERTRetriever(index=url, **options)
        expected = [dict(document.metadata) for document in local.invoke(QUESTIONS[0])]
        assert [dict(document.metadata) for document in remote.invoke(QUESTIONS[0])] == expected
        remote.index.close()


def test_documents_are_added_and_deleted_over_a_url(retriever, index):
    assert retriever.add_documents([Document("a zebra grazes", id="zebra")]) == ["zebra"]
    assert retriever.invoke("a zebra grazes")[0].id == "zebra" and "zebra" in index
    retriever.delete(["zebra"])
    assert "zebra" not in index


def test_a_blank_question_with_a_filter_finds_the_first(retriever, index):
    assert retriever.invoke("", filter={"$not": {"nope": {"$exists": True}}}, k=2) == ColBERTRetriever(index=index).invoke(
        "", filter={"$not": {"nope": {"$exists": True}}}, k=2
    )


def test_a_function_as_a_filter_is_refused(retriever):
    with pytest.raises(TypeError, match="cannot be sent to a service"):
        retriever.invoke("cat", filter=lambda document: True)


async def test_in_a_chain_the_text_reaches_the_model(retriever):
    prompt = ChatPromptTemplate.from_template("Context: {context} Question: {question}")
    context = retriever | (lambda documents: documents[0].page_content)
    chain = {"context": context, "question": RunnablePassthrough()} | prompt | ParrotFakeChatModel() | StrOutputParser()
    assert QUESTIONS[0] in chain.invoke(QUESTIONS[0])
    assert chain.invoke(QUESTIONS[0]) == await chain.ainvoke(QUESTIONS[0])


def test_a_reranker_over_a_url_scores_as_one_over_the_index(url, index):
    documents = [*TAGGED_DOCUMENTS, Document("a zebra that is in no index", id="zebra")]
    local, remote = ColBERTRerank(index=index, top_n=None), ColBERTRerank(index=url, top_n=None)
    ours, theirs = (each.compress_documents(documents, QUESTIONS[0]) for each in (local, remote))
    assert [(one.id, one.metadata["relevance_score"]) for one in theirs] == [
        (one.id, one.metadata["relevance_score"]) for one in ours
    ]
    assert pickle.loads(pickle.dumps(remote.index)).url == url
    remote.index.close()


def test_mistakes_are_said_at_once(url):
    with pytest.raises(ValueError, match="has its own model"):
        ColBERTRetriever.from_index(url, model="some model")
    with pytest.raises(ServiceUnreachableError, match="Nothing answers"):
        ColBERTRetriever(index="http://127.0.0.1:9/v1/indexes/wiki")
    with pytest.raises(ValueError, match="the URL of a service begins with http:// or https://"):
        ColBERTRetriever(index="ftp://127.0.0.1/wiki")
