"""``ColBERTTranslator``: what a language model writes for LangChain's ``SelfQueryRetriever``, as filters of the store."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from langchain_core.structured_query import Comparator, Operator, Visitor

if TYPE_CHECKING:
    from langchain_core.structured_query import Comparison, Operation, StructuredQuery


class ColBERTTranslator(Visitor):
    """Translate the filters of LangChain's ``SelfQueryRetriever`` for a ``ColBERTVectorStore``.

    Setup:
        ``pip install langchain-classic lark`` for the retriever.

    Key init args:
        None.

    Instantiate:
        ```python
        from langchain_colbert import ColBERTTranslator

        translator = ColBERTTranslator()
        ```

    Usage:
        ```python
        from langchain_core.structured_query import Comparator, Comparison, StructuredQuery

        since = Comparison(Comparator.GTE, "sent", {"date": "2024-02-01", "type": "date"})
        print(translator.visit_structured_query(StructuredQuery("cats", since)))
        ```

        ```text
        ('cats', {'filter': {'sent': {'$gte': datetime.date(2024, 2, 1)}}})
        ```

    Use within a chain:
        LangChain knows the translators of the stores on its own list, so name this one.

        ```python
        import json

        from langchain_classic.retrievers.self_query.base import SelfQueryRetriever
        from langchain_colbert import ColBERTVectorStore
        from langchain_core.language_models import FakeListChatModel

        store = ColBERTVectorStore.from_texts(["Cats sleep.", "Cats purr."], metadatas=[{"year": 2023}, {"year": 2024}])
        answer = {"query": "cats", "filter": 'gt("year", 2023)'}
        llm = FakeListChatModel(responses=[json.dumps(answer)])  # put any chat model here
        fields = [{"name": "year", "type": "integer", "description": "of the letter"}]
        retriever = SelfQueryRetriever.from_llm(llm, store, "letters", fields, structured_query_translator=translator)
        print(retriever.invoke("What did we write about cats since 2024?")[0].page_content)
        ```

        ```text
        Cats purr.
        ```

    | the model writes | it matches |
    |---|---|
    | `eq` `ne` | the same value of the same type, and its opposite |
    | `gt` `gte` `lt` `lte` | numbers, strings and dates by their order |
    | `in` `nin` | one of some values, and its opposite |
    | `contain` | a list with this element, or with all of these; a string with this part, whatever its letter case |
    | `like` | a string with this part, whatever its letter case; `%` divides several parts |
    | `and` `or` `not` | all, any and none of some filters |

    Dates are instants, as in all filters: a day is the midnight with which it begins, in UTC. A dotted name leads into nested
    objects, or is a key with these dots.
    """

    allowed_comparators = tuple(Comparator)
    allowed_operators = tuple(Operator)

    def visit_operation(self, operation: Operation) -> dict[str, Any]:
        """Translate ``and``, ``or`` and ``not``."""
        filters = [argument.accept(self) for argument in operation.arguments]
        if operation.operator == Operator.NOT:
            return {"$not": {"$or": filters}}
        return {f"${operation.operator.value}": filters}

    def visit_comparison(self, comparison: Comparison) -> dict[str, Any]:
        """Translate a comparison of a field with a value.

        Raises:
            TypeError: ``like`` compares with something else than a string.
            ValueError: a date is none.
        """
        field, value = _path(comparison.attribute), _value(comparison.value)
        if comparison.comparator == Comparator.CONTAIN:
            return _contain(field, value)
        if comparison.comparator == Comparator.LIKE:
            return _like(comparison.attribute, field, comparison.value)
        if comparison.comparator in (Comparator.IN, Comparator.NIN) and not isinstance(value, list):
            value = [value]
        return {field: {f"${comparison.comparator.value}": value}}

    def visit_structured_query(self, structured_query: StructuredQuery) -> tuple[str, dict[str, Any]]:
        """Return the text to search for, and the keywords of the search."""
        where = structured_query.filter
        return structured_query.query, {} if where is None else {"filter": where.accept(self)}


def _contain(field: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {field: {"$all": value}}
    has_element = {field: {"$contains": value}}
    return {"$or": [has_element, {field: {"$itext": value}}]} if isinstance(value, str) else has_element


def _like(name: str, field: str, value: Any) -> dict[str, Any]:
    text = next(iter(value.values())) if isinstance(value, dict) and value else value  # LangChain reads "2024-01-01" as a date
    if not isinstance(text, str):
        raise TypeError(f"like compares the field {name!r} with a string, got {type(value).__name__}: {value!r:.80}")
    return {"$and": [{field: {"$itext": part}} for part in text.split("%")]}


def _value(value: Any) -> Any:
    """A value as filters take it; LangChain writes dates as ``{"date": "2024-01-31", "type": "date"}``."""
    if isinstance(value, list | tuple):
        return [_value(each) for each in value]
    if not isinstance(value, dict):
        return value
    try:
        if value.get("type") == "date":
            return datetime.date.fromisoformat(value["date"])
        if value.get("type") == "datetime":
            return datetime.datetime.fromisoformat(value["datetime"].upper())
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"The filter compares with a date that is none: {value!r:.80} ({error}).") from None
    return value


def _path(name: str) -> str:
    """The name of a field, whose backslashes and leading dollar sign are its own."""
    path = name.replace("\\", "\\\\")
    return f"\\{path}" if path.startswith("$") else path
