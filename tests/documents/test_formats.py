"""Which reader reads a file; what is compressed; and files that are damaged in any way."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import mailbox
import os
import random
import tarfile
import zipfile
from email.message import EmailMessage

import pytest

from colbert_core.documents import compressed
from colbert_core.documents.formats import FORMATS, format_of
from colbert_core.documents.part import UnreadableFileError
from colbert_core.errors import MissingExtraError

PAGE = "<!DOCTYPE html><html><head><title>T</title></head><body><h1>Köln</h1><p>text &amp; more</p><pre>x</pre></body></html>"
MANUAL = '.TH LS 1\n.SH NAME\nls \\- list\n.TP\n\\fB\\-a\\fR\nall \\(bu\n.if n .ds x "y\n.TS\nl l.\na\tb\n.TE\n'
NOTEBOOK = {"cells": [{"cell_type": "markdown", "source": ["# T\n"]}, {"cell_type": "code", "source": "1", "outputs": []}]}


def write(folder, name, content):
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


def texts(path):
    return [part.text for part in format_of(path).read(path)]


# Detection


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("README", "text", "text"),
        ("copyright", "text", "text"),
        ("Makefile", "all:\n\tcc a.c\n", "text"),
        ("empty", "", "text"),
        ("a.ini", "[a]\nb = c\n", "text"),
        ("a.yaml", "a: 1\n", "text"),
        ("a.json", '{"a": 1}', "text"),
        ("syslog.1", "Jan 1 00:00 started\n", "text"),
        ("a.txt", b"\xff\xfeh\0i\0", "text"),
        ("a.MD", "# T", "Markdown"),
        ("a.md", "about <html> and <!doctype html>", "Markdown"),
        ("a.txt", PAGE, "HTML"),
        ("page", f"\ufeff\n<?xml version='1.0'?>\n<!-- a --> <!-- b -->{PAGE}", "HTML"),
        ("a.md", "<HTML lang=en>", "HTML"),
        ("a.html", "<p>no head", "HTML"),
        ("a.txt", "<htmlx> no page", "text"),
        ("ls.1", MANUAL, "manual page"),
        ("ls", '\n\n\'\\" t\n.\\" by hand\n.Dd today\n', "manual page"),
        ("ls.1", ".so man1/dir.1\n", "manual page"),
        ("a.txt", "... and so on\n.The end\n", "text"),
        ("Inbox", "From a@b Fri Feb  2 23:30:00 2024\nSubject: s\n\nx\n", "mailbox"),
        ("a.txt", "From here on 12:30\nit is quiet\n", "text"),
        ("a.txt", gzip.compress(b"x", mtime=0), "compressed file"),
        ("a", bz2.compress(b"x"), "compressed file"),
        ("b", bz2.compress(b""), "compressed file"),
        ("a", lzma.compress(b"x"), "compressed file"),
        ("a.txt", b"PAR1\0", "Parquet"),
        ("a.csv", "a,b\n", "comma-separated values"),
        ("a.jsonl", "{}", "JSON lines"),
    ],
)
def test_a_file_is_what_is_in_it_else_what_its_name_says(tmp_path, name, content, kind):
    assert format_of(write(tmp_path, name, content)).name == kind


def archive(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name in names:
            opened.writestr(name, "x")
    return file.getvalue()


def test_a_zip_archive_of_no_format_is_an_archive(tmp_path):
    for name, content in (("a.zip", archive("a.txt")), ("a.txt", archive("b/c"))):
        with pytest.raises(UnreadableFileError, match=f"{name} is an archive; unpack it first") as error:
            format_of(write(tmp_path, name, content))
        assert error.value.kind == "archive"


def test_a_tar_archive_is_an_archive_also_compressed(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as opened:
        opened.add(write(tmp_path, "x", "x"), "x")
    with pytest.raises(UnreadableFileError, match="a.tar is an archive") as error:
        format_of(write(tmp_path, "a.tar", file.getvalue()))
    assert error.value.kind == "archive"
    with pytest.raises(UnreadableFileError, match=f"^{tmp_path / 'a.tar.gz'} is an archive"):
        texts(write(tmp_path, "a.tar.gz", gzip.compress(file.getvalue())))


def test_other_files_are_binary(tmp_path):
    for content in (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\x7fELF\x02\x01\x01\0", random.Random(0).randbytes(500)):
        with pytest.raises(UnreadableFileError, match="a.png is no text, nor a kind of file that is read") as error:
            format_of(write(tmp_path, "a.png", content))
        assert error.value.kind == "binary"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="is a pipe"):
        format_of(tmp_path / "a.txt")


def test_every_suffix_belongs_to_one_format():
    suffixes = [suffix for format in FORMATS for suffix in format.suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.html", "a.mbox", "a.csv", "a.jsonl", "a.tsv", "README"])
def test_an_empty_file_has_no_text(tmp_path, name):
    assert "".join(texts(write(tmp_path, name, ""))) == ""


# Compressed files


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_a_compressed_file_is_read_as_its_inner_name_says(tmp_path, suffix, compress):
    page = write(tmp_path, f"ls.1{suffix}", compress(MANUAL.encode()))
    assert [part.title for part in format_of(page).read(page)] == ["ls(1) - list"]
    assert texts(write(tmp_path, f"changelog.Debian{suffix}", compress("schön".encode("latin-1")))) == ["schön"]
    assert texts(write(tmp_path, f"a.csv{suffix}", compress(b"a,b\nx,y\n"))) == ["a: x\nb: y"]
    assert texts(write(tmp_path, "no-suffix", compress(b"x"))) == ["x"]
    assert texts(write(tmp_path, suffix, compress(b"x"))) == ["x"]


def test_nothing_is_left_of_what_was_decompressed(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    file = write(tmp_path, "a.jsonl.gz", gzip.compress(b'"one"\n"two"\n'))
    parts = iter(format_of(file).read(file))
    assert next(parts).text == "one"
    parts.close()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_errors_within_name_the_compressed_file(tmp_path):
    file = write(tmp_path, "a.jsonl.gz", gzip.compress(b"{", mtime=0))
    with pytest.raises(ValueError, match=f"^{file}, line 1 is no JSON"):
        texts(file)
    file = write(tmp_path, "a.ipynb.gz", gzip.compress(b"{", mtime=0))
    with pytest.raises(UnreadableFileError, match=f"^{file} is no Jupyter notebook") as error:
        texts(file)
    assert error.value.kind == "damaged"


def test_a_bomb_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "LARGEST_INNER", 2**20)
    assert len(texts(write(tmp_path, "a.gz", gzip.compress(b"a" * 2**20)))[0]) == 2**20
    with pytest.raises(UnreadableFileError, match="a.gz becomes larger than 1 MiB") as error:
        texts(write(tmp_path, "a.gz", gzip.compress(b"a" * (2**20 + 1))))
    assert error.value.kind == "too large"


def test_what_is_compressed_twice_is_no_endless_task(tmp_path):
    with pytest.raises(UnreadableFileError, match="a.gz.gz is compressed twice") as error:
        texts(write(tmp_path, "a.gz.gz", gzip.compress(gzip.compress(b"x", mtime=0))))
    assert error.value.kind == "archive"


@pytest.mark.parametrize(
    "content", [b"", b"x", gzip.compress(b"x" * 99, mtime=0)[:-9], bz2.compress(b"x")[:-4], lzma.compress(b"x")[:-4]]
)
def test_what_cannot_be_decompressed_is_damaged(tmp_path, content):
    with pytest.raises(UnreadableFileError, match="a.gz cannot be decompressed") as error:
        texts(write(tmp_path, "a.gz", content))
    assert error.value.kind == "damaged"


# Damaged files


def seeds(folder):
    """A file of each kind, by name."""
    message = EmailMessage()
    message["Subject"] = "Grüße"
    message["Date"] = "Fri, 02 Feb 2024 23:30:00 -0500"
    message.set_content("plain")
    message.add_alternative(PAGE, subtype="html")
    message.add_attachment(b"x", maintype="application", subtype="pdf", filename="ü.pdf")
    box = mailbox.mbox(folder / "seed")
    box.add(message)
    box.add(message)
    box.close()
    return {
        "a.txt": "Grüße aus Köln".encode("latin-1"),
        "a.md": b"---\ntitle: T\n---\n# A\n\n```\nx\n```\n",
        "a.rst": b"====\nTop\n====\n\n.. code-block:: c\n\n   # x\n\n:ref:`a <b>`::\n\n  x\n",
        "a.html": PAGE.encode(),
        "a.ipynb": json.dumps(NOTEBOOK).encode(),
        "a.eml": message.as_bytes(),
        "a.mbox": (folder / "seed").read_bytes(),
        "ls.1": MANUAL.encode(),
        "a.jsonl": b'{"id": "a", "text": "b", "title": "c"}\n',
        "a.tsv": b"1\tone\n2\ttwo\n",
        "a.csv": b'a,b\n"x ""y""",1\n2,3\n',
        "a.txt.gz": gzip.compress(b"x" * 99),
        "a.txt.bz2": bz2.compress(b"x" * 99),
        "a.txt.xz": lzma.compress(b"x" * 99),
        "a.zip": archive("a.txt"),
    }


def damaged(content, chance):
    """A file that is cut, or of which bytes are changed, repeated or taken away."""
    content = bytearray(content)
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(content) + 1)
        match chance.randrange(5):
            case 0:
                del content[place:]
            case 1:
                content[place:place] = chance.randbytes(3)
            case 2:
                content[place : place + 1] = chance.choice([b"\0", b"\xff", b'"', b"\n", b"<", b"\\", b"=?", b"\xc3\xa9"])
            case 3:
                content[place:place] = content[max(place - 20, 0) : place] * chance.randrange(1, 4)
            case _:
                del content[place : place + chance.randrange(1, 9)]
    return bytes(content)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.html", "a.ipynb", "a.eml", "a.mbox", "ls.1", "a.jsonl", "a.tsv", "a.csv",
                                  "a.txt.gz", "a.txt.bz2", "a.txt.xz", "a.zip"])  # fmt: skip
def test_a_damaged_file_is_read_or_named(tmp_path, name):
    chance = random.Random(name)
    seed = seeds(tmp_path)[name]
    for _ in range(300):
        file = write(tmp_path, name, damaged(seed, chance))
        try:
            assert all(isinstance(text, str) for text in texts(file))
        except UnreadableFileError as error:
            assert str(file) in str(error)
            assert error.kind in {"binary", "damaged", "archive", "too large", "link"}
        except ValueError as error:
            assert name in ("a.jsonl", "a.tsv", "a.csv"), error  # a record that is none
            assert str(file) in str(error)


def test_an_extra_that_is_missing_is_no_damage():
    assert not issubclass(MissingExtraError, UnreadableFileError)
