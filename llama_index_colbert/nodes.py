"""Translate nodes of LlamaIndex to passages of colbert_core, and back."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import BaseNode, IndexNode, MetadataMode, NodeWithScore, TextNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from colbert_core import Passage, widen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_index.core.schema import Document

    from colbert_core import Evidence, Hit


def to_passage(node: BaseNode) -> Passage:
    """Make a passage of a node, as LlamaIndex's vector stores keep it: text for embedding, metadata, and the node as JSON.

    Metadata of every passage name the source document as ``ref_doc_id``; a node without a source is its own. ``doc_id`` and
    ``document_id`` name it as well, unless the user has metadata of that name.

    Raises:
        ValueError: JSON cannot hold the node.
    """
    if isinstance(node, IndexNode):
        node = node.model_copy(update={"obj": None})
    try:
        metadata = node_to_metadata_dict(node)
        own = {"doc_id", "document_id"} & node.metadata.keys()
        users = node.model_dump(mode="json", include={"metadata"})["metadata"] if own else {}
    except Exception as error:  # errors of Pydantic do not name the node
        raise ValueError(f"Node {node.node_id!r} cannot be kept as JSON: {error}") from error
    source = node.ref_doc_id or node.node_id
    metadata |= {"ref_doc_id": source, "doc_id": source, "document_id": source} | {key: users[key] for key in own}
    return Passage(node.node_id, node.get_content(MetadataMode.EMBED), metadata)


def to_node(passage: Passage) -> BaseNode:
    """Return the node that was added; a passage that does not come from LlamaIndex becomes a text node."""
    if {"_node_content", "_node_type"} <= passage.metadata.keys():
        return metadata_dict_to_node(passage.metadata)
    return TextNode(id_=passage.id, text=passage.text, metadata=passage.metadata)


def to_nodes_with_score(hits: Iterable[Hit], max_characters: int | None = None) -> list[NodeWithScore]:
    """Make nodes of hits, with their relevance, and with their evidence where the search gave some.

    Args:
        hits: what was found.
        max_characters: cut the text of each node to the window that matched, with the sentences around it, as many as fit.
    """
    nodes = []
    for hit in hits:
        node = to_node(hit.passage)
        evidence = None if hit.evidence is None else _evidence_to_dict(node, hit.passage, hit.evidence)
        span = None if max_characters is None else _cut(node, hit, max_characters)
        if evidence is not None:
            if span is not None:
                _shift(evidence, *span)
            add_hidden_metadata(node, "evidence", evidence)
        nodes.append(NodeWithScore(node=node, score=hit.relevance))
    return nodes


def _cut(node: BaseNode, hit: Hit, max_characters: int) -> tuple[int, int] | None:
    """Cut a node to the window that matched, and return the characters that are left of its text.

    The text stays whole if a template changes it, because the window's place in it is not known then.
    """
    text = node.get_content(MetadataMode.NONE)
    offset = _offset(text, hit.passage)
    if offset < 0 or not text:
        return None
    window = [min(max(place - offset, 0), len(text)) for place in hit.span]
    start, end = widen(text, (window[0], window[1]), max_characters)
    node.set_content(text[start:end])
    if "colbert" not in node.metadata:  # else it is the user's own
        add_hidden_metadata(node, "colbert", {"span": [start, end], "window": window})
    return start, end


def _shift(evidence: dict[str, Any], start: int, end: int) -> None:
    """Count the characters of evidence in what is left of a text; a match that is not there has no place."""
    for highlight in evidence["highlights"]:
        if highlight["start"] is None or not start <= highlight["start"] <= highlight["end"] <= end:
            highlight["start"] = highlight["end"] = None
        else:
            highlight["start"], highlight["end"] = highlight["start"] - start, highlight["end"] - start
    if evidence["window"] is not None:
        evidence["window"] = [min(max(place, start), end) - start for place in evidence["window"]]


def add_hidden_metadata(node: BaseNode, key: str, value: Any) -> None:
    """Add metadata for the caller that neither the text for embedding nor the text for the LLM shows."""
    node.metadata[key] = value
    for keys in (node.excluded_embed_metadata_keys, node.excluded_llm_metadata_keys):
        if key not in keys:
            keys.append(key)


def copy_node(node: BaseNode) -> BaseNode:
    """Copy a node with its lists and dicts, but not the object that an ``IndexNode`` stands for."""
    parts = ("relationships", "excluded_embed_metadata_keys", "excluded_llm_metadata_keys", "embedding")
    copies = {name: copy.copy(getattr(node, name)) for name in parts}
    return node.model_copy(update={"metadata": copy.deepcopy(node.metadata), **copies})


def _evidence_to_dict(node: BaseNode, passage: Passage, evidence: Evidence) -> dict[str, Any]:
    """Return evidence ready for JSON, with characters counted in the node's own text.

    The search read the text for embedding, which begins with metadata. A match in the metadata has no place in the node's text:
    it keeps its words, and start and end are None. The same holds for all matches if a template changes the text.
    """
    as_dict, text = evidence.to_dict(), node.get_content(MetadataMode.NONE)
    offset = _offset(text, passage)

    def move(place: int) -> int:
        return min(max(place - offset, 0), len(text))

    for highlight in as_dict["highlights"]:
        if offset < 0 or not offset <= highlight["start"] <= highlight["end"] <= offset + len(text):
            highlight["start"] = highlight["end"] = None
        else:
            highlight["start"], highlight["end"] = move(highlight["start"]), move(highlight["end"])
    as_dict["window"] = None if offset < 0 else [move(place) for place in as_dict["window"]]
    return as_dict


def _offset(text: str, passage: Passage) -> int:
    """Return the place of a node's own text in the text for embedding, whose end LlamaIndex strips; -1 if it is not there."""
    return passage.text.rfind(text if text in passage.text else text.rstrip() or text)


def copy_documents(documents: Iterable[Document]) -> list[Document]:
    """Copy documents before they are transformed, because extractors change them in place."""
    return [document.model_copy(deep=True) for document in documents]


def take_objects_out(nodes: Iterable[BaseNode], objects: dict[str, Any]) -> list[BaseNode]:
    """Move the objects of index nodes to ``objects``, because JSON cannot hold a retriever, and return copies without them."""
    kept = []
    for node in nodes:
        if isinstance(node, IndexNode) and node.obj is not None:
            objects[node.index_id] = node.obj
            node = node.model_copy(update={"obj": None})
        kept.append(node)
    return kept
