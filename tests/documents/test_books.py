"""Books in EPUB and documents of LibreOffice."""

from __future__ import annotations

import zipfile

import pytest

from colbert_core.documents.formats import format_of
from colbert_core.documents.part import UnreadableFileError

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
PACKAGE = """<?xml version="1.0"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>On cats</dc:title></metadata>
<manifest>
<item id="b" href="text/two%20b.xhtml"/><item id="a" href="text/one.xhtml"/><item id="c" href="cover.xhtml"/>
</manifest>
<spine><itemref idref="c"/><itemref idref="a"/><itemref idref="b"/><itemref idref="none"/></spine>
</package>"""
PAGE = '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title></head><body>{}</body></html>'


def book(tmp_path, **more):
    file = tmp_path / "cats.epub"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("OEBPS/book.opf", PACKAGE)
        archive.writestr("OEBPS/cover.xhtml", PAGE.format('<img src="cat.png"/>'))
        archive.writestr("OEBPS/text/one.xhtml", PAGE.format("<h1>Sitting</h1><p>The cat sat on the mat.</p>"))
        archive.writestr("OEBPS/text/two b.xhtml", PAGE.format("<h1>Purring</h1><p>Über Katzen.</p>"))
        for name, content in more.items():
            archive.writestr(name.replace("__", "/"), content)
    return file


def parts_of(file):
    return list(format_of(file).read(file))


def test_a_chapter_is_a_part_in_the_order_of_the_book(tmp_path):
    assert [(part.text, part.title, part.metadata) for part in parts_of(book(tmp_path))] == [
        ("# Sitting\n\nThe cat sat on the mat.", "On cats", {"chapter": 2}),
        ("# Purring\n\nÜber Katzen.", "On cats", {"chapter": 3}),
    ]


def test_encrypted_fonts_do_no_harm_and_encrypted_chapters_do(tmp_path):
    locked = '<encryption xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:CipherReference URI="{}"/></encryption>'
    assert len(parts_of(book(tmp_path, **{"META-INF__encryption.xml": locked.format("OEBPS/font.otf")}))) == 2
    with pytest.raises(UnreadableFileError, match="DRM") as error:
        parts_of(book(tmp_path, **{"META-INF__encryption.xml": locked.format("OEBPS/text/two%20b.xhtml")}))
    assert error.value.kind == "encrypted"


NAMES = (
    'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" '
    'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" xmlns:dc="http://purl.org/dc/elements/1.1/"'
)


def odt(tmp_path, body, **more):
    file = tmp_path / "cats.odt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(
            "content.xml",
            f"<office:document-content {NAMES}><office:body><office:text>{body}</office:text></office:body></office:document-content>",
        )
        archive.writestr(
            "meta.xml",
            f"<office:document-meta {NAMES}><office:meta><dc:title>On cats</dc:title></office:meta></office:document-meta>",
        )
        for name, content in more.items():
            archive.writestr(name.replace("__", "/"), content)
    return file


def test_a_document_of_libreoffice_is_markdown(tmp_path):
    body = (
        '<text:h text:outline-level="2">Sitting</text:h><text:p>The <text:span>cat</text:span><text:s/>sat<text:line-break/>down.</text:p>'
        "<text:list><text:list-item><text:p>On mats</text:p></text:list-item></text:list>"
        "<table:table><table:table-row><table:table-cell><text:p>Tom</text:p><text:p>Cat</text:p></table:table-cell>"
        "<table:table-cell><text:p>3</text:p></table:table-cell></table:table-row></table:table><text:p/>"
    )
    (part,) = parts_of(odt(tmp_path, body))
    assert part.text == "## Sitting\n\nThe cat sat\ndown.\n\n- On mats\n\nTom Cat | 3"
    assert (part.title, part.is_markdown) == ("On cats", True)


def test_a_document_of_libreoffice_with_a_password_is_encrypted(tmp_path):
    with pytest.raises(UnreadableFileError, match="password") as error:
        parts_of(odt(tmp_path, "", **{"META-INF__manifest.xml": "<manifest><encryption-data/></manifest>"}))
    assert error.value.kind == "encrypted"


def test_books_and_documents_without_text_say_so(tmp_path):
    with pytest.raises(UnreadableFileError, match=r"cats\.odt has no text") as error:
        parts_of(odt(tmp_path, "<text:p/>"))
    assert error.value.kind == "no text"
