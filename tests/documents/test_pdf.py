"""PDF: pages, titles, bookmarks, and files that cannot be read."""

from __future__ import annotations

import io
import logging
import random
import subprocess
import sys

import pypdf
import pytest

from colbert_core.documents.formats import format_of
from colbert_core.documents.part import UnreadableFileError
from colbert_core.documents.pdf import clean_title, read_pdf
from colbert_core.documents.pieces import Whole, read_file


def pdf_of(pages: list[list[str]]) -> bytes:
    """A PDF of a font and of pages of lines, written out."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>"
        % (len(pages), b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(pages)))),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, lines in enumerate(pages):
        shown = b" T* ".join(b"<%s> Tj" % line.encode("cp1252").hex().encode() for line in lines)
        stream = b"BT /F1 12 Tf 14 TL 72 720 Td %s ET" % shown if lines else b""
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R /Resources << /Font << /F1 3 0 R >> >> >>"
            % (5 + 2 * number)
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    written, places = io.BytesIO(), []
    written.write(b"%PDF-1.4\n")
    for number, body in enumerate(objects, 1):
        places.append(written.tell())
        written.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = written.tell()
    written.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    written.write(b"".join(b"%010d 00000 n \n" % place for place in places))
    written.write(b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start))
    return written.getvalue()


def written(tmp_path, pages, change=lambda writer: None, name="paper.pdf"):
    """The file of a PDF that pypdf has changed."""
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf_of(pages)))
    change(writer)
    file = tmp_path / name
    with file.open("wb") as to:
        writer.write(to)
    return file


def test_a_page_is_a_part(tmp_path):
    file = tmp_path / "paper.pdf"
    file.write_bytes(pdf_of([["The cat sat", "on the mat."], [], ["It purred."]]))
    parts = list(format_of(file).read(file))
    assert [(part.text, part.metadata, part.title, part.headings) for part in parts] == [
        ("The cat sat\non the mat.", {"page": 1}, "", ()),
        ("It purred.", {"page": 3}, "", ()),
    ]


def test_a_passage_says_its_page_and_begins_with_title_and_bookmark(tmp_path):
    def change(writer):
        writer.add_metadata({"/Title": "On  cats"})
        writer.add_outline_item(title="Purring", page_number=1)

    file = written(tmp_path, [["They sit."], ["Purring"], ["They purr."]], change)
    passages = list(read_file(file, "papers/paper.pdf", Whole()))
    assert [passage.text for passage in passages] == [
        "paper.pdf > On cats\n\nThey sit.",
        "paper.pdf > On cats > Purring\n\nPurring",
        "paper.pdf > On cats > Purring\n\nThey purr.",
    ]
    assert [passage.metadata["page"] for passage in passages] == [1, 2, 3]
    assert passages[2].metadata["title"] == "On cats"


def test_the_headings_of_a_page_are_the_bookmarks_before_it_and_one_it_begins_with(tmp_path):
    def change(writer):
        first = writer.add_outline_item(title="1 Cats", page_number=0)
        writer.add_outline_item(title="1.1 Sitting", page_number=0, parent=first)
        writer.add_outline_item(title="1.2 Purring", page_number=2, parent=first)
        writer.add_outline_item(title="2 Dogs", page_number=3)

    long = "words of the section before it " * 12
    pages = [["1 Cats", "1.1 Sitting", "They sit."], ["On mats."], [long, "1.2 Purring"], ["2 Dogs", "They bark."], ["Loudly."]]
    parts = list(read_pdf(written(tmp_path, pages, change)))
    assert [part.headings for part in parts] == [
        ("1 Cats", "1.1 Sitting"),
        ("1 Cats", "1.1 Sitting"),
        ("1 Cats", "1.1 Sitting"),
        ("2 Dogs",),
        ("2 Dogs",),
    ]


def test_pages_have_the_numbers_that_are_printed_on_them(tmp_path):
    def change(writer):
        writer.set_page_label(0, 1, style="/r")
        writer.set_page_label(2, 2, style="/D")

    parts = list(read_pdf(written(tmp_path, [["a"], ["b"], ["c"]], change)))
    assert [part.metadata for part in parts] == [
        {"page": 1, "page_label": "i"},
        {"page": 2, "page_label": "ii"},
        {"page": 3, "page_label": "1"},
    ]


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("On cats", "On cats"),
        ("  On\ncats ", "On cats"),
        ("TCP / IP", "TCP / IP"),
        ("untitled", ""),
        ("Untitled-1", ""),
        ("Microsoft Word - thesis final.doc", ""),
        ("C:\\texts\\cats", ""),
        ("file:///home/cats", ""),
        ("cats.tex", ""),
        ("PowerPoint Presentation", ""),
        ("Document1", ""),
        ("Documentation of cats", "Documentation of cats"),
        ("", ""),
        (None, ""),
    ],
)
def test_what_programs_write_is_no_title(title, shown):
    assert clean_title(title) == shown


def test_words_are_joined_at_ends_of_lines_if_the_document_has_them_undivided(tmp_path):
    file = tmp_path / "paper.pdf"
    lines = ["All information on the", "cat is infor-", "mation on a well-", "known thing."]
    file.write_bytes(pdf_of([lines]))
    assert next(read_pdf(file)).text == "All information on the\ncat is information\non a well-\nknown thing."


def test_lines_of_prose_are_joined_and_those_of_lists_are_not(tmp_path):
    file = tmp_path / "paper.pdf"
    lines = [
        "The cat that lives in the house of my sister sat",
        "on a mat that was as red as a rose in May is",
        "red.",
        "cats",
        "dogs",
    ]
    file.write_bytes(pdf_of([[*lines, "Die Katze, die im Haus meiner Schwester wohnt, saß auf", "Übermut."]]))
    assert next(read_pdf(file)).text.splitlines() == [
        "The cat that lives in the house of my sister sat on a mat that was as red as a rose in May is red.",
        "cats",
        "dogs",
        "Die Katze, die im Haus meiner Schwester wohnt, saß auf",
        "Übermut.",
    ]


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_a_password_is_asked_for_only_if_there_is_one(tmp_path, algorithm):
    pages = [["The cat sat."]]
    locked = written(tmp_path, pages, lambda writer: writer.encrypt("secret", algorithm=algorithm))
    with pytest.raises(UnreadableFileError, match=r"paper\.pdf is encrypted with a password; save it without one") as error:
        list(read_pdf(locked))
    assert error.value.kind == "encrypted"
    for_readers = written(tmp_path, pages, lambda writer: writer.encrypt("", "owner", algorithm=algorithm))
    assert [part.text for part in read_pdf(for_readers)] == ["The cat sat."]


def test_images_without_text_need_ocr(tmp_path):
    file = tmp_path / "scan.pdf"
    file.write_bytes(pdf_of([[], []]))
    with pytest.raises(UnreadableFileError, match=r"scan\.pdf has no text on its 2 pages.* OCR") as error:
        list(read_pdf(file))
    assert error.value.kind == "no text"


@pytest.mark.parametrize(
    "content", [b"", b"%PDF-1.4", b"%PDF-1.4\n%%EOF", b"\0" * 1000, b"no PDF at all", pdf_of([["a"]])[:200]]
)
def test_what_is_no_whole_pdf_is_damaged(tmp_path, content):
    file = tmp_path / "paper.pdf"
    file.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"paper\.pdf") as error:
        list(read_pdf(file))
    assert error.value.kind in ("damaged", "no text")


def test_pages_within_themselves_end(tmp_path):
    file = tmp_path / "paper.pdf"
    file.write_bytes(pdf_of([["a"]]).replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]"))
    with pytest.raises(UnreadableFileError):
        list(read_pdf(file))


def test_a_file_that_is_not_there_is_no_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(read_pdf(tmp_path / "paper.pdf"))


def test_changed_bytes_end_in_text_or_in_the_one_error(tmp_path):
    def change(writer):
        writer.add_metadata({"/Title": "On cats"})
        writer.add_outline_item(title="Purring", page_number=0, parent=writer.add_outline_item(title="Cats", page_number=0))

    content = written(tmp_path, [["The cat sat."], ["It purred."]], change).read_bytes()
    chance, refused = random.Random(0), 0
    file = tmp_path / "changed.pdf"
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(chance.randint(1, 30)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        file.write_bytes(changed[: chance.choice([len(changed), chance.randrange(len(changed))])])
        try:
            assert all(part.text for part in read_pdf(file))
        except UnreadableFileError as error:
            refused += 1
            assert str(file) in str(error)
    assert refused


def test_nothing_is_printed_about_a_pdf_that_is_a_little_damaged(tmp_path):
    file = tmp_path / "paper.pdf"
    file.write_bytes(pdf_of([["The cat sat."]]).replace(b"startxref\n", b"startxref\n9"))
    code = (
        "import sys; from pathlib import Path; from colbert_core.documents.pdf import read_pdf\n"
        "assert [part.text for part in read_pdf(Path(sys.argv[1]))] == ['The cat sat.']"
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code, str(file)], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)
    list(read_pdf(file))
    assert sum(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("pypdf").handlers) == 1
