"""Late-interaction (ColBERT) retrieval for LlamaIndex: a retriever and a reranking node postprocessor."""

from colbert_core import MissingExtraError

try:
    import llama_index.core  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("llama_index_colbert needs llama-index-core: pip install 'llama-index-core>=0.13,<0.15'") from error

from llama_index_colbert.rerank import ColBERTRerank
from llama_index_colbert.retriever import ColBERTRetriever

__all__ = ["ColBERTRerank", "ColBERTRetriever"]
