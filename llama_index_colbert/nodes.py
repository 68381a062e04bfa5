"""Translate nodes of LlamaIndex to passages of colbert_core, and back."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import (
    BaseNode,
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
from llama_index.core.vector_stores.utils import node_to_metadata_dict

from colbert_core import Passage, plain_metadata, widen
from llama_index_colbert.annotated import annotate, without_annotations
from llama_index_colbert.ranking import reported
from llama_index_colbert.values import changed_by_json, plain_form, restore

if TYPE_CHECKING:
    from collections.abc import Iterable

    from colbert_core import Evidence, Hit

_CONTENT, _TYPE, _VALUES, _MEDIA = "_node_content", "_node_type", "_node_values", "_node_media"
_SOURCES = ("ref_doc_id", "doc_id", "document_id")
_CLASSES: dict[str, type[BaseNode]] = {
    cls.class_name(): cls for cls in (Document, ImageDocument, ImageNode, IndexNode, Node, TextNode)
}


def to_passage(node: BaseNode) -> Passage:
    """Make a passage of a node, as LlamaIndex's vector stores keep it: text for embedding, metadata, and the node as JSON.

    Metadata of every passage name the source document as ``ref_doc_id``; a node without a source is its own. ``doc_id`` and
    ``document_id`` name it as well, unless the user has metadata of that name.

    Raises:
        ValueError: JSON cannot hold the node.
    """
    node = without_annotations(node)
    if isinstance(node, IndexNode):
        node = node.model_copy(update={"obj": None})
    places = changed_by_json(node.metadata)
    try:
        plain = plain_metadata(node.metadata, "its metadata", default=plain_form)
        metadata = node_to_metadata_dict(node.model_copy(update={"metadata": plain}))
    except Exception as error:  # errors of Pydantic do not name the node
        raise ValueError(f"Node {node.node_id!r} cannot be kept as JSON: {error}") from error
    source = node.ref_doc_id or node.node_id
    metadata |= dict.fromkeys(_SOURCES, source) | {key: plain[key] for key in _SOURCES[1:] if key in plain}
    if places:
        metadata[_VALUES] = json.dumps(places)
    if media := {name: held.data.decode("ascii") for name, held in _media(node) if held.data is not None}:
        metadata[_MEDIA] = json.dumps(media)  # base64, which LlamaIndex's JSON of a node leaves out
    # The text has the metadata as they come back: to_node looks for them in it.
    back = node.model_copy(update={"metadata": restore(copy.deepcopy(plain), places)})
    return Passage(node.node_id, back.get_content(MetadataMode.EMBED), metadata)


def to_node(passage: Passage) -> BaseNode:
    """Return the node that was added; a passage that does not come from LlamaIndex becomes a text node.

    The text and the metadata are those that the passage has now: they may have been changed through colbert_core or LangChain.
    """
    if not {_CONTENT, _TYPE} <= passage.metadata.keys():
        return TextNode(id_=passage.id, text=passage.text, metadata=passage.metadata)
    content = json.loads(passage.metadata[_CONTENT])
    stored, places = content["metadata"], json.loads(passage.metadata.get(_VALUES, "[]"))
    content["metadata"] = restore(copy.deepcopy(stored), places)
    node = _CLASSES.get(passage.metadata[_TYPE], TextNode).from_dict(content)
    node.id_ = passage.id
    media = json.loads(passage.metadata.get(_MEDIA, "{}"))
    for name, held in _media(node):
        held.data = media[name].encode("ascii") if name in media else None
    before = node.get_content(MetadataMode.EMBED)
    now = _metadata_now(passage.metadata, stored, node.ref_doc_id or node.node_id)
    if now != stored:
        node.metadata = restore(now, places)
    if passage.text != before:
        node.set_content(_text_now(passage.text, node, before))
    return node


def _media(node: BaseNode) -> list[tuple[str, MediaResource]]:
    """The text, image, audio and video of a node, with the name of the field."""
    held = [(name, getattr(node, name)) for name in type(node).model_fields]
    return [(name, value) for name, value in held if isinstance(value, MediaResource)]


def _metadata_now(metadata: dict[str, Any], stored: dict[str, Any], source: str) -> dict[str, Any]:
    """The user's metadata of a passage, in the order of the stored ones, without what ``to_passage`` has added."""
    now = {key: value for key, value in metadata.items() if key not in (_CONTENT, _TYPE, _VALUES, _MEDIA)}
    for key in _SOURCES:
        if key in stored and now.get(key) == source:
            now[key] = stored[key]
        elif key not in stored and now.get(key) == source:
            del now[key]
    return {key: now[key] for key in (*stored, *now) if key in now}


def _text_now(text: str, node: BaseNode, before: str) -> str:
    """The node's own text in a changed text for embedding: without the metadata that stand before it."""
    own = node.get_content(MetadataMode.NONE)
    for shown in (before, node.get_content(MetadataMode.EMBED)):
        start, found, end = shown.rpartition(own) if own else ("", "", "")
        if found and (start or end) and text.startswith(start) and text.endswith(end) and len(text) >= len(start) + len(end):
            return text[len(start) : len(text) - len(end)]
    return text


def to_nodes_with_score(hits: Iterable[Hit], max_characters: int | None = None) -> list[NodeWithScore]:
    """Make nodes of hits, with what ranks them, and with their evidence where the search gave some.

    Args:
        hits: what was found.
        max_characters: cut the text of each node to the window that matched, with the sentences around it, as many as fit.
    """
    nodes = []
    for hit in hits:
        node = to_node(hit.passage)
        evidence = None if hit.evidence is None else _evidence_to_dict(node, hit.passage, hit.evidence)
        span = None if max_characters is None else _cut(node, hit, max_characters)
        if span is not None:
            if evidence is not None:
                _shift(evidence, *span["span"])
            if "colbert" not in node.metadata:  # else it is the user's own
                node = annotate(node, "colbert", span)
        if evidence is not None:
            node = annotate(node, "evidence", evidence)
        nodes.append(NodeWithScore(node=node, score=reported(hit)))
    return nodes


def _cut(node: BaseNode, hit: Hit, max_characters: int) -> dict[str, list[int]] | None:
    """Cut a node to the window that matched; return the characters that are left of its text, and those of the window.

    The text stays whole if a template changes it, because the window's place in it is not known then.
    """
    text = node.get_content(MetadataMode.NONE)
    offset = _offset(text, hit.passage)
    if offset < 0 or not text:
        return None
    window = [min(max(place - offset, 0), len(text)) for place in hit.span]
    start, end = widen(text, (window[0], window[1]), max_characters)
    node.set_content(text[start:end])
    return {"span": [start, end], "window": window}


def _shift(evidence: dict[str, Any], start: int, end: int) -> None:
    """Count the characters of evidence in what is left of a text; a match that is not there has no place."""
    for highlight in _places(evidence):
        if highlight["start"] is None or not start <= highlight["start"] <= highlight["end"] <= end:
            highlight["start"] = highlight["end"] = None
        else:
            highlight["start"], highlight["end"] = highlight["start"] - start, highlight["end"] - start
    if evidence["window"] is not None:
        evidence["window"] = [min(max(place, start), end) - start for place in evidence["window"]]


def _places(evidence: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything of evidence that has its place in the text: highlights, and the answers to each word of the query."""
    return [*evidence["highlights"], *(answer for word in evidence["words"] for answer in word["answers"])]


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

    for highlight in _places(as_dict):
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
