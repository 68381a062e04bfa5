"""Make query and chat engines of an index, and refuse keywords that neither the retriever nor the engine would use."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any

from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.indices.base import BaseIndex
from llama_index.core.query_engine import RetrieverQueryEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from llama_index.core.base.base_query_engine import BaseQueryEngine
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.chat_engine.types import BaseChatEngine


def _names(function: Callable[..., Any]) -> frozenset[str]:
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return frozenset(name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind in kinds)


_QUERY = _names(RetrieverQueryEngine.from_args)
_CHAT = frozenset().union(
    *(
        _names(engine.from_defaults)
        for engine in (CondensePlusContextChatEngine, CondenseQuestionChatEngine, ContextChatEngine, SimpleChatEngine)
    )
)
_MEANT = dict.fromkeys(("k", "top_k", "top_n", "similarity_topk", "search_k"), "similarity_top_k")
_MEANT |= dict.fromkeys(("filter", "where", "metadata_filters"), "filters")
_MEANT |= {"vector_store_query_mode": "mode", "mode": "vector_store_query_mode"}


def refuse_unknown(method: str, keywords: Collection[str], known: Collection[str]) -> None:
    """Refuse keywords that would do nothing, and say which one was meant.

    Args:
        method: name of the method, for the error.
        keywords: what it was given.
        known: what it takes.

    Raises:
        TypeError: one is unknown.
    """
    for name in sorted(set(keywords) - set(known)):
        meant = _MEANT.get(name) or next(iter(difflib.get_close_matches(name, known, 1, 0.8)), None)
        if meant in known:
            raise TypeError(f"{method} takes no keyword {name!r}; write {meant}=...")
        if name in _QUERY | _CHAT:
            raise TypeError(f"{method} takes no keyword {name!r}: it is one of as_query_engine and as_chat_engine.")
        raise TypeError(f"{method} takes no keyword {name!r}.")


class EngineMaker:
    """An index whose engines give each keyword to whom takes it."""

    _retriever_keywords: frozenset[str]

    def as_query_engine(self, llm: Any = None, **kwargs: Any) -> BaseQueryEngine:
        """Make a query engine.

        Args:
            llm: the LLM; None for that of ``Settings``.
            kwargs: of ``as_retriever`` and of ``RetrieverQueryEngine.from_args``.

        Raises:
            TypeError: neither takes this keyword.
        """
        refuse_unknown("as_query_engine", kwargs, self._retriever_keywords | _QUERY)
        return BaseIndex.as_query_engine(_Ready(self, kwargs), llm, **kwargs)  # type: ignore[arg-type]

    def as_chat_engine(self, chat_mode: ChatMode = ChatMode.BEST, llm: Any = None, **kwargs: Any) -> BaseChatEngine:
        """Make a chat engine.

        Args:
            chat_mode: which.
            llm: the LLM; None for that of ``Settings``.
            kwargs: of ``as_retriever``, of the chat engine and of its query engine.

        Raises:
            TypeError: none of them takes this keyword.
        """
        refuse_unknown("as_chat_engine", kwargs, self._retriever_keywords | _QUERY | _CHAT)
        return BaseIndex.as_chat_engine(_Ready(self, kwargs), chat_mode, llm, **kwargs)  # type: ignore[arg-type]


class _Ready:
    """Stands for an index while LlamaIndex makes an engine: it hands every keyword to ``as_retriever``, this one does not."""

    def __init__(self, index: Any, keywords: dict[str, Any]) -> None:
        self._callback_manager = index._callback_manager
        own = {name: value for name, value in keywords.items() if name in index._retriever_keywords}
        self._retriever = index.as_retriever(**own)

    def as_retriever(self, **_: Any) -> BaseRetriever:
        retriever: BaseRetriever = self._retriever
        return retriever

    def as_query_engine(self, llm: Any = None, **kwargs: Any) -> BaseQueryEngine:
        return BaseIndex.as_query_engine(self, llm, **kwargs)  # type: ignore[arg-type]
