"""The commands that look at an index without a query, and that change metadata."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from colbert_core import Index, Passage


@pytest.fixture(autouse=True)
def small_model(monkeypatch, stanford_folder):
    """The tiny checkpoint in place of the model in the box, which these commands take by default."""
    import colbert_core.encoder as encoder_module

    monkeypatch.setattr(encoder_module, "DEFAULT_MODEL", stanford_folder)


@pytest.fixture
def pets(tmp_path, monkeypatch, stanford):
    monkeypatch.chdir(tmp_path)
    with Index.create("pets.idx", stanford) as index:
        index.add(
            [
                Passage("a", "\nThe cat sat.\nOn a mat.", {"year": 2020, "lang": "en"}),
                Passage("b", "a dog barks", {"year": 2024, "tags": ["pets", "dogs"]}),
                Passage("c", "x" * 200),
            ]
        )
    return "pets.idx"


def printed(out):
    return [json.loads(line) for line in out.splitlines()]


def metadata(pets):
    with Index.open(pets) as index:
        return {passage.id: passage.metadata for passage in index.passages()}


def test_a_list_has_names_and_how_texts_begin(run, pets):
    assert run("list", pets) == (0, f"[a] The cat sat. On a mat.\n[b] a dog barks\n[c] {'x' * 140}…\n", "")
    assert run("list", pets, "--where", '{"year": {"$gt": 2020}}') == (0, "[b] a dog barks\n", "")


def test_a_list_that_is_cut_says_how_to_go_on(run, pets):
    code, out, err = run("list", pets, "--limit", "2")
    assert (code, out) == (0, "[a] The cat sat. On a mat.\n[b] a dog barks\n")
    said, _, goes_on = err.partition("--after ")
    assert said == "colbert: There are more; "
    code, out, err = run("list", pets, "--limit", "2", "--after", goes_on.split()[0])
    assert (code, out, err) == (0, f"[c] {'x' * 140}…\n", "")
    assert run("list", pets, "--limit", "3")[2] == ""
    assert run("list", pets, "--after", "a")[:2] == (1, "")
    assert "after is what a page gave as its next" in run("list", pets, "--after", "a")[2]
    assert "limit must be at least 1, got 0" in run("list", pets, "--limit", "0")[2]


def test_a_long_list_is_read_in_parts(run, pets, monkeypatch):
    from colbert_core.cli import passage_commands

    monkeypatch.setattr(passage_commands, "_AT_A_TIME", 1)
    assert len(run("list", pets)[1].splitlines()) == 3
    assert len(run("list", pets, "--limit", "2")[1].splitlines()) == 2


def test_full_lists_and_shown_passages_are_whole(run, pets):
    first = '[a]\n      {"year": 2020, "lang": "en"}\n\n      The cat sat.\n      On a mat.\n'
    third = f"[c]\n      {'x' * 200}\n"
    assert run("show", pets, "a") == (0, first, "")
    assert run("show", pets, "c", "a") == (0, third + first, "")
    assert run("list", pets, "--full")[1] == run("show", pets, "a", "b", "c")[1]
    assert run("list", pets, "--full", "--where", '{"lang": "en"}')[1] == first


def test_json_has_everything(run, pets):
    everything = [
        {"id": "a", "text": "\nThe cat sat.\nOn a mat.", "metadata": {"year": 2020, "lang": "en"}},
        {"id": "b", "text": "a dog barks", "metadata": {"year": 2024, "tags": ["pets", "dogs"]}},
        {"id": "c", "text": "x" * 200, "metadata": {}},
    ]
    assert printed(run("list", pets, "--json")[1]) == everything
    assert printed(run("show", pets, "a", "b", "c", "--json")[1]) == everything


def test_an_id_that_nobody_has_is_named(run, pets):
    code, out, err = run("show", pets, "b", "nobody")
    assert (code, err) == (1, "colbert: There is no passage with the id 'nobody'; colbert list shows those there are.\n")
    assert out.startswith("[b]\n")


def test_fields_say_types_and_examples(run, pets):
    code, out, err = run("fields", pets)
    assert (code, err) == (0, "")
    assert [line.split(maxsplit=1) for line in out.splitlines()] == [
        ["lang", '1 string: "en"'],
        ["tags", '1 list: "dogs", "pets"'],
        ["year", "2 numbers: 2020, 2024"],
    ]
    assert printed(run("fields", pets, "--json")[1])[2] == {
        "path": "year",
        "types": {"number": 2},
        "passages": 2,
        "examples": [2020, 2024],
    }


def test_more_than_a_page_of_fields_is_listed(run, pets):
    with Index.open(pets) as index:
        index.update_metadata({f"f{number}": None for number in range(1500)}, ids=["c"])
    assert len(run("fields", pets)[1].splitlines()) == 1503


def test_an_index_without_passages_or_metadata_says_so(run, pets):
    with Index.open(pets) as index:
        index.update_metadata({}, where={}, remove=["year", "lang", "tags"])
        assert run("fields", pets) == (0, "", "colbert: No passage has any metadata.\n")
        index.clear()
    assert run("fields", pets) == (0, "", "colbert: The index has no passages; `colbert add` adds files.\n")
    assert run("list", pets) == (0, "", "")


def test_values_are_json_where_they_are_json(run, pets):
    words = ["n=1", "s=one", 't="1"', "list=[1, 2]", "none=null", "eq=a=b", "empty=", "odd=NaN", "true=true"]
    assert run("set", pets, *words, "--id", "a", "--remove", "lang") == (0, "1 passage has other metadata now.\n", "")
    assert metadata(pets)["a"] == {
        "year": 2020,
        "n": 1,
        "s": "one",
        "t": "1",
        "list": [1, 2],
        "none": None,
        "eq": "a=b",
        "empty": "",
        "odd": "NaN",
        "true": True,
    }


def test_metadata_are_set_by_ids_or_a_filter(run, pets):
    assert run("set", pets, "x=1", "--id", "a", "--id", "c")[1] == "2 passages have other metadata now.\n"
    assert run("set", pets, "x=2", "--where", '{"year": 2024}', "--json") == (0, '{"changed": 1}\n', "")
    assert {name: found["x"] for name, found in metadata(pets).items()} == {"a": 1, "b": 2, "c": 1}
    assert run("set", pets, "--remove", "x", "--where", "{}")[1] == "3 passages have other metadata now.\n"
    assert run("set", pets, "year=1", "--id", "nobody", "--id", "a") == (
        0,
        "1 passage has other metadata now.\n",
        "colbert: There is no passage with the id 'nobody'; colbert list shows those there are.\n",
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["x=1"], "Name the passages by --id, or by --where; one of them."),
        (["x=1", "--id", "a", "--where", "{}"], "Name the passages by --id, or by --where; one of them."),
        (["a", "--where", "{}"], "Metadata are written as KEY=VALUE, such as year=2024, got 'a'; passages are named by --id."),
        (["=1", "--id", "a"], "Metadata are written as KEY=VALUE"),
        (["x=1", "x=2", "--id", "a"], "The key 'x' stands twice"),
        (["--id", "a"], "There is nothing to change"),
        (["x=1", "--remove", "x", "--id", "a"], "'x' is to be both written and removed"),
        (["x=1", "--where", '{"yaer": 1}', "--strict"], "did you mean 'year'? The fields are 'lang' (strings), 'tags'"),
    ],
)
def test_mistakes_are_named_and_change_nothing(run, pets, arguments, problem):
    before = metadata(pets)
    code, out, err = run("set", pets, *arguments)
    assert (code, out) == (1, "")
    assert problem in err
    assert metadata(pets) == before


def test_an_odd_filter_lists_the_fields_there_are(run, pets):
    code, out, err = run("list", pets, "--where", '{"yaer": 2020}')
    assert (code, out) == (0, "")
    assert "did you mean 'year'? The fields are 'lang' (strings), 'tags' (arrays of strings), 'year' (numbers)." in err
    code, out, err = run("list", pets, "--where", '{"year": "2020"}', "--strict")
    assert (code, out) == (1, "")
    assert "compares the field 'year' with a string, but its values are numbers" in err


def test_a_search_prints_whole_passages_on_request(run, pets):
    code, out, _ = run("search", pets, "the cat", "-k", "1", "--full")
    assert code == 0
    first, *rest = out.splitlines()
    assert first.startswith("   1.")
    as_objects = run("search", pets, "the cat", "-k", "1", "--json")
    assert rest == run("show", pets, json.loads(as_objects[1])["id"])[1].splitlines()[1:]
    assert run("search", pets, "the cat", "-k", "1", "--json", "--full") == as_objects


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "pets.idx", "--full", "--where", '{"year": 2020}'],
        ["show", "pets.idx", "a"],
        ["fields", "pets.idx"],
        ["set", "pets.idx", "n=1", "--id", "a"],
        ["delete", "pets.idx", "a"],
        ["stats", "pets.idx"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_command_without_a_query_imports_a_model(pets, arguments):
    code = (
        "import sys\n"
        "from colbert_core.cli.main import main\n"
        f"assert main({arguments!r}) == 0\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'safetensors', 'scipy', 'numba', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
