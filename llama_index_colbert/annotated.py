"""Add metadata to a node for whoever asked for them, so that neither its hash nor a text that a model reads changes.

LlamaIndex merges the results of several retrievers by the hash of a node, which is made of all its metadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import Document, ImageDocument, ImageNode, IndexNode, Node, TextNode

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

_HIDDEN_FROM = ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys")
# For each key that was added: the value that it replaced, if there was one, and the lists that hide it since.
_Before = dict[str, tuple[list[Any], list[str]]]


class _Annotated:
    """A node whose hash is that of the node without what ``annotate`` has added."""

    @property
    def hash(self) -> str:
        return without_annotations(self).hash  # type: ignore[arg-type]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        self._before = (state.get("__pydantic_private__") or {}).get("_before", {})  # LlamaIndex leaves it out


class _AnnotatedNode(_Annotated, Node):
    _before: _Before = PrivateAttr(default_factory=dict)


class _AnnotatedTextNode(_Annotated, TextNode):
    _before: _Before = PrivateAttr(default_factory=dict)


class _AnnotatedIndexNode(_Annotated, IndexNode):
    _before: _Before = PrivateAttr(default_factory=dict)


class _AnnotatedImageNode(_Annotated, ImageNode):
    _before: _Before = PrivateAttr(default_factory=dict)


class _AnnotatedDocument(_Annotated, Document):
    _before: _Before = PrivateAttr(default_factory=dict)


class _AnnotatedImageDocument(_Annotated, ImageDocument):
    _before: _Before = PrivateAttr(default_factory=dict)


_ANNOTATED: dict[type[BaseNode], type[BaseNode]] = {
    Node: _AnnotatedNode,
    TextNode: _AnnotatedTextNode,
    IndexNode: _AnnotatedIndexNode,
    ImageNode: _AnnotatedImageNode,
    Document: _AnnotatedDocument,
    ImageDocument: _AnnotatedImageDocument,
}
_PLAIN = {annotated: plain for plain, annotated in _ANNOTATED.items()}


def annotate(node: BaseNode, key: str, value: Any) -> BaseNode:
    """Return the node with metadata that neither the text for embedding, the text for the LLM nor the hash shows.

    Args:
        node: the node, whose metadata and lists of keys change. A subclass of the user's own has the metadata in its hash.
        key: of the metadata.
        value: ready for JSON.
    """
    if type(node) in _ANNOTATED:
        node = _ANNOTATED[type(node)].model_construct(node.model_fields_set, **node.__dict__)
    shown = [name for name in _HIDDEN_FROM if key not in getattr(node, name)]
    before: _Before | None = getattr(node, "_before", None) if type(node) in _PLAIN else None
    if before is not None and key not in before:
        replaced = [node.metadata[key]] if key in node.metadata else []
        node._before = before | {key: (replaced, shown)}  # type: ignore[attr-defined]
    node.metadata[key] = value
    for name in shown:
        getattr(node, name).append(key)
    return node


def without_annotations(node: BaseNode) -> BaseNode:
    """Return the node as it was before ``annotate``; one that has no annotations is returned itself."""
    if type(node) not in _PLAIN:
        return node
    before: _Before = node._before  # type: ignore[attr-defined]
    parts = dict(node.__dict__)
    kept = [(key, before[key][0] if key in before else [value]) for key, value in node.metadata.items()]
    parts["metadata"] = {key: values[0] for key, values in kept if values}
    for name in _HIDDEN_FROM:
        added = {key for key, (_, hidden) in before.items() if name in hidden}
        parts[name] = [key for key in parts[name] if key not in added]
    return _PLAIN[type(node)].model_construct(node.model_fields_set, **parts)
