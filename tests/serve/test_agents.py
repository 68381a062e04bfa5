"""The tools of an agent: what they give, how long that is, and what they say where something is wrong."""

from __future__ import annotations

import json
import sys

import pytest
from builders.agents import LONG, PASSAGES
from builders.encoders import WordEncoder
from mcp.server.fastmcp.exceptions import ToolError

from colbert_core import Collections, Index, Passage
from colbert_core.errors import DamagedIndexError, IndexLockedError
from colbert_core.serve.agents.budget import count_tokens, end_of_piece, fitting_metadata
from colbert_core.serve.agents.problems import sentence_of
from colbert_core.serve.agents.server import make_agent_server
from colbert_core.serve.agents.tools import Tools
from colbert_core.serve.catalogue import Catalogue
from colbert_core.serve.limits import Limits


def pets():
    index = Index.create(None, WordEncoder())
    index.add(PASSAGES, progress=False)
    return index


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue(indexes={"pets": pets()})


@pytest.fixture(scope="module")
def tools(catalogue):
    return Tools(catalogue, Limits())


@pytest.fixture(scope="module")
def server(catalogue):
    return make_agent_server(catalogue, writable=True)


@pytest.fixture(scope="module")
def many_cats():
    index = Index.create(None, WordEncoder())
    texts = ["the cat sat. " * n for n in range(1, 201)]
    index.add([Passage(f"a rather long id of a passage {n}", text, {"n": n}) for n, text in enumerate(texts)], progress=False)
    return Tools(Catalogue(indexes={"cats": index}), Limits())


async def refused(server, tool, **arguments):
    with pytest.raises(ToolError) as caught:
        await server.call_tool(tool, arguments)
    return str(caught.value)


def test_a_token_is_about_four_bytes():
    assert [count_tokens(text) for text in ("", "cat", "cats", "cats!", "猫猫猫猫")] == [0, 1, 1, 2, 3]


def test_a_piece_of_a_text_ends_behind_a_word():
    assert end_of_piece("the cat sat on the mat", 0, 4) == len("the cat sat on ")
    assert end_of_piece("the cat sat on the mat", 4, 100) == len("the cat sat on the mat")
    assert end_of_piece("x" * 100, 10, 4) == 26
    assert end_of_piece("🙂🙂🙂", 1, 0) == 2  # a character at least


def test_metadata_that_do_not_fit_are_named():
    assert fitting_metadata({"a": 1, "b": "x" * 1000, "c": 2}, 10) == ({"a": 1, "c": 2}, ["b"])


def test_a_search_shows_the_part_of_a_long_passage_that_matched(tools):
    result = tools.search("zebra escaped zoo", k=1)
    (hit,) = result.hits
    assert hit.id == "long"
    assert "The zebra escaped from the zoo at midnight." in hit.text
    assert hit.text == LONG[hit.start : hit.end]
    assert len(hit.text) <= 2000 < hit.characters == len(LONG)
    assert f"characters {hit.start}-{hit.end} of {len(LONG)}" in result.as_text()
    assert "get_passage" in result.notes[0]


def test_a_search_gives_short_passages_whole_with_their_metadata(tools):
    hit = tools.search("cats purr", k=1).hits[0]
    assert (hit.id, hit.text, hit.metadata) == ("cats", PASSAGES[0].text, PASSAGES[0].metadata)


@pytest.mark.parametrize("max_tokens", [200, 230, 300, 500, 1000, 4000])
@pytest.mark.parametrize("k", [1, 3, 200])
def test_no_answer_takes_more_tokens_than_it_may(many_cats, max_tokens, k):
    result = many_cats.search("cat", k=k, max_tokens=max_tokens)
    assert count_tokens(result.as_text()) <= max_tokens
    assert count_tokens(json.dumps(result.model_dump(mode="json"), ensure_ascii=False)) <= max_tokens
    assert result.hits[0].rank == 1
    n_left_out = k - len(result.hits)
    assert (f"{n_left_out} more did not fit" in result.as_text()) == bool(n_left_out)


def test_a_long_passage_is_read_part_by_part_and_nothing_is_lost(tools):
    texts, offset, n = [], 0, 0
    while offset is not None:
        part = tools.get_passage("long", offset=offset, max_tokens=250)
        assert count_tokens(part.as_text()) <= 250
        assert bool(part.metadata) == (offset == 0)
        assert part.next_offset is None or f"offset={part.next_offset}" in part.as_text()
        texts.append(part.text)
        offset, n = part.next_offset, n + 1
    assert "".join(texts) == LONG
    assert n > 10


def test_a_blank_query_with_a_filter_lists_passages(tools):
    result = tools.search("", where={"year": {"$gte": 2023}})
    assert [(hit.id, hit.relevance) for hit in result.hits] == [("dogs", 0.0), ("long", 0.0)]
    assert "filter matches" in result.notes[0]


def test_a_blank_query_without_a_filter_says_what_to_give(tools):
    result = tools.search(" ")
    assert result.hits == []
    assert result.notes == ["The query is blank and there is no filter, so nothing was looked for; give words, or where."]


@pytest.mark.filterwarnings("ignore::colbert_core.FilterWarning")  # the same goes to the log
def test_a_filter_that_finds_nothing_says_which_fields_there_are(tools):
    for query in ("", "cats"):
        (note,) = tools.search(query, where={"yeer": 2020}).notes
        assert "did you mean 'year'?" in note


def test_explain_tells_which_words_match_and_which_do_not(default_encoder):
    index = Index.create(None, default_encoder)
    index.add(PASSAGES[:1], progress=False)
    result = Tools(Catalogue(indexes={"pets": index}), Limits()).explain("cats submarine", "cats")
    assert [(each.words, each.terms) for each in result.matches] == [("Cats", ["cats"])]
    assert result.unmatched == ["submarine"]
    assert "'Cats' matches cats (1.0)" in result.as_text()
    assert "nothing matches: submarine" in result.as_text()


def test_collections_are_listed_with_their_fields(tools):
    (about,) = tools.list_collections().collections
    assert (about.name, about.passages, about.modes) == ("pets", 3, ["hybrid", "maxsim", "words"])
    assert {field.name: (field.types, field.examples) for field in about.fields} == {
        "kind": ({"string": 2}, ["cat", "dog"]),
        "tags": ({"list": 1}, ["loud"]),
        "year": ({"number": 3}, [2020, 2023, 2024]),
    }


def test_many_collections_are_listed_in_pages(tmp_path):
    collections = Collections(tmp_path / "all", WordEncoder())
    for name in "abcdefghij":
        with collections.create(name) as index:
            index.add(
                [Passage("1", "cats", {f"a rather long name of a field {n}": "x" * 80 for n in range(20)})], progress=False
            )
    tools = Tools(Catalogue([tmp_path / "all"], WordEncoder()), Limits())
    names, after = [], None
    while after is not None or not names:
        page = tools.list_collections(after=after, max_tokens=2000)
        assert count_tokens(page.as_text()) <= 2000
        names += [about.name for about in page.collections]
        after = page.next
    assert names == list("abcdefghij")
    (about,) = tools.list_collections("c", max_tokens=500).collections
    assert about.fields_left_out
    assert about.passages == 1


def test_a_collection_that_cannot_be_opened_hides_no_other(tmp_path):
    for name in ("good", "torn"):
        Index.create(tmp_path / name, WordEncoder()).close()
    catalogue = Catalogue([tmp_path / "good", tmp_path / "torn"], WordEncoder())
    (tmp_path / "torn" / "index.sqlite").write_bytes(b"not a database" * 100)
    good, torn = Tools(catalogue, Limits()).list_collections().collections
    assert (good.passages, torn.passages) == (0, None)
    assert "the log of the server" in torn.problem
    assert str(tmp_path) not in torn.problem
    catalogue.close()


def test_of_several_collections_one_must_be_named(tmp_path):
    tools = Tools(Catalogue(indexes={"a": pets(), "b": pets()}), Limits())
    with pytest.raises(ValueError, match="Say which collection; those are 'a', 'b'"):
        tools.search("cats")
    assert tools.search("cats", "b").collection == "b"


async def test_every_answer_is_text_and_values_of_its_schema(server):
    import jsonschema

    schemas = {tool.name: tool.outputSchema for tool in await server.list_tools()}
    for name, arguments in {
        "search": {"query": "cats"},
        "get_passage": {"id": "cats"},
        "explain": {"query": "cats", "id": "cats"},
        "list_collections": {},
    }.items():
        (content,), values = await server.call_tool(name, arguments)
        assert "cats" in content.text or "pets" in content.text
        jsonschema.validate(values, schemas[name])


async def test_only_a_writable_server_has_a_tool_that_adds(catalogue, server):
    reading = {tool.name: tool for tool in await make_agent_server(catalogue).list_tools()}
    writing = {tool.name: tool for tool in await server.list_tools()}
    assert list(reading) == ["search", "get_passage", "explain", "list_collections"]
    assert all(tool.annotations.readOnlyHint for tool in reading.values())
    assert writing.keys() - reading.keys() == {"add_passages"}
    assert (writing["add_passages"].annotations.readOnlyHint, writing["add_passages"].annotations.destructiveHint) == (
        False,
        True,
    )


async def test_added_passages_are_found():
    server = make_agent_server(Catalogue(indexes={"pets": pets()}), writable=True)
    _, values = await server.call_tool("add_passages", {"passages": [{"id": "hens", "text": "Hens cluck."}]})
    assert (values["added"], values["passages"]) == (1, 4)
    _, values = await server.call_tool("search", {"query": "hens cluck", "k": 1})
    assert values["hits"][0]["id"] == "hens"


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("search", {}, "The argument query is missing"),
        ("search", {"query": 5}, "query: Input should be a valid string, got 5."),
        ("search", {"query": ["cats"]}, "query: Input should be a valid string"),
        ("search", {"query": "cats", "k": "many"}, "got 'many'"),
        ("search", {"query": "cats", "k": 0}, "greater than or equal to 1, got 0"),
        ("search", {"query": "cats", "k": 10**9}, "at most 1000 is allowed"),
        ("search", {"query": "cats", "k": 10**30}, "at most 1000 is allowed"),
        ("search", {"query": "x" * 100_000}, "at most 10000 are allowed"),
        ("search", {"query": "cat \ud800"}, "The query has a lone surrogate"),
        ("search", {"query": "cats", "filter": {}}, "no argument 'filter'; its arguments are query, collection"),
        ("search", {"query": "cats", "where": "year > 2020"}, "where: Input should be a valid dictionary"),
        ("search", {"query": "cats", "where": {"year": {"$foo": 1}}}, "'$foo' is no operator"),
        ("search", {"query": "cats", "where": {"\ud800": 1}}, ""),
        ("search", {"query": "cats", "mode": "magic"}, "'hybrid', 'maxsim' or 'words'"),
        ("search", {"query": "cats", "min_relevance": 7}, "less than or equal to 1"),
        ("search", {"query": "cats", "max_tokens": 3}, "needs at least 200"),
        ("search", {"query": "cats", "collection": "../../etc"}, "no collection '../../etc'; those are 'pets'"),
        ("get_passage", {"id": "../../etc/passwd"}, "take an id that search gave"),
        ("get_passage", {"id": "cats", "offset": 10_000}, "the passage has 32 characters"),
        ("get_passage", {"id": "cats", "offset": -1}, "greater than or equal to 0"),
        ("get_passage", {"id": "\ud800"}, "id has a lone surrogate"),
        ("explain", {"query": "", "id": "cats"}, "give the words"),
        ("explain", {"query": "cats", "id": "nobody"}, "There is no passage 'nobody'"),
        ("list_collections", {"collection": "wiki"}, "no collection 'wiki'"),
        ("add_passages", {"passages": []}, "give 1 to 10000"),
        ("add_passages", {"passages": [{"text": "x"}]}, "passages.0.id is missing"),
        ("add_passages", {"passages": [{"id": "x", "text": "x", "file": "/etc/passwd"}]}, "passages.0.file"),
        ("add_passages", {"passages": [{"id": "", "text": "x"}]}, "id is empty"),
        ("open", {"path": "/etc/passwd"}, "There is no tool 'open'; those are search"),
    ],
)
async def test_a_wrong_call_is_told_how_to_mend_it(server, tool, arguments, said):
    sentence = await refused(server, tool, **arguments)
    assert said in sentence
    assert len(sentence) < 600
    assert "Traceback" not in sentence
    assert "pydantic" not in sentence
    sentence.encode()


async def test_a_filter_that_comes_as_a_string_of_json_is_read(server):
    _, values = await server.call_tool("search", {"query": "", "where": '{"kind": "cat"}'})
    assert [hit["id"] for hit in values["hits"]] == ["cats"]


@pytest.mark.parametrize(
    "error", [DamagedIndexError("/srv/secret/x.idx is torn"), IndexLockedError("/srv/secret"), OSError("/srv/secret")]
)
def test_no_error_names_a_file_of_the_server(error, caplog):
    assert "/srv" not in sentence_of(error)
    assert "/srv/secret" in caplog.text


def test_too_few_tokens_for_an_answer_are_refused(catalogue):
    with pytest.raises(ValueError, match="at least 200"):
        make_agent_server(catalogue, max_tokens=10)


def test_the_command_says_which_options_belong_to_http(run, tmp_path):
    code, _, error = run("mcp", str(tmp_path), "--port", "0")
    assert code == 1
    assert "--http" in error


def test_without_the_sdk_the_command_names_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp.server.fastmcp", None)
    code, _, error = run("mcp", str(tmp_path))
    assert code == 1
    assert "pip install 'mcp>=1.12,<2'" in error
