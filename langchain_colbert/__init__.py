"""Late-interaction (ColBERT) retrieval for LangChain: a retriever and a reranking document compressor."""

from langchain_colbert.rerank import ColBERTRerank
from langchain_colbert.retriever import ColBERTRetriever

__all__ = ["ColBERTRerank", "ColBERTRetriever"]
