"""``ColBERTRerank``: late interaction as a LlamaIndex node postprocessor, over what another retriever found."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from colbert_core import Passage, Reranker, TokenEncoder

dispatcher = get_dispatcher(__name__)


class ColBERTRerank(BaseNodePostprocessor):
    """Rerank nodes by late interaction.

    Example:
        .. code-block:: python

            query_engine = index.as_query_engine(node_postprocessors=[ColBERTRerank(top_n=3)])

    New ``NodeWithScore`` objects come back, best first; ``score`` is the relevance, from 0 to 1. The caller's nodes and
    scores stay as they are. The model is loaded at the first use. Threads may share one reranker.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str | Path | TokenEncoder | None = Field(
        default=None,
        description="A checkpoint's name or folder, or a loaded encoder; None for the model in the box.",
    )
    top_n: int = Field(default=5, ge=1, description="Nodes to keep.")
    device: str | None = Field(default=None, description="Where a named model runs; None for the best device present.")
    keep_retrieval_score: bool = Field(
        default=False,
        description="Keep the score of the first retriever in the node's metadata, hidden from embedding and LLM text.",
    )

    _loaded: tuple[Any, Reranker] | None = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized pipelines."""
        return "ColBERTRerank"

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("ColBERTRerank needs the query: pass query_bundle=... or query_str=...")
        name = str(self.model) if isinstance(self.model, str | Path) else getattr(self.model, "name", "default")
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=name))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            ranked = self._ranked(nodes, query_bundle.query_str) if nodes else []
            event.on_end(payload={EventPayload.NODES: ranked})
        dispatcher.event(ReRankEndEvent(nodes=ranked))
        return ranked

    def _ranked(self, nodes: list[NodeWithScore], query: str) -> list[NodeWithScore]:
        passages = [
            Passage(str(position), scored.node.get_content(MetadataMode.EMBED)) for position, scored in enumerate(nodes)
        ]
        hits = self._reranker().rank(query, passages, self.top_n)
        return [self._scored(nodes[int(hit.passage.id)], hit.relevance) for hit in hits]

    def _scored(self, retrieved: NodeWithScore, relevance: float) -> NodeWithScore:
        # The parts that are lists and dicts are copied; an object that an IndexNode stands for is not.
        parts = ("relationships", "excluded_embed_metadata_keys", "excluded_llm_metadata_keys")
        copies = {name: copy.copy(getattr(retrieved.node, name)) for name in parts}
        node = retrieved.node.model_copy(update={"metadata": copy.deepcopy(retrieved.node.metadata), **copies})
        if self.keep_retrieval_score:
            node.metadata["retrieval_score"] = retrieved.score
            node.excluded_embed_metadata_keys.append("retrieval_score")
            node.excluded_llm_metadata_keys.append("retrieval_score")
        return NodeWithScore(node=node, score=relevance)

    def _reranker(self) -> Reranker:
        """The loaded model; loaded again where ``model`` or ``device`` were changed, on this object or for a copy."""
        wanted = (self.model, self.device)
        loaded = self._loaded
        if loaded is None or loaded[0] != wanted:
            with _LOADING:
                loaded = self._loaded
                if loaded is None or loaded[0] != wanted:
                    loaded = self._loaded = (wanted, Reranker(self.model, device=self.device))
        return loaded[1]


# One lock for all: a lock inside the object would keep it from being copied and pickled.
_LOADING = threading.Lock()
