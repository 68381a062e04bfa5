"""``ColBERTVectorStore``: an index of colbert_core in the place of a LlamaIndex vector store."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_serializer
from llama_index.core.retrievers import VectorIndexRetriever
from llama_index.core.schema import IndexNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from colbert_core import Collections, IndexBase, IndexNotFoundError, TokenEncoder, hits_of_blank_query, open_or_create
from llama_index_colbert import saved
from llama_index_colbert.engines import EngineMaker, refuse_unknown
from llama_index_colbert.filters import of_document, to_where
from llama_index_colbert.keywords import StrictUpdates, refuse_keywords
from llama_index_colbert.nodes import to_node, to_passage
from llama_index_colbert.postprocessor import name_of
from llama_index_colbert.ranking import ranking_of, refuse_of_other_modes, reported

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle

    from colbert_core import Hit

logger = logging.getLogger(__name__)
_MAKING = threading.Lock()  # one for all: a lock inside a store would keep it from being copied and pickled
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_MAKING._at_fork_reinit)  # type: ignore[attr-defined]
_OF_INDEX = (
    "transformations",
    "callback_manager",
    "show_progress",
    "insert_batch_size",
    "objects",
    "use_async",
    "store_nodes_override",
)


class ColBERTVectorStore(BasePydanticVectorStore):
    """Store nodes for an ``IngestionPipeline`` or a ``VectorStoreIndex``, and search them by late interaction.

    Example:
        .. code-block:: python

            store = ColBERTVectorStore()
            pipeline = IngestionPipeline(
                transformations=[SentenceSplitter(), store.embed_model], docstore=docstore, vector_store=store
            )
            pipeline.run(documents=documents)
            query_engine = store.as_index().as_query_engine(llm=llm)

    It reads the text of nodes and queries, and no embeddings. LlamaIndex gives a store only nodes that have an embedding, so
    end a pipeline with ``embed_model``, which computes nothing. ``similarities`` are what ranks: relevances, and where
    words count relevances plus the weighted part of the query's words that a node has; 1 is reported for what is above 1. The
    store copies nodes that go in and out. A node whose id is known replaces the old one. Threads may share one store.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    stores_text: bool = True
    is_embedding_query: bool = False
    flat_metadata: bool = False
    model: str | Path | TokenEncoder | None = Field(
        default=None, description="A checkpoint's name or folder, or a loaded encoder; None for the model in the box."
    )
    path: str | Path | None = Field(default=None, description="The folder of the index; None for one in memory.")
    collection_name: str | None = Field(
        default=None, description="A collection in the folder, which holds several then; None is an index in it."
    )
    show_progress: bool | None = Field(
        default=None,
        description="Show bars; False shows none, None shows them on a terminal or in a notebook once a second has passed.",
    )
    _index: IndexBase | None = PrivateAttr(default=None)

    def __init__(
        self,
        model: str | Path | TokenEncoder | None = None,
        path: str | Path | None = None,
        index: IndexBase | None = None,
        collection_name: str | None = None,
        **fields: Any,
    ) -> None:
        """Open a store, or name the folder of one that nodes are still to be added to.

        Args:
            model: a checkpoint's name or folder, or a loaded encoder. None is the model in the box for a new index, and the
                model with which it was made for an index on disk.
            path: folder of the index; None for one in memory. Adding nodes makes it if it is not there, and until then a
                search in it is an error: its name may be mistyped.
            index: the index to search, instead of another; retrievers may share it.
            collection_name: a collection in the folder ``path``, which holds several then, such as one for each tenant: see
                ``colbert_core.Collections``. None is an index in the folder itself.
            fields: ``show_progress``, and fields of every LlamaIndex vector store.

        Raises:
            EncoderMismatchError: the index was made with another model.
            TypeError: ``index`` is something else.
            ValueError: a collection is named without a folder.
        """
        if collection_name is not None and path is None:
            raise ValueError(f"collection_name={collection_name!r} needs path=, the folder of the collections.")
        if index is not None and not isinstance(index, IndexBase):
            raise TypeError(f"index must be an Index of colbert_core, got {type(index).__name__}.")
        fields |= {"model": model, "path": path, "collection_name": collection_name}
        super().__init__(**fields)
        self._index = index
        if index is None and (path is None or self._folder().exists()):
            self._make()

    @property
    def index(self) -> IndexBase:
        """The index to search; others may share it.

        Raises:
            IndexNotFoundError: its folder is not there, and nothing was added.
        """
        if self._index is None:
            if not self._folder().exists():
                raise IndexNotFoundError(
                    f"There is no folder {self._folder()}, so there is nothing to search, get or delete; check its name, or "
                    "add nodes, which makes it."
                )
            self._make()
        assert self._index is not None
        return self._index

    def _folder(self) -> Path:
        folder = Path(str(self.path)).expanduser()
        return folder if self.collection_name is None else Collections(folder).folder_of(self.collection_name)

    def _make(self) -> None:
        with _MAKING:
            if self._index is None:
                self._index = open_or_create(None if self.path is None else self._folder(), self.model)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized pipelines."""
        return "ColBERTVectorStore"

    @field_serializer("model", "path")
    def _serialized(self, value: str | Path | TokenEncoder | None) -> str | None:
        return name_of(value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings and the index: one in memory with all nodes, one on disk by its folder."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return _unpickled, (type(self), fields | {"index": self._index})

    def __repr__(self) -> str:
        return (
            f"ColBERTVectorStore({str(self.path)!r}, nothing added)"
            if self._index is None
            else f"ColBERTVectorStore({self._index!r})"
        )

    __str__ = __repr__

    @classmethod
    def from_persist_dir(
        cls, persist_dir: str | Path, namespace: str = "default", model: str | Path | TokenEncoder | None = None
    ) -> ColBERTVectorStore:
        """Open an index that ``persist``, or a ``StorageContext`` with this store, wrote into a directory.

        Args:
            persist_dir: the directory. Nodes that are added later are in it at once.
            namespace: the namespace of the store in its ``StorageContext``.
            model: an encoder that the index cannot load itself; None for the one with which it was made.

        Raises:
            IndexNotFoundError: there is no such index.
        """
        folder, _ = saved.find(persist_dir, f"{namespace}__vector_store")
        return cls(model, folder)

    def persist(self, persist_path: str | Path, fs: Any = None) -> None:
        """Write the index to the folder whose name is that of the file ``persist_path``, ending in ``.idx``.

        Raises:
            FileExistsError: something is there that ``persist`` did not write.
            ValueError: ``fs`` is not a file system of this machine.
        """
        if fs is not None and "file" not in (fs.protocol if isinstance(fs.protocol, (list, tuple)) else [fs.protocol]):
            raise ValueError(f"An index is written to a folder of this machine, not to {fs.protocol!r}; copy it from there.")
        path = Path(persist_path)
        saved.save(self.index, path.parent, path.stem)

    @property
    def client(self) -> IndexBase:
        """The index."""
        return self.index

    @property
    def embed_model(self) -> MockEmbedding:
        """An embedding model that computes nothing, for where LlamaIndex insists on one."""
        return MockEmbedding(embed_dim=1)

    def as_index(self, **kwargs: Any) -> VectorStoreIndex:
        """Make a ``VectorStoreIndex`` over this store that needs no embedding model.

        Args:
            kwargs: arguments of ``VectorStoreIndex``, such as ``transformations``.

        Raises:
            TypeError: there is no such argument.
        """
        refuse_unknown("as_index", kwargs, _OF_INDEX)
        return _StoreIndex.from_vector_store(self, embed_model=self.embed_model, **kwargs)

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Add nodes, replacing those whose id is known, and return their ids in order."""
        refuse_keywords("ColBERTVectorStore.add", kwargs)
        if self._index is None:
            self._make()
        return self.index.add([to_passage(node) for node in nodes], progress=self.show_progress)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a source document; an unknown one is no error."""
        refuse_keywords("ColBERTVectorStore.delete", delete_kwargs)
        self.index.delete_where(of_document(ref_doc_id))

    def delete_nodes(
        self, node_ids: Sequence[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by ids, by filters, or by both at once; unknown ids are no error.

        Raises:
            ValueError: there are neither ids nor filters; ``clear`` deletes everything.
        """
        refuse_keywords("ColBERTVectorStore.delete_nodes", delete_kwargs)
        if node_ids is None and not (filters and filters.filters):
            raise ValueError("delete_nodes needs node_ids=... or filters=...; clear() deletes everything.")
        if filters is None:
            self.index.delete(node_ids or [])
        elif node_ids is None:
            self.index.delete_where(to_where(filters) or {})
        else:
            self.index.delete(self._choose(node_ids, filters))

    def get_nodes(self, node_ids: Sequence[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Return the nodes with these ids, in their order, without unknown ones; without ids, all that the filters match."""
        return [to_node(passage) for passage in self.index.get(self._choose(node_ids, filters)) if passage is not None]

    def clear(self) -> None:
        """Delete all nodes."""
        self.index.clear()

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find nodes by the text of a query; its embedding does not matter.

        A blank text, which an LLM sends where only metadata count, gives the first nodes that the filters or ids let through,
        in the order in which they were added, with a similarity of 0; without any of these it gives none, and the log warns.

        Args:
            query: a query in mode ``DEFAULT``, ``HYBRID``, ``TEXT_SEARCH``, ``SPARSE`` or ``MMR``. An empty list of
                ``node_ids`` means no restriction, because LlamaIndex's indexes send it for none.

                ``DEFAULT`` ranks as ``HYBRID`` without ``alpha`` if the index has words, else by the relevance; ``MMR`` by the
                relevance. ``HYBRID`` ranks by relevance + weight * how much of the query's words a node has, where the weight
                is 0.1 * (1 - ``alpha``) / ``alpha``, at most 1: an ``alpha`` of 0.5 is a weight of 0.1, which suits sentences,
                1 is meaning alone, 0 words alone; None is a weight of 0.1 to 0.5, by how rare the words are. ``TEXT_SEARCH``
                and ``SPARSE`` rank by words alone, and load no model. They return ``sparse_top_k`` nodes, and ``HYBRID``
                ``hybrid_top_k``, where these are given.
            kwargs: for MMR, ``mmr_threshold`` from 0 (as different as possible) to 1 (as relevant as possible), 0.5 by
                default; and ``mmr_prefetch_k``, or ``mmr_prefetch_factor``, 4 by default: how many nodes to choose from. If
                a query transform made several texts, these are the best on average, and the first text chooses among them.

        Raises:
            TypeError: there is no such keyword.
            ValueError: the query has no text, another mode, or an ``alpha`` that is not from 0 to 1; or it asks an index that
                was made without words for them.
            UnsupportedIndexError: it asks for the words of an index that was made before there were any.
        """
        if query.query_str is None:
            raise ValueError("ColBERTVectorStore searches by text: set query_str of the VectorStoreQuery.")
        k, ranked_by = ranking_of(query, self.index)
        given = query.texts if isinstance(query, _Query) else []
        texts = [text.strip() for text in given if text.strip()] or [query.query_str.strip()]
        restrictions: dict[str, Any] = {"where": to_where(query.filters, query.doc_ids), "ids": query.node_ids or None}
        blank = hits_of_blank_query(self.index, texts, k, **restrictions)
        if query.mode == VectorStoreQueryMode.MMR:
            settings = {"mmr_threshold": query.mmr_threshold, "mmr_prefetch_k": None, "mmr_prefetch_factor": 4} | kwargs
            refuse_keywords(
                "ColBERTVectorStore.query in mode mmr",
                settings.keys() - {"mmr_threshold", "mmr_prefetch_k", "mmr_prefetch_factor"},
            )
            fetch_k = settings["mmr_prefetch_k"] or int(k * settings["mmr_prefetch_factor"])
            weight = 0.5 if settings["mmr_threshold"] is None else settings["mmr_threshold"]
            if blank is None and len(texts) > 1:
                candidates = self.index.search_mean(texts, max(k, fetch_k), **restrictions)
                restrictions = {"ids": [hit.passage.id for hit in candidates]}
            hits = blank
            if hits is None:
                hits = self.index.search_diverse(texts[0], k, max(k, fetch_k), weight, **restrictions)
        else:
            refuse_keywords("ColBERTVectorStore.query", kwargs)
            hits = self.index.search_mean(texts, k, **restrictions, **ranked_by) if blank is None else blank
        if not hits and not len(self.index):
            logger.warning("The ColBERTVectorStore is empty. A pipeline that fills it ends with its embed_model.")
        return _to_result(hits)

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """``add``, off the event loop."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """``delete``, off the event loop."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: Sequence[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """``delete_nodes``, off the event loop."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aget_nodes(self, node_ids: Sequence[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """``get_nodes``, off the event loop."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def aclear(self) -> None:
        """``clear``, off the event loop."""
        await asyncio.to_thread(self.clear)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """``query``, off the event loop."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    def _choose(self, node_ids: Sequence[str] | None, filters: MetadataFilters | None) -> Sequence[str]:
        if isinstance(node_ids, str):
            raise TypeError(f"node_ids must be a list of strings, got one str; write [{node_ids!r}].")
        if node_ids is not None and filters is None:
            return node_ids
        matching = self.index.ids(to_where(filters))
        if node_ids is None:
            return matching
        allowed = set(matching)
        return [node_id for node_id in node_ids if node_id in allowed]


@dataclass
class _Query(VectorStoreQuery):
    """A query with all texts that a query transform such as HyDE made, of which LlamaIndex's own keeps one."""

    texts: list[str] = field(default_factory=list)


class _StoreRetriever(VectorIndexRetriever):
    """LlamaIndex's own asks a store that takes no embeddings for the question alone; this one for what to search by."""

    def _build_vector_store_query(self, query_bundle_with_embeddings: QueryBundle) -> VectorStoreQuery:
        query = super()._build_vector_store_query(query_bundle_with_embeddings)
        return _Query(**vars(query), texts=query_bundle_with_embeddings.embedding_strs)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await self._aget_nodes_with_embeddings(query_bundle)

    def _insert_fetched_nodes_into_query_result(
        self, query_result: VectorStoreQueryResult, fetched_nodes: list[BaseNode]
    ) -> Sequence[BaseNode]:
        """Take of the docstore's nodes only the objects: the store's own may have been changed since."""
        objects = {node.node_id: node.obj for node in fetched_nodes if isinstance(node, IndexNode)}
        for node in query_result.nodes or []:
            if isinstance(node, IndexNode):
                node.obj = objects.get(node.node_id)
        return query_result.nodes or []


class _StoreIndex(EngineMaker, StrictUpdates, VectorStoreIndex):
    """LlamaIndex's own restricts retrieval to index and image nodes once one was inserted; this one retrieves all nodes."""

    _retriever_keywords = frozenset(
        (
            *("similarity_top_k", "filters", "node_ids", "doc_ids", "vector_store_query_mode", "vector_store_kwargs"),
            *("alpha", "hybrid_top_k", "sparse_top_k", "callback_manager", "object_map", "verbose"),
        )
    )

    def as_retriever(self, **kwargs: Any) -> VectorIndexRetriever:
        method = "as_retriever of a ColBERTVectorStore's index"
        refuse_unknown(method, kwargs, self._retriever_keywords)
        refuse_of_other_modes(method, kwargs)
        own: dict[str, Any] = {"callback_manager": self._callback_manager, "object_map": self._object_map}
        return _StoreRetriever(self, **(own | kwargs))


def _to_result(hits: list[Hit]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=[to_node(hit.passage) for hit in hits],
        similarities=[reported(hit) for hit in hits],
        ids=[hit.passage.id for hit in hits],
    )


def _unpickled(cls: Callable[..., ColBERTVectorStore], fields: dict[str, Any]) -> ColBERTVectorStore:
    return cls(**fields)
