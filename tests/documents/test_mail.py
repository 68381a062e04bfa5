"""Messages, and mailboxes of many."""

from __future__ import annotations

import mailbox
from email.message import EmailMessage

import pytest

from colbert_core.documents import mail
from colbert_core.documents.mail import read_mailbox, read_message
from colbert_core.documents.part import UnreadableFileError


def message(subject="Grüße", text="Hallo,\n\nich bin's.\n", **fields):
    made = EmailMessage()
    made["Subject"] = subject
    made["From"] = "Jürgen <j@example.org>"
    made["To"] = "a@example.org, b@example.org"
    made["Date"] = "Fri, 02 Feb 2024 23:30:00 -0500"
    made.set_content(text, **fields)
    return made


def read(tmp_path, content):
    (tmp_path / "a.eml").write_bytes(content)
    (part,) = read_message(tmp_path / "a.eml")
    return part


ABOUT = {"from": "Jürgen <j@example.org>", "to": "a@example.org, b@example.org", "date": "2024-02-03T04:30:00+00:00"}


def test_a_message_has_its_subject_as_title_and_says_from_whom_to_whom_and_when(tmp_path):
    part = read(tmp_path, message().as_bytes())
    assert (part.title, part.metadata, part.is_markdown) == ("Grüße", ABOUT, False)
    assert part.text.strip() == "Hallo,\n\nich bin's."


def test_plain_text_goes_before_html_and_attachments_are_named(tmp_path):
    made = message()
    made.add_alternative("<h1>Page</h1><p>text", subtype="html")
    made.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="Übersicht.pdf")
    made.add_attachment("notes", filename="notes.txt")
    made.add_attachment(message("Inner"))
    part = read(tmp_path, made.as_bytes())
    assert part.text == "Hallo,\n\nich bin's.\n\nAttachments: Übersicht.pdf, notes.txt, Inner"


def test_html_alone_is_read_as_a_page(tmp_path):
    part = read(tmp_path, message(text="<h2>Head</h2><p>Grüße", subtype="html", charset="iso-8859-1", cte="8bit").as_bytes())
    assert (part.text, part.title, part.is_markdown) == ("## Head\n\nGrüße", "Grüße", True)


def test_old_headers_and_encodings_are_read(tmp_path):
    content = b"Subject: =?koi8-r?B?8NLJ18XU?= =?utf-8?q?_caf=C3=A9?=\nFrom: caf\xe9\nDate: someday\nContent-Type: text/plain; charset=koi8-r\n\n\xf0\xd2\xc9\xd7\xc5\xd4\n"
    part = read(tmp_path, content)
    assert (part.title, part.text) == ("Привет café", "Привет")
    assert part.metadata["date"] == "someday"


def test_a_message_without_text_has_its_subject_as_text(tmp_path):
    assert read(tmp_path, b"Subject: eom\n\n").text == "eom"


def test_each_message_of_a_mailbox_is_a_part(tmp_path):
    box = mailbox.mbox(tmp_path / "in.mbox")
    box.add(message("One", "From here on it is > quoted.\n\nFrom me"))
    box.add(message("Two"))
    box.close()
    before = (tmp_path / "in.mbox").read_bytes()
    assert b"\n>From" in before
    one, two = read_mailbox(tmp_path / "in.mbox")
    assert (one.title, one.text.strip(), one.metadata) == ("One", "From here on it is > quoted.\n\nFrom me", ABOUT)
    assert two.title == "Two"
    assert (tmp_path / "in.mbox").read_bytes() == before


def test_an_empty_mailbox_has_no_parts(tmp_path):
    (tmp_path / "in.mbox").write_bytes(b"")
    assert list(read_mailbox(tmp_path / "in.mbox")) == []


def test_what_is_no_mail_is_damaged(tmp_path):
    (tmp_path / "a").write_bytes(b"no message here")
    for read_one in (read_message, read_mailbox):
        with pytest.raises(UnreadableFileError, match="a is no m") as error:
            list(read_one(tmp_path / "a"))
        assert error.value.kind == "damaged"


def test_a_message_that_is_too_large_is_named_by_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(mail, "LARGEST", 1000)
    box = mailbox.mbox(tmp_path / "in.mbox")
    box.add(message("One"))
    box.add(message("Two", "a line\n" * 200))
    box.close()
    with pytest.raises(UnreadableFileError, match="message 2 is larger") as error:
        list(read_mailbox(tmp_path / "in.mbox"))
    assert error.value.kind == "too large"


def test_deep_nesting_is_no_recursion(tmp_path):
    content = b""
    for depth in range(80):
        content += b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (depth, depth)
    content += b"Content-Type: text/plain\n\ndeep\n"
    assert "deep" in read(tmp_path, b"Subject: s\n" + content).text
