"""A docstore that reads its nodes from an index when it is asked for them, so that opening an index reads none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.constants import DATA_KEY, TYPE_KEY
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.storage.docstore.keyval_docstore import (
    DEFAULT_COLLECTION_DATA_SUFFIX,
    DEFAULT_METADATA_COLLECTION_SUFFIX,
    DEFAULT_NAMESPACE,
    DEFAULT_REF_DOC_COLLECTION_SUFFIX,
)
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.storage.kvstore.types import DEFAULT_COLLECTION

from llama_index_colbert.filters import of_document
from llama_index_colbert.nodes import to_node

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_index.core.schema import BaseNode

    from colbert_core import Index

_NODES = DEFAULT_NAMESPACE + DEFAULT_COLLECTION_DATA_SUFFIX
_SOURCES = DEFAULT_NAMESPACE + DEFAULT_REF_DOC_COLLECTION_SUFFIX
_HASHES = DEFAULT_NAMESPACE + DEFAULT_METADATA_COLLECTION_SUFFIX


class IndexDocumentStore(SimpleDocumentStore):
    """A docstore that has the nodes of an index, now and later, and whatever else is put into it."""

    def __init__(self, index: Index) -> None:
        super().__init__(_IndexKVStore(index))

    def noted(self, ref_doc_id: str) -> bool:
        """Whether nodes of a source were put here, even if the index has lost them since."""
        collection: dict[str, Any] = self._kvstore._get_collection_mapping(_SOURCES)  # type: ignore[attr-defined]
        return ref_doc_id in collection


class _IndexKVStore(SimpleKVStore):
    """What a docstore keeps: what the index says, and what was put here. A node that both have is that of the index."""

    def __init__(self, index: Index) -> None:
        super().__init__()
        self._index = index
        self._deleted: set[tuple[str, str]] = set()  # here, though the index has them

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._index, self._deleted = state["_index"], state["_deleted"]

    def put(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        self._deleted.discard((collection, key))
        if collection == _NODES and self._nodes([key]):
            self._get_collection_mapping(collection).pop(key, None)
        else:
            super().put(key, val, collection)

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        indexed = None if (collection, key) in self._deleted else self._indexed(key, collection)
        return _merged(collection, indexed, self._put(collection).get(key))

    def get_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        return self._everything(collection, "python")

    def delete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        there = self.get(key, collection) is not None
        super().delete(key, collection)
        if self._indexed(key, collection) is not None:
            self._deleted.add((collection, key))
        return there

    def to_dict(self) -> dict[str, Any]:
        collections = dict.fromkeys((_NODES, _HASHES, _SOURCES, *self._collections_mappings))
        return {collection: self._everything(collection, "json") for collection in collections}

    def persist(self, persist_path: str, fs: Any = None) -> None:
        SimpleKVStore(self.to_dict()).persist(persist_path, fs)

    def _indexed(self, key: str, collection: str) -> dict[str, Any] | None:
        if collection == _NODES:
            return next((_as_dict(node, "python") for node in self._nodes([key])), None)
        if collection in (_HASHES, _SOURCES):
            parts = self._nodes(self._index.ids(of_document(key)))
            own = self._nodes([key]) if collection == _HASHES else []
            return _derived([*own, *parts], collection, "python").get(key)
        return None

    def _everything(self, collection: str, mode: str) -> dict[str, dict[str, Any]]:
        put = self._put(collection)
        nodes = self._nodes(self._index.ids()) if collection in (_NODES, _HASHES, _SOURCES) else []
        if collection == _NODES:
            indexed = {node.node_id: _as_dict(node, mode) for node in nodes}
        else:
            indexed = _derived(nodes, collection, mode)
        shown = {key: value for key, value in indexed.items() if (collection, key) not in self._deleted}
        merged = {key: _merged(collection, shown.get(key), put.get(key)) for key in (*shown, *put)}
        return {key: value for key, value in merged.items() if value is not None}

    def _put(self, collection: str) -> dict[str, dict[str, Any]]:
        """What was put here; of the nodes of a source, those that are still here, as the index notes its own."""
        put = super().get_all(collection)
        if collection == _SOURCES:
            here = self._get_collection_mapping(_NODES)
            put = {key: info | {"node_ids": [i for i in info["node_ids"] if i in here]} for key, info in put.items()}
            put = {key: info for key, info in put.items() if info["node_ids"]}
        return put

    def _nodes(self, ids: Iterable[str]) -> list[BaseNode]:
        passages = self._index.get(ids)
        return [to_node(p) for p in passages if p is not None and (_NODES, p.id) not in self._deleted]


def _as_dict(node: BaseNode, mode: str) -> dict[str, Any]:
    return {DATA_KEY: node.to_dict(mode=mode), TYPE_KEY: node.get_type()}


def _derived(nodes: list[BaseNode], collection: str, mode: str) -> dict[str, dict[str, Any]]:
    """What a docstore notes of nodes: the nodes of their sources, or the hashes of both."""
    found: dict[str, dict[str, Any]] = {}
    if collection == _SOURCES:
        for node in nodes:
            if node.ref_doc_id is not None:
                info = found.setdefault(node.ref_doc_id, {"node_ids": [], "metadata": {}})
                info["node_ids"].append(node.node_id)
                info["metadata"] |= node.to_dict(mode=mode, include={"metadata"})["metadata"]
    elif collection == _HASHES:
        for node in nodes:
            found[node.node_id] = {"doc_hash": node.hash}
            if node.ref_doc_id is not None:
                found[node.node_id]["ref_doc_id"] = node.ref_doc_id
        for node in nodes:  # refresh_ref_docs compares the hash of the source to see whether a document has changed
            if node.source_node is not None and node.source_node.hash is not None:
                found[node.source_node.node_id] = {"doc_hash": node.source_node.hash}
    return found


def _merged(collection: str, indexed: dict[str, Any] | None, put: dict[str, Any] | None) -> dict[str, Any] | None:
    if indexed is None or put is None:
        return put if indexed is None else indexed
    if collection == _NODES:
        return indexed
    if collection == _SOURCES:
        return indexed | {"node_ids": list(dict.fromkeys([*indexed["node_ids"], *put["node_ids"]]))}
    return put
