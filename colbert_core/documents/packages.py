"""Files that are ZIP archives of XML, as those of office programs and books are: what is dangerous in them is refused."""

from __future__ import annotations

import zipfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from colbert_core.documents.part import UnreadableFileError
from colbert_core.text.lines import check_no_pipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Most bytes of XML, unpacked; a novel has one million, a table of a million rows 50 to 200.
_LARGEST = 2**29
_TEXTS = (".xml", ".rels", ".opf", ".xhtml", ".html", ".htm", ".ncx")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # what office programs put around a file with a password, and old files of theirs


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file; whatever goes wrong after that is damage in it.

    Raises:
        UnreadableFileError: something goes wrong within the context.
        OSError: it cannot be opened.
    """
    check_no_pipe(path)
    with path.open("rb") as file:
        try:
            yield file
        except UnreadableFileError:
            raise
        except Exception as error:  # of any kind, as what is in the file is
            raise UnreadableFileError(f"{path} is damaged: {type(error).__name__}: {error}", "damaged") from error


def checked(file: IO[bytes], path: Path) -> zipfile.ZipFile:
    """Open an archive after a look at all that is text in it.

    Raises:
        UnreadableFileError: it is encrypted, unpacks to too much, or has entities, which would unpack to anything.
        zipfile.BadZipFile: it is none.
    """
    if file.read(len(_OLE)) == _OLE:
        raise UnreadableFileError(
            f"{path} has a password or the format of before 2007; save it in the new format without a password.", "encrypted"
        )
    archive = zipfile.ZipFile(file)
    texts = [member for member in archive.infolist() if member.filename.lower().endswith(_TEXTS)]
    if any(member.flag_bits & 1 for member in texts):
        raise UnreadableFileError(f"{path} is encrypted; save it without a password.", "encrypted")
    size = sum(member.file_size for member in texts)
    if size > _LARGEST:
        raise UnreadableFileError(f"{path} unpacks to {size:,} bytes; the most is {_LARGEST:,}.", "too large")
    for member in texts:
        if b"<!ENTITY" in archive.read(member).replace(b"\0", b""):  # also in UTF-16
            raise UnreadableFileError(f"{path} declares entities in {member.filename}, which no such file needs.", "damaged")
    return archive


def need_text(found: bool, path: Path) -> None:
    """Check that a file said something.

    Raises:
        UnreadableFileError: it did not.
    """
    if not found:
        raise UnreadableFileError(f"{path} has no text; if it has images of text, run OCR on it first.", "no text")
