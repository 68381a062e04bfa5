"""``ColBERTVectorStore``: an index of colbert_core where LlamaIndex wants a vector store."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.bridge.pydantic import ConfigDict, Field, field_serializer
from llama_index.core.retrievers import VectorIndexRetriever
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from colbert_core import Index, TokenEncoder
from llama_index_colbert import saved
from llama_index_colbert.filters import to_where
from llama_index_colbert.nodes import to_node, to_passage
from llama_index_colbert.postprocessor import named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_index.core.schema import BaseNode

    from colbert_core import Hit

logger = logging.getLogger(__name__)


class ColBERTVectorStore(BasePydanticVectorStore):
    """A store that searches by late interaction, for an ``IngestionPipeline`` or a ``VectorStoreIndex``.

    Example:
        .. code-block:: python

            store = ColBERTVectorStore()
            pipeline = IngestionPipeline(
                transformations=[SentenceSplitter(), store.embed_model], docstore=docstore, vector_store=store
            )
            pipeline.run(documents=documents)
            query_engine = store.as_index().as_query_engine(llm=llm)

    It reads the text of nodes and queries, and no embeddings. LlamaIndex hands a store only nodes that have one, so the
    last transformation of a pipeline is ``embed_model``, which computes nothing. ``similarities`` are relevances, from 0 to
    1. Nodes go in and come out as copies; one whose id is known replaces the old one. Threads may share one store.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    stores_text: bool = True
    is_embedding_query: bool = False
    flat_metadata: bool = False
    model: str | Path | TokenEncoder | None = Field(
        default=None, description="A checkpoint's name or folder, or a loaded encoder; None for the model in the box."
    )
    path: str | Path | None = Field(default=None, description="The folder of the index; None for one in memory.")
    index: Index = Field(exclude=True, description="What is searched; it may be shared.")

    def __init__(
        self,
        model: str | Path | TokenEncoder | None = None,
        path: str | Path | None = None,
        index: Index | None = None,
        **fields: Any,
    ) -> None:
        """Make an empty store, or open one.

        Args:
            model: a checkpoint's name or folder, or a loaded encoder; None for the model in the box, and for the one that
                an index on disk was made with.
            path: the folder of the index, made if it is not there; None for one in memory.
            index: take this one; it may be shared with retrievers.
            fields: of every LlamaIndex vector store.

        Raises:
            EncoderMismatchError: the index was made with another model.
        """
        if index is None:
            there = path is not None and Path(path).exists()
            index = Index.open(Path(str(path)), model) if there else Index.create(path, model)
        fields |= {"model": model, "path": path, "index": index}
        super().__init__(**fields)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized pipelines."""
        return "ColBERTVectorStore"

    @field_serializer("model", "path")
    def _serialized(self, value: str | Path | TokenEncoder | None) -> str | None:
        return named(value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by its settings and its index: in memory with all nodes, on disk by its folder."""
        return _unpickled, (type(self), {name: getattr(self, name) for name in type(self).model_fields})

    @classmethod
    def from_persist_dir(
        cls, persist_dir: str | Path, namespace: str = "default", model: str | Path | TokenEncoder | None = None
    ) -> ColBERTVectorStore:
        """Open what ``persist``, or a ``StorageContext`` with this store, wrote into a directory.

        Args:
            persist_dir: the directory; what is added later is in it at once.
            namespace: under which a ``StorageContext`` had the store.
            model: an encoder that the index cannot load itself; None for the one it was made with.

        Raises:
            IndexNotFoundError: there is no such index.
        """
        folder, _ = saved.find(persist_dir, f"{namespace}__vector_store")
        return cls(model, folder)

    def persist(self, persist_path: str | Path, fs: Any = None) -> None:
        """Write the index next to ``persist_path``, a file's name, of which the ending becomes ``.idx``.

        Raises:
            FileExistsError: something is there that ``persist`` did not write.
            ValueError: ``fs`` is not on this machine.
        """
        if fs is not None and "file" not in (fs.protocol if isinstance(fs.protocol, (list, tuple)) else [fs.protocol]):
            raise ValueError(f"An index is written to a folder of this machine, not to {fs.protocol!r}; copy it from there.")
        path = Path(persist_path)
        saved.save(self.index, path.parent, path.stem)

    @property
    def client(self) -> Index:
        """The index."""
        return self.index

    @property
    def embed_model(self) -> MockEmbedding:
        """Where LlamaIndex insists on an embedding model: one that computes nothing."""
        return MockEmbedding(embed_dim=1)

    def as_index(self, **kwargs: Any) -> VectorStoreIndex:
        """A ``VectorStoreIndex`` over this store, that needs no embedding model.

        Args:
            kwargs: of ``VectorStoreIndex``, such as ``transformations``.
        """
        return _StoreIndex.from_vector_store(self, embed_model=self.embed_model, **kwargs)

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Add nodes, replacing those whose id is known, and return their ids in order."""
        _take_none("add", kwargs)
        return self.index.add([to_passage(node) for node in nodes])

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a source document; an unknown one is no error."""
        _take_none("delete", delete_kwargs)
        self.index.delete_where({"ref_doc_id": ref_doc_id})

    def delete_nodes(
        self, node_ids: Sequence[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by id, by filters, or those to which both apply; unknown ids are no error.

        Raises:
            ValueError: there are neither ids nor filters, which might be meant to delete everything.
        """
        _take_none("delete_nodes", delete_kwargs)
        if node_ids is None and not (filters and filters.filters):
            raise ValueError("delete_nodes needs node_ids=... or filters=...; clear() deletes everything.")
        if filters is None:
            self.index.delete(node_ids or [])
        elif node_ids is None:
            self.index.delete_where(to_where(filters) or {})
        else:
            self.index.delete(self._chosen(node_ids, filters))

    def get_nodes(self, node_ids: Sequence[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """The nodes with these ids, in their order, unknown ones left out; without ids, all that the filters match."""
        return [to_node(passage) for passage in self.index.get(self._chosen(node_ids, filters)) if passage is not None]

    def clear(self) -> None:
        """Delete all nodes."""
        self.index.clear()

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find nodes by the text of a query, whose embedding does not matter.

        Args:
            query: in mode ``DEFAULT`` or ``MMR``. An empty list of ``node_ids`` is the same as none: LlamaIndex's indexes
                send it when they mean that.
            kwargs: for MMR, ``mmr_threshold`` from 0 (as different as possible) to 1 (as relevant as possible), 0.5 by
                default, and ``mmr_prefetch_k`` or ``mmr_prefetch_factor``, 4 by default, for how many nodes are chosen from.

        Raises:
            TypeError: there is no such keyword.
            ValueError: the query has no text, or another mode.
        """
        if query.query_str is None:
            raise ValueError("ColBERTVectorStore searches by text: set query_str of the VectorStoreQuery.")
        text, k = query.query_str.strip(), query.similarity_top_k
        restrictions: dict[str, Any] = {"where": to_where(query.filters, query.doc_ids), "ids": query.node_ids or None}
        if query.mode == VectorStoreQueryMode.MMR:
            settings = {"mmr_threshold": query.mmr_threshold, "mmr_prefetch_k": None, "mmr_prefetch_factor": 4} | kwargs
            _take_none("query in mode mmr", settings.keys() - {"mmr_threshold", "mmr_prefetch_k", "mmr_prefetch_factor"})
            fetch_k = settings["mmr_prefetch_k"] or int(k * settings["mmr_prefetch_factor"])
            weight = 0.5 if settings["mmr_threshold"] is None else settings["mmr_threshold"]
            hits = self.index.search_diverse(text, k, max(k, fetch_k), weight, **restrictions)
        elif query.mode == VectorStoreQueryMode.DEFAULT:
            _take_none("query", kwargs)
            hits = self.index.search(text, k, **restrictions)
        else:
            raise ValueError(f"ColBERTVectorStore has the query modes 'default' and 'mmr', not {query.mode!s}.")
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

    def _chosen(self, node_ids: Sequence[str] | None, filters: MetadataFilters | None) -> Sequence[str]:
        if node_ids is not None and filters is None:
            return node_ids
        matching = self.index.ids(to_where(filters))
        if node_ids is None:
            return matching
        allowed = set(matching)
        return [node_id for node_id in node_ids if node_id in allowed]


class _StoreIndex(VectorStoreIndex):
    """LlamaIndex's own looks at nothing but the index and image nodes once it has been given one."""

    def as_retriever(self, **kwargs: Any) -> VectorIndexRetriever:
        own: dict[str, Any] = {"callback_manager": self._callback_manager, "object_map": self._object_map}
        return VectorIndexRetriever(self, **(own | kwargs))


def _to_result(hits: list[Hit]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=[to_node(hit.passage) for hit in hits],
        similarities=[hit.relevance for hit in hits],
        ids=[hit.passage.id for hit in hits],
    )


def _take_none(verb: str, kwargs: Any) -> None:
    if kwargs:
        raise TypeError(f"ColBERTVectorStore.{verb} takes no keyword {sorted(kwargs)[0]!r}.")


def _unpickled(cls: Callable[..., ColBERTVectorStore], fields: dict[str, Any]) -> ColBERTVectorStore:
    return cls(**fields)
