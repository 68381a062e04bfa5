"""``ColBERTRetriever``: an index of colbert_core as a LlamaIndex retriever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llama_index.core import Settings
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.ingestion import run_transformations
from llama_index.core.schema import BaseNode, Document, IndexNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
from llama_index_instrumentation import get_dispatcher

from colbert_core import Index, Passage, TokenEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llama_index.core.schema import TransformComponent

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
    the mean best cosine of the query's vectors, from 0 to 1. Threads may share one retriever.
    """

    def __init__(self, index: Index, similarity_top_k: int = 2, **kwargs: Any) -> None:
        """Take a built index; ``from_nodes`` and ``from_documents`` build one.

        Args:
            index: what is searched; it may be shared with other retrievers.
            similarity_top_k: nodes to return, at least 1; may be set at any time.
            kwargs: ``callback_manager``, ``object_map``, ``objects`` and ``verbose`` of every LlamaIndex retriever.
        """
        super().__init__(**kwargs)
        self.index = index
        self.similarity_top_k = similarity_top_k

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

    def add_nodes(self, nodes: Sequence[BaseNode]) -> list[str]:
        """Add nodes, replacing those whose id is known, and return their ids in order."""
        ids = self.index.add([_to_passage(node) for node in nodes])
        self.object_map.update(
            {node.index_id: node.obj for node in nodes if isinstance(node, IndexNode) and node.obj is not None}
        )
        return ids

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        # One string as a rule; a query transform such as HyDE gives several, and a node's score is then their mean.
        texts = query_bundle.embedding_strs or [query_bundle.query_str]  # none for an empty query
        if len(texts) == 1:
            return [
                _to_node_with_score(hit.passage, hit.relevance) for hit in self.index.search(texts[0], self.similarity_top_k)
            ]
        passages: dict[str, Passage] = {}
        sums: dict[str, float] = {}
        for hits in self.index.search_many(texts, max(1, len(self.index))):
            for hit in hits:
                passages[hit.passage.id] = hit.passage
                sums[hit.passage.id] = sums.get(hit.passage.id, 0.0) + hit.relevance
        best = sorted(sums, key=lambda passage_id: (-sums[passage_id], passage_id))[: self.similarity_top_k]
        return [_to_node_with_score(passages[passage_id], sums[passage_id] / len(texts)) for passage_id in best]

    @dispatcher.span
    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _to_passage(node: BaseNode) -> Passage:
    if isinstance(node, IndexNode):
        node = node.model_copy(update={"obj": None})
    try:
        metadata = node_to_metadata_dict(node)
    except Exception as error:  # pydantic's own, which names no node
        raise ValueError(f"Node {node.node_id!r} cannot be kept as JSON: {error}") from error
    return Passage(node.node_id, node.get_content(MetadataMode.EMBED), metadata)


def _to_node_with_score(passage: Passage, relevance: float) -> NodeWithScore:
    """The node that was added; a passage that did not come from LlamaIndex becomes a text node."""
    node = (
        metadata_dict_to_node(passage.metadata)
        if {"_node_content", "_node_type"} <= passage.metadata.keys()
        else TextNode(id_=passage.id, text=passage.text, metadata=passage.metadata)
    )
    return NodeWithScore(node=node, score=relevance)
