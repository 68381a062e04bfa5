"""``ColBERTSentencePostprocessor``: keep only the sentences of retrieved nodes that match the query best."""

from __future__ import annotations

from collections.abc import Callable

from llama_index.core.bridge.pydantic import Field, model_validator
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from colbert_core import Passage, Reranker
from llama_index_colbert.annotated import annotate
from llama_index_colbert.nodes import copy_node
from llama_index_colbert.postprocessor import ModelPostprocessor


class ColBERTSentencePostprocessor(ModelPostprocessor):
    """Cut nodes down to the sentences that matter, so that the LLM reads a third of the tokens.

    It asks no LLM: it matches the tokens of every sentence, in the context of the node, with those of the query.

    Example:
        .. code-block:: python

            query_engine = index.as_query_engine(node_postprocessors=[ColBERTSentencePostprocessor(max_tokens=1000)])

    It returns new ``NodeWithScore`` objects in the order given, with id, score and metadata; a node without any sentence left,
    or without text, is dropped. The best sentence of all stays, even if it alone is above the budget. Sentences keep
    their order, and " … " stands for what was left out between two. Their characters in the original text are in the metadata
    as "excerpt_spans", hidden from embedding and LLM text.
    """

    keep_ratio: float | None = Field(
        default=None, gt=0, le=1, description="The part of the nodes' tokens to keep at most; 0.35 without max_tokens."
    )
    max_tokens: int | None = Field(default=None, ge=1, description="Most tokens of all nodes together.")
    count_tokens: Callable[[str], int] | None = Field(
        default=None, exclude=True, description="Returns the length of a text; None for the model's own tokenizer."
    )

    @model_validator(mode="after")
    def _check_budget(self) -> ColBERTSentencePostprocessor:
        Reranker.check_budget(self.max_tokens, self.keep_ratio)
        return self

    @classmethod
    def class_name(cls) -> str:
        """Name in serialized pipelines."""
        return "ColBERTSentencePostprocessor"

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("ColBERTSentencePostprocessor needs the query: pass query_bundle=... or query_str=...")
        if not nodes:
            return []
        passages = [Passage(str(place), scored.node.get_content(MetadataMode.NONE)) for place, scored in enumerate(nodes)]
        excerpts = self._reranker().excerpts(
            query_bundle.query_str.strip(),
            passages,
            max_tokens=self.max_tokens,
            keep_ratio=self.keep_ratio,
            count_tokens=self.count_tokens,
            progress=self.show_progress,
        )
        shortened = []
        for excerpt in excerpts:
            retrieved = nodes[int(excerpt.passage.id)]
            node = copy_node(retrieved.node)
            node.set_content(excerpt.text)
            node = annotate(node, "excerpt_spans", [list(span) for span in excerpt.spans])
            shortened.append(NodeWithScore(node=node, score=retrieved.score))
        return shortened
