"""E-mail: messages, and files that hold many of them."""

from __future__ import annotations

import datetime
import email
import email.header
import email.policy
import email.utils
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from colbert_core.documents.encodings import LARGEST, decode, is_binary, read_content
from colbert_core.documents.html import html_part
from colbert_core.documents.part import Part, UnreadableFileError
from colbert_core.text.lines import check_no_pipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message
    from pathlib import Path

# Such a line, below a blank one, begins a message; in its text it is written with a > before it.
_FROM = re.compile(rb"From \S.*\d\d:\d\d.*\n?")
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
_FIELD = re.compile(rb"^[!-9;-~]+:", re.MULTILINE)


def read_message(path: Path) -> Iterator[Part]:
    """Read a message as one part.

    Its title is its subject. Its metadata are "from", "to" and "date", as ISO 8601 in UTC, where it has them.

    Raises:
        UnreadableFileError: it is no message.
        MissingExtraError: it has HTML alone, and selectolax is not installed.
    """
    yield from _parts(read_content(path), path)


def read_mailbox(path: Path) -> Iterator[Part]:
    """Read each message of a mailbox as a part, as ``read_message`` does.

    Raises:
        UnreadableFileError: it is no mailbox.
        MissingExtraError: a message has HTML alone, and selectolax is not installed.
    """
    check_no_pipe(path)
    with path.open("rb") as file:  # the library's own mailbox opens it for writing
        first = file.readline(2**16)
        if first and not _FROM.fullmatch(first):
            raise UnreadableFileError(f'{path} is no mailbox: its first line does not begin with "From ".', "damaged")
        lines: list[bytes] = []
        size = number = 0
        is_above_blank = False
        for line in file:
            if is_above_blank and _FROM.fullmatch(line):
                number += 1
                yield from _parts(_QUOTED.sub(rb"\1", b"".join(lines)), f"{path}, message {number}")
                lines, size = [], 0
            else:
                lines.append(line)
                size += len(line)
            if size > LARGEST:
                raise UnreadableFileError(
                    f"{path}, message {number + 1} is larger than {LARGEST >> 20} MiB, the most of one text.", "too large"
                )
            is_above_blank = not line.strip()
        if lines:
            yield from _parts(_QUOTED.sub(rb"\1", b"".join(lines)), f"{path}, message {number + 1}")


def _parts(content: bytes, place: object) -> Iterator[Part]:
    if not content.strip():
        return
    head = content.lstrip()[: 2**12]
    if is_binary(head) or not _FIELD.match(head):
        raise UnreadableFileError(f"{place} is no message: it does not begin with a field such as Subject.", "damaged")
    # The newer policies fail on headers that are not as they should be.
    message = email.message_from_bytes(content, policy=email.policy.compat32)
    body, attachments = _body(message, place)
    if attachments:
        body = replace(body, text=f"{body.text.rstrip()}\n\nAttachments: {', '.join(attachments)}".lstrip())
    about = {key: _words(message[key]) for key in ("from", "to", "date") if message[key]}
    if "date" in about:
        about["date"] = _date(about["date"])
    subject = _words(message["subject"] or "")
    if body.text.strip() or subject:
        yield replace(body, text=body.text if body.text.strip() else subject, title=subject, metadata=about)


def _body(message: Message, place: object) -> tuple[Part, list[str]]:
    """What a message says, as plain text if it has that, else as Markdown; and the names of its attachments."""
    plain: list[str] = []
    pages: list[str] = []
    attachments = []
    # walk() recurses, and goes into messages that are attached; so a stack.
    waiting: list[Message] = [message]
    while waiting:
        part = waiting.pop()
        kind = part.get_content_type()
        name = _words(part.get_filename() or "")
        if part.get_content_maintype() == "multipart":
            inner: Any = part.get_payload()
            waiting += [each for each in reversed(inner) if not isinstance(each, str)] if isinstance(inner, list) else []
        elif kind == "message/rfc822":
            inner = part.get_payload()
            subject = _words(inner[0]["subject"] or "") if isinstance(inner, list) and inner else ""
            attachments.append(name or subject or "a message")
        elif part.get_content_disposition() == "attachment" or kind not in ("text/plain", "text/html"):
            if name or part.get_content_disposition() == "attachment":
                attachments.append(name or kind)
        else:
            text = _text(part, place)
            (plain if kind == "text/plain" else pages).append(text)
    if any(text.strip() for text in plain) or not pages:
        return Part("\n\n".join(text.strip("\n") for text in plain)), attachments
    return html_part("\n".join(pages), place), attachments


def _text(part: Message, place: object) -> str:
    payload: Any = part.get_payload(decode=True)
    content = payload if isinstance(payload, bytes) else b""
    try:
        return decode(content, place, part.get_content_charset() or "")
    except UnreadableFileError:
        return ""  # says that it is text, and is not


def _words(value: Any) -> str:
    """The words of a field, which may be in several encodings."""
    try:
        pieces = email.header.decode_header(str(value))
    except (ValueError, email.errors.MessageError):
        return " ".join(str(value).split())
    texts = []
    for piece, encoding in pieces:
        content = piece.encode("utf-8", "surrogateescape") if isinstance(piece, str) else piece
        try:
            texts.append(decode(content, "", encoding or ""))
        except UnreadableFileError:
            texts.append(content.decode("ascii", "replace").replace("\0", ""))
    return " ".join("".join(texts).split())


def _date(value: str) -> str:
    """A date in UTC, so that dates can be compared; what is none stays as it is."""
    try:
        date = email.utils.parsedate_to_datetime(value)
        return date.replace(tzinfo=date.tzinfo or datetime.UTC).astimezone(datetime.UTC).isoformat()
    except (ValueError, OverflowError, TypeError, IndexError):
        return value
