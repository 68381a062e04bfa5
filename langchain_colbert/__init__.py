"""Late-interaction (ColBERT) retrieval for LangChain: a retriever, a vector store, and document compressors."""

from colbert_core import MissingExtraError

try:
    import langchain_core  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("langchain_colbert needs langchain-core: pip install 'langchain-core>=1.4.4,<2'") from error

from langchain_colbert.context import ColBERTContextCompressor
from langchain_colbert.found import without_scores
from langchain_colbert.rerank import ColBERTRerank
from langchain_colbert.retriever import ColBERTRetriever
from langchain_colbert.translator import ColBERTTranslator
from langchain_colbert.vectorstore import ColBERTVectorStore

__all__ = [
    "ColBERTContextCompressor",
    "ColBERTRerank",
    "ColBERTRetriever",
    "ColBERTTranslator",
    "ColBERTVectorStore",
    "without_scores",
]
