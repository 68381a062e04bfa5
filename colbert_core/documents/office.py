"""Files of Word, PowerPoint and Excel."""

from __future__ import annotations

import datetime
import re
import warnings
from typing import TYPE_CHECKING, Any

from colbert_core.documents.packages import checked, need_text, opened
from colbert_core.documents.part import Part
from colbert_core.documents.pdf import clean_title
from colbert_core.extras import import_extra

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)
# Word's elements that hold text twice, or text that is no longer there.
_LEFT_OUT = {"Fallback", "moveFrom", "del", "pPr", "rPr", "sectPr"}
_SIGNS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


def read_docx(path: Path) -> Iterator[Part]:
    """Read a document of Word as one part in Markdown, with its notes at the end.

    Raises:
        UnreadableFileError: it is damaged, encrypted, too large or has no text.
        MissingExtraError: python-docx is not installed.
        OSError: it cannot be opened.
    """
    docx = import_extra("docx", f"Reading {path}", "python-docx")
    with opened(path) as file:
        checked(file, path)
        document = docx.Document(file)
        levels = {style.style_id: _level(style) for style in document.styles}
        lines = [_block(block, levels) for block in _blocks(document.element.body, "p", "tbl")]
        lines += _notes(document.part, docx.oxml.parse_xml)
        titles = (_text(block) for block in document.element.body.iterchildren("{*}p") if levels.get(block.style) == 0)
        title = clean_title(document.core_properties.title) or clean_title(next(titles, ""))
    text = "\n\n".join(filter(None, lines))
    need_text(bool(text), path)
    yield Part(re.sub(r"(?m)^(- .*)\n\n(?=- )", r"\1\n", text), title, is_markdown=True)


def read_pptx(path: Path) -> Iterator[Part]:
    """Read a part for each slide that has text, with its number as ``slide`` and its notes under a heading.

    Raises:
        UnreadableFileError: it is damaged, encrypted, too large or has no text.
        MissingExtraError: python-pptx is not installed.
        OSError: it cannot be opened.
    """
    pptx = import_extra("pptx", f"Reading {path}", "python-pptx")
    with opened(path) as file:
        checked(file, path)
        presentation = pptx.Presentation(file)
        title = clean_title(presentation.core_properties.title)
        texts = [_slide(slide) for slide in presentation.slides]
    need_text(any(texts), path)
    for number, text in enumerate(texts, 1):
        if text:
            yield Part(text, title, metadata={"slide": number}, is_markdown=True)


def read_xlsx(path: Path) -> Iterator[Part]:
    """Read a record from each row of each sheet, with ``sheet`` and ``row``.

    The first row whose cells are all strings names the columns. Where one of them is "text" it is the text of the record, "id"
    and "title" mean what they do in other files of records, and the others are metadata. Else a line "name: value" for each
    cell is the text.

    Raises:
        UnreadableFileError: it is damaged, encrypted, too large or has no text.
        MissingExtraError: openpyxl is not installed.
        OSError: it cannot be opened.
    """
    openpyxl = import_extra("openpyxl", f"Reading {path}", "openpyxl")
    records: list[tuple[dict[str, Any], dict[str, Any]]] = []
    # It warns of styles and the like that it does not know.
    with opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checked(file, path)
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # which some programs write wrong
            rows = [(number, _cells(row)) for number, row in enumerate(sheet.iter_rows(values_only=True), 1)]
            named = _named([(number, row) for number, row in rows if row])
            records += [(record, {"sheet": sheet.title, "row": number}) for number, record in named]
    need_text(bool(records), path)
    for line, (record, place) in enumerate(records, 1):
        yield _record(record, place, line)


def _level(style: Any) -> int | None:
    """The level of a style's headings, 0 for a title; None for other styles. A style takes after the one it is based on."""
    for _ in range(10):
        name = (getattr(style, "name", None) or "").casefold()
        if name == "title":
            return 0
        if found := _HEADING.fullmatch(name):
            return int(found[1])
        style = getattr(style, "base_style", None)
    return None


def _blocks(parent: Any, *tags: str) -> Iterator[Any]:
    """The elements of some tags in an element, also those in controls and changes; not those within one another."""
    below = [parent]
    while below:
        node = below.pop()
        if _tag(node) in tags:
            yield node
        elif _tag(node) not in _LEFT_OUT:
            below += reversed(node)


def _block(block: Any, levels: dict[str, int | None]) -> str:
    if _tag(block) == "tbl":
        rows = ([" ".join(_text(cell).split()) for cell in _blocks(row, "tc")] for row in _blocks(block, "tr"))
        return "\n".join(" | ".join(row) for row in rows if any(row))
    text = _text(block).strip()
    if not text:
        return ""
    level = levels.get(block.style)
    if level is not None:
        return f"{'#' * min(level or 1, 6)} {' '.join(text.split())}"
    is_item = block.find("{*}pPr/{*}numPr") is not None or (block.style or "").startswith("List")
    return f"- {text}" if is_item else text


def _text(element: Any) -> str:
    """The text of an element with line breaks between its paragraphs."""
    pieces: list[str] = []
    below = [element]
    while below:
        node = below.pop()
        tag = _tag(node)
        if tag == "t":
            pieces.append(node.text or "")
        elif tag in _SIGNS:
            pieces.append(_SIGNS[tag])
        elif tag not in _LEFT_OUT:
            if tag == "p" and pieces:
                pieces.append("\n")
            below += reversed(node)
    return "".join(pieces)


def _notes(part: Any, parse: Any) -> list[str]:
    """The footnotes and endnotes of a document."""
    kinds = [
        relation.target_part.blob for relation in part.rels.values() if relation.reltype.endswith(("/footnotes", "/endnotes"))
    ]
    return [text for blob in kinds for note in parse(blob) if (text := _text(note).strip())]


def _tag(node: Any) -> str:
    """The name of an element without its namespace; "" for comments."""
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""


def _slide(slide: Any) -> str:
    heading = slide.shapes.title
    name = " ".join(heading.text_frame.text.split()) if heading is not None and heading.has_text_frame else ""
    texts = [f"# {name}" if name else ""]
    below = list(reversed(slide.shapes))
    while below:
        shape = below.pop()
        if hasattr(shape, "shapes"):
            below += reversed(shape.shapes)
        elif shape.has_text_frame and (heading is None or shape.shape_id != heading.shape_id):
            texts.append(shape.text_frame.text)
        elif getattr(shape, "has_table", False):
            rows = ([" ".join(cell.text_frame.text.split()) for cell in row.cells] for row in shape.table.rows)
            texts.append("\n".join(" | ".join(row) for row in rows if any(row)))
    if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None and notes.text.strip():
        texts += ["## Notes", notes.text]
    return "\n\n".join(text.replace("\v", "\n").strip() for text in texts if text.strip())


def _cells(row: tuple[Any, ...]) -> dict[int, Any]:
    """The cells of a row that hold something, by column."""
    return {column: value for column, value in enumerate(row) if value is not None and str(value).strip()}


def _named(rows: list[tuple[int, dict[int, Any]]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Name the cells of rows by those of the first row of strings, or by nothing; a title of one cell above it names none."""
    width = max((len(row) for _, row in rows), default=0)
    names: dict[int, str] | None = None
    for number, row in rows:
        if names is None and len(row) > min(width - 1, 1) and number != rows[-1][0]:
            if all(isinstance(value, str) for value in row.values()):
                names = _unlike({column: " ".join(value.split()) for column, value in row.items()})
                continue
            names = {}
        yield number, {(names or {}).get(column, "") or f"\0{column}": value for column, value in row.items()}


def _unlike(names: dict[int, str]) -> dict[int, str]:
    """Give a number to each name that another column has before it."""
    known: set[str] = set()
    for column, name in names.items():
        number = 1
        while names[column] in known:
            number += 1
            names[column] = f"{name} {number}"
        known.add(names[column])
    return names


def _record(record: dict[str, Any], place: dict[str, Any], line: int) -> Part:
    values = {name: _plain(value) for name, value in record.items()}
    if "text" in values:
        title, name = values.get("title"), values.get("id")
        others = {key: value for key, value in values.items() if key not in ("id", "text") and not key.startswith("\0")}
        text = f"{title} {values['text']}" if title else str(values["text"])
        return Part(text, metadata={**place, **others}, line=line, id=None if name is None else str(name))
    named = [value if name.startswith("\0") else f"{name}: {value}" for name, value in values.items()]
    is_table = any(not name.startswith("\0") for name in values)
    return Part(("\n" if is_table else " | ").join(map(str, named)), metadata=place, line=line)


def _plain(value: Any) -> str | int | float | bool:
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if isinstance(value, (bool, int, float)) else str(value).strip()
