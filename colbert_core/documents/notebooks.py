"""Jupyter notebooks: text, code and what it printed, as Markdown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from colbert_core.documents.part import Part, UnreadableFileError
from colbert_core.documents.plain import escaped, fenced, read_text
from colbert_core.text.splitter import headings_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LONGEST_OUTPUT = 1000  # characters: what a cell prints says less than the cell


def read_notebook(path: Path) -> Iterator[Part]:
    """Read a notebook as one part; its title is its first heading.

    Raises:
        UnreadableFileError: it is no notebook.
    """
    try:
        notebook = json.loads(read_text(path))
        cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]  # the latter until 2014
        blocks = [block for cell in cells for block in _cell(cell, _language(notebook))]
    except UnreadableFileError:
        raise
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise UnreadableFileError(f"{path} is no Jupyter notebook: {error!r:.200}", "damaged") from None
    text = "\n\n".join(blocks)
    headings = headings_of(text)
    yield Part(text, headings[0][2] if headings else "", is_markdown=True)


def _language(notebook: dict[str, Any]) -> str:
    name = notebook.get("metadata", {}).get("language_info", {}).get("name", "")
    return name if isinstance(name, str) and name.isalnum() else ""


def _cell(cell: dict[str, Any], language: str) -> list[str]:
    """What a cell has: its source, and its outputs."""
    source = _joined(cell.get("source", cell.get("input", "")))
    kind = cell["cell_type"]
    if kind == "heading":  # until 2014
        return [f"{'#' * cell.get('level', 1)} {source}"]
    if not source.strip():
        return []
    if kind != "code":
        return [source if kind == "markdown" else escaped(source)]
    outputs = "".join(_output(output) for output in cell.get("outputs", []))
    if len(outputs) > _LONGEST_OUTPUT:
        outputs = outputs[:_LONGEST_OUTPUT].rstrip() + " …"
    return [fenced(source, language), *([fenced(outputs)] if outputs.strip() else [])]


def _output(output: dict[str, Any]) -> str:
    """The text of an output: what was printed, a value, or the last line of an error; "" for pictures."""
    kind = output["output_type"]
    if kind == "stream":
        return _joined(output["text"])
    if kind in ("error", "pyerr"):
        return f"{output['ename']}: {output['evalue']}\n"
    text = _joined(output.get("data", output).get("text/plain", output.get("text", "")))
    return f"{text}\n" if text else ""


def _joined(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)
