"""The text of a file in whatever encoding it is."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from colbert_core.documents.part import UnreadableFileError
from colbert_core.text.lines import check_no_pipe

if TYPE_CHECKING:
    from pathlib import Path

_logger = logging.getLogger(__name__)

LARGEST = 2**26
"""Most bytes of one document that is read whole: 64 MiB, some 20,000 pages."""

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
# What people still write, the likeliest first: a short text of one language is as good in another's encoding.
_LATIN = ("cp1252", "cp1250", "cp1254", "iso8859_2")
_OTHERS = ("cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp932", "gb18030", "euc_kr", "big5", "euc_jp", "cp949", "tis_620")
# What a page says and what browsers take it for (https://encoding.spec.whatwg.org/#names-and-labels): a superset.
_WIDER = {
    **dict.fromkeys(("ascii", "us-ascii", "iso-8859-1", "iso8859-1", "latin1", "latin-1"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk", "gb_2312-80"), "gb18030"),
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis", "x-sjis"), "cp932"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987"), "cp949"),
    "big5": "big5hkscs",
    "iso-8859-9": "cp1254",
    "windows-874": "cp874",
}
# A text has tabs, ends of lines and pages, and colors of a terminal; more than 1 in 50 of the others make it none.
_CONTROLS = bytes({*range(32), 127} - set(b"\t\n\v\f\r\b\x1b\x1a"))
_MOST_CONTROLS = 0.02
_SAMPLE = 2**14
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
_KANA = re.compile(r"[ぁ-ん]")


def read_content(path: Path) -> bytes:
    """Read all bytes of a document.

    Raises:
        UnreadableFileError: it is larger than ``LARGEST``.
        ValueError: it is a pipe, a device or a socket.
        OSError: it cannot be opened.
    """
    check_no_pipe(path)
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise UnreadableFileError(f"{path} is larger than {LARGEST >> 20} MiB, the most of one text; cut it.", "too large")
    return content


def is_binary(content: bytes) -> bool:
    """Tell whether bytes are no text in any encoding: they have a zero, or many other control characters."""
    if any(content.startswith(mark) for mark, _ in _MARKS[1:]):
        return False
    return b"\0" in content or len(content) - len(content.translate(None, _CONTROLS)) > len(content) * _MOST_CONTROLS


def decode(content: bytes, place: object, declared: str = "") -> str:
    r"""Read bytes as text, with \n at the ends of lines.

    The encoding is that of a byte order mark; else UTF-8 if it can be read so, which is chance in no other encoding; else the
    declared one; else the one that charset-normalizer finds likeliest, which the log says. A few bytes that are wrong in it
    become U+FFFD.

    Args:
        content: the bytes.
        place: file that has them, for the error.
        declared: name of an encoding that the file says it has; one that is unknown or wrong counts for nothing.

    Raises:
        UnreadableFileError: they are no text.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _lines(content[len(mark) :].decode(encoding, "replace"))
    if is_binary(content):
        raise UnreadableFileError(f"{place} is no text, nor a kind of file that is read.", "binary")
    encoding = declared.strip().lower().replace("_", "-")
    encoding = _WIDER.get(declared.strip().lower(), _WIDER.get(encoding, encoding))
    # ISO 2022 and HZ have ASCII's bytes alone, so they can be read as UTF-8 too.
    text = _decoded(content, encoding) if encoding.startswith(("iso-2022", "hz")) else None
    text = _utf8(content) if text is None else text
    text = _decoded(content, encoding) if text is None else text
    return _lines(_detected(content, place) if text is None else text)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _decoded(content: bytes, encoding: str) -> str | None:
    """Decode bytes; None if they are not in the encoding, or there is none of the name."""
    try:
        return str(content, encoding) if encoding else None
    except (LookupError, ValueError):
        return None


def _utf8(content: bytes) -> str | None:
    """Decode UTF-8, also what is cut off or has a few bytes of another encoding; None if it is mostly something else."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        text = content.decode(errors="replace")
    n_wrong = text.count("\ufffd")
    n_right = sum(map(len, re.findall(r"[^\0-\x7f\ufffd]+", text)))
    return text if n_right >= n_wrong else None


def _detected(content: bytes, place: object) -> str:
    from charset_normalizer import from_bytes  # only here: it takes a while, and nearly all is UTF-8

    # ASCII says nothing of the encoding, so lines without anything else are left out.
    lines = [line for line in content[: 2**22].splitlines(keepends=True) if not line.isascii()]
    sample = b"".join(lines)[:_SAMPLE] or content[-_SAMPLE:]
    # Latin scripts have single letters beyond ASCII: "fü", "ça"; all others have rows of them.
    rows = _BEYOND_ASCII.findall(sample)
    is_latin = sum(map(len, rows)) <= 1.5 * len(rows)
    for encoding in () if is_latin else ("cp932", "euc_jp"):  # of Japanese, detection wants more than a line
        text = sample.decode(encoding, "replace")
        if len(_KANA.findall(text)) > len(text) / 10 and "\ufffd" not in text[:-2]:
            return _guessed(content, encoding, place)
    likely = _LATIN if is_latin else (*_LATIN, *_OTHERS)
    found = from_bytes(sample, cp_isolation=list(likely))
    by_encoding = {encoding: match for match in found for encoding in (match.encoding, *match.could_be_from_charset)}
    likeliest = min(
        (name for name in likely if name in by_encoding),
        key=lambda name: (by_encoding[name].chaos, -round(by_encoding[name].coherence, 1)),
        default=likely[0],
    )
    return _guessed(content, likeliest, place)


def _guessed(content: bytes, encoding: str, place: object) -> str:
    """Decode bytes in the likeliest encoding, and say so: it is a guess."""
    _logger.warning("%s is not UTF-8; it is read as %s, the likeliest encoding.", place, encoding)
    return content.decode(encoding, "replace")
