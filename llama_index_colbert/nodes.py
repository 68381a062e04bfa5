"""Nodes of LlamaIndex as passages of colbert_core, and back."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import BaseNode, IndexNode, MetadataMode, NodeWithScore, TextNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from colbert_core import Passage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from colbert_core import Evidence, Hit


def to_passage(node: BaseNode) -> Passage:
    """A node as LlamaIndex's vector stores keep it: its text for embedding, its metadata, and all of it as JSON.

    ``ref_doc_id`` is the source document in every passage; a node without one is its own. ``doc_id`` and ``document_id``
    are that too, unless the user has metadata of that name.

    Raises:
        ValueError: JSON cannot hold the node.
    """
    if isinstance(node, IndexNode):
        node = node.model_copy(update={"obj": None})
    try:
        metadata = node_to_metadata_dict(node)
        own = {"doc_id", "document_id"} & node.metadata.keys()
        users = node.model_dump(mode="json", include={"metadata"})["metadata"] if own else {}
    except Exception as error:  # pydantic's own, which names no node
        raise ValueError(f"Node {node.node_id!r} cannot be kept as JSON: {error}") from error
    source = node.ref_doc_id or node.node_id
    metadata |= {"ref_doc_id": source, "doc_id": source, "document_id": source} | {key: users[key] for key in own}
    return Passage(node.node_id, node.get_content(MetadataMode.EMBED), metadata)


def to_node(passage: Passage) -> BaseNode:
    """The node that was added; a passage that did not come from LlamaIndex becomes a text node."""
    if {"_node_content", "_node_type"} <= passage.metadata.keys():
        return metadata_dict_to_node(passage.metadata)
    return TextNode(id_=passage.id, text=passage.text, metadata=passage.metadata)


def to_nodes_with_score(hits: Iterable[Hit]) -> list[NodeWithScore]:
    """The nodes that were found, with their relevance, and with their evidence where the search gave some."""
    found = []
    for hit in hits:
        node = to_node(hit.passage)
        if hit.evidence is not None:
            add_hidden_metadata(node, "evidence", _evidence_in(node, hit.passage, hit.evidence))
        found.append(NodeWithScore(node=node, score=hit.relevance))
    return found


def add_hidden_metadata(node: BaseNode, key: str, value: Any) -> None:
    """Metadata for the caller, which neither the text for embedding nor the LLM's shows."""
    node.metadata[key] = value
    for keys in (node.excluded_embed_metadata_keys, node.excluded_llm_metadata_keys):
        if key not in keys:
            keys.append(key)


def copied(node: BaseNode) -> BaseNode:
    """A node whose lists and dicts are its own; an object that an ``IndexNode`` stands for is not copied."""
    parts = ("relationships", "excluded_embed_metadata_keys", "excluded_llm_metadata_keys", "embedding")
    copies = {name: copy.copy(getattr(node, name)) for name in parts}
    return node.model_copy(update={"metadata": copy.deepcopy(node.metadata), **copies})


def _evidence_in(node: BaseNode, passage: Passage, evidence: Evidence) -> dict[str, Any]:
    """The evidence as JSON, its characters counted in the node's own text.

    What was searched is the text for embedding, which begins with metadata; what matched there has no place in the text, and
    keeps its words only. So has everything where a template does not repeat the text as it is.
    """
    found, text = evidence.to_dict(), node.get_content(MetadataMode.NONE)
    offset = passage.text.rfind(text)

    def moved(place: int) -> int:
        return min(max(place - offset, 0), len(text))

    for highlight in found["highlights"]:
        if offset < 0 or not offset <= highlight["start"] <= highlight["end"] <= offset + len(text):
            highlight["start"] = highlight["end"] = None
        else:
            highlight["start"], highlight["end"] = moved(highlight["start"]), moved(highlight["end"])
    found["window"] = None if offset < 0 else [moved(place) for place in found["window"]]
    return found


def without_objects(nodes: Iterable[BaseNode], objects: dict[str, Any]) -> list[BaseNode]:
    """The nodes, with copies of index nodes that leave their objects to ``objects``: JSON could not hold a retriever."""
    kept = []
    for node in nodes:
        if isinstance(node, IndexNode) and node.obj is not None:
            objects[node.index_id] = node.obj
            node = node.model_copy(update={"obj": None})
        kept.append(node)
    return kept
