"""``ColBERTRerank``: a LlamaIndex node postprocessor that reranks by late interaction what another retriever found."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from colbert_core import Hit, Passage, PassageIndex, TokenEncoder
from llama_index_colbert.annotated import annotate, without_annotations
from llama_index_colbert.nodes import copy_node
from llama_index_colbert.postprocessor import ModelPostprocessor, name_of
from llama_index_colbert.ranking import opened

dispatcher = get_dispatcher(__name__)


class ColBERTRerank(ModelPostprocessor):
    """Rerank nodes by late interaction.

    Example:
        .. code-block:: python

            query_engine = index.as_query_engine(node_postprocessors=[ColBERTRerank(top_n=3)])

    With ``index=index`` a node that stands in it, by its id and with the same text, is scored by the index's vectors, as a
    search does, and nothing is encoded but the question. Others are encoded by the index's model.

    It returns new ``NodeWithScore`` objects, best first, whose ``score`` is the relevance, from 0 to 1. The caller's nodes and
    scores stay as they are. It loads the model at the first use. Threads may share one reranker.
    """

    index: PassageIndex | None = Field(
        default=None, exclude=True, description="The index that holds the nodes; its model and vectors score."
    )
    top_n: int = Field(default=5, ge=1, description="Nodes to keep.")
    keep_retrieval_score: bool = Field(
        default=False,
        description="Keep the retriever's score in the node's metadata, hidden from embedding and LLM text.",
    )
    metadata_mode: MetadataMode = Field(default=MetadataMode.EMBED, description="Which metadata to read with the text.")
    batch_size: int = Field(
        default=256, ge=1, description="Nodes whose vectors are in memory at a time. Scores do not depend on it."
    )
    score_threshold: float | None = Field(
        default=None, ge=0, le=1, description="Least relevance of a node, on either score scale; None keeps all."
    )
    score_scale: Literal["relevance", "maxsim"] = Field(
        default="relevance",
        description="relevance: the mean best cosine of the query's vectors, from 0 to 1; maxsim: their sum, as in the papers.",
    )

    def __init__(
        self,
        top_n: int = 5,
        model: str | Path | TokenEncoder | None = None,
        tokenizer: str | Path | None = None,
        device: str | None = None,
        keep_retrieval_score: bool = False,
        index: Any = None,
        **fields: Any,
    ) -> None:
        """Take the settings; nothing is loaded yet.

        Args:
            top_n: nodes to keep.
            model: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
            tokenizer: for code that was written for ``llama-index-postprocessor-colbert-rerank``. A checkpoint brings its
                own tokenizer, so this can only name the same checkpoint.
            device: where a named model runs; None for the best device present.
            keep_retrieval_score: keep the retriever's score in the node's metadata.
            index: an ``Index``, a ``ColBERTIndex``, a store or retriever that has one, or its URL at a service, instead of a
                model and a device.
            fields: the other fields, such as ``score_threshold`` and ``show_progress``, and ``callback_manager``.

        Raises:
            ValueError: a value is out of range, there is no such field, there is an index beside a model or a device, or the
                tokenizer is not the model's.
        """
        if index is not None and (model is not None or device is not None):
            raise ValueError("The index has its own model: give index=... without model and device.")
        index = opened(index)
        if isinstance(index, str | Path):  # a string has a method of this name
            raise ValueError(f"index is an open index or a store, not a path; open it: index=Index.open({str(index)!r}).")
        for _ in range(2):  # an index over a vector store has one in its store
            if index is not None and not isinstance(index, PassageIndex):
                index = getattr(index, "index", getattr(index, "vector_store", index))
        if tokenizer is not None and (not isinstance(model, str | Path) or str(tokenizer) != str(model)):
            raise ValueError(
                f"tokenizer is {str(tokenizer)!r}, but the model {_name(model)!r} brings its own; "
                "leave tokenizer out, or name the same checkpoint as model."
            )
        fields["index"] = index
        fields |= {"top_n": top_n, "model": model, "device": device, "keep_retrieval_score": keep_retrieval_score}
        super().__init__(**fields)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized pipelines."""
        return "ColBERTRerank"

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("ColBERTRerank needs the query: pass query_bundle=... or query_str=...")
        name = _name(self.model if self.index is None else self.index.encoder_name)
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=name))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            ranked = self._rank(nodes, query_bundle.query_str.strip()) if nodes else []
            event.on_end(payload={EventPayload.NODES: ranked})
        dispatcher.event(ReRankEndEvent(nodes=ranked))
        return ranked

    def _rank(self, nodes: list[NodeWithScore], query: str) -> list[NodeWithScore]:
        passages = [
            Passage(scored.node.node_id or str(place), without_annotations(scored.node).get_content(self.metadata_mode))
            for place, scored in enumerate(nodes)
        ]
        places = {id(passage): place for place, passage in enumerate(passages)}
        options: dict[str, Any] = {"batch_size": self.batch_size, "progress": self.show_progress}
        hits = self._reranker().rank(query, passages, self.top_n, self.score_threshold, **options)
        return [self._to_node_with_score(nodes[places[id(hit.passage)]], hit) for hit in hits]

    def _to_node_with_score(self, retrieved: NodeWithScore, hit: Hit) -> NodeWithScore:
        node = copy_node(retrieved.node)
        if self.keep_retrieval_score:
            node = annotate(node, "retrieval_score", retrieved.score)
        return NodeWithScore(node=node, score=hit.relevance if self.score_scale == "relevance" else hit.score)


def _name(model: str | Path | TokenEncoder | None) -> str:
    return name_of(model) or "default"
