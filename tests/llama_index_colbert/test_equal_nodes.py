"""Nodes that come back are equal to those that were added, and a change through another door is what comes back."""

from __future__ import annotations

import copy
import datetime
import decimal
import enum
import pathlib
import pickle
import uuid

import numpy
import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import (
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeWithScore,
    TextNode,
)

from colbert_core import Passage
from langchain_colbert import ColBERTVectorStore as LangChainStore
from llama_index_colbert import ColBERTIndex, ColBERTRerank, ColBERTRetriever, ColBERTVectorStore

VALUES = {
    "tuple": (1, "two", (3, [4])),
    "list": [{"inner": (1,)}],
    "set": {1},
    "frozenset": frozenset({"a"}),
    "datetime": datetime.datetime(2026, 11, 29, 7, 30, tzinfo=datetime.UTC),
    "date": datetime.date(2026, 11, 29),
    "time": datetime.time(7, 30),
    "uuid": uuid.UUID(int=7),
    "decimal": decimal.Decimal("1.10"),
    "path": pathlib.Path("a/b.txt"),
    "bytes": b"abc",
    "int keys": {1: "a", 2: (1, 2)},
    "float": 1.0,
    "none": None,
    "key.with.dots": (1,),
}


class Kind(enum.Enum):
    PET = "pet"


class Own(BaseRetriever):
    """Any retriever that returns the user's own nodes, such as BM25."""

    def __init__(self, nodes):
        self.nodes = nodes
        super().__init__()

    def _retrieve(self, query_bundle):
        return [NodeWithScore(node=node, score=1 / rank) for rank, node in enumerate(self.nodes, 1)]


def each_kind():
    return [
        TextNode(id_="text", text="the cat purrs", metadata=VALUES),
        Node(id_="node", text_resource=MediaResource(text="the dog barks"), metadata={"pair": (1, 2)}),
        Document(id_="document", text="a bird sings", metadata={"pair": (1, 2)}),
        IndexNode(id_="index", text="rain falls", index_id="i", metadata={"pair": (1, 2)}),
        ImageNode(id_="image", text="snow lies", image_url="http://example.org/a.png"),
        ImageDocument(id_="image document", text="wind blows", image_resource=MediaResource(data=b"pixels")),
    ]


def test_every_kind_of_node_comes_back_with_its_class_values_and_hash(words):
    nodes = each_kind()
    index = ColBERTIndex(nodes, model_name=words)
    found = {scored.node.node_id: scored.node for scored in index.query("cat", 9)}
    for node in nodes:
        back = found[node.node_id]
        assert (type(back), back.metadata, back.hash) == (type(node), node.metadata, node.hash)
        assert back.get_content(MetadataMode.ALL) == node.get_content(MetadataMode.ALL)


@pytest.mark.parametrize("mode", ["reciprocal_rerank", "relative_score", "dist_based_score", "simple"])
@pytest.mark.parametrize("evidence", [False, True])
def test_fusion_with_another_retriever_merges_equal_nodes(words, mode, evidence):
    nodes = each_kind()
    ours = ColBERTRetriever.from_nodes(nodes, 9, model=words, evidence=evidence)
    fusion = QueryFusionRetriever([ours, Own(nodes)], num_queries=1, mode=mode, similarity_top_k=20, use_async=False)
    assert sorted(scored.node.node_id for scored in fusion.retrieve("cat purrs")) == sorted(node.node_id for node in nodes)


@pytest.mark.parametrize("copied", [lambda node: node, copy.deepcopy, lambda node: pickle.loads(pickle.dumps(node))])
def test_what_is_added_for_the_caller_changes_no_hash_and_no_text(words, copied):
    nodes = each_kind()
    explaining = ColBERTRetriever.from_nodes(nodes, 9, model=words, evidence=True)
    reranker = ColBERTRerank(top_n=9, model=words, keep_retrieval_score=True)
    by_id = {node.node_id: node for node in nodes}
    for scored in reranker.postprocess_nodes(explaining.retrieve("cat purrs"), query_str="cat purrs"):
        node, original = copied(scored.node), by_id[scored.node.node_id]
        assert {"evidence", "retrieval_score"} <= node.metadata.keys()
        assert node.hash == original.hash
        assert isinstance(node, type(original))
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert node.get_content(mode) == original.get_content(mode)


def test_a_users_own_metadata_of_that_name_are_part_of_the_hash(words):
    node = TextNode(id_="a", text="the cat purrs", metadata={"evidence": "a letter", "year": 2020})
    (scored,) = ColBERTRetriever.from_nodes([node], 1, model=words, evidence=True).retrieve("cat")
    assert scored.node.hash == node.hash


def test_what_was_added_for_the_caller_is_neither_indexed_nor_reranked(words):
    node = TextNode(id_="a", text="the cat purrs", metadata={"kind": "pet", "evidence": "a letter"})
    (scored,) = ColBERTRetriever.from_nodes([node], 1, model=words, evidence=True).retrieve("cat")
    (back,) = ColBERTRetriever.from_nodes([scored.node], 1, model=words).retrieve("cat")
    assert back.node == node
    everything = ColBERTRerank(model=words, metadata_mode=MetadataMode.ALL)
    plain = everything.postprocess_nodes([NodeWithScore(node=node)], query_str="cat")
    assert everything.postprocess_nodes([scored], query_str="cat")[0].score == plain[0].score


# Changes through another door


def pets():
    return [
        TextNode(id_="c", text="the cat purrs", metadata={"kind": "pet", "pair": (1, 2), "gone": True}),
        TextNode(id_="d", text="the dog barks", metadata={"kind": "pet"}, excluded_embed_metadata_keys=["kind"]),
    ]


@pytest.mark.parametrize("node_id", ["c", "d"])
def test_what_langchain_changes_is_what_comes_back(words, node_id):
    index = ColBERTIndex(pets(), model_name=words)
    (document,) = LangChainStore(index=index.index).get_by_ids([node_id])
    document.page_content = document.page_content.replace("the cat purrs", "a bird sings").replace(
        "the dog barks", "a bird sings"
    )
    document.metadata |= {"kind": "wild", "new": 1}
    document.metadata.pop("gone", None)
    LangChainStore(index=index.index).add_documents([document])
    node = index.query("bird sings", 1)[0].node
    kept = {"pair": (1, 2)} if node_id == "c" else {}
    assert (node.node_id, node.text) == (node_id, "a bird sings")
    assert node.metadata == {"kind": "wild", **kept, "new": 1}


def test_what_the_core_writes_anew_is_what_comes_back(words):
    index = ColBERTIndex(pets(), model_name=words)
    (passage,) = index.index.get(["c"])
    index.index.add([Passage("c", "a bird sings", passage.metadata | {"kind": "wild", "doc_id": "mine"})])
    node = index.query("bird sings", 1)[0].node
    assert node.text == "a bird sings"
    assert node.metadata == {"kind": "wild", "pair": (1, 2), "gone": True, "doc_id": "mine"}
    index.index.add([Passage("c", "a bird sings", {"only": "this"})])
    assert index.query("bird sings", 1)[0].node.metadata == {"only": "this"}


def test_only_the_metadata_changed(words):
    index = ColBERTIndex(pets(), model_name=words)
    (passage,) = index.index.get(["c"])
    index.index.add([Passage("c", passage.text, passage.metadata | {"kind": "wild", "pair": [3]})])
    node = index.query("cat purrs", 1)[0].node
    assert (node.text, node.metadata) == ("the cat purrs", {"kind": "wild", "pair": (3,), "gone": True})


def test_an_index_node_in_a_vector_store_index_keeps_its_object_and_shows_a_change(words):
    store = ColBERTVectorStore(words)
    index = store.as_index()
    index.insert_nodes(
        [IndexNode(id_="p", text="all about dogs", index_id="x", obj=TextNode(id_="target", text="the dog barks"))]
    )
    index.insert_nodes([IndexNode(id_="q", text="all about birds", index_id="y", metadata={"kind": "wild"})])
    (passage,) = store.index.get(["q"])
    store.index.add([Passage("q", passage.text.replace("birds", "zebras"), passage.metadata | {"kind": "tame"})])
    dogs, zebras = (index.as_retriever(similarity_top_k=1).retrieve(query)[0].node for query in ("dogs", "zebras"))
    assert (dogs.node_id, zebras.node_id) == ("target", "q")
    assert (zebras.text, zebras.metadata) == ("all about zebras", {"kind": "tame"})


def test_a_refreshed_document_replaces_a_change_made_elsewhere_once_it_has_changed_itself(words):
    document = Document(id_="doc", text="the cat purrs")
    index = ColBERTIndex.from_documents([document], model_name=words, transformations=[])
    (passage,) = index.index.get(["doc"])
    index.index.add([Passage("doc", "a bird sings", passage.metadata)])
    assert index.refresh_ref_docs([document]) == [False]
    assert index.query("bird", 1)[0].node.get_content() == "a bird sings"
    assert index.refresh_ref_docs([Document(id_="doc", text="the dog barks")]) == [True]
    assert index.query("dog", 1)[0].node.get_content() == "the dog barks"


def test_values_that_have_no_json_of_their_own_leave_the_text_of_a_node_alone(words):
    values = {"gone": float("nan"), "n": numpy.float32(1.5), "took": datetime.timedelta(minutes=2), "kind": Kind.PET}
    node = TextNode(id_="a", text="the cat purrs", metadata=values)
    (back,) = made_of([node], words).get_nodes()
    assert (back.text, back.metadata) == ("the cat purrs", {"gone": None, "n": 1.5, "took": 120.0, "kind": "pet"})
    assert node.metadata is not back.metadata
    assert node.metadata["kind"] is Kind.PET


def test_a_decimal_number_is_filtered_as_a_number_and_comes_back_with_its_digits(words):
    store = made_of([TextNode(id_="a", text="the cat purrs", metadata={"price": decimal.Decimal("1.10")})], words)
    assert store.index.ids({"price": {"$lt": 1.2}}) == ["a"]
    (passage,) = store.index.get(["a"])
    store.index.add([Passage("a", passage.text, passage.metadata | {"price": 2.5})])
    (back,) = store.get_nodes(["a"])
    assert str(back.metadata["price"]) == "2.5"
    old = passage.metadata | {"price": "1.10", "_node_values": '[[["price"], "Decimal"]]'}
    store.index.add([Passage("a", passage.text, old)])  # as it was kept before decimal numbers were numbers
    (back,) = store.get_nodes(["a"])
    assert str(back.metadata["price"]) == "1.10"


def test_what_neither_knows_is_refused_by_the_name_of_its_node(words):
    with pytest.raises(ValueError, match="Node 'a' cannot be kept as JSON: .*object"):
        made_of([TextNode(id_="a", text="the cat purrs", metadata={"x": object()})], words)


def made_of(nodes, words):
    store = ColBERTVectorStore(words)
    store.add(nodes)
    return store
