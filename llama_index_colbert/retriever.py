"""``ColBERTRetriever``: an index of colbert_core as a LlamaIndex retriever."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_index.core import Settings
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.indices.base import BaseIndex
from llama_index.core.ingestion import run_transformations
from llama_index_instrumentation import get_dispatcher

from colbert_core import Index, PassageIndex, TokenEncoder
from llama_index_colbert import saved
from llama_index_colbert.filters import to_where
from llama_index_colbert.nodes import to_nodes_with_score, to_passage, without_objects

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llama_index.core.schema import BaseNode, Document, NodeWithScore, QueryBundle, TransformComponent
    from llama_index.core.storage.docstore.types import BaseDocumentStore
    from llama_index.core.vector_stores.types import MetadataFilters

dispatcher = get_dispatcher(__name__)


class ColBERTRetriever(BaseRetriever):
    """Retrieve nodes by late interaction: every word of the question finds its best match in every node.

    Needs no network, no GPU and no API key: without a ``model``, the checkpoint that ships with the package encodes.
    What is encoded is the node's text for embedding, metadata included (``MetadataMode.EMBED``).

    Example:
        .. code-block:: python

            retriever = ColBERTRetriever.from_nodes(nodes, similarity_top_k=3)
            query_engine = RetrieverQueryEngine.from_args(retriever, llm=llm)

    Nodes come back as new objects with their id, relationships and metadata, kept as LlamaIndex's vector stores keep them:
    as JSON, so a tuple comes back as a list and a ``Document`` as a ``TextNode``. ``NodeWithScore.score`` is the relevance,
    the mean best cosine of the query's vectors, from 0 to 1; of a query of several texts, such as HyDE's, the mean of
    theirs. Threads may share one retriever.
    """

    def __init__(
        self,
        index: PassageIndex,
        similarity_top_k: int = 2,
        filters: MetadataFilters | None = None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        evidence: bool = False,
        **kwargs: Any,
    ) -> None:
        """Take a built index; ``from_defaults``, ``from_nodes`` and ``from_documents`` build one.

        Args:
            index: what is searched; it may be shared with other retrievers.
            similarity_top_k: nodes to return, at least 1; may be set at any time, as may the next three.
            filters: only nodes whose metadata match, nested as they may be; there are ``similarity_top_k`` of those then.
            node_ids: only these nodes; an empty list matches none.
            doc_ids: only nodes of these source documents; an empty list matches none.
            evidence: put the words of a node that match the query into its metadata, under "evidence" and hidden from
                embedding and LLM text; of several texts, those that match the first.
            kwargs: ``callback_manager``, ``object_map``, ``objects`` and ``verbose`` of every LlamaIndex retriever.

        Raises:
            TypeError: there is no such keyword, or a filter has a value of a wrong kind.
            ValueError: similarity_top_k is below 1.
        """
        super().__init__(**kwargs)
        if not isinstance(index, PassageIndex):
            raise TypeError(
                f"index must be an Index of colbert_core, got {type(index).__name__}; from_defaults takes other things."
            )
        to_where(filters, doc_ids)  # a mistake is found here, not by the first search
        self.index = index
        self.similarity_top_k = similarity_top_k
        self.filters = filters
        self.node_ids = node_ids
        self.doc_ids = doc_ids
        self.evidence = evidence

    @property
    def similarity_top_k(self) -> int:
        """Nodes to return; may be set at any time."""
        return self._similarity_top_k

    @similarity_top_k.setter
    def similarity_top_k(self, value: int) -> None:
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"similarity_top_k must be at least 1 and whole, got {value!r}.")
        self._similarity_top_k = value

    @classmethod
    def from_defaults(
        cls,
        index: PassageIndex | BaseIndex[Any] | None = None,
        nodes: Sequence[BaseNode] | None = None,
        docstore: BaseDocumentStore | None = None,
        similarity_top_k: int = 2,
        *,
        model: str | Path | TokenEncoder | None = None,
        **kwargs: Any,
    ) -> ColBERTRetriever:
        """Retrieve from one of three things.

        Args:
            index: what is searched; of another index of LlamaIndex, the nodes in its docstore are indexed.
            nodes: they are indexed in memory.
            docstore: its nodes are indexed in memory.
            similarity_top_k: nodes to return.
            model: encodes the nodes; a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
            kwargs: as in the constructor.

        Raises:
            ValueError: there is not exactly one of index, nodes and docstore, a model for an index that has its own, or an
                index of LlamaIndex whose docstore is empty.
        """
        given = [name for name, value in {"index": index, "nodes": nodes, "docstore": docstore}.items() if value is not None]
        if len(given) != 1:
            raise ValueError(f"Pass exactly one of index, nodes and docstore, got {' and '.join(given) or 'none of them'}.")
        for holder in (index, getattr(index, "vector_store", None)):  # a ColBERTIndex, or an index over a ColBERTVectorStore
            index = found if isinstance(found := getattr(holder, "index", None), PassageIndex) else index
        if isinstance(index, PassageIndex):
            if model is not None:
                raise ValueError(f"The index has its own model, so model={model!r:.80} would not be used; leave it out.")
            return cls(index, similarity_top_k, **kwargs)
        if isinstance(index, BaseIndex):
            docstore = index.docstore
            if not docstore.docs:
                raise ValueError(f"The docstore of the {type(index).__name__} is empty; pass its nodes instead, as nodes=...")
        elif index is not None:
            raise TypeError(f"index must be an index of colbert_core or LlamaIndex, got {type(index).__name__}.")
        if docstore is not None:
            nodes = list(docstore.docs.values())
        return cls.from_nodes(nodes or [], similarity_top_k, model=model, **kwargs)

    @classmethod
    def from_nodes(
        cls,
        nodes: Sequence[BaseNode],
        similarity_top_k: int = 2,
        *,
        model: str | Path | TokenEncoder | None = None,
        **kwargs: Any,
    ) -> ColBERTRetriever:
        """Index nodes in memory.

        Args:
            nodes: they are copied; their ids must differ. The object of an ``IndexNode`` takes its place when it is found.
            similarity_top_k: nodes to return.
            model: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
            kwargs: as in the constructor.

        Raises:
            ValueError: an id stands twice.
        """
        retriever = cls(Index.create(None, model), similarity_top_k, **kwargs)
        retriever.add_nodes(nodes)
        return retriever

    @classmethod
    def from_documents(
        cls,
        documents: Sequence[Document],
        similarity_top_k: int = 2,
        *,
        model: str | Path | TokenEncoder | None = None,
        transformations: list[TransformComponent] | None = None,
        **kwargs: Any,
    ) -> ColBERTRetriever:
        """Split documents into nodes and index them in memory.

        Args:
            documents: they are not changed.
            similarity_top_k: nodes to return.
            model: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
            transformations: what makes nodes of documents; None for those in ``Settings``.
            kwargs: as in the constructor.
        """
        copies = [document.model_copy(deep=True) for document in documents]  # extractors work in place
        nodes = run_transformations(copies, Settings.transformations if transformations is None else transformations)
        return cls.from_nodes(nodes, similarity_top_k, model=model, **kwargs)

    @classmethod
    def from_persist_dir(
        cls,
        path: str | Path,
        similarity_top_k: int = 2,
        *,
        model: str | Path | TokenEncoder | None = None,
        **kwargs: Any,
    ) -> ColBERTRetriever:
        """Open what ``persist`` wrote, a ``ColBERTIndex`` persisted, or the command line built; the model loads at first use.

        Args:
            path: the directory; what is added later is in it at once.
            similarity_top_k: nodes to return.
            model: an encoder that the index cannot load itself; None for the one it was made with.
            kwargs: as in the constructor.

        Raises:
            IndexNotFoundError: there is no index.
        """
        folder, _ = saved.find(path)
        return cls(Index.open(folder, model), similarity_top_k, **kwargs)

    def persist(self, path: str | Path) -> None:
        """Write the index into a directory, next to what is there; settings and the objects of index nodes stay behind.

        Raises:
            FileExistsError: ``colbert.idx`` is there and was not written by ``persist``.
            TypeError: the index is in shards on several machines; it is on disk already.
        """
        if not isinstance(self.index, Index):
            raise TypeError(f"persist writes an Index, got {self.index!r}; it is on disk already, and stays where it is.")
        saved.save(self.index, path)

    def add_nodes(self, nodes: Sequence[BaseNode]) -> list[str]:
        """Add nodes, replacing those whose id is known, and return their ids in order."""
        objects: dict[str, Any] = {}
        ids = self.index.add([to_passage(node) for node in without_objects(nodes, objects)])
        self.object_map.update(objects)
        return ids

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        # One text as a rule; a query transform such as HyDE gives several, and an LLM may have left one of them empty.
        texts = [text.strip() for text in query_bundle.embedding_strs if text.strip()] or [query_bundle.query_str.strip()]
        where = to_where(self.filters, self.doc_ids)
        hits = self.index.search_mean(texts, self.similarity_top_k, where=where, ids=self.node_ids)
        if self.evidence:
            hits = [replace(hit, evidence=self.index.explain(texts[0], hit)) for hit in hits]
        return to_nodes_with_score(hits)

    @dispatcher.span
    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)
