"""Metadata filters of LlamaIndex against their meaning, one passage at a time."""

from __future__ import annotations

import datetime
import operator

import pytest
from builders.encoders import WordEncoder
from builders.nodes import ask, node, one
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.schema import Document, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from colbert_core import FilterWarning, Index, Passage
from llama_index_colbert import ColBERTIndex, ColBERTRetriever, ColBERTVectorStore

MISSING = object()


def matches(filters, metadata):
    """What a filter means, one passage at a time."""
    if isinstance(filters, MetadataFilters):
        results = [matches(inner, metadata) for inner in filters.filters]
        if filters.condition == FilterCondition.NOT and results:
            return not any(results)
        return any(results) or not results if filters.condition == FilterCondition.OR else all(results)
    return MEANINGS[filters.operator](metadata.get(filters.key, MISSING), filters.value)


def ordered(compare):
    def meaning(value, wanted):
        alike = (is_number(value) and is_number(wanted)) or (isinstance(value, str) and isinstance(wanted, str))
        return alike and compare(value, wanted)

    return meaning


def one_of(value, options):
    return any(same(value, option) for option in options)


def has(value, wanted):
    return isinstance(value, list) and any(same(element, wanted) for element in value)


MEANINGS = {
    FilterOperator.EQ: lambda value, wanted: same(value, wanted),
    FilterOperator.NE: lambda value, wanted: not same(value, wanted),
    FilterOperator.GT: ordered(operator.gt),
    FilterOperator.GTE: ordered(operator.ge),
    FilterOperator.LT: ordered(operator.lt),
    FilterOperator.LTE: ordered(operator.le),
    FilterOperator.IN: one_of,
    FilterOperator.NIN: lambda value, options: not one_of(value, options),
    FilterOperator.CONTAINS: has,
    FilterOperator.ANY: lambda value, options: any(has(value, option) for option in options),
    FilterOperator.ALL: lambda value, options: isinstance(value, list) and all(has(value, option) for option in options),
    FilterOperator.TEXT_MATCH: lambda value, part: isinstance(value, str) and part in value,
    FilterOperator.TEXT_MATCH_INSENSITIVE: lambda value, part: isinstance(value, str) and part.casefold() in value.casefold(),
    FilterOperator.IS_EMPTY: lambda value, _: value is MISSING or value is None or value in ("", [], {}),
}


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def same(value, wanted):
    if isinstance(value, bool):  # which a filter of LlamaIndex cannot name
        return wanted in ((1, "true", "True") if value else (0, "false", "False"))
    if is_number(value) and is_number(wanted):
        return value == wanted
    return type(value) is type(wanted) and value == wanted


WORDS = st.sampled_from(["", "a", "A", "ab", "ß", "SS", "2", "a.b", "\\", "$x", "true", "True", "false", "False", "TRUE", "1"])


NUMBERS = st.one_of(st.integers(-2, 3), st.sampled_from([0.5, 1.0, 2.0, -1.5]))


SCALARS = st.one_of(WORDS, NUMBERS)


KEYS = st.sampled_from(["x", "y", "a.b", "a\\.b", "$z", "\\", "with space", ""])


VALUES = st.one_of(SCALARS, st.booleans(), st.none(), st.lists(st.one_of(SCALARS, st.none(), st.booleans()), max_size=3))


METADATA = st.dictionaries(KEYS, st.one_of(VALUES, st.just({"b": 1})), max_size=4)


@st.composite
def single_filters(draw):
    wanted = draw(st.sampled_from(list(FilterOperator)))
    if wanted in (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL):
        value = draw(st.one_of(st.lists(WORDS, max_size=3), st.lists(NUMBERS, max_size=3)))
        if any(isinstance(option, float) for option in value):
            value = [float(option) for option in value]
    elif wanted in (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE):
        value = draw(WORDS)
    elif wanted in (FilterOperator.EQ, FilterOperator.NE, FilterOperator.CONTAINS):
        value = draw(st.one_of(SCALARS, st.none()))
    else:
        value = draw(SCALARS)
    return MetadataFilter(key=draw(KEYS), value=value, operator=wanted)


def joined(inner):
    return st.builds(MetadataFilters, filters=st.lists(inner, max_size=3), condition=st.sampled_from([*FilterCondition, None]))


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("==", 1, "tn"),
        ("==", 1.0, "tn"),
        ("==", "true", "ts"),
        ("==", "True", "t"),
        ("==", "TRUE", ""),
        ("==", "1", ""),
        ("==", 0, "f"),
        ("==", "False", "f"),
        ("!=", 1, "fsl"),
        ("!=", "true", "fnl"),
        ("in", [1, 0], "tfn"),
        ("in", ["true", "x"], "ts"),
        ("nin", ["True", "False"], "nsl"),
        (">", 0, "n"),
        ("contains", 1, "l"),
        ("any", ["true"], "l"),
        ("all", ["True", "False"], "l"),
        ("all", [1, 2], ""),
        ("text_match", "true", "s"),
    ],
)
@pytest.mark.filterwarnings("ignore::colbert_core.FilterWarning")
def test_true_and_false_are_named_by_numbers_and_words(operator, value, expected):
    store = ColBERTVectorStore(WordEncoder(dim=8))
    for name, public in {"t": True, "f": False, "n": 1, "s": "true", "l": [True, False]}.items():
        store.add([node(name, "x", public=public)])
    filters = MetadataFilters(filters=[MetadataFilter(key="public", value=value, operator=operator)])
    found = {each.node_id for each in store.get_nodes(filters=filters)}
    assert "".join(name for name in "tfnsl" if name in found) == expected


def test_strings_of_iso_8601_are_dates_for_filters_of_order():
    store = ColBERTVectorStore(WordEncoder(dim=8))
    store.add(
        [
            node("a", "x", when=datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)),
            node("b", "x", when=datetime.date(2024, 2, 1)),
        ]
    )
    bounds = [
        MetadataFilter(key="when", value=value, operator=sign) for sign, value in ((">=", "2024-01-01"), ("<", "2024-01-02"))
    ]
    (found,) = store.get_nodes(filters=MetadataFilters(filters=bounds))
    assert (found.node_id, found.metadata["when"].tzinfo) == ("a", datetime.UTC)


def test_a_field_that_no_node_has_and_a_type_that_no_value_has_are_said():
    store = ColBERTVectorStore(WordEncoder(dim=8))
    store.add([node("a", "x", year=2020)])
    with pytest.warns(FilterWarning, match="No passage has the field 'yaer' that the filter asks for; did you mean 'year'"):
        assert store.query(ask("x", filters=one("yaer", 2020))).ids == []
    with pytest.warns(FilterWarning, match="compares the field 'year' with a string, but its values are numbers") as caught:
        assert ColBERTRetriever(store.index, filters=one("year", "2020")).retrieve("x") == []
    assert len(caught) == 1


def test_nothing_is_said_of_source_documents_that_nobody_asked_for():
    store = ColBERTVectorStore(WordEncoder(dim=8))
    store.index.add([Passage("a", "x")])
    store.delete("unknown.txt")
    index = ColBERTIndex([TextNode(id_="b", text="x")], model_name=WordEncoder(dim=8))
    assert index.refresh_ref_docs([Document(id_="c", text="x")]) == [True]
    index.delete_ref_doc("unknown.txt")


@pytest.mark.filterwarnings("ignore::colbert_core.FilterWarning")  # it asks for fields and types at random
@settings(max_examples=300)
@given(
    st.lists(METADATA, min_size=1, max_size=5),
    joined(st.recursive(single_filters(), joined, max_leaves=5)),
)
def test_filters_mean_what_they_say_nested_mixed_and_missing(metadatas, filters):
    index = SHARED
    index.clear()
    passages = [node(str(position), "x") for position in range(len(metadatas))]
    for passage, metadata in zip(passages, metadatas, strict=True):
        passage.metadata = metadata
        passage.excluded_embed_metadata_keys = list(metadata)
    store = ColBERTVectorStore(index=index)
    store.add(passages)
    expected = [passage.node_id for passage in passages if matches(filters, passage.metadata)]
    assert [n.node_id for n in store.get_nodes(filters=filters)] == expected
    assert sorted(store.query(ask("x", 9, filters=filters)).ids) == expected


SHARED = Index.create(None, WordEncoder(dim=8))


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("in", "abc", "a list"),
        ("any", 1, "a list"),
        ("text_match", 1, "a string"),
        (">", ["a"], "a number"),
        ("==", ["a"], "one"),
    ],
)
def test_a_value_of_the_wrong_kind_names_the_filter(store, name, value, takes):
    with pytest.raises(TypeError, match=f"'{name}' on 'year' takes {takes}"):
        store.query(ask("dog", filters=one("year", value, name)))


def test_filters_of_another_type_are_errors(store):
    for make in (lambda: store.get_nodes(filters={"year": 1}), lambda: ColBERTRetriever(store.index, filters={"year": 1})):
        with pytest.raises(TypeError, match="must be MetadataFilters, got dict"):
            make()
    with pytest.raises(TypeError, match="doc_ids must be a list"):
        ColBERTRetriever(store.index, doc_ids="pets.txt")
