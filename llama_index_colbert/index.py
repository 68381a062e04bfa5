"""``ColBERTIndex``: an index of colbert_core as a LlamaIndex index, with documents that come, change and go."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any

from llama_index.core import Settings
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.data_structs.data_structs import IndexDict
from llama_index.core.indices.base import BaseIndex
from llama_index.core.ingestion import run_transformations
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.storage.docstore.types import RefDocInfo

from colbert_core import Index, TokenEncoder
from llama_index_colbert import saved
from llama_index_colbert.nodes import to_node, to_passage, without_objects
from llama_index_colbert.retriever import ColBERTRetriever

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.schema import BaseNode, Document, IndexNode, NodeWithScore, TransformComponent
    from llama_index.core.storage.storage_context import StorageContext
    from llama_index.core.vector_stores.types import MetadataFilters

logger = logging.getLogger(__name__)


class ColBERTIndex(BaseIndex[IndexDict]):
    """Documents indexed for late interaction, which can be inserted, updated and deleted at any time.

    Needs no network, no GPU and no API key: without a ``model_name``, the checkpoint that ships with the package encodes.

    Example:
        .. code-block:: python

            index = ColBERTIndex.from_documents(documents)
            query_engine = index.as_query_engine(llm=llm, similarity_top_k=3)
            index.insert(document)
            index.persist("storage")
            index = ColBERTIndex.load("storage")

    ``index.index`` is the index of colbert_core, which holds every node. The docstore has them as well, for what else works
    on one, and is made anew from the index by ``load``. Threads may share one index.
    """

    index_struct_cls = IndexDict

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
        callback_manager: CallbackManager | None = None,
        transformations: list[TransformComponent] | None = None,
    ) -> None:
        """Index nodes; ``from_documents`` takes documents, ``load`` opens what is on disk.

        Args:
            nodes: they are copied; their ids must differ. The object of an ``IndexNode`` takes its place when it is found.
            objects: more index nodes.
            index_struct: the identity of the index at ``index_path``, which is opened; ``load`` sets both.
            storage_context: its docstore gets the nodes; a vector store in it is not used.
            model_name: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
            index_name: tells several indexes in one persist directory from each other.
            show_progress: show bars.
            nbits: bits per component of a compressed vector: 1, 2, 4, 8, or 32 for vectors as they are; None for 4 on disk
                and 32 in memory. A collection is compressed when it has grown large enough.
            gpus: no effect; the model runs on the best device present.
            ranks: no effect; one process writes, with as many threads as there are cores.
            doc_maxlen: most tokens of a window of a node; None for the checkpoint's. Longer nodes have several windows.
            query_maxlen: most tokens of a query; None for the checkpoint's.
            kmeans_niters: no effect; centroids are improved until that changes little.
            index_path: a folder to make for an index that is on disk from the start; None for one in memory.
            callback_manager: of every LlamaIndex index.
            transformations: what makes nodes of documents that are inserted; None for those in ``Settings``.

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
            self.index = Index.create(index_path, encoder, nbits=nbits)
        elif index_path is None:
            raise ValueError("index_struct needs index_path=..., the folder of its index; load opens what persist wrote.")
        else:
            self.index = Index.open(index_path, encoder)
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
            self._transformations = transformations  # where it takes [] for None

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
            documents: they are not changed.
            storage_context: its docstore gets the nodes and the documents' hashes.
            show_progress: show bars.
            callback_manager: of every LlamaIndex index.
            transformations: what makes nodes of documents; None for those in ``Settings``.
            kwargs: as in the constructor.

        Raises:
            TypeError: there is no such keyword.
        """
        steps = Settings.transformations if transformations is None else transformations
        nodes = run_transformations(_copies(documents), steps, show_progress=show_progress)
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
        """Open what ``persist`` wrote, or an index that the command line or colbert_core built; the model loads at first use.

        Args:
            persist_dir: the directory, or the folder of the index itself. What is inserted or deleted later is in it at
                once.
            index_name: as it was when the index was persisted.
            model_name: an encoder that the index cannot load itself; None for the one it was made with.
            kwargs: ``show_progress``, ``callback_manager`` and ``transformations``.

        Raises:
            IndexNotFoundError: there is no such index.
            EncoderMismatchError: the index was made with another model.
        """
        folder, about = saved.find(persist_dir, index_name or saved.NAME)
        struct = IndexDict(**{key: about[key] for key in ("index_id", "summary") if about.get(key) is not None})
        index = cls(index_struct=struct, index_path=folder, model_name=model_name, index_name=index_name, **kwargs)
        nodes = index._nodes(index.index.ids())
        index.docstore.add_documents(nodes)
        for node in nodes:  # the source's hash, by which refresh_ref_docs sees that a document has not changed
            source = node.source_node
            if source is not None and source.hash is not None:
                index.docstore.set_document_hash(source.node_id, source.hash)
        return index

    @classmethod
    def load_from_disk(cls, persist_dir: str | Path, index_name: str = "") -> ColBERTIndex:
        """``load``, by the name it has in ``llama-index-indices-managed-colbert``."""
        return cls.load(persist_dir, index_name)

    def persist(self, persist_dir: str | Path) -> None:
        """Write the index into a directory, next to what is there. Only what was persisted under this name is replaced.

        The objects of index nodes stay behind: give them to the retriever as ``object_map``.

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
        """A retriever over this index.

        Args:
            similarity_top_k: nodes to return.
            filters: only nodes whose metadata match.
            node_ids: only these nodes.
            doc_ids: only nodes of these source documents.
            kwargs: of every LlamaIndex retriever. Those of query and chat engines are let pass, for ``as_query_engine`` and
                ``as_chat_engine`` hand all of theirs to this method.

        Raises:
            TypeError: there is no such keyword anywhere.
        """
        own = {name: kwargs.pop(name) for name in list(kwargs) if name in _RETRIEVERS}
        unknown = sorted(kwargs.keys() - _ENGINES)
        if unknown:
            raise TypeError(f"Neither ColBERTRetriever nor a query or chat engine takes a keyword {unknown[0]!r}.")
        settings = {"callback_manager": self._callback_manager} | own
        retriever = ColBERTRetriever(self.index, similarity_top_k, filters, node_ids, doc_ids, **settings)
        if "object_map" not in own and "objects" not in own:
            retriever.object_map = self._object_map  # the same dict, for nodes that are inserted later
        return retriever

    def query(self, query_str: str, top_k: int = 10) -> list[NodeWithScore]:
        """The ``top_k`` nodes that match best."""
        return self.as_retriever(top_k).retrieve(query_str)

    @property
    def ref_doc_info(self) -> dict[str, RefDocInfo]:
        """The source documents of all nodes, with the ids of their nodes and the metadata of the first."""
        found: dict[str, RefDocInfo] = {}
        for node in self._nodes(self.index.ids()):
            if node.ref_doc_id is not None:
                info = found.setdefault(node.ref_doc_id, RefDocInfo(metadata=node.metadata))
                info.node_ids.append(node.node_id)
        return found

    def build_index_from_nodes(self, nodes: Sequence[BaseNode], **build_kwargs: Any) -> IndexDict:
        """Index nodes, whose objects stay out of the docstore."""
        kept = without_objects(nodes, self._object_map)
        struct = self._build_index_from_nodes(kept, **build_kwargs)
        self.docstore.add_documents(kept, allow_update=True)  # what could not be indexed is not in there either
        return struct

    def insert(self, document: Document, **insert_kwargs: Any) -> None:
        """Split a document into nodes and add them; ``update_ref_doc`` replaces those of an older state of it."""
        _take_none("insert", insert_kwargs)
        (copied,) = _copies([document])
        super().insert(copied)
        self.docstore.set_document_hash(document.id_, document.hash)  # not of what a transformation has made of it

    async def ainsert(self, document: Document, **insert_kwargs: Any) -> None:
        """``insert``, off the event loop."""
        await asyncio.to_thread(self.insert, document, **insert_kwargs)

    def insert_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> None:
        """Add nodes, replacing those whose id is known; the caller's are not changed."""
        kept = without_objects(nodes, self._object_map)
        with self._callback_manager.as_trace("insert_nodes"):
            self._insert(kept, **insert_kwargs)
            self.docstore.add_documents(kept, allow_update=True)

    async def ainsert_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> None:
        """``insert_nodes``, off the event loop."""
        await asyncio.to_thread(self.insert_nodes, nodes, **insert_kwargs)

    def delete_nodes(self, node_ids: Sequence[str], delete_from_docstore: bool = False, **delete_kwargs: Any) -> None:
        """Delete nodes, all in one step; unknown ids are no error.

        Args:
            node_ids: of the nodes.
            delete_from_docstore: delete them there too, which other indexes may share.
            delete_kwargs: there are none.
        """
        _take_none("delete_nodes", delete_kwargs)
        self.index.delete(node_ids)
        if delete_from_docstore:
            for node_id in node_ids:
                self.docstore.delete_document(node_id, raise_error=False)

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
            ref_doc_id: of the document.
            delete_from_docstore: delete them there too, which other indexes may share.
            delete_kwargs: there are none.
        """
        _take_none("delete_ref_doc", delete_kwargs)
        node_ids = self.index.ids({"ref_doc_id": ref_doc_id})
        if not node_ids:
            logger.warning("There are no nodes of a document %r; nothing is deleted.", ref_doc_id)
        self.delete_nodes(node_ids, delete_from_docstore)
        if delete_from_docstore:
            self.docstore.delete_ref_doc(ref_doc_id, raise_error=False)
            self.docstore.delete_document(ref_doc_id, raise_error=False)
        elif node_ids:
            self.docstore.set_document_hash(ref_doc_id, "")  # or refresh_ref_docs would take it for one that is here

    async def adelete_ref_doc(
        self,
        ref_doc_id: str,
        delete_from_docstore: bool = False,
        **delete_kwargs: Any,
    ) -> None:
        """``delete_ref_doc``, off the event loop."""
        await asyncio.to_thread(self.delete_ref_doc, ref_doc_id, delete_from_docstore, **delete_kwargs)

    def _build_index_from_nodes(self, nodes: Sequence[BaseNode], **build_kwargs: Any) -> IndexDict:
        _take_none("build_index_from_nodes", build_kwargs)
        self._insert(nodes)
        return IndexDict(summary="ColBERTIndex")

    def _insert(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> None:
        _take_none("insert_nodes", insert_kwargs)
        self.index.add([to_passage(node) for node in nodes], progress=self._show_progress)

    def _delete_node(self, node_id: str, **delete_kwargs: Any) -> None:
        self.delete_nodes([node_id], **delete_kwargs)

    def _nodes(self, ids: Iterable[str]) -> list[BaseNode]:
        return [to_node(passage) for passage in self.index.get(ids) if passage is not None]


# Keywords of a retriever, and those that as_query_engine and as_chat_engine take for what stands behind it.
_RETRIEVERS = {"callback_manager", "object_map", "objects", "verbose"}
_ENGINES = {
    name
    for takes in (
        RetrieverQueryEngine.from_args,
        CondensePlusContextChatEngine.from_defaults,
        CondenseQuestionChatEngine.from_defaults,
        ContextChatEngine.from_defaults,
        SimpleChatEngine.from_defaults,
    )
    for name, parameter in inspect.signature(takes).parameters.items()
    if parameter.kind != inspect.Parameter.VAR_KEYWORD
}


def _encoder(
    model: str | Path | TokenEncoder | None, doc_maxlen: int | None, query_maxlen: int | None
) -> str | Path | TokenEncoder | None:
    if doc_maxlen is None and query_maxlen is None:
        return model
    if isinstance(model, TokenEncoder):
        raise ValueError("A loaded encoder has its lengths already: leave doc_maxlen and query_maxlen out, or name a model.")
    from colbert_core import Encoder  # here, so that importing the package does not import torch

    return Encoder.from_pretrained(model, passage_length=doc_maxlen, query_length=query_maxlen)


def _copies(documents: Sequence[Document]) -> list[Document]:
    return [document.model_copy(deep=True) for document in documents]  # extractors work in place


def _take_none(verb: str, kwargs: dict[str, Any]) -> None:
    if kwargs:
        raise TypeError(f"ColBERTIndex.{verb} takes no keyword {sorted(kwargs)[0]!r}.")
