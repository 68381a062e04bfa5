"""Files of Word, PowerPoint and Excel, made by the libraries that read them, and by hand where those cannot."""

from __future__ import annotations

import datetime
import io
import random
import re
import sys
import zipfile

import docx
import openpyxl
import pptx
import pytest

from colbert_core import MissingExtraError
from colbert_core.documents import packages
from colbert_core.documents.formats import format_of
from colbert_core.documents.part import UnreadableFileError
from colbert_core.documents.pieces import Whole, read_file


def parts_of(file):
    return list(format_of(file).read(file))


def changed(file, member, change):
    """The same archive with one text in it changed."""
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents[member] = change(contents.get(member, b"").decode()).encode()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file


@pytest.fixture
def report(tmp_path):
    document = docx.Document()
    document.core_properties.title = ""
    document.add_paragraph("Cats of the world", style="Title")
    document.add_paragraph("They are everywhere.")
    document.add_heading("Sitting", 1)
    document.add_paragraph("On mats", style="List Bullet")
    document.add_paragraph("On chairs", style="List Bullet")
    document.add_heading("Prices", 2)
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip((cell for row in table.rows for cell in row.cells), ("Cat", "Price", "Tom", "3"), strict=True):
        cell.text = text
    document.add_paragraph("The end.")
    file = tmp_path / "report.docx"
    document.save(file)
    return file


def test_a_document_of_word_is_markdown(report):
    (part,) = parts_of(report)
    assert part.title == "Cats of the world"
    assert part.text == (
        "# Cats of the world\n\nThey are everywhere.\n\n# Sitting\n\n- On mats\n- On chairs\n\n"
        "## Prices\n\nCat | Price\nTom | 3\n\nThe end."
    )
    assert part.is_markdown


def test_the_title_of_a_document_is_the_one_it_gives_unless_a_program_wrote_it(report):
    for title, shown in (("On cats", "On cats"), ("Microsoft Word - cats.doc", "Cats of the world")):
        document = docx.Document(report)
        document.core_properties.title = title
        document.save(report)
        assert parts_of(report)[0].title == shown


def test_a_style_that_is_based_on_a_heading_is_one(tmp_path):
    document = docx.Document()
    style = document.styles.add_style("Chapter of ours", docx.enum.style.WD_STYLE_TYPE.PARAGRAPH)
    style.base_style = document.styles["Heading 3"]
    document.add_paragraph("Sitting", style="Chapter of ours")
    document.save(tmp_path / "a.docx")
    assert parts_of(tmp_path / "a.docx")[0].text == "### Sitting"


def test_what_was_inserted_is_read_and_what_was_deleted_is_not(report):
    body = (
        "<w:p><w:r><w:t>They </w:t></w:r><w:ins w:id='1' w:author='a'><w:r><w:t>often </w:t></w:r></w:ins>"
        "<w:del w:id='2' w:author='a'><w:r><w:delText>never </w:delText></w:r></w:del><w:r><w:t>sit</w:t><w:tab/><w:t>down.</w:t></w:r></w:p>"
        "<w:sdt><w:sdtContent><w:p><w:r><w:t>In a form.</w:t></w:r></w:p></w:sdtContent></w:sdt>"
    )
    changed(report, "word/document.xml", lambda xml: re.sub("<w:body>", f"<w:body>{body}", xml))
    assert parts_of(report)[0].text.startswith("They often sit\tdown.\n\nIn a form.\n\n# Cats")


def test_a_passage_of_a_document_begins_with_its_headings(report):
    words = type("Words", (Whole,), {"piece_tokens": 30, "split": split_at_blank_lines})()
    texts = [passage.text for passage in read_file(report, "report.docx", words)]
    assert "report.docx > Cats of the world > Sitting > Prices\n\nCat | Price\nTom | 3" in texts


def split_at_blank_lines(self, text, document_id, *, size=None):
    from colbert_core import Passage

    return [
        Passage(
            f"{document_id}#{match.start()}", match[0], {"document_id": document_id, "start": match.start(), "end": match.end()}
        )
        for match in re.finditer(r"(?:.+\n?)+(?<!\n)", text)
    ]


def test_a_slide_is_a_part_with_its_notes(tmp_path):
    deck = pptx.Presentation()
    deck.core_properties.title = "All of cats"
    first = deck.slides.add_slide(deck.slide_layouts[1])
    first.shapes.title.text = "Sitting"
    first.placeholders[1].text = "On mats\nOn chairs"
    first.notes_slide.notes_text_frame.text = "Say it slowly."
    deck.slides.add_slide(deck.slide_layouts[6])
    third = deck.slides.add_slide(deck.slide_layouts[6])
    inches = pptx.util.Inches
    table = third.shapes.add_table(2, 2, 0, 0, inches(3), inches(2)).table
    for number, text in enumerate(("Cat", "Price", "Tom", "3")):
        table.cell(number // 2, number % 2).text = text
    third.shapes.add_group_shape().shapes.add_textbox(0, 0, inches(1), inches(1)).text_frame.text = "Within."
    file = tmp_path / "deck.pptx"
    deck.save(file)
    assert [(part.text, part.title, part.metadata) for part in parts_of(file)] == [
        ("# Sitting\n\nOn mats\nOn chairs\n\n## Notes\n\nSay it slowly.", "All of cats", {"slide": 1}),
        ("Cat | Price\nTom | 3\n\nWithin.", "All of cats", {"slide": 3}),
    ]


def book_of(tmp_path, **sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    file = tmp_path / "book.xlsx"
    book.save(file)
    return file


def test_a_row_is_a_record_with_the_names_of_the_first(tmp_path):
    moment = datetime.datetime(2024, 5, 1)
    file = book_of(
        tmp_path,
        cats=[["name", "price", "born"], ["Tom", 3.0, moment], [], ["Kit", 2.5, None]],
        dogs=[["name", "name"], ["Rex", "Max"]],
    )
    assert [(part.text, part.metadata, part.line) for part in parts_of(file)] == [
        ("name: Tom\nprice: 3\nborn: 2024-05-01", {"sheet": "cats", "row": 2}, 1),
        ("name: Kit\nprice: 2.5", {"sheet": "cats", "row": 4}, 2),
        ("name: Rex\nname 2: Max", {"sheet": "dogs", "row": 2}, 3),
    ]


def test_a_column_of_texts_makes_records_like_those_of_other_files(tmp_path):
    file = book_of(tmp_path, cats=[["id", "title", "text", "price"], ["a", "Tom", "He sits.", 3], [7, None, "It purrs.", True]])
    assert [(passage.id, passage.text, passage.metadata) for passage in read_file(file, "book.xlsx", Whole())] == [
        ("a", "Tom He sits.", {"source": "book.xlsx", "sheet": "cats", "row": 2, "title": "Tom", "price": 3}),
        ("7", "It purrs.", {"source": "book.xlsx", "sheet": "cats", "row": 3, "price": True}),
    ]


def test_ids_of_rows_differ_between_sheets(tmp_path):
    file = book_of(tmp_path, a=[["n", "m"], ["x", "y"]], b=[["n", "m"], ["x", "y"]])
    assert [passage.id for passage in read_file(file, "book.xlsx", Whole())] == ["book.xlsx#1", "book.xlsx#2"]


def test_rows_without_names_are_read_as_they_stand(tmp_path):
    file = book_of(tmp_path, a=[["Report of 2024"], ["name", "price"], ["Tom", 3]], b=[[1, 2], ["x", "y"]], c=[["alone"]])
    assert [part.text for part in parts_of(file)] == ["Report of 2024", "name: Tom\nprice: 3", "1 | 2", "x | y", "alone"]


def test_files_without_text_say_so(tmp_path):
    docx.Document().save(tmp_path / "a.docx")
    pptx.Presentation().save(tmp_path / "a.pptx")
    book_of(tmp_path, a=[])
    for name in ("a.docx", "a.pptx", "book.xlsx"):
        with pytest.raises(UnreadableFileError, match=f"{name} has no text") as error:
            parts_of(tmp_path / name)
        assert error.value.kind == "no text"


SUFFIXES = [".docx", ".pptx", ".xlsx", ".odt", ".epub"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_archive_is_damaged(tmp_path, suffix, content):
    file = tmp_path / f"a{suffix}"
    file.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=f"a{suffix}") as error:
        parts_of(file)
    assert error.value.kind == "damaged"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_not_there_is_no_damaged_one(tmp_path, suffix):
    with pytest.raises(FileNotFoundError):
        list(format_of_suffix(suffix)(tmp_path / f"a{suffix}"))


def format_of_suffix(suffix):
    from colbert_core.documents.formats import FORMATS

    return next(format.read for format in FORMATS if suffix in format.suffixes)


def test_a_file_with_a_password_is_encrypted(tmp_path):
    file = tmp_path / "a.docx"
    file.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 504)
    with pytest.raises(UnreadableFileError, match="password") as error:
        parts_of(file)
    assert error.value.kind == "encrypted"


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)) + "]>"
LAUGHS = LAUGHS.replace("&a0;", "&a;")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    ("suffix", "member"), [(".docx", "word/document.xml"), (".xlsx", "xl/sharedStrings.xml"), (".odt", "content.xml")]
)
def test_entities_that_unpack_to_anything_are_refused(tmp_path, suffix, member, encoding):
    file = tmp_path / f"a{suffix}"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(member, f'<?xml version="1.0" encoding="{encoding}"?>{LAUGHS}<x>&a9;</x>'.encode(encoding))
    with pytest.raises(UnreadableFileError, match=f"declares entities in {member}"):
        parts_of(file)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path, suffix, monkeypatch):
    file = tmp_path / f"a{suffix}"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("content.xml", b" " * 2**20)
    monkeypatch.setattr(packages, "_LARGEST", 2**20 - 1)
    with pytest.raises(UnreadableFileError, match="unpacks to 1,048,576 bytes") as error:
        parts_of(file)
    assert error.value.kind == "too large"


@pytest.mark.parametrize("suffix", [".docx", ".pptx", ".xlsx"])
def test_changed_bytes_end_in_text_or_in_the_one_error(tmp_path, suffix, report):
    deck, book = pptx.Presentation(), book_of(tmp_path, cats=[["name", "price"], ["Tom", 3]])
    deck.slides.add_slide(deck.slide_layouts[0]).shapes.title.text = "Sitting"
    deck.save(tmp_path / "deck.pptx")
    whole = {".docx": report, ".pptx": tmp_path / "deck.pptx", ".xlsx": book}[suffix]
    with zipfile.ZipFile(whole) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    chance, refused = random.Random(0), 0
    file = tmp_path / f"changed{suffix}"
    for number in range(60):
        if number % 2:  # of the archive
            damaged = bytearray(whole.read_bytes())
            for _ in range(chance.randint(1, 20)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            file.write_bytes(damaged)
        else:  # of what is in it
            written = io.BytesIO()
            with zipfile.ZipFile(written, "w") as archive:
                for name, content in contents.items():
                    inner = bytearray(content)
                    for _ in range(chance.choice([0, 0, 0, 1, 5])):
                        inner[chance.randrange(len(inner))] = chance.choice(b'<>/"= a0\0\xff')
                    archive.writestr(name, bytes(inner))
            file.write_bytes(written.getvalue())
        try:
            assert all(part.text for part in parts_of(file))
        except UnreadableFileError as error:
            refused += 1
            assert str(file) in str(error)
    assert refused


@pytest.mark.parametrize(
    ("suffix", "module", "package"),
    [
        (".docx", "docx", "python-docx"),
        (".pptx", "pptx", "python-pptx"),
        (".xlsx", "openpyxl", "openpyxl"),
        (".pdf", "pypdf", "pypdf"),
    ],
)
def test_a_reader_whose_package_is_missing_says_what_to_install(tmp_path, monkeypatch, suffix, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    file = tmp_path / f"a{suffix}"
    file.write_bytes(b"a")
    with pytest.raises(MissingExtraError, match=rf"Reading .*a{suffix} needs {package} .*pip install '?{package}"):
        parts_of(file)
