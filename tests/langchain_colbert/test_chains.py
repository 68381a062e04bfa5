"""The LangChain adapters where they are used: chains, agents, graphs and LangChain's own retrievers of retrievers."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import bm25s
import pytest
from langchain.agents import create_agent
from langchain_classic.retrievers import (
    ContextualCompressionRetriever,
    EnsembleRetriever,
    MergerRetriever,
    MultiQueryRetriever,
    ParentDocumentRetriever,
)
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel, ParrotFakeChatModel
from langchain_core.messages import AIMessage, ToolCall
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnablePassthrough
from langchain_core.stores import InMemoryStore
from langchain_core.tools import create_retriever_tool
from langchain_text_splitters import RecursiveCharacterTextSplitter
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from langchain_colbert import ColBERTRerank, ColBERTRetriever, ColBERTVectorStore

DOCUMENTS = [
    Document("Cats purr when they are content.", metadata={"page": 1}, id="cats"),
    Document("Dogs wag their tails when their owner comes home.", metadata={"page": 2}, id="dogs"),
    Document("Rust is a systems programming language.", metadata={"page": 3}, id="rust"),
    Document("The tide follows the moon.", metadata={"page": 4}, id="tide"),
]
QUESTION = "What do happy kittens do?"


class BM25(BaseRetriever):
    """Another retriever, by the words that questions and documents share."""

    documents: list[Document]
    k: int = 4

    def _get_relevant_documents(self, query, *, run_manager):
        engine = bm25s.BM25()
        engine.index(
            bm25s.tokenize([document.page_content for document in self.documents], show_progress=False), show_progress=False
        )
        found, _ = engine.retrieve(bm25s.tokenize(query, show_progress=False), k=self.k, show_progress=False)
        return [self.documents[place].model_copy(deep=True) for place in found[0]]


@pytest.fixture(scope="module")
def store(default_encoder):
    return ColBERTVectorStore.from_documents(DOCUMENTS, model=default_encoder)


@pytest.fixture(params=["retriever", "store"])
def retriever(request, store):
    return ColBERTRetriever(index=store.index, k=1) if request.param == "retriever" else store.as_retriever(k=1)


def texts(documents):
    return "\n".join(document.page_content for document in documents)


PROMPT = ChatPromptTemplate.from_template("Context:\n{context}\nQuestion: {question}")


async def test_in_a_chain_sync_async_and_streamed_the_text_reaches_the_llm(retriever):
    chain = (
        {"context": retriever | texts, "question": RunnablePassthrough()} | PROMPT | ParrotFakeChatModel() | StrOutputParser()
    )
    expected = f"Human: Context:\nCats purr when they are content.\nQuestion: {QUESTION}".removeprefix("Human: ")
    assert chain.invoke(QUESTION) == expected
    assert await chain.ainvoke(QUESTION) == expected
    assert "".join(chain.stream(QUESTION)) == expected
    assert "".join([part async for part in chain.astream(QUESTION)]) == expected
    assert chain.batch([QUESTION] * 8, config={"max_concurrency": 8}) == [expected] * 8
    assert await chain.abatch([QUESTION] * 8) == [expected] * 8


async def test_events_of_a_chain_tell_what_was_retrieved(retriever):
    chain = retriever.with_config(run_name="kittens", tags=["mine"]) | texts
    events = [event async for event in chain.astream_events(QUESTION, version="v2") if event["name"] == "kittens"]
    start, end = (event for event in events if event["event"].startswith("on_retriever"))
    assert "mine" in start["tags"]
    assert start["metadata"]["ls_vector_store_provider"] in ("colbert", "ColBERTVectorStore")
    assert [document.id for document in end["data"]["output"]] == ["cats"]


class ToolCalling(GenericFakeChatModel):
    """LangChain's fake chat model, as an agent wants it."""

    def bind_tools(self, tools, **_):
        return self


async def test_an_agent_reads_what_the_retriever_tool_found_and_the_documents_come_along(retriever):
    tool = create_retriever_tool(
        retriever,
        "search_animals",
        "Search facts about animals.",
        document_prompt=PromptTemplate.from_template("[{page}] {page_content}"),
        response_format="content_and_artifact",
    )
    call = ToolCall(name="search_animals", args={"query": QUESTION}, id="1", type="tool_call")

    def agent():
        return create_agent(ToolCalling(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("They purr.")])), [tool])

    question = {"messages": [("user", QUESTION)]}
    for state in (agent().invoke(question), await agent().ainvoke(question)):
        _, _, found, answer = state["messages"]
        assert found.content == "[1] Cats purr when they are content."
        assert [document.id for document in found.artifact] == ["cats"]
        assert answer.content == "They purr."


class State(TypedDict):
    question: str
    documents: Annotated[list[Document], operator.add]
    answer: str


async def test_a_graph_keeps_documents_in_its_checkpoints(retriever):
    def retrieve(state: State) -> dict[str, Any]:
        return {"documents": retriever.invoke(state["question"])}

    def answer(state: State) -> dict[str, Any]:
        return {"answer": ParrotFakeChatModel().invoke(texts(state["documents"])).content}

    graph = StateGraph(State)
    graph.add_node("retrieve", retrieve)
    graph.add_node("respond", answer)
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "respond")
    graph.add_edge("respond", END)
    application = graph.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    assert application.invoke({"question": QUESTION}, config)["answer"] == "Cats purr when they are content."
    state = (await application.aget_state(config)).values
    assert state["documents"] == retriever.invoke(QUESTION)
    assert application.invoke({"question": "systems programming"}, config)["documents"][1].id == "rust"


def test_in_an_ensemble_with_bm25(store):
    """BM25 finds no word of the question; its ranks and ours are fused."""
    ours = ColBERTRetriever(index=store.index, k=4)
    ensemble = EnsembleRetriever(retrievers=[BM25(documents=DOCUMENTS[::-1]), ours], weights=[0.3, 0.7])
    found = ensemble.invoke(QUESTION)
    assert found[0].id == "cats"
    assert sorted(document.id for document in found) == ["cats", "dogs", "rust", "tide"]


async def test_reranking_what_bm25_found_with_k_and_content(store, default_encoder):
    reranking = ContextualCompressionRetriever(
        base_compressor=ColBERTRerank(model=default_encoder, top_n=2), base_retriever=BM25(documents=DOCUMENTS[::-1])
    )
    found = reranking.invoke(QUESTION)
    assert found[0].id == "cats"
    assert len(found) == 2
    assert found[0].metadata["page"] == 1
    assert found[0].metadata["relevance_score"] > found[1].metadata["relevance_score"]
    assert await reranking.ainvoke(QUESTION) == found
    strict = ColBERTRerank(model=default_encoder, top_n=None, score_threshold=1)
    assert list(strict.compress_documents(DOCUMENTS, QUESTION)) == []


async def test_under_a_multi_query_retriever_every_question_is_asked(store):
    llm = FakeListChatModel(responses=["What does a happy cat do?\nWhich language is for systems?"])
    ours = ColBERTRetriever(index=store.index, k=1)
    multi = MultiQueryRetriever.from_llm(retriever=ours, llm=llm)
    assert [document.id for document in multi.invoke("anything")] == ["cats", "rust"]
    assert [document.id for document in await multi.ainvoke("anything")] == ["cats", "rust"]


async def test_a_document_that_several_questions_find_is_in_their_union_once(store, default_encoder):
    """LangChain compares the documents, whose scores and ranks differ from question to question."""

    def multi(retriever):
        llm = FakeListChatModel(responses=["What do happy cats do?\nHow do pets show joy?\nSigns of a happy pet"])
        return MultiQueryRetriever.from_llm(retriever=retriever, llm=llm)

    ours = ColBERTRetriever(index=store.index, k=4)
    reranking = ContextualCompressionRetriever(
        base_compressor=ColBERTRerank(model=default_encoder, top_n=4, evidence=True), base_retriever=ours
    )
    for retriever in (ours, ColBERTRetriever(index=store.index, k=4, evidence=True), reranking, store.as_retriever(k=4)):
        assert sorted(found.id for found in multi(retriever).invoke("happy pets")) == ["cats", "dogs", "rust", "tide"]
        assert sorted(found.id for found in await multi(retriever).ainvoke("happy pets")) == ["cats", "dogs", "rust", "tide"]


def test_what_two_retrievers_find_is_equal_whichever_of_them_adds_scores(store):
    ours = ColBERTRetriever(index=store.index, k=2)
    merged = MergerRetriever(retrievers=[ours, store.as_retriever(k=2), BM25(documents=DOCUMENTS)]).invoke("cats purr")
    unique = [document for place, document in enumerate(merged) if document not in merged[:place]]
    assert len(merged) == 8
    assert sorted(document.id for document in unique) == ["cats", "dogs", "rust", "tide"]
    for id_key in (None, "page"):
        both = EnsembleRetriever(retrievers=[ours, BM25(documents=DOCUMENTS)], id_key=id_key)
        assert sorted(document.id for document in both.invoke(QUESTION)) == ["cats", "dogs", "rust", "tide"]


def test_under_a_parent_document_retriever_a_small_piece_finds_the_whole(default_encoder):
    long = Document("Cats purr when they are content.\n\n" + "The tide follows the moon. " * 20, metadata={"title": "mixed"})
    parents = ParentDocumentRetriever(
        vectorstore=ColBERTVectorStore(default_encoder),
        docstore=InMemoryStore(),
        child_splitter=RecursiveCharacterTextSplitter(chunk_size=60, chunk_overlap=0),
        search_kwargs={"k": 1},
    )
    parents.add_documents([long, Document("Rust is a systems programming language.")])
    (found,) = parents.invoke(QUESTION)
    assert found.page_content == long.page_content
    assert found.metadata["title"] == "mixed"
