"""What the command line prints: no character of a file, an id, a path, a model or a server that a terminal would obey."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings

import pytest
from builders.encoders import SpanEncoder

from colbert_core import Index, Passage, Reranker
from colbert_core.cli import main as cli
from colbert_core.cli.printing import Line, as_json

# Escapes of a terminal, as C0 and as C1; DEL and BEL; letters turned around; lines that look like ours.
HOSTILE = "\x1b[31mred\x1b]0;title\x07\x9b2J\x7f\u202ert\u2066\u2069\r9. forged\nforged\u2028forged\x85forged\x00\b"
# The same as a file's name: no slash, no NUL, and a byte that is no text.
NAME = HOSTILE.replace("\x00", "") + "\udcff"


def is_safe(text):
    """Whether a terminal shows each character of a text as one, and no line is forged."""
    lines = text.split("\n")
    return all(line.isprintable() for line in lines) and not any(line.startswith("forged") for line in lines)


@pytest.fixture(autouse=True)
def small_model(monkeypatch, stanford_folder, tmp_path):
    import colbert_core.encoder as encoder_module

    monkeypatch.setattr(encoder_module, "DEFAULT_MODEL", stanford_folder)
    monkeypatch.chdir(tmp_path)


def commands():
    """Every command, with a value for each argument that it must have."""

    def walk(parser, words):
        groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if groups:
            for name, inner in groups[0].choices.items():
                yield from walk(inner, [*words, name])
            return
        given = list(words)
        for action in parser._actions:
            if action.required or action.nargs in ("?", "*"):  # Python 3.14 does not require "*"
                value = "2" if action.type in (int, float) else action.choices[0] if action.choices else f"{NAME}/{action.dest}"
                given += [action.option_strings[0], value] if action.option_strings else [value]
        yield given

    # Without options the quickstart reads its own files.
    return [given for given in walk(cli.build_parser(), []) if given != ["quickstart"]]


def test_every_command_is_found():
    names = {tuple(word for word in given if word.isalpha() and word.islower()) for given in commands()}
    assert {("search",), ("ivfpq", "build"), ("train",), ("cluster", "build"), ("data", "prepare")} <= {
        n[:2] for n in names
    } | {n[:1] for n in names}


@pytest.mark.parametrize("given", commands(), ids=lambda given: "-".join(word for word in given if word.isalpha())[:40])
def test_a_command_says_what_is_wrong_with_hostile_paths_in_plain_characters(given, run):
    try:
        code, out, err = run(*given)
    except SystemExit as stopped:
        pytest.fail(f"argparse refused {given}: {stopped}")
    assert is_safe(out), out
    assert is_safe(err), err
    assert "Traceback" not in err, err
    assert code in (0, 1)
    assert (code == 0) == (given[0] in ("plan",)), (given, err)


def test_argparse_prints_plain_characters_too(capsys):
    for given in (["search", "x.idx", "cat", "-k", HOSTILE], [HOSTILE], ["stats", "x.idx", f"--{HOSTILE}"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(given)
        assert stopped.value.code == 2
        printed = capsys.readouterr()
        assert all(line.isprintable() for line in (printed.out + printed.err).split("\n"))


@pytest.fixture
def collection(tmp_path):
    """A file of hostile records, in a folder of a hostile name."""
    folder = tmp_path / NAME.removesuffix("\udcff")
    folder.mkdir()
    record = {"id": f"a{HOSTILE}", "text": f"cat <blink> {HOSTILE} sat", "title": HOSTILE, HOSTILE: HOSTILE}
    (folder / "r.jsonl").write_text(json.dumps(record) + "\n" + json.dumps({"id": "b", "text": "dog"}))
    return folder


def test_hostile_records_are_indexed_and_shown_in_plain_characters(run, collection, monkeypatch):
    index = str(collection / "x.idx")
    file = str(collection / "r.jsonl")
    spoken = [
        ["index", file, "--out", index],
        ["add", index, file],
        ["search", index, "cat"],
        ["search", index, "cat", "--explain"],
        ["search", index, f"cat {HOSTILE}", "--where", json.dumps({HOSTILE.replace(".", "\\."): {"$exists": True}})],
        ["explain", index, "cat"],
        ["explain", index, "cat", "--id", f"a{HOSTILE}#1"],
        ["explain", index, "cat", "-k", "9", "--html", str(collection / "page.html")],
        ["stats", index],
        ["verify", index],
        ["rerank", "cat", file],
        ["quickstart", "--files", str(collection), "--ask", f"cat {HOSTILE}"],
        ["compact", index],
        ["delete", index, f"a{HOSTILE}#1"],
    ]
    for given in spoken:
        code, out, err = run(*given)
        assert (code, err) == (0, ""), given
        assert out and is_safe(out), (given, out)
    page = (collection / "page.html").read_text()
    assert "&lt;" in page and "<blink>" not in page


def test_what_is_wrong_with_hostile_records_is_said_in_plain_characters(run, collection):
    index = str(collection / "x.idx")
    Index.create(index, dim=4).close()
    (collection / "bad.jsonl").write_text(json.dumps({HOSTILE: 1}))
    (collection / "worse.jsonl").write_text(f'{{"{HOSTILE}')
    (collection / "table.tsv").write_text("text\tid\nx\n")
    for given in (
        ["index", str(collection / "bad.jsonl"), "--out", "y.idx"],
        ["index", str(collection / "worse.jsonl"), "--out", "y.idx"],
        ["index", str(collection / "table.tsv"), "--out", "y.idx"],
        ["rerank", "cat", str(collection / "bad.jsonl")],
        ["search", index, "cat"],
        ["search", index, "cat", "--where", json.dumps({f"${HOSTILE}": 1})],
        ["explain", index, "cat", "--id", HOSTILE, "--model", HOSTILE],
        ["inspect", HOSTILE],
        ["import", str(collection), "--out", "z.idx"],
    ):
        code, out, err = run(*given)
        assert (code, out) == (1, ""), (given, err)
        assert err.startswith("colbert: ") and err.count("\n") == 1 and is_safe(err), (given, err)


def test_json_keeps_hostile_text_as_escapes(run, collection):
    run("index", str(collection / "r.jsonl"), "--out", "x.idx")
    for given in (
        ["search", "x.idx", "cat", "--json"],
        ["explain", "x.idx", "cat", "--json"],
        ["rerank", "cat", str(collection / "r.jsonl"), "--json"],
        ["quickstart", "--files", str(collection), "--ask", f"cat {HOSTILE}", "--json"],
        ["inspect", "--json"],
    ):
        code, out, err = run(*given)
        assert (code, err) == (0, ""), given
        assert is_safe(out), (given, out)
        records = [json.loads(line) for line in out.splitlines()]
        if given[0] in ("search", "rerank"):
            assert any(record["id"].startswith(f"a{HOSTILE}") for record in records)
            assert any("\x1b" in record["text"] for record in records)


def test_json_escapes_what_is_not_printable_and_nothing_else():
    value = {"é": "猫\u202e\x9b\x7f\n\udcff\U000e0001", "n": [1.5, None]}
    assert as_json(value) == r'{"é": "猫\u202e\u009b\u007f\n\udcff\udb40\udc01", "n": [1.5, null]}'
    assert json.loads(as_json(value)) == value


@pytest.fixture
def prints(monkeypatch, run):
    """Run a function as the command ``colbert stats``; what it printed."""
    import colbert_core.cli.index_commands as module

    def printed(function):
        monkeypatch.setattr(module, "_stats", lambda options: function() or 0)
        return run("stats", "x.idx")

    return printed


def test_whoever_prints_during_a_command_prints_plain_characters(prints):
    def print_all():
        print(HOSTILE)
        print(HOSTILE, HOSTILE, sep="\t")
        print(HOSTILE, file=sys.stderr)
        sys.stdout.writelines([HOSTILE])

    code, out, err = prints(print_all)
    assert code == 0
    assert (out.count("\n"), out.count("\t"), err.count("\n")) == (2, 1, 1)
    assert is_safe(out.replace("\t", "")) and is_safe(err)
    assert "red" in out and "red" in err


def test_logs_and_warnings_are_lines_of_plain_characters(prints):
    def speak():
        handler = logging.StreamHandler()
        logger = logging.getLogger("colbert_core.test_printed")
        logger.addHandler(handler)
        try:
            logger.warning("%s: careful", HOSTILE)
        finally:
            logger.removeHandler(handler)
        sys.stderr.write(warnings.formatwarning(UserWarning(HOSTILE), UserWarning, HOSTILE, 1))

    code, out, err = prints(speak)
    assert (code, out) == (0, "")
    assert "careful" in err and is_safe(err)


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, ZeroDivisionError])
def test_errors_are_plain_characters_whether_they_have_a_name_or_not(kind, prints):
    def fail():
        raise kind(HOSTILE)

    code, out, err = prints(fail)
    assert (code, out) == (1, "")
    assert all(line.isprintable() for line in err.split("\n"))
    assert ("Traceback" in err) == (kind is not ValueError)


def test_bars_are_still_drawn_over_themselves(prints):
    from colbert_core.progress import progress_bar

    def draw():
        for _ in progress_bar("Adding", 2, "passage", progress=True), progress_bar("Encoding", 2, "window", progress=True):
            with _ as bar:
                bar.update()

    _, _, err = prints(draw)
    assert "\rAdding: 100%" in err or "\rAdding:  50%" in err
    assert all(part.isprintable() for part in err.replace("\x1b[A", "").replace("\r", "\n").split("\n"))


def test_colours_of_ours_are_printed_and_those_of_a_passage_are_not(prints, monkeypatch):
    from colbert_core.cli import printing

    monkeypatch.setattr(printing, "has_colors", lambda: True)
    (hit,) = Reranker(SpanEncoder()).rank("cat", [Passage("a\x1b[31m", "cat \x1b[31m sat")], evidence=True)
    line = printing.hit_as_line(hit)
    assert type(line) is Line and type(str(line)) is Line
    _, out, _ = prints(lambda: print(line))
    assert "\x1b[30;48;5;" in out
    assert "\x1b[31m" not in out


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_file_name_that_is_no_text_is_printed(run, tmp_path):
    (tmp_path / "caf\udce9.txt").write_text("cat")
    for given in (["index", "caf\udce9.txt", "--out", "x.idx"], ["rerank", "cat", "caf\udce9.txt"], ["stats", "caf\udce9"]):
        code, _, err = run(*given)
        assert code == (0 if given[0] == "rerank" else 1), err
        assert is_safe(err) and "UnicodeEncodeError" not in err
