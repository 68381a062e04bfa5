"""``ColBERTRetriever`` of LlamaIndex, alone and in query engines with LlamaIndex's own fake model."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from builders.nodes import ids, nodes
from builders.texts import CATS, RUST
from llama_index.core import MockEmbedding, StorageContext, SummaryIndex, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import TransformRetriever
from llama_index.core.schema import (
    Document,
    IndexNode,
    MetadataMode,
    QueryBundle,
    TextNode,
    TransformComponent,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters

from colbert_core import IndexNotFoundError
from langchain_colbert import ColBERTRetriever as LangChainRetriever
from llama_index_colbert import ColBERTIndex, ColBERTRerank, ColBERTRetriever, ColBERTVectorStore


@pytest.fixture
def retriever(words):
    return ColBERTRetriever.from_nodes(nodes(), similarity_top_k=3, model=words)


def test_the_node_that_matches_comes_first_as_it_was_added(retriever):
    found = retriever.retrieve("dog barks")
    assert ids(found)[0] == "dog"
    assert len(found) == 3
    assert found[0].node == nodes()[1]
    assert found[0].node.ref_doc_id == "animals.txt"
    assert retriever.retrieve("bird sings")[0].node == nodes()[2]


def test_the_score_is_the_relevance_as_a_plain_number(retriever):
    found = retriever.retrieve("dog barks")
    assert type(found[0].score) is float
    assert found[0].score == pytest.approx(1)
    assert 0 <= found[-1].score <= found[0].score
    json.loads(found[0].model_dump_json())
    kept = SimilarityPostprocessor(similarity_cutoff=0.9).postprocess_nodes(found)
    assert ids(kept) == ["dog"]


async def test_top_k_can_be_set_at_any_time_sync_and_async(retriever):
    retriever.similarity_top_k = 1
    assert len(retriever.retrieve("dog")) == len(await retriever.aretrieve("dog")) == 1
    retriever.similarity_top_k = 99
    assert len(retriever.retrieve("dog")) == len(await retriever.aretrieve("dog")) == 4


async def test_async_finds_the_same_and_leaves_the_event_loop_free(retriever, words, monkeypatch):
    expected = retriever.retrieve("dog barks")
    ticked = threading.Event()
    encode = words.encode_queries

    def encode_when_the_loop_has_ticked(texts):
        assert ticked.wait(10), "the search held the event loop"
        return encode(texts)

    monkeypatch.setattr(words, "encode_queries", encode_when_the_loop_has_ticked)
    search = asyncio.create_task(retriever.aretrieve("dog barks"))
    await asyncio.sleep(0.01)
    ticked.set()
    assert await search == expected


def test_white_space_around_the_query_does_not_count(retriever):
    assert retriever.retrieve("\n dog barks\n") == retriever.retrieve("dog barks")


def test_documents_are_split_into_nodes_that_know_their_source(words):
    documents = [Document(id_="a.txt", text="The dog barks. " * 40), Document(id_="b.txt", text="The cat purrs.")]
    splitter = SentenceSplitter(chunk_size=60, chunk_overlap=0)
    found = ColBERTRetriever.from_documents(documents, 99, model=words, transformations=[splitter]).retrieve("cat purrs.")
    assert len(found) > 3
    assert found[0].node.ref_doc_id == "b.txt"
    assert len(ColBERTRetriever.from_documents(documents, 99, model=words).retrieve("dog")) == 2
    assert ids(ColBERTRetriever.from_documents(documents, 9, model=words, transformations=[]).retrieve("dog")) == [
        "a.txt",
        "b.txt",
    ]


def test_adding_a_known_node_replaces_it_and_inputs_are_not_shared(words):
    given = nodes()
    retriever = ColBERTRetriever.from_nodes(given, 99, model=words)
    for scored in retriever.retrieve("dog"):
        scored.node.metadata["page"] = "spoilt"
    assert given == nodes()
    assert "spoilt" not in str(retriever.retrieve("dog"))
    assert retriever.add_nodes([TextNode(id_="dog", text="a whale sings")]) == ["dog"]
    assert ids(retriever.retrieve("whale"))[0] == "dog"
    assert len(retriever.retrieve("whale")) == 4


def test_several_texts_of_one_query_are_averaged(retriever):
    """What HyDE sends: a made-up answer and the question."""
    (cat,) = retriever.index.search("the cat sat", 1)
    texts = ["the cat sat", "dog barks"]
    for mode in ("maxsim", "hybrid", None):
        retriever.mode = mode
        found = retriever.retrieve(QueryBundle("what", custom_embedding_strs=texts))
        by_id = [
            {hit.passage.id: hit.value for hit in retriever.index.search(text, 9, mode=mode or "hybrid")} for text in texts
        ]
        means = {name: (by_id[0][name] + by_id[1][name]) / 2 for name in by_id[0]}
        assert cat.passage.id in ids(found)
        assert ids(found) == sorted(means, key=lambda name: -means[name])[:3]
        assert [scored.score for scored in found] == pytest.approx(sorted(means.values(), reverse=True)[:3])
    (only,) = ColBERTRetriever(retriever.index, 1).retrieve(QueryBundle("what", custom_embedding_strs=["dog barks"]))
    assert only.node.node_id == "dog"


def test_hyde_searches_with_what_the_llm_wrote(retriever):
    class Hypothesis(HyDEQueryTransform):
        def _run(self, query_bundle, metadata):
            return QueryBundle(query_bundle.query_str, custom_embedding_strs=["a bird sings a song"])

    found = TransformRetriever(retriever, Hypothesis()).retrieve("which animal")
    assert ids(found)[0] == "bird"


def test_the_object_of_an_index_node_takes_its_place(words):
    target = TextNode(id_="target", text="all about dogs")
    pointer = IndexNode(text="questions about dogs", index_id="dogs", obj=target)
    made = ColBERTRetriever.from_nodes([*nodes(), pointer], 1, model=words)
    added = ColBERTRetriever.from_nodes(nodes(), 1, model=words)
    added.add_nodes([pointer])
    mapped = ColBERTRetriever.from_nodes(
        [IndexNode(text="questions about dogs", index_id="dogs")], 1, model=words, object_map={"dogs": target}
    )
    for retriever in (made, added, mapped):
        assert ids(retriever.retrieve("questions about dogs")) == ["target"]
    assert pointer.obj is target


def test_transformations_do_not_change_the_documents(words):
    class InPlace(TransformComponent):
        def __call__(self, nodes, **_):
            for node in nodes:
                node.metadata["keyword"] = "added"
            return nodes

    document = Document(id_="a", text="a dog barks", metadata={"page": 1})
    (found,) = ColBERTRetriever.from_documents([document], model=words, transformations=[InPlace()]).retrieve("dog")
    assert found.node.metadata == {"page": 1, "keyword": "added"}
    assert document.metadata == {"page": 1}


def test_one_index_serves_both_frameworks(retriever):
    assert LangChainRetriever(index=retriever.index).invoke("dog barks")[0].id == "dog"


def test_an_empty_collection_finds_nothing(words):
    assert ColBERTRetriever.from_nodes([], model=words).retrieve("dog") == []


def only(key, value, operator="=="):
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


async def test_filters_nodes_and_documents_restrict_before_the_best_are_chosen_sync_and_async(words):
    index = ColBERTRetriever.from_nodes(nodes(), model=words).index
    for restriction, expected in (
        ({"filters": only("page", 2, ">=")}, {"dog", "bird"}),
        ({"filters": only("page", None, "is_empty")}, {"fish"}),
        ({"node_ids": ["fish", "cat", "nobody"]}, {"fish", "cat"}),
        ({"node_ids": []}, set()),
        ({"doc_ids": ["animals.txt"]}, {"dog"}),
        ({"doc_ids": ["animals.txt", "fish"]}, {"dog", "fish"}),  # a node without a source is its own
        ({"doc_ids": []}, set()),
        ({"doc_ids": ["animals.txt"], "node_ids": ["cat"]}, set()),
        ({"doc_ids": ["animals.txt"], "node_ids": ["dog"], "filters": only("page", 2)}, {"dog"}),
    ):
        restricted = ColBERTRetriever(index, 9, **restriction)
        assert set(ids(restricted.retrieve("the cat sat"))) == expected
        assert restricted.retrieve("the cat") == await restricted.aretrieve("the cat")
        several = QueryBundle("the", custom_embedding_strs=["the cat", "a dog"])
        assert set(ids(restricted.retrieve(several))) == expected
    later = ColBERTRetriever(index, 9)
    later.filters = only("page", 3)
    assert ids(later.retrieve("the cat")) == ["bird"]


def stored():
    """A store of text, as most are: an index over it has an empty docstore."""

    class Store(SimpleVectorStore):
        stores_text: bool = True

    return StorageContext.from_defaults(vector_store=Store())


def test_from_defaults_takes_exactly_one_source(words, retriever):
    docstore = SimpleDocumentStore()
    docstore.add_documents(nodes())
    other = SummaryIndex(nodes())
    ours = ColBERTIndex(nodes(), model_name=words)
    for source in (
        {"index": retriever.index},
        {"index": ours},
        {"index": other, "model": words},
        {"nodes": nodes(), "model": words},
        {"docstore": docstore, "model": words},
    ):
        made = ColBERTRetriever.from_defaults(**source, similarity_top_k=1, filters=only("page", 3))
        assert ids(made.retrieve("dog barks")) == ["bird"]
    assert ColBERTRetriever.from_defaults(ours).index is ours.index
    store = ColBERTVectorStore(index=ours.index)
    assert ColBERTRetriever.from_defaults(store.as_index()).index is ours.index
    with pytest.raises(ValueError, match="docstore of the VectorStoreIndex is empty"):
        ColBERTRetriever.from_defaults(VectorStoreIndex(nodes(), embed_model=MockEmbedding(1), storage_context=stored()))
    with pytest.raises(ValueError, match="exactly one of index, nodes and docstore, got none"):
        ColBERTRetriever.from_defaults()
    with pytest.raises(ValueError, match="got nodes and docstore"):
        ColBERTRetriever.from_defaults(nodes=[], docstore=docstore)
    with pytest.raises(ValueError, match="has its own model"):
        ColBERTRetriever.from_defaults(ours, model=words)
    with pytest.raises(TypeError, match="got dict"):
        ColBERTRetriever.from_defaults({"index": 1})
    with pytest.raises(TypeError, match="got ColBERTIndex; from_defaults"):
        ColBERTRetriever(ours)


def test_it_is_persisted_beside_other_things_and_opened_again(retriever, words, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    retriever.persist(tmp_path)
    retriever.persist(tmp_path)
    opened = ColBERTRetriever.from_persist_dir(tmp_path, 3, model=words)
    assert opened.retrieve("dog barks") == retriever.retrieve("dog barks")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    as_index = ColBERTIndex.load(tmp_path, model_name=words)
    assert as_index.query("dog barks", 3) == retriever.retrieve("dog barks")
    with pytest.raises(IndexNotFoundError):
        ColBERTRetriever.from_persist_dir(tmp_path / "nowhere")


def test_empty_texts_among_several_do_not_count(retriever):
    """An LLM may have had nothing to say."""
    found = retriever.retrieve(QueryBundle("dog barks", custom_embedding_strs=[" ", "dog barks\n"]))
    assert found == retriever.retrieve("dog barks")


def test_pickled_and_copied_retrievers_find_the_same_and_copies_share_the_model(stanford):
    retriever = ColBERTRetriever.from_nodes(nodes(), 3, model=stanford, filters=only("page", 1, ">="))
    copied, pickled = copy.deepcopy(retriever), pickle.loads(pickle.dumps(retriever))
    assert copied.index.encoder is stanford
    for other in (copied, pickled):
        assert other.retrieve("the cat") == retriever.retrieve("the cat")


def test_threads_share_a_retriever_while_one_adds(retriever):
    expected = retriever.retrieve("dog barks")
    with ThreadPoolExecutor(8) as pool:
        searches = [pool.submit(retriever.retrieve, "dog barks") for _ in range(40)]
        adds = [pool.submit(retriever.add_nodes, [TextNode(id_=f"n{i}", text="snow falls")]) for i in range(8)]
        assert all(search.result()[0] == expected[0] for search in searches)
        assert [add.result() for add in adds] == [[f"n{i}"] for i in range(8)]


def test_mistakes_are_errors(retriever, words):
    for blank in ("", "  "):
        assert retriever.retrieve(blank) == []
    with pytest.raises(TypeError, match="top_k"):
        ColBERTRetriever.from_nodes(nodes(), model=words, top_k=3)
    with pytest.raises(ValueError, match="stand more than once"):
        ColBERTRetriever.from_nodes([*nodes(), *nodes()], model=words)
    with pytest.raises(ValueError, match="similarity_top_k must be at least 1 and whole, got 0"):
        retriever.similarity_top_k = 0
    with pytest.raises(ValueError, match=r"similarity_top_k must be at least 1 and whole, got 2\.5"):
        retriever.similarity_top_k = 2.5
    with pytest.raises(ValueError, match="Node 'odd' cannot be kept as JSON"):
        retriever.add_nodes([TextNode(id_="odd", text="x", metadata={"object": object()})])
    with pytest.raises(ValueError, match="similarity_top_k must be at least 1 and whole, got -2"):
        ColBERTRetriever(retriever.index, similarity_top_k=-2)


async def test_in_a_query_engine_with_the_reranker_the_text_reaches_the_llm(retriever, words):
    engine = RetrieverQueryEngine.from_args(
        retriever, llm=MockLLM(), node_postprocessors=[ColBERTRerank(model=words, top_n=1)], response_mode="compact"
    )
    response = engine.query("what does a dog do at night")
    assert "a dog barks at night" in str(response)
    assert "the cat sat" not in str(response)
    assert ids(response.source_nodes) == ["dog"]
    assert str(await engine.aquery("what does a dog do at night")) == str(response)


def test_both_are_what_llama_index_expects_them_to_be():
    assert issubclass(ColBERTRetriever, BaseRetriever)
    assert issubclass(ColBERTRerank, BaseNodePostprocessor)
    assert ColBERTRerank(top_n=3).to_dict()["class_name"] == "ColBERTRerank"


def test_retriever_and_reranker_give_the_same_scores(retriever, words):
    found = retriever.retrieve("dog barks")
    again = ColBERTRerank(model=words).postprocess_nodes(found, query_str="dog barks")
    assert ids(again) == ids(found)
    assert [scored.score for scored in again] == pytest.approx([scored.score for scored in found])


def test_class_hierarchies_are_those_of_llama_index_packages():
    assert BaseNodePostprocessor.__name__ in [base.__name__ for base in ColBERTRerank.__mro__]
    assert BaseRetriever.__name__ in [base.__name__ for base in ColBERTRetriever.__mro__]
    assert ColBERTRerank.class_name() == "ColBERTRerank"
    assert ColBERTRerank(top_n=10).top_n == 10


@pytest.fixture
def explaining(default_encoder):
    """A retriever that gives evidence."""
    pets = [TextNode(id_="cats", text=CATS, metadata={"kind": "purring pets"}), TextNode(id_="rust", text=RUST)]
    return ColBERTRetriever.from_nodes(pets, similarity_top_k=1, model=default_encoder, evidence=True)


def test_a_retriever_says_which_words_matched_on_request(explaining):
    (found,) = explaining.retrieve("Why do cats purr?")
    evidence = found.node.metadata["evidence"]
    placed = [one for one in evidence["highlights"] if one["start"] is not None]
    assert any("purr" in one["text"] for one in placed)
    assert all(found.node.text[one["start"] : one["end"]] == one["text"] for one in placed)
    assert evidence["window"] == [0, len(CATS)]
    assert json.loads(json.dumps(evidence)) == evidence
    explaining.evidence = False
    assert "evidence" not in explaining.retrieve("Why do cats purr?")[0].node.metadata


def test_what_matched_in_the_metadata_has_no_place_in_the_text(explaining):
    (found,) = explaining.retrieve("pets of a kind")
    unplaced = [one for one in found.node.metadata["evidence"]["highlights"] if one["start"] is None]
    assert "kind" in " ".join(one["text"] for one in unplaced)


@pytest.mark.parametrize("mode", [MetadataMode.EMBED, MetadataMode.LLM])
def test_evidence_is_kept_out_of_embedding_and_llm_text(explaining, mode):
    (found,) = explaining.retrieve("Why do cats purr?")
    assert "evidence" not in found.node.get_content(mode)
    engine = RetrieverQueryEngine.from_args(explaining, llm=MockLLM())
    assert "similarity" not in str(engine.query("Why do cats purr?"))
