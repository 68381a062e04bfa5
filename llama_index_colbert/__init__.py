"""Late-interaction (ColBERT) retrieval for LlamaIndex: a retriever and a reranking node postprocessor."""

from llama_index_colbert.rerank import ColBERTRerank
from llama_index_colbert.retriever import ColBERTRetriever

__all__ = ["ColBERTRerank", "ColBERTRetriever"]
