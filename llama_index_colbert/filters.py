"""Translate metadata filters of LlamaIndex to a ``where`` of colbert_core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPERATORS = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.ANY: "$any",
    FilterOperator.ALL: "$all",
    FilterOperator.CONTAINS: "$contains",
    FilterOperator.TEXT_MATCH: "$text",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "$itext",
}
_OF_LISTS = {FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL}
_OF_TEXT = {FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE}
_OF_ORDER = {FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE}
# What compares with several values as the operator does with one.
_OF_SEVERAL = {
    FilterOperator.EQ: "$in",
    FilterOperator.NE: "$nin",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.CONTAINS: "$any",
    FilterOperator.ANY: "$any",
}
_TRUTHS = {True: (1, "true", "True"), False: (0, "false", "False")}


def to_where(filters: MetadataFilters | None, doc_ids: Sequence[str] | None = None) -> dict[str, Any] | None:
    """Translate filters, which may be nested, and the ids of source documents.

    ======================================  ===========================================================================
    ``==`` ``!=``                           the same value of the same type (1 is 1.0, but never "1"), and its opposite
    ``>`` ``>=`` ``<`` ``<=``               numbers and numbers, strings and strings, dates and dates in ISO 8601; nothing else
    ``in`` ``nin``                          one of the listed values, and its opposite
    ``contains`` ``any`` ``all``            a list that has the value, one of the values, every one of them
    ``text_match`` (``_insensitive``)       a string that has the text as a part (whatever its letter case)
    ``is_empty``                            missing, None, "", [] or {}; the filter's value does not matter
    ======================================  ===========================================================================

    LlamaIndex' filters take no True and no False. So 1, "true" and "True" match True as well, and 0, "false" and "False" False,
    wherever a value is compared with ``==``, ``!=`` and those of a list.

    A field that is missing matches only ``!=``, ``nin`` and ``is_empty``; None is a value like any other. A condition
    ``not`` matches where none of its filters matches. No filters at all match everything.

    Raises:
        TypeError: filters is something else, or a value is of a kind that its operator does not take.
    """
    if filters is not None and not isinstance(filters, MetadataFilters):
        raise TypeError(f"filters must be MetadataFilters, got {type(filters).__name__}: {filters!r:.80}")
    if isinstance(doc_ids, str):
        raise TypeError(f"doc_ids must be a list of strings, got one str; write [{doc_ids!r}].")
    wheres = [] if filters is None else [_join(filters)]
    if doc_ids is not None:
        wheres.append({"ref_doc_id": {"$in": list(doc_ids)}})
    return {"$and": wheres} if len(wheres) > 1 else wheres[0] if wheres else None


def of_document(ref_doc_id: str) -> dict[str, Any]:
    """The nodes of a source document, which may be unknown: no node need have one."""
    return {"ref_doc_id": {"$exists": True, "$eq": ref_doc_id}}


def _join(filters: MetadataFilters) -> dict[str, Any]:
    wheres = [_join(inner) if isinstance(inner, MetadataFilters) else _translate(inner) for inner in filters.filters]
    if not wheres:
        return {}
    if filters.condition == FilterCondition.NOT:
        return {"$not": {"$or": wheres}}
    return {"$or" if filters.condition == FilterCondition.OR else "$and": wheres}


def _translate(test: MetadataFilter) -> dict[str, Any]:
    if test.operator == FilterOperator.IS_EMPTY:
        return {_path(test.key): {"$empty": True}}
    if test.operator in _OF_LISTS:
        wanted, fits = "a list", isinstance(test.value, list)
    elif test.operator in _OF_TEXT:
        wanted, fits = "a string", isinstance(test.value, str)
    elif test.operator in _OF_ORDER:
        wanted, fits = "a number or a string", isinstance(test.value, int | float | str)
    else:
        wanted, fits = "one value, as 'in', 'any' and 'all' take a list", not isinstance(test.value, list)
    if not fits:
        raise TypeError(f"The filter {test.operator.value!r} on {test.key!r} takes {wanted}, got {test.value!r:.80}")
    return _compare(_path(test.key), test.operator, test.value)


def _compare(path: str, operator: FilterOperator, value: Any) -> dict[str, Any]:
    meant = {each: _meant(each) for each in (value if operator in _OF_LISTS else [value])}
    if operator in _OF_TEXT | _OF_ORDER or all(len(values) == 1 for values in meant.values()):
        return {path: {_OPERATORS[operator]: value}}
    if operator == FilterOperator.ALL:
        return {"$and": [{path: {"$any": values}} for values in meant.values()]}
    return {path: {_OF_SEVERAL[operator]: [each for values in meant.values() for each in values]}}


def _meant(value: Any) -> list[Any]:
    """A value, and the truth that it may stand for."""
    return [value, *(truth for truth, names in _TRUTHS.items() if value in names)]


def _path(key: str) -> str:
    """Escape a key so that it is a path of one step, because LlamaIndex's filters know no nested objects."""
    escaped = key.replace("\\", "\\\\").replace(".", "\\.")
    return f"\\{escaped}" if escaped.startswith("$") else escaped
