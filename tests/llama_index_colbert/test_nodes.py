"""Nodes on their way to passages and back."""

from __future__ import annotations

import threading

from builders.nodes import ask, ids, node, one
from llama_index.core.schema import (
    Document,
    ImageNode,
    IndexNode,
    NodeWithScore,
    TextNode,
)

from colbert_core import Index, Passage
from llama_index_colbert import ColBERTRerank, ColBERTRetriever


def test_other_nodes_come_back_as_what_they_are(store):
    image = ImageNode(id_="image", text="a picture of a whale", image_url="http://example.org/whale.png")
    store.add([image, Document(id_="doc", text="about whales")])
    found = {n.node_id: n for n in store.get_nodes(["image", "doc"])}
    assert isinstance(found["image"], ImageNode)
    assert found["image"].image_url == image.image_url
    assert found["doc"].get_content() == "about whales"


def test_a_users_own_doc_id_can_be_filtered_by(store):
    store.add([node("own", "a whale sings", "sea.txt", doc_id=7)])
    assert store.query(ask("whale", 9, filters=one("doc_id", 7))).ids == ["own"]
    assert store.query(ask("whale", 9, filters=one("doc_id", "pets.txt"))).ids == ["cat", "dog"]
    assert store.query(ask("whale", 9, doc_ids=["sea.txt"])).ids == ["own"]
    assert store.get_nodes(["own"])[0].metadata == {"doc_id": 7}


def test_metadata_is_encoded_as_the_node_says(words):
    shown = TextNode(id_="shown", text="text", metadata={"author": "Miyazaki"})
    hidden = TextNode(id_="hidden", text="other text", metadata={"author": "Miyazaki"}, excluded_embed_metadata_keys=["author"])
    found = ColBERTRetriever.from_nodes([hidden, shown], model=words).retrieve("author: Miyazaki")
    assert ids(found)[0] == "shown"
    assert found[0].score > found[1].score


def test_passages_from_elsewhere_become_text_nodes(words):
    index = Index.create(None, words)
    index.add([Passage("x", "dog barks", {"page": 7})])
    (found,) = ColBERTRetriever(index).retrieve("dog")
    assert (found.node.node_id, found.node.get_content(), found.node.metadata) == ("x", "dog barks", {"page": 7})


def test_an_object_behind_an_index_node_is_never_copied(words):
    node = IndexNode(text="a dog barks", index_id="sub", obj=threading.Lock())
    (found,) = ColBERTRerank(model=words).postprocess_nodes([NodeWithScore(node=node)], query_str="dog")
    assert found.node.obj is node.obj
    assert found.node is not node
