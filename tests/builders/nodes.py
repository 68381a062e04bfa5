"""Nodes of LlamaIndex that several tests retrieve or rerank, and the queries and filters for them."""

from __future__ import annotations

from llama_index.core.schema import Document, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery


def nodes():
    found = [
        TextNode(id_="cat", text="the cat sat on the mat", metadata={"page": 1}),
        TextNode(id_="dog", text="a dog barks at night", metadata={"page": 2}),
        TextNode(id_="bird", text="a bird sings a song", metadata={"page": 3, "nested": {"a": [1, None]}}),
        TextNode(id_="fish", text="fish swim in the sea"),
    ]
    found[1].relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="animals.txt")
    return found


def ids(found):
    return [scored.node.node_id for scored in found]


def node(node_id, text, source=None, **metadata):
    made = TextNode(id_=node_id, text=text, metadata=metadata, excluded_embed_metadata_keys=list(metadata))
    if source is not None:
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=source)
    return made


def stored_nodes():
    """From two sources, with metadata that only filters see."""
    return [
        node("cat", "the cat sat on the mat", "pets.txt", year=2020, tags=["fur", "claws"]),
        node("dog", "a dog barks at night", "pets.txt", year=2021, tags=["fur"]),
        node("bird", "a bird sings a song", "wild.txt", year="unknown"),
        node("fish", "fish swim in the sea"),
    ]


def ask(text, k=10, **fields):
    return VectorStoreQuery(query_str=text, similarity_top_k=k, **fields)


def one(key, value=None, operator="=="):
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def documents():
    return [
        Document(id_="a.txt", text="The dog barks. " * 40, metadata={"year": 2020}),
        Document(id_="b.txt", text="The cat purrs.", metadata={"year": 2021}),
        Document(id_="c.txt", text="A bird sings.", metadata={"year": 2022}),
    ]


def sources(found):
    return [scored.node.ref_doc_id for scored in found]


def texts(index, source):
    """The text of every node of a source, as the docstore has it."""
    return [
        passage.metadata["_node_content"] and index.docstore.get_node(passage.id).get_content()
        for passage in index.index.get(index.index.ids({"ref_doc_id": source}))
    ]
