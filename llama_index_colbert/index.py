"""``ColBERTIndex``: a LlamaIndex index over an index of colbert_core, whose documents come, change and go."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from llama_index.core import Settings
from llama_index.core.data_structs.data_structs import IndexDict
from llama_index.core.indices.base import BaseIndex
from llama_index.core.ingestion import run_transformations
from llama_index.core.storage.docstore.types import RefDocInfo

from colbert_core import Index, TokenEncoder
from llama_index_colbert import contexts, saved
from llama_index_colbert.contexts import ColBERTStruct
from llama_index_colbert.docstore import IndexDocumentStore
from llama_index_colbert.engines import EngineMaker, refuse_unknown
from llama_index_colbert.filters import of_document
from llama_index_colbert.keywords import StrictUpdates, refuse_keywords
from llama_index_colbert.nodes import copy_documents, take_objects_out, to_node, to_passage
from llama_index_colbert.retriever import ColBERTRetriever
from llama_index_colbert.store import ColBERTVectorStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from llama_index.core import MockEmbedding
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.schema import BaseNode, Document, IndexNode, NodeWithScore, TransformComponent
    from llama_index.core.storage.storage_context import StorageContext
    from llama_index.core.vector_stores.types import MetadataFilters

logger = logging.getLogger(__name__)


class ColBERTIndex(EngineMaker, StrictUpdates, BaseIndex[IndexDict]):
    """Index documents for late interaction; insert, update and delete them at any time.

    Needs no network, no GPU and no API key: without a ``model_name``, the checkpoint that ships with the package encodes.

    Example:
        .. code-block:: python

            index = ColBERTIndex.from_documents(documents)
            query_engine = index.as_query_engine(llm=llm, similarity_top_k=3)
            index.insert(document)
            index.persist("storage")
            index = ColBERTIndex.load("storage")

    ``index.index`` is the index of colbert_core, which holds every node. The docstore holds them as well, for whatever else
    reads a docstore; after ``load`` it reads them from the index. Threads may share one index.
    """

    index_struct_cls = ColBERTStruct
    _retriever_keywords = frozenset(
        (
            "max_characters",
            "mode",
            "text",
            "weight",
            "similarity_top_k",
            "filters",
            "node_ids",
            "doc_ids",
            "evidence",
            "show_progress",
            "callback_manager",
            "object_map",
            "objects",
            "verbose",
        )
    )

    def __repr__(self) -> str:
        return f"ColBERTIndex({self.index!r})"

    def __init__(
        self,
        nodes: Sequence[BaseNode] | None = None,
        objects: Sequence[IndexNode] | None = None,
        index_struct: IndexDict | None = None,
        storage_context: StorageContext | None = None,
        model_name: str | Path | TokenEncoder | None = None,
        index_name: str = "",
        show_progress: bool = False,
        nbits: int | None = None,
        gpus: int = 0,
        ranks: int = 1,
        doc_maxlen: int | None = None,
        query_maxlen: int | None = None,
        kmeans_niters: int = 4,
        *,
        index_path: str | Path | None = None,
        pool_factor: float = 1,
        callback_manager: CallbackManager | None = None,
        transformations: list[TransformComponent] | None = None,
    ) -> None:
        """Index nodes. ``from_documents`` takes documents, ``load`` opens an index on disk.

        Args:
            nodes: the nodes, which are copied; their ids must differ. Where an ``IndexNode`` is found, its object is returned.
            objects: more index nodes.
            index_struct: identity of the index at ``index_path``, or in ``storage_context``, which is opened then; ``load`` and
                LlamaIndex's ``load_index_from_storage`` set it.
            storage_context: its docstore gets the nodes; a vector store in it is not used. Its ``persist`` writes the index as
                well.
            model_name: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
            index_name: tells several indexes in one persist directory apart.
            show_progress: show bars.
            nbits: bits per component of a compressed vector: 1, 2, 4, 8, or 32 for uncompressed vectors; None for 4 on disk
                and 32 in memory. A collection is compressed when it has grown large enough.
            gpus: no effect; the model runs on the best device present.
            ranks: no effect; one process writes, with as many threads as there are cores.
            doc_maxlen: most tokens of a window of a node; None for the checkpoint's number. Longer nodes have several windows.
            query_maxlen: most tokens of a query; None for the checkpoint's number.
            kmeans_niters: no effect; the engine decides how often it improves centroids.
            index_path: a folder to make for an index that is on disk from the start; None for one in memory.
            pool_factor: keep about 1 / pool_factor of each node's vectors, the means of similar ones; 1 keeps all of them.
            callback_manager: as every LlamaIndex index takes it.
            transformations: make nodes of inserted documents; None for those in ``Settings``.

        Raises:
            IndexExistsError: there is something at ``index_path``.
            ValueError: an id stands twice, or arguments do not fit each other.
        """
        self.index_name = index_name
        self.nbits, self.gpus, self.ranks, self.kmeans_niters = nbits, gpus, ranks, kmeans_niters
        self.doc_maxlen, self.query_maxlen = doc_maxlen, query_maxlen
        encoder = _encoder(model_name, doc_maxlen, query_maxlen)
        if index_struct is None:
            if nodes is None and objects is None:
                raise ValueError("Pass nodes=..., which may be empty; from_documents takes documents, load a directory.")
            self.index = Index.create(index_path, encoder, nbits=nbits, pool_factor=pool_factor)
        else:
            self.index = Index.open(index_path or contexts.folder_in(storage_context, index_struct), encoder)
        self.model_name = self.index.encoder_name
        super().__init__(
            nodes=None if index_struct is not None else [*(nodes or []), *(objects or [])],
            index_struct=index_struct,
            storage_context=storage_context,
            show_progress=show_progress,
            callback_manager=callback_manager,
            transformations=transformations,
        )
        if transformations is not None:
            self._transformations = transformations  # because BaseIndex takes [] for None
        contexts.attach(self.index, self._index_struct, self._storage_context)

    @classmethod
    def from_documents(
        cls,
        documents: Sequence[Document],
        storage_context: StorageContext | None = None,
        show_progress: bool = False,
        callback_manager: CallbackManager | None = None,
        transformations: list[TransformComponent] | None = None,
        **kwargs: Any,
    ) -> ColBERTIndex:
        """Split documents into nodes and index them.

        Args:
            documents: the documents, which are not changed.
            storage_context: its docstore gets the nodes and the documents' hashes.
            show_progress: show bars.
            callback_manager: as every LlamaIndex index takes it.
            transformations: make nodes of documents; None for those in ``Settings``.
            kwargs: as in the constructor.

        Raises:
            TypeError: there is no such keyword.
        """
        steps = Settings.transformations if transformations is None else transformations
        nodes = run_transformations(copy_documents(documents), steps, show_progress=show_progress)
        index = cls(
            nodes=nodes,
            storage_context=storage_context,
            show_progress=show_progress,
            callback_manager=callback_manager,
            transformations=transformations,
            **kwargs,
        )
        for document in documents:
            index.docstore.set_document_hash(document.id_, document.hash)
        return index

    @classmethod
    def load(
        cls,
        persist_dir: str | Path,
        index_name: str = "",
        *,
        model_name: str | Path | TokenEncoder | None = None,
        **kwargs: Any,
    ) -> ColBERTIndex:
        """Open an index that ``persist``, the command line or colbert_core wrote. The model is loaded at the first use.

        Args:
            persist_dir: the directory, or the folder of the index itself. Later insertions and deletions are in it at once.
            index_name: the name under which the index was persisted.
            model_name: an encoder that the index cannot load itself; None for the one with which it was made.
            kwargs: ``show_progress``, ``callback_manager``, ``transformations`` and ``storage_context``, whose docstore gets
                all nodes; without one the docstore reads them from the index when it is asked for them.

        Raises:
            IndexNotFoundError: there is no such index.
            EncoderMismatchError: the index was made with another model.
        """
        folder, about = saved.find(persist_dir, index_name or saved.NAME)
        struct = ColBERTStruct(**{key: about[key] for key in ("index_id", "summary") if about.get(key) is not None})
        index = cls(index_struct=struct, index_path=folder, model_name=model_name, index_name=index_name, **kwargs)
        if "storage_context" in kwargs:
            index.docstore.add_documents(index._nodes(index.index.ids()))
        else:
            index._docstore = index._storage_context.docstore = IndexDocumentStore(index.index)
        return index

    @classmethod
    def load_from_disk(cls, persist_dir: str | Path, index_name: str = "") -> ColBERTIndex:
        """``load``, under its name in ``llama-index-indices-managed-colbert``."""
        return cls.load(persist_dir, index_name)

    def persist(self, persist_dir: str | Path) -> None:
        """Write the index into a directory, next to what is there. It replaces only what was persisted under this name.

        The objects of index nodes are not written: give them to the retriever as ``object_map``.

        Raises:
            FileExistsError: the name is taken by something that ``persist`` did not write.
        """
        about = {"index_id": self.index_id, "summary": self.index_struct.summary}
        saved.save(self.index, persist_dir, self.index_name or saved.NAME, **about)

    def as_retriever(
        self,
        similarity_top_k: int = 2,
        filters: MetadataFilters | None = None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> ColBERTRetriever:
        """Make a retriever over this index.

        Args:
            similarity_top_k: nodes to return.
            filters: return only nodes whose metadata match.
            node_ids: return only these nodes.
            doc_ids: return only nodes of these source documents.
            kwargs: ``mode``, ``weight``, ``evidence``, ``text``, ``max_characters`` and ``show_progress`` of
                ``ColBERTRetriever``, the last of which is this index's by default, and ``callback_manager``, ``object_map``,
                ``objects`` and ``verbose``.

        Raises:
            TypeError: there is no such keyword.
            ValueError: there is no such mode or text, or the weight is for another mode.
        """
        refuse_unknown("ColBERTIndex.as_retriever", kwargs, self._retriever_keywords)
        settings: dict[str, Any] = {"callback_manager": self._callback_manager, "show_progress": self._show_progress} | kwargs
        retriever = ColBERTRetriever(self.index, similarity_top_k, filters, node_ids, doc_ids, **settings)
        if "object_map" not in kwargs and "objects" not in kwargs:
            retriever.object_map = self._object_map  # the same dict, so that it sees nodes that are inserted later
        return retriever

    def query(self, query_str: str, top_k: int = 10) -> list[NodeWithScore]:
        """Return the ``top_k`` nodes that match best."""
        return self.as_retriever(top_k).retrieve(query_str)

    @property
    def vector_store(self) -> ColBERTVectorStore:
        """The same nodes as a vector store, for what asks an index for its own, such as ``VectorIndexAutoRetriever``."""
        return ColBERTVectorStore(index=self.index)

    @property
    def _embed_model(self) -> MockEmbedding:  # which LlamaIndex's retrievers take from an index
        return self.vector_store.embed_model

    @property
    def ref_doc_info(self) -> dict[str, RefDocInfo]:
        """The source documents of all nodes, with the ids of their nodes and the metadata of the first."""
        infos: dict[str, RefDocInfo] = {}
        for node in self._nodes(self.index.ids()):
            if node.ref_doc_id is not None:
                info = infos.setdefault(node.ref_doc_id, RefDocInfo(metadata=node.metadata))
                info.node_ids.append(node.node_id)
        return infos

    def build_index_from_nodes(self, nodes: Sequence[BaseNode], **build_kwargs: Any) -> IndexDict:
        """Index nodes; their objects stay out of the docstore."""
        kept = take_objects_out(nodes, self._object_map)
        struct = self._build_index_from_nodes(kept, **build_kwargs)
        self.docstore.add_documents(kept, allow_update=True)  # last: nodes that could not be indexed must not be in it
        return struct

    def insert(self, document: Document, **insert_kwargs: Any) -> None:
        """Split a document into nodes and add them. To replace the nodes of an older version, use ``update_ref_doc``."""
        refuse_keywords("ColBERTIndex.insert", insert_kwargs)
        super().insert(*copy_documents([document]))
        self.docstore.set_document_hash(document.id_, document.hash)  # the hash before a transformation changed it

    async def ainsert(self, document: Document, **insert_kwargs: Any) -> None:
        """``insert``, off the event loop."""
        await asyncio.to_thread(self.insert, document, **insert_kwargs)

    def insert_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> None:
        """Add nodes, replacing those whose id is known; the caller's nodes are not changed."""
        kept = take_objects_out(nodes, self._object_map)
        with self._callback_manager.as_trace("insert_nodes"):
            self._insert(kept, **insert_kwargs)
            self.docstore.add_documents(kept, allow_update=True)

    async def ainsert_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> None:
        """``insert_nodes``, off the event loop."""
        await asyncio.to_thread(self.insert_nodes, nodes, **insert_kwargs)

    def delete_nodes(self, node_ids: Sequence[str], delete_from_docstore: bool = False, **delete_kwargs: Any) -> None:
        """Delete nodes, all in one step; unknown ids are no error.

        Args:
            node_ids: ids of the nodes.
            delete_from_docstore: delete them from the docstore as well, which other indexes may share.
            delete_kwargs: must be empty.

        Raises:
            TypeError: ``node_ids`` is a string.
        """
        refuse_keywords("ColBERTIndex.delete_nodes", delete_kwargs)
        if isinstance(node_ids, str):
            raise TypeError(f"node_ids must be a list of strings, got one str; write [{node_ids!r}].")
        node_ids = list(node_ids)
        nodes = self._nodes(node_ids)
        self.index.delete(node_ids)
        if not delete_from_docstore:
            if isinstance(self.docstore, IndexDocumentStore):  # the index has them no longer
                self.docstore.add_documents(nodes)
            return
        for node_id in node_ids:
            self.docstore.delete_document(node_id, raise_error=False)
        for source in {node.ref_doc_id for node in nodes if node.ref_doc_id is not None}:
            if self.docstore.get_ref_doc_info(source) is None:
                self.docstore.delete_document(source, raise_error=False)

    async def adelete_nodes(
        self,
        node_ids: Sequence[str],
        delete_from_docstore: bool = False,
        **delete_kwargs: Any,
    ) -> None:
        """``delete_nodes``, off the event loop."""
        await asyncio.to_thread(self.delete_nodes, node_ids, delete_from_docstore, **delete_kwargs)

    def delete_ref_doc(self, ref_doc_id: str, delete_from_docstore: bool = False, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document; an unknown one is logged.

        Args:
            ref_doc_id: id of the document.
            delete_from_docstore: delete them from the docstore as well, which other indexes may share.
            delete_kwargs: must be empty.
        """
        refuse_keywords("ColBERTIndex.delete_ref_doc", delete_kwargs)
        node_ids = self.index.ids(of_document(ref_doc_id))
        if not node_ids:
            logger.warning("There are no nodes of a document %r; nothing is deleted.", ref_doc_id)
        self.delete_nodes(node_ids, delete_from_docstore)
        if delete_from_docstore:
            self.docstore.delete_ref_doc(ref_doc_id, raise_error=False)
            self.docstore.delete_document(ref_doc_id, raise_error=False)
        elif node_ids:
            self.docstore.set_document_hash(ref_doc_id, "")  # or refresh_ref_docs would think that the document is still here

    async def adelete_ref_doc(
        self,
        ref_doc_id: str,
        delete_from_docstore: bool = False,
        **delete_kwargs: Any,
    ) -> None:
        """``delete_ref_doc``, off the event loop."""
        await asyncio.to_thread(self.delete_ref_doc, ref_doc_id, delete_from_docstore, **delete_kwargs)

    def refresh_ref_docs(self, documents: Sequence[Document], **update_kwargs: Any) -> list[bool]:
        """Insert documents that are new and update those that have changed, and say which; others cost nothing.

        A document whose nodes were deleted or added otherwise, such as through colbert_core, is noticed.

        Args:
            documents: the documents, known by their ids.
            update_kwargs: LlamaIndex's ``insert_kwargs`` and ``update_kwargs``, which must be empty.

        Raises:
            TypeError: there is another keyword, or one within these.
        """
        for document in documents:
            known, ids = self.docstore.get_document_hash(document.id_), self.index.ids(of_document(document.id_))
            if known is None and ids:
                hashes = [node.source_node.hash for node in self._nodes(ids) if node.source_node is not None]
                self.docstore.set_document_hash(document.id_, next((found for found in hashes if found), ""))
            elif known is not None and not ids and self._had_nodes(document.id_):
                self.docstore.set_document_hash(document.id_, "")
        return super().refresh_ref_docs(documents, **update_kwargs)

    async def arefresh_ref_docs(self, documents: Sequence[Document], **update_kwargs: Any) -> list[bool]:
        """``refresh_ref_docs``, off the event loop."""
        return await asyncio.to_thread(self.refresh_ref_docs, documents, **update_kwargs)

    def _build_index_from_nodes(self, nodes: Sequence[BaseNode], **build_kwargs: Any) -> IndexDict:
        refuse_keywords("ColBERTIndex.build_index_from_nodes", build_kwargs)
        self._insert(nodes)
        return ColBERTStruct(summary="ColBERTIndex")

    def _insert(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> None:
        refuse_keywords("ColBERTIndex.insert_nodes", insert_kwargs)
        self.index.add([to_passage(node) for node in nodes], progress=self._show_progress)

    def _delete_node(self, node_id: str, **delete_kwargs: Any) -> None:
        self.delete_nodes([node_id], **delete_kwargs)

    def _had_nodes(self, ref_doc_id: str) -> bool:
        if isinstance(self.docstore, IndexDocumentStore):
            return self.docstore.noted(ref_doc_id)
        return self.docstore.get_ref_doc_info(ref_doc_id) is not None

    def _nodes(self, ids: Iterable[str]) -> list[BaseNode]:
        return [to_node(passage) for passage in self.index.get(ids) if passage is not None]


contexts.register(ColBERTIndex)


def _encoder(
    model: str | Path | TokenEncoder | None, doc_maxlen: int | None, query_maxlen: int | None
) -> str | Path | TokenEncoder | None:
    if doc_maxlen is None and query_maxlen is None:
        return model
    if isinstance(model, TokenEncoder):
        raise ValueError("A loaded encoder has its lengths already: leave doc_maxlen and query_maxlen out, or name a model.")
    from colbert_core import Encoder  # here, so that importing the package does not import torch

    return Encoder.from_pretrained(model, passage_length=doc_maxlen, query_length=query_maxlen)
