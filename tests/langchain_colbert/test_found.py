"""What a search says of a document is of this search, does not count in comparisons, and is never indexed."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from builders.documents import DOCUMENTS, ids
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.load import dumps, loads
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langchain_colbert import ColBERTContextCompressor, ColBERTRerank, ColBERTRetriever, ColBERTVectorStore, without_scores

# Keys that a search writes, with values of the user's own, of which some look like those of a search.
TAKEN = {"score": "mine", "relevance_score": 0.5, "rank": 1, "evidence": ["mine"], "colbert": {"score": 3}, "span": [1, 2]}


@pytest.fixture
def retriever(words):
    return ColBERTRetriever.from_documents(DOCUMENTS, model=words, k=5)


def shown(documents):
    return [(one.id, one.metadata["rank"], one.metadata["score"], one.metadata["relevance_score"]) for one in documents]


# Comparing


def test_a_found_document_equals_the_one_that_was_added_from_both_sides(retriever):
    (found,) = retriever.invoke("dog barks", k=1)
    assert found.metadata["rank"] == 1
    assert found == DOCUMENTS[1]
    assert DOCUMENTS[1] == found
    assert (found != DOCUMENTS[1]) is (DOCUMENTS[1] != found) is False
    assert found.metadata == {"page": 2}
    assert found in DOCUMENTS
    assert DOCUMENTS[1] in [found]


def test_found_documents_of_two_questions_are_equal_and_those_with_other_metadata_are_not(retriever):
    first, second = (retriever.invoke(question) for question in ("dog barks", "bird sings"))
    assert ids(first) != ids(second)
    assert sorted(first, key=lambda one: one.id) == sorted(second, key=lambda one: one.id)
    changed = copy.deepcopy(first[0])
    changed.metadata["page"] = 99
    assert changed != first[0]
    assert first[0] != changed
    assert first[0].metadata != {"page": 2, "more": 1}
    assert first[0].metadata != "page"


def test_metadata_equal_what_they_show_as_well(words):
    (found,) = ColBERTRerank(model=words, top_n=1).compress_documents(DOCUMENTS, "bird sings")
    assert found.metadata == {"page": 3, "relevance_score": pytest.approx(1)}
    assert found.metadata == {"page": 3}
    assert found.metadata != {"page": 3, "relevance_score": 0.5}


def test_a_prompt_that_shows_whole_documents_has_each_value_once(retriever):
    (found,) = retriever.invoke("dog barks", k=1)
    assert str(found).count("score") == 2
    assert "colbert" not in str(found)


# Whose values are shown


def test_the_values_are_of_this_search_and_the_users_own_are_kept_beside_them(words):
    document = Document("all dogs bark", metadata={**TAKEN, "page": 1}, id="dogs")
    retriever = ColBERTRetriever.from_documents([document], model=words, evidence=True)
    (found,) = retriever.invoke("dogs bark")
    assert found.metadata["score"] == pytest.approx(2)
    assert found.metadata["relevance_score"] == pytest.approx(1)
    assert found.metadata["rank"] == 1
    assert "highlights" in found.metadata["evidence"]
    ours = found.metadata["colbert"]
    assert {key: found.metadata[key] for key in ("score", "relevance_score", "rank", "evidence")}.items() <= ours.items()
    assert ours["yours"] == {key: value for key, value in TAKEN.items() if key != "span"}
    assert found.metadata["span"] == [1, 2]
    assert found == document
    assert retriever.invoke("dogs", filter={"score": "mine"})
    assert retriever.invoke("dogs", filter=lambda one: one.metadata == document.metadata and one.metadata["score"] == "mine")
    store = ColBERTVectorStore(index=retriever.index)
    assert dict(store.similarity_search("dogs")[0].metadata) == document.metadata


def test_values_are_plain_json_with_and_without_evidence(words):
    for evidence in (False, True):
        retriever = ColBERTRetriever.from_documents(DOCUMENTS, model=words, evidence=evidence)
        metadata = retriever.invoke("dog barks")[0].metadata
        assert type(metadata["score"]) is type(metadata["relevance_score"]) is float
        assert type(metadata["rank"]) is int
        assert dict(json.loads(json.dumps(metadata))) == dict(metadata)


def test_a_reranker_shows_its_own_scores_and_ranks_not_those_of_the_first_stage(retriever, words):
    first = retriever.invoke("dog barks")
    second = ColBERTRerank(model=words, top_n=2).compress_documents(first, "bird sings")
    expected = retriever.invoke("bird sings", k=2)
    assert [(one.id, one.metadata["rank"]) for one in second] == [(one.id, one.metadata["rank"]) for one in expected]
    for key in ("score", "relevance_score"):
        assert [one.metadata[key] for one in second] == pytest.approx([one.metadata[key] for one in expected], abs=1e-3)
    third = ColBERTRerank(model=words, evidence=True).compress_documents(second, "fish swim")
    assert [one.metadata["rank"] for one in third] == [1, 2]
    (again,) = ColBERTRerank(model=words, top_n=1).compress_documents(third, "bird sings")
    assert "evidence" not in again.metadata
    assert again == DOCUMENTS[2]
    plain = ColBERTRerank(model=words, top_n=1).compress_documents(DOCUMENTS, "bird sings")
    assert set(plain[0].metadata) == {"page", "relevance_score", "colbert"}


# Writing back


def with_other_metadata(document):
    return Document(page_content=document.page_content, metadata={**document.metadata}, id=document.id)


def through_a_checkpoint(document):
    serializer = JsonPlusSerializer(allowed_msgpack_modules=[("langchain_core.documents.base", "Document")])
    return serializer.loads_typed(serializer.dumps_typed(document))


COPIES = [
    lambda document: document,
    copy.copy,
    copy.deepcopy,
    with_other_metadata,
    through_a_checkpoint,
    lambda document: pickle.loads(pickle.dumps(document)),
    lambda document: loads(dumps(document), allowed_objects=[Document]),
    lambda document: Document(**document.model_dump()),
    lambda document: Document(**json.loads(document.model_dump_json())),
    lambda document: document.model_copy(deep=True),
]


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
@pytest.mark.parametrize("copied", COPIES)
def test_scores_are_of_this_search_however_what_was_found_came_back(words, copied):
    documents = [*DOCUMENTS, Document("a dog sings", metadata=copy.deepcopy(TAKEN), id="taken")]
    retriever = ColBERTRetriever.from_documents(documents, model=words, k=9, evidence=True)
    before = shown(retriever.invoke("bird sings"))
    for document in retriever.invoke("dog barks"):
        retriever.add_documents([copied(document)])
    assert shown(retriever.invoke("bird sings")) == before
    stored = {passage.id: passage.metadata for passage in retriever.index.get([document.id for document in documents])}
    assert stored == {document.id: document.metadata for document in documents}


def test_what_the_user_changed_in_found_metadata_stays(retriever):
    (found,) = retriever.invoke("dog barks", k=1)
    found.metadata["rank"] = "general"
    found.metadata["seen"] = True
    retriever.add_documents([found])
    assert retriever.index.get(["dog"])[0].metadata == {"page": 2, "rank": "general", "seen": True}
    assert retriever.invoke("dog barks", k=1)[0].metadata["rank"] == 1


def test_every_way_in_takes_out_what_a_search_added(retriever, words):
    found = ColBERTRerank(model=words, evidence=True, top_n=None).compress_documents(retriever.invoke("dog"), "bird")
    texts, metadatas = [one.page_content for one in found], [one.metadata for one in found]
    for made in (
        ColBERTVectorStore.from_documents(found, model=words).index,
        ColBERTVectorStore.from_texts(texts, None, metadatas, ids=ids(found), model=words).index,
        ColBERTRetriever.from_documents(found, model=words).index,
        ColBERTRetriever.from_texts(texts, metadatas, ids=ids(found), model=words).index,
    ):
        assert made.get(ids(DOCUMENTS)) == retriever.index.get(ids(DOCUMENTS))


def test_excerpts_are_known_as_such_and_not_indexed(default_encoder):
    text = "Cats are mammals. They purr when they are content. Many live on farms."
    retriever = ColBERTRetriever.from_texts([text], [{"page": 1}], ids=["cats"], model=default_encoder)
    compressor = ColBERTContextCompressor(model=default_encoder, max_tokens=10)
    (short,) = compressor.compress_documents(retriever.invoke("Why do cats purr?"), "Why do cats purr?")
    assert short.metadata["excerpt_spans"] == short.metadata["colbert"]["excerpt_spans"] == [[18, 50]]
    assert short.metadata["rank"] == 1
    other = ColBERTRetriever.from_documents([short], model=default_encoder)
    assert other.index.get(["cats"])[0].metadata == {"page": 1}


def test_the_indexing_api_knows_a_document_again_whatever_its_scores_are(words):
    store, records = ColBERTVectorStore(words), InMemoryRecordManager(namespace="test")
    records.create_schema()

    def run(documents):
        counts = index(documents, records, store, cleanup="full", source_id_key="page", key_encoder="sha256")
        return [counts[f"num_{what}"] for what in ("added", "skipped", "deleted")]

    assert run(DOCUMENTS) == [5, 0, 0]
    assert run(store.similarity_search("dog barks", k=5)) == [0, 5, 0]
    retriever = ColBERTRetriever(index=store.index, k=5, evidence=True)
    assert run(without_scores(retriever.invoke("bird sings") + retriever.invoke("dog barks"))) == [0, 10, 0]
    added, _, deleted = run(retriever.invoke("bird sings"))
    assert (added, deleted) == (5, 5)  # keys of the scores, which the store never sees
    assert all(set(passage.metadata) == {"page"} for passage in store.index.get(store.index.ids()))


def test_without_scores_gives_documents_back_as_they_were_added(retriever):
    found = retriever.invoke("dog barks")
    (own, *_) = without_scores(found)
    assert type(own.metadata) is dict
    assert own.metadata == {"page": 2}
    added = {"score", "relevance_score", "rank", "coverage", "maxsim_relevance", "colbert"}
    assert set(found[0].metadata) == {"page", *added}
    theirs = Document("x", metadata=copy.deepcopy(TAKEN))
    assert without_scores([theirs]) == [theirs]
