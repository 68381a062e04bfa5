"""PDF: a part for each page, under the bookmarks above it."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from colbert_core.documents.part import Part, UnreadableFileError
from colbert_core.extras import import_extra
from colbert_core.text.lines import check_no_pipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What programs write where an author has written no title.
_NO_TITLE = re.compile(
    r"untitled.*|(microsoft )?(word|powerpoint|excel) - .*|(powerpoint )?presentation ?\d*|(slide|document|dokument) ?\d*"
    r"|\S*[/\\]\S*|.*\.(docx?|odt|rtf|pdf|tex|dvi|indd|qxd|pptx?|odp|xlsx?|ods|html?|txt|md)",
    re.IGNORECASE,
)
_LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st", 0xFB06: "st"}
_CONTROLS = dict.fromkeys([*range(9), 11, *range(14, 32), 127], None)
_HYPHENATED = re.compile(r"(\b\w+)-[ \t]*\n[ \t]*(\w+)(\S*)[ \t]*\n?")
# A long line that goes on in small letters on the next one.
_GOES_ON = re.compile(r"^(.{40,}[\w,;)])[ \t]*\n[ \t]*(?=[a-zß-öø-ÿ])", re.MULTILINE)
# In how many characters at its top the heading of a page is looked for.
_TOP = 300


def read_pdf(path: Path) -> Iterator[Part]:
    """Read a part for each page that has text, with its number as ``page`` and what is printed on it as ``page_label``.

    Raises:
        UnreadableFileError: the file is damaged, or encrypted with a password, or its pages are images.
        MissingExtraError: pypdf is not installed.
        OSError: it cannot be opened.
    """
    pypdf = import_extra("pypdf", f"Reading {path}", "pypdf", "'pypdf[crypto]'")
    errors = import_extra("pypdf.errors", f"Reading {path}", "pypdf")
    check_no_pipe(path)
    _silence()
    texts: list[str] = []
    with path.open("rb") as file:
        try:
            reader = pypdf.PdfReader(file)
            if reader.is_encrypted and not reader.decrypt(""):
                raise UnreadableFileError(f"{path} is encrypted with a password; save it without one.", "encrypted")
            title = clean_title(_or_none(lambda: reader.metadata.title))
            for page in reader.pages:
                texts.append(_clean(page.extract_text()))  # noqa: PERF401  # how many there are goes into the error
        except UnreadableFileError:
            raise
        except errors.DependencyError as error:
            import_extra("cryptography", f"Reading {path}, which is encrypted,", "cryptography")
            raise UnreadableFileError(f"{path} cannot be read: {error}", "damaged") from error
        except Exception as error:  # of any kind, as what is in the file is
            where = f"{path}, page {len(texts) + 1}," if texts else f"{path}"
            raise UnreadableFileError(f"{where} is damaged: {type(error).__name__}: {error}", "damaged") from error
        if not any(texts):
            raise UnreadableFileError(
                f"{path} has no text on its {len(texts):,} pages, only images; run OCR on it first, such as ocrmypdf.",
                "no text",
            )
        labels = _or_none(lambda: list(reader.page_labels)) or []
        bookmarks = _or_none(lambda: list(_bookmarks(reader))) or []
    words = set(re.findall(r"\w+", " ".join(texts)))
    for number, (text, headings) in enumerate(zip(texts, _headings(bookmarks, texts), strict=True), 1):
        if text:
            printed = labels[number - 1] if number <= len(labels) else str(number)
            label = {"page_label": printed} if printed not in ("", str(number)) else {}
            yield Part(_joined(text, words), title, headings, {"page": number, **label})


def clean_title(title: Any) -> str:
    """What a document says its title is; "" for the name of a file, and for what programs write."""
    shown = " ".join(_clean(title).split()) if isinstance(title, str) else ""
    return "" if _NO_TITLE.fullmatch(shown) else shown


def _silence() -> None:
    """Let pypdf's warnings go to the handlers that the program has, and not to the terminal where it has none."""
    log = logging.getLogger("pypdf")
    if not any(isinstance(handler, logging.NullHandler) for handler in log.handlers):
        log.addHandler(logging.NullHandler())


def _or_none(read: Any) -> Any:
    """What is nice to have: a damaged outline does not keep the text from being read."""
    try:
        return read()
    except Exception:
        return None


def _bookmarks(reader: Any) -> Iterator[tuple[int, int, str]]:
    """The page, from 0, the level and the words of each bookmark, in order."""
    below = [(1, iter(reader.outline))]
    while below:
        level, entries = below[-1]
        entry = next(entries, None)
        if entry is None:
            below.pop()
        elif isinstance(entry, list):
            below.append((level + 1, iter(entry)))
        elif (page := reader.get_destination_page_number(entry)) is not None and (
            title := " ".join(_clean(entry.title).split())
        ):
            yield page, level, title


def _headings(bookmarks: list[tuple[int, int, str]], texts: list[str]) -> Iterator[tuple[str, ...]]:
    """The headings above each page: those of pages before it, and one that the page itself begins with."""
    path: list[tuple[int, str]] = []
    waiting = sorted(bookmarks, key=lambda bookmark: bookmark[0])
    for number, text in enumerate(texts):
        here = []
        while waiting and waiting[0][0] <= number:
            here.append(waiting.pop(0)[1:])
        top = _letters(text[:_TOP])
        while here and _letters(here[0][1]) in top:
            path = _below(path, *here.pop(0))
        yield tuple(title for _, title in path)
        for bookmark in here:
            path = _below(path, *bookmark)


def _below(path: list[tuple[int, str]], level: int, title: str) -> list[tuple[int, str]]:
    return [*(above for above in path if above[0] < level), (level, title)]


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _clean(text: str) -> str:
    """A text without control characters, ligatures, and halves of characters."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return re.sub("\u00ad\n?", "", whole.translate({**_LIGATURES, **_CONTROLS})).strip()


def _joined(text: str, words: set[str]) -> str:
    """Join words that were divided at ends of lines, if the document has them undivided, and lines of prose."""

    def undivided(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]}{match[3]}\n" if match[1] + match[2] in words else match[0]

    return _GOES_ON.sub(r"\1 ", _HYPHENATED.sub(undivided, text)).strip()
