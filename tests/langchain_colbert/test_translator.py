"""Filters that a language model writes, and LangChain's retrievers that keep dates."""

from __future__ import annotations

import asyncio
import datetime
import json

import pytest
from builders.encoders import WordEncoder
from langchain_classic.chains.query_constructor.schema import AttributeInfo
from langchain_classic.retrievers import TimeWeightedVectorStoreRetriever
from langchain_classic.retrievers.self_query.base import SelfQueryRetriever
from langchain_core.documents import Document
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import FakeListChatModel
from langchain_core.structured_query import Comparator, Comparison, Operation, Operator, StructuredQuery

from langchain_colbert import ColBERTTranslator, ColBERTVectorStore

FILMS = {
    "a": {
        "genre": "drama",
        "year": 1994,
        "score": 8.5,
        "tags": ["prison", "hope"],
        "out": datetime.date(1994, 9, 23),
        "seen": True,
    },
    "b": {
        "genre": "comedy",
        "year": 1998,
        "score": 7.9,
        "tags": ["bowling"],
        "out": "1998-03-06T20:00:00+01:00",
        "seen": False,
    },
    "c": {
        "genre": "drama",
        "year": 2010,
        "score": 8.1,
        "tags": [],
        "out": datetime.datetime(2010, 1, 15, 19, 30),
        "dc.title": "Sea",
    },
    "d": {"genre": "Science Drama", "year": 2010, "out": "soon", "dc": {"title": "Land"}},
}
FIELDS = [
    AttributeInfo(name=name, description="of a film", type=kind)
    for name, kind in {
        "genre": "string", "year": "integer", "score": "float", "tags": "list[string]", "out": "date", "seen": "boolean",
        "dc.title": "string",
    }.items()
]  # fmt: skip


@pytest.fixture(scope="module")
def store():
    words = WordEncoder()
    return ColBERTVectorStore.from_texts(["the cat sat"] * 4, metadatas=[*FILMS.values()], ids=[*FILMS], model=words)


def ask(store, written, query="cat", **more):
    """What LangChain's own retriever finds when the model writes this filter."""
    llm = FakeListChatModel(responses=[f"```json\n{json.dumps({'query': query, 'filter': written} | more)}\n```"])
    return SelfQueryRetriever.from_llm(
        llm, store, "films", FIELDS, structured_query_translator=ColBERTTranslator(), enable_limit=True
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("NO_FILTER", "abcd"),
        ('eq("genre", "drama")', "ac"),
        ('ne("genre", "drama")', "bd"),
        ('eq("seen", true)', "a"),
        ('eq("seen", False)', "b"),
        ('gt("year", 1998)', "cd"),
        ('gte("score", 8.1)', "ac"),
        ('lt("year", 1998)', "a"),
        ('lte("year", 1998)', "ab"),
        ('in("genre", ["drama", "comedy"])', "abc"),
        ('in("genre", "comedy")', "b"),
        ('nin("genre", ["drama", "comedy"])', "d"),
        ('contain("tags", "hope")', "a"),
        ('contain("tags", ["hope", "prison"])', "a"),
        ('contain("genre", "drama")', "acd"),
        ('like("genre", "%drama")', "acd"),
        ('like("genre", "science%drama")', "d"),
        ('like("out", "1994-09-23")', "a"),
        ('eq("out", "1994-09-23")', "a"),
        ('eq("out", "2010-01-15T19:30:00Z")', "c"),
        ('gte("out", "1998-03-06")', "bc"),
        ('gt("out", "1998-03-06T19:00:00")', "c"),
        ('lt("out", "1998-03-06T19:00:01")', "ab"),
        ('ne("out", "1994-09-23")', "bcd"),
        ('in("out", ["1994-09-23", "2010-01-15T19:30:00"])', "ac"),
        ('nin("out", ["1994-09-23", "2010-01-15T19:30:00"])', "bd"),
        ('in("dc.title", ["Sea", "Land"])', "cd"),
        ('and(eq("genre", "drama"), gt("year", 2000))', "c"),
        ('or(eq("genre", "comedy"), gt("year", 2000))', "bcd"),
        ('not(eq("genre", "drama"))', "bd"),
        ('and(or(eq("year", 1994), eq("year", 2010)), not(and(eq("genre", "drama"), gte("out", "2000-01-01"))))', "ad"),
    ],
)
def test_what_a_model_writes_finds_what_it_means(store, written, expected):
    found = ask(store, written).invoke("films")
    assert "".join(sorted(document.id for document in found)) == expected
    assert "".join(sorted(document.id for document in asyncio.run(ask(store, written).ainvoke("films")))) == expected


def test_a_limit_and_the_keywords_of_a_search_count_as_well(store):
    (best,) = ask(store, 'eq("genre", "drama")', limit=1).invoke("films")
    assert best.metadata["genre"] == "drama"
    retriever = ask(store, 'eq("genre", "drama")').model_copy(update={"search_kwargs": {"k": 1, "mode": "words"}})
    assert len(retriever.invoke("films")) == 1


def test_each_comparator_and_operator_is_offered_to_the_model(store):
    asked = []

    class Model(FakeListChatModel):
        def _call(self, messages, *arguments, **keywords):
            asked.append(messages[0].content)
            return super()._call(messages, *arguments, **keywords)

    llm = Model(responses=['```json\n{"query": "cat", "filter": "NO_FILTER"}\n```'])
    SelfQueryRetriever.from_llm(llm, store, "films", FIELDS, structured_query_translator=ColBERTTranslator()).invoke("films")
    assert "(eq | ne | gt | gte | lt | lte | contain | like | in | nin)" in asked[0]
    assert "(and | or | not)" in asked[0]


def translated(comparator, name, value):
    return Comparison(comparator, name, value).accept(ColBERTTranslator())


def test_names_and_several_arguments_are_translated_as_they_are_meant():
    assert translated(Comparator.EQ, "$a\\b", 1) == {"\\$a\\\\b": {"$eq": 1}}
    nothing_of = Operation(Operator.NOT, [Comparison(Comparator.EQ, "a", 1), Comparison(Comparator.EQ, "b", 2)])
    assert nothing_of.accept(ColBERTTranslator()) == {"$not": {"$or": [{"a": {"$eq": 1}}, {"b": {"$eq": 2}}]}}
    assert ColBERTTranslator().visit_structured_query(StructuredQuery("cat", None)) == ("cat", {})
    day = {"date": "2024-01-31", "type": "date"}
    assert translated(Comparator.IN, "a", [day, 1]) == {"a": {"$in": [datetime.date(2024, 1, 31), 1]}}


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ({"date": "2024-13-45", "type": "date"}, ValueError, "compares with a date that is none: {'date': '2024-13-45'"),
        ({"datetime": 3, "type": "datetime"}, ValueError, "compares with a date that is none"),
        ({"type": "date"}, ValueError, "compares with a date that is none"),
    ],
)
def test_a_date_that_is_none_is_refused(value, error, message):
    with pytest.raises(error, match=message):
        translated(Comparator.GT, "a", value)


def test_like_takes_strings_only(store):
    with pytest.raises(TypeError, match="like compares the field 'year' with a string, got int: 3"):
        ask(store, 'like("year", 3)').invoke("films")


def test_a_field_or_function_that_was_not_described_is_langchains_own_error(store):
    with pytest.raises(OutputParserException, match="invalid attributes"):
        ask(store, 'eq("price", 3)').invoke("films")


def test_a_retriever_weighted_by_time_keeps_its_dates_in_the_store(words):
    store = ColBERTVectorStore(words)
    retriever = TimeWeightedVectorStoreRetriever(vectorstore=store, decay_rate=0.5, k=1)
    now = datetime.datetime.now()
    old = Document("the cat sat", metadata={"last_accessed_at": now - datetime.timedelta(days=2)}, id="old")
    retriever.add_documents([old])
    retriever.add_documents([Document("the dog barks", id="new")])
    assert [document.page_content for document in retriever.invoke("dog barks")] == ["the dog barks"]
    retriever.decay_rate = 1e-9
    (found,) = retriever.invoke("cat sat")
    assert found.page_content == "the cat sat"
    assert found.metadata["last_accessed_at"] >= now
    kept = {document.id: document.metadata for document in store.get_by_ids(["old", "new"])}
    assert kept["old"]["last_accessed_at"] == (now - datetime.timedelta(days=2)).isoformat()
    (recent,) = store.similarity_search("cat", filter={"last_accessed_at": {"$gte": now - datetime.timedelta(hours=1)}})
    assert recent.id == "new"
    assert [found.page_content for found in asyncio.run(retriever.ainvoke("dog barks"))] == ["the dog barks"]
