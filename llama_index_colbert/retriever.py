"""``ColBERTRetriever``: a LlamaIndex retriever over an index of colbert_core."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_index.core import Settings
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.indices.base import BaseIndex
from llama_index.core.ingestion import run_transformations
from llama_index_instrumentation import get_dispatcher

from colbert_core import Index, IndexBase, PassageIndex, TokenEncoder, hits_of_blank_query, open_index, widen
from llama_index_colbert import saved
from llama_index_colbert.filters import to_where
from llama_index_colbert.nodes import copy_documents, take_objects_out, to_nodes_with_score, to_passage
from llama_index_colbert.ranking import check_ranking, opened, ranking

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
    It encodes the node's text for embedding, metadata included (``MetadataMode.EMBED``).

    Example:
        .. code-block:: python

            retriever = ColBERTRetriever.from_nodes(nodes, similarity_top_k=3)
            query_engine = RetrieverQueryEngine.from_args(retriever, llm=llm)

    Nodes come back as new objects with their id, relationships, metadata and hash, by which fusion knows equal nodes. They are
    stored as JSON, as LlamaIndex's vector stores do it; a subclass of your own comes back as a ``TextNode``. Where a node was
    changed through colbert_core or LangChain since, the change comes back. ``NodeWithScore.score`` is from 0 to 1. With
    ``mode="maxsim"`` it is the relevance: the mean best cosine of the query's vectors. With "hybrid" it is the relevance plus
    ``weight`` times how much of the query's words the node has; where that is above 1 the nodes are in its order, and 1 is
    reported. With "words" it is that part alone. For a query of several texts, such as HyDE's, it is the mean of theirs.
    A blank question, which an LLM sends where only metadata count, gives the first nodes that the filters or ids let through,
    in the order in which they were added, with a score of 0; without any of these it gives none, and the log warns.

    Threads may share one retriever.
    """

    show_progress: bool | None = None

    def __init__(
        self,
        index: PassageIndex | str,
        similarity_top_k: int = 2,
        filters: MetadataFilters | None = None,
        node_ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        evidence: bool = False,
        text: str = "passage",
        max_characters: int = 2000,
        show_progress: bool | None = None,
        mode: str | None = None,
        weight: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Take a built index; ``from_defaults``, ``from_nodes`` and ``from_documents`` build one.

        Args:
            index: the index to search, or the URL of one that a service has; other retrievers may share it.
            similarity_top_k: nodes to return, at least 1. Set this attribute at any time, and the next three as well.
            filters: return only nodes whose metadata match; filters may be nested. They act before the search, so
                ``similarity_top_k`` nodes are returned whenever as many match.
            node_ids: return only these nodes; an empty list matches none.
            doc_ids: return only nodes of these source documents; an empty list matches none.
            evidence: put the words of a node that match the query into its metadata, under "evidence" and hidden from
                embedding and LLM text. If the query has several texts, these are the words that match the first.
            text: "passage" returns nodes with their whole text. "window" cuts it to the window that matched, with the sentences
                around it; the metadata then have, under "colbert" and hidden from embedding and LLM text, the characters of
                what is left as "span" and those of the window as "window". If the query has several texts, it is the window
                that matches one of them best.
            max_characters: most characters of a text with "window"; a window that has more stays whole.
            show_progress: show bars while nodes are added; None shows them on a terminal or in a notebook once a second has
                passed. It is an attribute as well.
            mode: "hybrid" ranks by meaning and the query's words, which finds identifiers and rare names as well; "maxsim" by
                meaning; "words" by words alone, among the nodes that have one of them, and loads no model. None is "hybrid" if
                the index has words or a weight is given, else "maxsim": an index that was made without words, or before there
                were any and was not changed since, or one of your own that has no method ``has_words``. Words of metadata
                count where the text for embedding has them. It is an attribute as well, and so is ``weight``.
            weight: of the words in a hybrid search, from 0 to 1; None for 0.1 to 0.5, by how rare they are.
            kwargs: ``callback_manager``, ``object_map``, ``objects`` and ``verbose`` of every LlamaIndex retriever.

        Raises:
            TypeError: there is no such keyword, or a filter has a value of a wrong kind.
            ValueError: similarity_top_k or max_characters is below 1, there is no such text or mode, or the weight is out of
                range or for another mode.
        """
        super().__init__(**kwargs)
        index = opened(index)
        if not isinstance(index, PassageIndex):
            raise TypeError(
                f"index must be an Index of colbert_core, got {type(index).__name__}; from_defaults takes other things."
            )
        to_where(filters, doc_ids)  # so that a mistake is found now, not at the first search
        self.index = index
        self.similarity_top_k = similarity_top_k
        self.filters = filters
        self.node_ids = node_ids
        self.doc_ids = doc_ids
        self.evidence = evidence
        if text not in ("passage", "window"):
            raise ValueError(f"text must be 'passage' for whole texts or 'window' for the part that matched, got {text!r}.")
        widen("", (0, 0), max_characters)  # so that a mistake is found now, not at the first search
        self.text = text
        self.max_characters = max_characters
        self.show_progress = show_progress
        check_ranking(mode, weight)
        self.mode = mode
        self.weight = weight

    def __repr__(self) -> str:
        return f"ColBERTRetriever({self.index!r}, similarity_top_k={self.similarity_top_k})"

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
        index: PassageIndex | BaseIndex[Any] | str | None = None,
        nodes: Sequence[BaseNode] | None = None,
        docstore: BaseDocumentStore | None = None,
        similarity_top_k: int = 2,
        *,
        model: str | Path | TokenEncoder | None = None,
        **kwargs: Any,
    ) -> ColBERTRetriever:
        """Make a retriever of an index, of nodes or of a docstore.

        Args:
            index: the index to search, or the URL of one that a service has. If it is another index of LlamaIndex,
                the nodes in its docstore are indexed in memory.
            nodes: nodes to index in memory.
            docstore: holds the nodes to index in memory.
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
        index = opened(index)
        for holder in (index, getattr(index, "vector_store", None)):  # a ColBERTIndex, or an index over a ColBERTVectorStore
            index = held if isinstance(held := getattr(holder, "index", None), PassageIndex) else index
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
            nodes: the nodes, which are copied; their ids must differ. Where an ``IndexNode`` is found, its object is returned.
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
            documents: the documents, which are not changed.
            similarity_top_k: nodes to return.
            model: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
            transformations: make nodes of documents; None for those in ``Settings``.
            kwargs: as in the constructor.
        """
        steps = Settings.transformations if transformations is None else transformations
        nodes = run_transformations(copy_documents(documents), steps, show_progress=bool(kwargs.get("show_progress")))
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
        """Open an index that ``persist`` or the command line wrote. The model is loaded at the first use.

        Args:
            path: the directory. Nodes that are added later are in it at once.
            similarity_top_k: nodes to return.
            model: an encoder that the index cannot load itself; None for the one with which it was made.
            kwargs: as in the constructor.

        Raises:
            IndexNotFoundError: there is no index.
        """
        folder, _ = saved.find(path)
        return cls(open_index(folder, model), similarity_top_k, **kwargs)

    @classmethod
    def from_index(
        cls,
        path_or_url: str | Path,
        similarity_top_k: int = 2,
        *,
        model: str | Path | TokenEncoder | None = None,
        **kwargs: Any,
    ) -> ColBERTRetriever:
        """Open an index that holds any passages, whoever made it, or one that a service has.

        Args:
            path_or_url: folder of the index, or its URL, such as "http://127.0.0.1:8080/v1/indexes/wiki".
            similarity_top_k: nodes to return.
            model: an encoder that the index cannot load itself; None for the one with which it was made.
            kwargs: as in the constructor.

        Raises:
            IndexNotFoundError: there is no index.
            ServiceError: the service does not answer as one does.
            ValueError: there is a model for a service, which has its own.
        """
        return cls(open_index(path_or_url, model), similarity_top_k, **kwargs)

    def persist(self, path: str | Path) -> None:
        """Write the index into a directory, next to what is there, without settings and the objects of index nodes.

        Raises:
            FileExistsError: ``colbert.idx`` is there and was not written by ``persist``.
            IndexExistsError: it is there, and the index lies in shards, which are not written over others.
            TypeError: the index is that of a service.
        """
        if not isinstance(self.index, IndexBase):
            raise TypeError(
                f"persist writes an index that is open here, got {self.index!r}; it stays with its service, and "
                "ColBERTRetriever.from_index opens it again."
            )
        saved.save(self.index, path)

    def add_nodes(self, nodes: Sequence[BaseNode]) -> list[str]:
        """Add nodes, replacing those whose id is known, and return their ids in order."""
        objects: dict[str, Any] = {}
        passages = [to_passage(node) for node in take_objects_out(nodes, objects)]
        # An index of the user's own may show none.
        shown = self.show_progress
        ids = self.index.add(passages) if shown is None else self.index.add(passages, progress=shown)
        self.object_map.update(objects)
        return ids

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        # Usually one text. A query transform such as HyDE gives several, and an LLM may have left one of them empty.
        texts = [text.strip() for text in query_bundle.embedding_strs if text.strip()] or [query_bundle.query_str.strip()]
        asked: dict[str, Any] = {"where": to_where(self.filters, self.doc_ids), "ids": self.node_ids}
        ranked_by = ranking(self.index, self.mode, self.weight)
        blank = hits_of_blank_query(self.index, texts, self.similarity_top_k, **asked)
        asked |= ranked_by
        if blank is not None:
            hits = blank
        elif self.evidence and len(texts) == 1 and ranked_by.get("mode", "maxsim") != "maxsim":
            # A search says which words ranked; ``explain`` knows meanings alone.
            hits = self.index.search(texts[0], self.similarity_top_k, **asked, evidence=True)
        else:
            hits = self.index.search_mean(texts, self.similarity_top_k, **asked)
            if self.evidence:
                hits = [replace(hit, evidence=self.index.explain(texts[0], hit)) for hit in hits]
        return to_nodes_with_score(hits, self.max_characters if self.text == "window" else None)

    @dispatcher.span
    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)
