"""Books in EPUB, and documents in the OpenDocument format."""

from __future__ import annotations

import posixpath
import xml.etree.ElementTree as ET  # entities are refused when a package is opened
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag

from colbert_core.documents.html import html_part
from colbert_core.documents.packages import checked, need_text, opened
from colbert_core.documents.part import Part, UnreadableFileError
from colbert_core.documents.pdf import clean_title

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterator
    from pathlib import Path


def read_epub(path: Path) -> Iterator[Part]:
    """Read a part for each chapter of a book that has text, with its number as ``chapter``.

    Raises:
        UnreadableFileError: it is damaged, encrypted, too large or has no text.
        MissingExtraError: a package that reads HTML is not installed.
        OSError: it cannot be opened.
    """
    with opened(path) as file:
        archive = checked(file, path)
        title, chapters = _spine(archive)
        names = set(archive.namelist())
        locked = _locked(archive) if "META-INF/encryption.xml" in names else set()
        if locked & set(chapters):
            raise UnreadableFileError(f"{path} is encrypted (DRM); nobody but its own reader can read it.", "encrypted")
        pages = [_decoded(archive.read(name)) if name in names else "" for name in chapters]
    parts = [html_part(page, path) for page in pages]
    need_text(any(part.text for part in parts), path)
    for number, part in enumerate(parts, 1):
        if part.text:
            yield Part(part.text, title, metadata={"chapter": number}, is_markdown=True)


def read_odt(path: Path) -> Iterator[Part]:
    """Read a document of LibreOffice Writer as one part in Markdown.

    Raises:
        UnreadableFileError: it is damaged, encrypted, too large or has no text.
        OSError: it cannot be opened.
    """
    with opened(path) as file:
        archive = checked(file, path)
        names = archive.namelist()
        if "META-INF/manifest.xml" in names and b"encryption-data" in archive.read("META-INF/manifest.xml"):
            raise UnreadableFileError(f"{path} is encrypted with a password; save it without one.", "encrypted")
        body = _parsed(archive, "content.xml").find("{*}body")
        title = clean_title(_parsed(archive, "meta.xml").findtext(".//{*}title")) if "meta.xml" in names else ""
        lines = list(_lines(body)) if body is not None else []
    text = "\n\n".join(filter(None, lines))
    need_text(bool(text), path)
    yield Part(text, title, is_markdown=True)


def _parsed(archive: zipfile.ZipFile, name: str) -> ET.Element:
    return ET.fromstring(archive.read(name))  # noqa: S314


def _spine(archive: zipfile.ZipFile) -> tuple[str, list[str]]:
    """The title of a book, and the names of its chapters in the order in which they are read."""
    (root,) = _parsed(archive, "META-INF/container.xml").findall(".//{*}rootfile")[:1]
    place = root.attrib["full-path"]
    package = _parsed(archive, place)
    names = {
        item.attrib["id"]: posixpath.normpath(
            posixpath.join(posixpath.dirname(place), unquote(urldefrag(item.attrib["href"]).url))
        )
        for item in package.iterfind("{*}manifest/{*}item")
    }
    spine = [names[item.attrib["idref"]] for item in package.iterfind("{*}spine/{*}itemref") if item.attrib["idref"] in names]
    return clean_title(package.findtext("{*}metadata/{*}title")), spine


def _locked(archive: zipfile.ZipFile) -> set[str]:
    """What is encrypted in a book; often fonts alone."""
    return {
        unquote(node.attrib.get("URI", ""))
        for node in _parsed(archive, "META-INF/encryption.xml").iterfind(".//{*}CipherReference")
    }


def _decoded(page: bytes) -> str:
    """The text of a chapter, which is in UTF-8 or UTF-16."""
    return page.decode("utf-16" if page[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")


def _lines(body: ET.Element) -> Iterator[str]:
    """The headings, paragraphs, items and rows of an OpenDocument text."""
    below = [(body, "")]
    while below:
        node, sign = below.pop()
        tag = node.tag.rpartition("}")[2]
        if tag == "h":
            level = next((value for key, value in node.attrib.items() if key.endswith("}outline-level")), "1")
            yield f"{'#' * min(max(int(level), 1), 6)} {' '.join(_text(node).split())}"
        elif tag == "p":
            text = _text(node).strip()
            yield f"{sign}{text}" if text else ""
        elif tag == "table-row":
            cells = [" ".join(_text(cell).split()) for cell in node]
            yield " | ".join(cells) if any(cells) else ""
        elif tag != "tracked-changes":
            below += [(child, "- " if tag == "list-item" else sign) for child in reversed(node)]


def _text(element: ET.Element) -> str:
    """The text of an element, in which blanks, tabs and ends of lines are elements."""
    signs = {"s": " ", "tab": "\t", "line-break": "\n"}
    pieces: list[str] = []
    below: list[ET.Element | str] = [element]
    while below:
        node = below.pop()
        if isinstance(node, str):
            pieces.append(node)
            continue
        tag = node.tag.rpartition("}")[2]
        if tag == "p" and pieces:
            pieces.append("\n")
        pieces.append(signs.get(tag, node.text or ""))
        for child in reversed(node):
            below += [child.tail or "", *([child] if not child.tag.endswith("}annotation") else [])]
    return "".join(pieces)
