"""Late-interaction (ColBERT) retrieval for LlamaIndex: a retriever, an index, a store, and node postprocessors."""

from colbert_core import MissingExtraError

try:
    import llama_index.core  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("llama_index_colbert needs llama-index-core: pip install 'llama-index-core>=0.13,<0.15'") from error

from llama_index_colbert.index import ColBERTIndex
from llama_index_colbert.rerank import ColBERTRerank
from llama_index_colbert.retriever import ColBERTRetriever
from llama_index_colbert.sentences import ColBERTSentencePostprocessor
from llama_index_colbert.store import ColBERTVectorStore

# The names of the packages that these replace.
ColbertIndex = ColBERTIndex
ColbertRerank = ColBERTRerank

__all__ = [
    "ColBERTIndex",
    "ColBERTRerank",
    "ColBERTRetriever",
    "ColBERTSentencePostprocessor",
    "ColBERTVectorStore",
    "ColbertIndex",
    "ColbertRerank",
]
