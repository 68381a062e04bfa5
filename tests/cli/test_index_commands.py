"""The commands that work on an index, and the files they read."""

from __future__ import annotations

import json
import os
import shlex
import sys

import pyarrow
import pyarrow.parquet
import pytest
from builders.foreign_indexes import TEXTS, write_fast_plaid_index, write_ragatouille_index, write_stanford_index

from colbert_core import Index, MissingExtraError, Passage
from colbert_core.documents.files import find_files
from colbert_core.documents.pieces import read_file
from colbert_core.documents.records import read_collection


@pytest.fixture(autouse=True)
def small_model(monkeypatch, stanford_folder):
    """The tiny checkpoint in place of the model in the box, which these commands take by default."""
    import colbert_core.encoder as encoder_module

    monkeypatch.setattr(encoder_module, "DEFAULT_MODEL", stanford_folder)


@pytest.fixture
def notes(tmp_path, monkeypatch):
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "cats.md").write_text("# Cats\n\nThe cat sat on a mat.\n\n# Dogs\n\n" + "Dogs bark and bark. " * 9)
    (folder / "deep" / "rust.txt").write_text("Rust is a systems language.")
    (folder / "more.jsonl").write_text(
        '{"_id": "m1", "title": "Pets", "text": "happy pets", "year": 2020}\n\n{"text": "what", "metadata": {"year": 1}}\n'
    )
    (folder / "table.tsv").write_text("t1\tthe mat\nt2\tthe dog\n")
    pyarrow.parquet.write_table(
        pyarrow.table({"id": [7, 8], "text": ["a cat", "a dog"], "lang": ["en", None]}), folder / "p.parquet"
    )
    (folder / "cat.bin").write_bytes(b"\0\xff")
    monkeypatch.chdir(tmp_path)
    return folder


def printed(out):
    return [json.loads(line) for line in out.splitlines()]


def test_an_index_is_made_searched_changed_and_checked(run, notes):
    code, out, err = run("index", "notes", "--out", "wiki.idx")
    assert (code, err) == (0, "")
    read = "(.jsonl 1, .md 1, .parquet 1, .tsv 1, .txt 1); 1 skipped (binary .bin 1)"
    assert out.startswith(f"13 passages added from 5 files {read}. The index has 13 passages of ")

    code, out, _ = run("search", "wiki.idx", "the cat", "-k", "3")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["1.", "2.", "3."]

    code, out, _ = run("search", "wiki.idx", "the cat", "-k", "99", "--json")
    hits = printed(out)
    assert {"notes/cats.md#1", "notes/deep/rust.txt#1", "m1", "notes/more.jsonl#3", "t1", "t2", "7", "8"} <= {
        hit["id"] for hit in hits
    }
    by_id = {hit["id"]: hit for hit in hits}
    assert by_id["m1"]["text"] == "Pets happy pets"
    assert by_id["m1"]["metadata"] == {"source": "notes/more.jsonl", "title": "Pets", "year": 2020}
    assert by_id["7"]["metadata"] == {"source": "notes/p.parquet", "lang": "en"}
    assert by_id["8"]["metadata"] == {"source": "notes/p.parquet"}
    assert by_id["notes/cats.md#2"]["metadata"]["piece"] == 2

    code, out, _ = run("search", "wiki.idx", "the cat", "--where", '{"year": {"$gte": 2000}}', "--json", "--exact")
    assert [hit["id"] for hit in printed(out)] == ["m1"]

    code, out, _ = run("delete", "wiki.idx", "t1", "nobody")
    assert (code, out) == (0, "1 passages deleted.\n")
    code, out, _ = run("delete", "wiki.idx", "--where", '{"source": "notes/p.parquet"}', "--json")
    assert (code, printed(out)) == (0, [{"deleted": 2}])

    code, out, _ = run("stats", "wiki.idx", "--json")
    (stats,) = printed(out)
    assert (stats["passages"], stats["nbits"], stats["encoder"]) == (10, 4, "default")
    code, out, _ = run("stats", "wiki.idx")
    assert "passages         10" in out

    code, out, _ = run("verify", "wiki.idx")
    assert code == 0
    assert out.startswith("No damage. A search finds 100.0% of the 10 best")
    code, out, _ = run("compact", "wiki.idx", "--quiet")
    assert (code, out.startswith("The index has 10 passages")) == (0, True)


MISSPELT = (
    "colbert: No passage has the field 'yaer' that the filter asks for; did you mean 'year'? The fields are 'n' (numbers), "
    "'source' (strings), 'year' (numbers).\n"
)


@pytest.fixture
def small(tmp_path, monkeypatch, stanford_folder):
    """The passages a and b of a.md, and c of b's name."""
    monkeypatch.chdir(tmp_path)
    with Index.create("small.idx", str(stanford_folder)) as index:
        metadatas = [{"source": "a.md", "year": 2020}, {"source": "a.md"}, {"source": "b", "n": 1}]
        index.add([Passage(name, "the cat", metadata) for name, metadata in zip("abc", metadatas, strict=True)])
    return "small.idx"


def test_a_misspelt_field_is_said_on_standard_error(run, small):
    nothing = "colbert: No passage matches --where.\n"
    assert run("search", small, "cat", "--where", '{"yaer": 2020}') == (0, "", MISSPELT + nothing)
    assert run("delete", small, "--where", '{"yaer": {"$gt": 2020}}', "--json") == (0, '{"deleted": 0}\n', MISSPELT)


def test_a_search_without_a_line_says_why(run, small, stanford_folder):
    assert run("search", small, "cat", "--where", '{"source": "c.md"}') == (0, "", "colbert: No passage matches --where.\n")
    assert run("search", small, "cat", "--where", '{"source": "c.md"}', "--json")[1] == ""
    Index.create("empty.idx", str(stanford_folder)).close()
    empty = (0, "", "colbert: The index has no passages; `colbert add` adds files.\n")
    assert run("search", "empty.idx", "cat") == run("search", "empty.idx", "cat", "--where", '{"a": 1}') == empty
    assert run("explain", "empty.idx", "cat") == empty
    with Index.open("empty.idx") as index:
        index.add([Passage("a", " ", {"source": "c.md"})])
    blank = (0, "", "colbert: No passage has a text to be found by.\n")
    assert run("search", "empty.idx", "cat") == run("search", "empty.idx", "cat", "--where", '{"source": "c.md"}') == blank


def test_a_misspelt_field_is_an_error_with_strict_and_nothing_is_deleted(run, small):
    assert run("search", small, "cat", "--where", '{"yaer": 2020}', "--strict") == (1, "", MISSPELT)
    assert run("delete", small, "--where", '{"yaer": {"$ne": 2020}}', "--strict") == (1, "", MISSPELT)
    code, out, err = run("search", small, "cat", "--where", '{"year": "2020"}', "--strict")
    assert (code, out) == (1, "")
    assert err == "colbert: The filter compares the field 'year' with a string, but its values are numbers.\n"
    with Index.open(small) as index:
        assert len(index) == 3
    assert run("search", small, "cat", "--where", '{"year": 2020}', "--strict")[0::2] == (0, "")


def test_an_id_that_is_a_value_of_the_metadata_gets_a_hint_at_where(run, small):
    code, out, err = run("delete", small, "a.md")
    assert (code, out) == (0, "0 passages deleted.\n")
    assert err == (
        "colbert: No passage has the id 'a.md'; 2 passages have source = 'a.md': delete by "
        """--where '{"source": "a.md"}'.\n"""
    )
    code, out, err = run("delete", small, "b", "nobody", "b")
    assert (code, out, err) == (0, "1 passages deleted.\n", err)
    assert err.startswith("colbert: No passage has the id 'nobody'; by metadata they are deleted like this: --where '{")
    code, _, err = run("delete", small, "b", "nobody", "--json")
    assert err == (
        "colbert: No passage has the id 'b'; 1 passage has source = 'b': delete by "
        """--where '{"source": "b"}'.\n"""
    )
    assert "nor 2 others of these ids" in run("delete", small, "x", "y", "z")[2]
    assert run("delete", small, "a") == (0, "1 passages deleted.\n", "")


def test_the_hint_is_a_command_that_works_whatever_the_name_is(run, small, stanford_folder):
    name = "it's \x1b[31m$x.md"
    with Index.open(small) as index:
        index.add([Passage("d", "the cat", {"$my.file": name})])
    code, _, err = run("delete", small, name)
    where = shlex.split(err.partition("--where ")[2].rstrip(".\n"))[0]
    assert (code, json.loads(where)) == (0, {"\\$my\\.file": name})
    assert err.rstrip("\n").isprintable()
    assert run("delete", small, "--where", where)[1] == "1 passages deleted.\n"


def test_a_file_is_added_to_passages_without_a_source_without_a_word(run, tmp_path, monkeypatch, stanford_folder):
    monkeypatch.chdir(tmp_path)
    with Index.create("x.idx", str(stanford_folder)) as index:
        index.add([Passage("a", "the cat", {"source": 3})])
    (tmp_path / "empty.md").write_text(" ")
    assert run("add", "x.idx", "empty.md")[0::2] == (0, "")


def test_adding_a_file_again_replaces_everything_that_came_from_it(run, notes):
    assert run("index", "notes/cats.md", "--out", "x.idx")[0] == 0
    with Index.open("x.idx") as index:
        before = len(index)
    assert before > 2
    (notes / "cats.md").write_text("Cats purr.")
    code, out, _ = run("add", "x.idx", "notes/cats.md", "--json")
    assert code == 0
    assert printed(out)[0]["passages"] == 1
    (notes / "cats.md").write_text("  ")
    assert run("add", "x.idx", "notes/cats.md")[0] == 0
    with Index.open("x.idx") as index:
        assert len(index) == 0


def test_long_records_are_cut_and_keep_their_name(tmp_path, stanford):
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps({"id": "x", "text": "the cat sat on the mat. " * 20, "year": 1}))
    passages = list(read_file(file, "long.jsonl", stanford))
    assert len(passages) > 2
    assert [passage.id for passage in passages] == [f"x#{n}" for n in range(1, len(passages) + 1)]
    assert passages[1].metadata["document_id"] == "x"
    assert passages[1].metadata["year"] == 1
    assert passages[1].metadata["start"] > 0


def test_verify_says_what_is_wrong_with_exit_code_1(run, notes):
    run("index", "notes", "--out", "x.idx")
    import sqlite3

    connection = sqlite3.connect("x.idx/index.sqlite")
    connection.execute("DELETE FROM passages WHERE id = 't1'")
    connection.commit()
    connection.close()
    code, out, _ = run("verify", "x.idx")
    assert (code, out) == (1, "0 passages have no vectors, and vectors of 1 have no passage\n")
    code, out, _ = run("verify", "x.idx", "--json")
    assert (code, printed(out)[0]["ok"]) == (1, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "nowhere", "--out", "x.idx"], "There is no file or folder nowhere"),
        (["index", "notes/cat.bin", "--out", "x.idx"], "No passages in notes/cat.bin: "),
        (
            ["index", "notes", "--out", "notes"],
            "notes exists already and holds '",
        ),
        (["index", "notes", "--out", "x.idx", "--nbits", "3"], "nbits must be 1, 2, 4, 8, or 32"),
        (["index", "notes", "--out", "x.idx", "--pool-factor", "0.5"], "pool_factor must be at least 1"),
        (["sync", "notes", "--index", "x.idx", "--pool-factor", "nan"], "pool_factor must be at least 1"),
        (["index", "notes", "--out", "x.idx", "--model", "no/such model"], "no/such model"),
        (["search", "nowhere", "cat"], "There is no index at nowhere"),
        (
            ["search", "made.idx", "cat", "--where", "source=a.md"],
            """write it like this: --where '{"source": "docs/cats.md"}'""",
        ),
        (["search", "made.idx", "cat", "--where", "{"], "--where is no JSON"),
        (["search", "made.idx", "cat", "--where", "[1]"], "--where is a JSON object"),
        (["search", "made.idx", "cat", "--where", "null"], "--where is a JSON object"),
        (["search", "made.idx", "cat", "--where", "[" * 100_000], "--where is no JSON"),
        (["delete", "made.idx", "x", "--where", "null"], "--where is a JSON object"),
        (["search", "made.idx", "cat"], "made for vectors from elsewhere, without an encoder"),
        (["search", "made.idx", "cat", "--device", "cpu"], "--device and --trust-remote-code go with --model"),
        (["search", "made.idx", "cat", "--language", "fr_XX"], "go with --model, and so do --language and --dim"),
        (["search", "made.idx", "cat", "--dim", "8"], "go with --model, and so do --language and --dim"),
        (["search", "made.idx", "cat", "--strict"], "--strict goes with --where"),
        (["delete", "made.idx", "--where", "{}"], "--where '{}' means every passage"),
        (["delete", "made.idx", "x", "--strict"], "--strict goes with --where"),
        (["delete", "made.idx"], "Name the passages by their ids, or by --where; one of them"),
        (["delete", "made.idx", "x", "--where", "{}"], "Name the passages by their ids, or by --where; one of them"),
        (["import", "notes", "--out", "new.idx"], "holds no index of Stanford ColBERT, RAGatouille or fast-plaid"),
    ],
)
def test_mistakes_are_named(run, notes, arguments, message):
    Index.create("made.idx", dim=16).close()
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "line 2 is no JSON"),
        ("a.jsonl", b'{"body": "x"}', 'line 1 has no "text"; its keys are body'),
        ("a.jsonl", b'{"text": 3}', "line 1: Text of passage"),
        ("a.jsonl", b'{"text": "x", "metadata": 3}', "metadata must be an object, got int"),
        ("a.jsonl", b'{"text": "\xff"}', "is not UTF-8 text"),
        ("a.tsv", b"1\tx\n2\n", "line 2 has 1 columns where 2 belong"),
        ("a.tsv", b"1\t2\t3\t4\n", "line 1 has 4 columns where 1 to 3 belong"),
        ("a.txt", b"\0", "is no text, nor a kind of file that is read"),
        ("a.parquet", b"no parquet file", "is no Parquet file"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(run, tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    code, _, err = run("index", name, "--out", "x.idx")
    assert code == 1
    assert message in err


def test_tab_separated_values_may_name_their_columns(tmp_path, stanford):
    file = tmp_path / "a.tsv"
    file.write_text("text\tyear\tid\nthe cat\t2020\tx\n")
    assert list(read_file(file, "a.tsv", stanford)) == [Passage("x", "the cat", {"source": "a.tsv", "year": "2020"})]
    file.write_text("0\tthe cat\tPets\n")
    assert [passage.text for passage in read_file(file, "a.tsv", stanford)] == ["Pets the cat"]
    for names in ("pid\tpassage\tYear", "DocID\tContents\tYear", "\ufeff_id\tdocument\tYear", "Passage ID\ttext\tYear"):
        file.write_text(f"{names}\nx\tthe cat\t2020\n", encoding="utf-8")
        (passage,) = read_file(file, "a.tsv", stanford)
        assert passage == Passage("x", "the cat", {"source": "a.tsv", "Year": "2020"})
    file.write_text("the cat\nthe dog\n")
    assert [passage.id for passage in read_file(file, "a.tsv", stanford)] == ["a.tsv#1", "a.tsv#2"]


def test_parquet_without_pyarrow_names_the_pip_line(tmp_path, monkeypatch, stanford):
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="pip install pyarrow"):
        list(read_file(tmp_path / "a.parquet", "a.parquet", stanford))


def test_hidden_files_are_passed_over(tmp_path):
    for name in (".git/x.txt", "a/b.txt", "a/.c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert find_files(tmp_path) == find_files(tmp_path / "a/b.txt") == [tmp_path / "a/b.txt"]


def test_a_folder_and_a_file_in_it_are_named_alike_and_read_once(run, notes):
    code, out, _ = run("index", "notes", "./notes/cats.md", "--out", "x.idx", "--json")
    assert (code, printed(out)[0]["passages"]) == (0, 13)
    (notes / "cats.md").write_text("Cats purr.")
    assert run("add", "x.idx", "notes/cats.md")[0] == 0
    with Index.open("x.idx") as index:
        assert [name for name in index.ids() if "cats.md" in name] == ["notes/cats.md#1"]


def test_records_that_have_fields_of_our_names_are_records(run, notes):
    lines = [{"id": f"r{n}", "text": "the cat", "piece": piece} for n, piece in enumerate([9, 3, 1, True, {"a": 1}])]
    (notes / "r.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, out, _ = run("index", "notes/r.jsonl", "--out", "x.idx", "--json")
    assert (code, printed(out)[0]["passages"]) == (0, 5)
    code, out, _ = run("add", "x.idx", "notes/r.jsonl", "--json")
    assert (code, printed(out)[0]["passages"]) == (0, 5)


def test_a_long_record_that_became_short_leaves_no_pieces_and_the_other_way_round(run, notes):
    file, long = notes / "r.jsonl", "the cat sat on the mat. " * 20

    def names(*arguments, text):
        file.write_text(json.dumps({"id": "x", "text": text}) + '\n{"id": "y", "text": "a dog"}')
        assert run(*arguments)[0] == 0
        with Index.open("x.idx") as index:
            return [name for name in index.ids() if name.startswith("x")]

    pieces = names("index", "notes/r.jsonl", "--out", "x.idx", text=long)
    assert len(pieces) > 2
    assert names("add", "x.idx", "notes/r.jsonl", text="a cat") == ["x"]
    assert names("add", "x.idx", "notes/r.jsonl", text=long) == pieces


def test_an_index_that_cannot_be_made_leaves_nothing_and_the_old_one_alone(run, notes):
    assert run("index", "notes", "--out", "x.idx")[0] == 0
    (notes / "z.jsonl").write_text('{"text": ')
    for arguments in (["--out", "new.idx"], ["--out", "x.idx", "--overwrite"]):
        code, _, err = run("index", "notes", "--strict", *arguments)
        assert (code, "line 1 is no JSON" in err) == (1, True)
    assert sorted(path.name for path in notes.parent.iterdir()) == ["notes", "x.idx"]
    with Index.open("x.idx") as index:
        assert len(index) == 13
    (notes / "z.jsonl").write_text('{"text": "a cat"}')
    assert run("index", "notes/z.jsonl", "--out", "x.idx")[0] == 1
    assert run("index", "notes/z.jsonl", "--out", "x.idx", "--overwrite")[0] == 0
    with Index.open("x.idx") as index:
        assert len(index) == 1


def test_what_a_terminal_would_obey_is_not_printed(run, notes):
    (notes / "r.jsonl").write_text(json.dumps({"id": "a\x1b[31m\n9. x", "text": "the \x1b]0;cat\x07 sat"}))
    run("index", "notes/r.jsonl", "--out", "x.idx")
    code, out, _ = run("search", "x.idx", "cat")
    assert (code, len(out.splitlines())) == (0, 1)
    assert out.rstrip("\n").isprintable()


def test_parquet_s_own_types_become_metadata(tmp_path, stanford):
    import datetime
    import decimal

    table = pyarrow.table(
        {
            "text": ["a", "b"],
            "day": [datetime.date(2020, 1, 2), None],
            "at": [datetime.datetime(2020, 1, 2, 3, 4), None],
            "price": [decimal.Decimal("1.50"), None],
            "took": [datetime.timedelta(minutes=2), None],
            "within": [{"day": datetime.date(2020, 1, 2)}, None],
            "share": [0.5, float("nan")],
            "tags": [["x"], []],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    first, second = read_file(tmp_path / "a.parquet", "a", stanford)
    assert first.metadata == {
        "source": "a",
        "day": "2020-01-02",
        "at": "2020-01-02T03:04:00",
        "price": 1.5,
        "took": 120.0,
        "within": {"day": "2020-01-02"},
        "share": 0.5,
        "tags": ["x"],
    }
    assert second.metadata == {"source": "a", "tags": []}


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (write_stanford_index, "Stanford ColBERT"),
        (write_fast_plaid_index, "fast-plaid"),
        (write_ragatouille_index, "RAGatouille"),
    ],
)
def test_import_makes_an_index_of_another_library_s(run, tmp_path, monkeypatch, write, kind):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "old", dim=16)
    code, out, err = run("import", "old", "--out", "new.idx", "--model", os.fspath(tmp_path / "none"))
    assert code == 1
    code, out, err = run("import", "old", "--out", "new.idx")
    assert code == 0
    assert out.startswith(f"Imported from {kind}. The index has 6 passages of 31 tokens")
    assert ("keeps no texts" in err) == (kind != "RAGatouille")
    assert run("verify", "new.idx")[0] == 0

    (tmp_path / "collection.tsv").write_text("".join(f"{number}\t{text}\n" for number, text in enumerate(TEXTS)))
    code, out, err = run("import", "old", "--out", "full.idx", "--collection", "collection.tsv", "--json")
    assert (code, err) == (0, "")
    assert printed(out)[0]["kind"] == kind
    with Index.open("full.idx") as index:
        assert {text for passage in index.get([str(n) for n in range(7)]) if passage for text in [passage.text]} == set(
            TEXTS
        ) - {TEXTS[5]}


def test_a_collection_is_read_by_number(tmp_path):
    (tmp_path / "c.tsv").write_text("id\ttext\ttitle\n1\tone\tOne\n2\ttwo\n")  # their reader counts the names as number 0
    assert read_collection(tmp_path / "c.tsv") == ["title | text", "One | one", "two"]
    (tmp_path / "c.tsv").write_text("PID\tPassage\n0\tone\n1\ttwo\n")  # a reader that takes no names has not seen these
    assert read_collection(tmp_path / "c.tsv") == ["one", "two"]
    (tmp_path / "c.tsv").write_text("\ufeffdocid\ttitle\tcontents\n0\tOne\tone\n1\t\ttwo\n", encoding="utf-8")
    assert read_collection(tmp_path / "c.tsv") == ["One | one", "two"]
    (tmp_path / "c.tsv").write_text("0\ttext\n1\ttwo\n")
    assert read_collection(tmp_path / "c.tsv") == ["text", "two"]
    (tmp_path / "c.tsv").write_text("0\tone\n2\ttwo\n")
    with pytest.raises(ValueError, match="line 2 has the number '2' where 1 belongs"):
        read_collection(tmp_path / "c.tsv")
    (tmp_path / "c.jsonl").write_text('{"text": "one"}\n"two"\n')
    assert read_collection(tmp_path / "c.jsonl") == ["one", "two"]


def test_search_and_explain_show_which_words_matched(run, notes, tmp_path):
    assert run("index", "notes", "--out", "i", "--quiet")[0] == 0
    code, out, _ = run(
        "search", "i", "rust language", "-k", "9", "--explain", "--mode", "hybrid"
    )  # by chance, vectors say nothing
    assert code == 0
    assert "[Rust] is a systems [language]" in out  # no terminal, so brackets mark
    _, out, _ = run("search", "i", "rust language", "-k", "2", "--explain", "--json")
    assert [set(json.loads(line)["evidence"]) for line in out.splitlines()] == [
        {"score", "relevance", "window", "highlights", "unmatched", "words"}
    ] * 2

    code, out, _ = run("explain", "i", "rust language", "--id", "notes/deep/rust.txt#1")
    assert code == 0
    assert "[notes/deep/rust.txt#1]" in out
    _, out, _ = run("explain", "i", "rust language", "-k", "2", "--json")
    assert json.loads(out.splitlines()[0])["id"]
    code, out, _ = run("explain", "i", "rust <b>language</b>", "--html", "out.html")
    assert (code, out) == (0, "out.html has 3 passages.\n")
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "rust &lt;b&gt;" in page
    assert page.count('class="colbert-evidence"') == 3

    assert "no passage with the id 'nothing'" in run("explain", "i", "rust", "--id", "nothing")[2]
    code, _, err = run("explain", "i", "rust", "--html", "nowhere/out.html")
    assert code == 1
    assert "nowhere/out.html" in err


@pytest.mark.parametrize(("variables", "colours"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_are_for_terminals_that_want_them(monkeypatch, variables, colours):
    from colbert_core.cli import printing

    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert printing.has_colors() is colours


def test_a_sync_that_cannot_begin_makes_no_index(run, notes):
    code, _, err = run("sync", "nowhere", "--index", "new.idx")
    assert (code, err) == (1, "colbert: There is no file or folder nowhere.\n")
    assert not (notes.parent / "new.idx").exists()
    assert run("sync", "notes", "--index", "new.idx", "--dry-run")[0] == 0
    assert not (notes.parent / "new.idx").exists()
    assert run("sync", "notes", "--index", "new.idx")[0] == 0
    assert run("sync", "notes", "--index", "new.idx")[1].startswith("0 passages added from 0 files, 6 unchanged; 1 skipped")
