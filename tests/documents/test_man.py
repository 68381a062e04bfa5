"""Manual pages: roff with the macros of man and of mdoc."""

from __future__ import annotations

import pytest

from colbert_core.documents.man import read_manual
from colbert_core.documents.part import UnreadableFileError
from colbert_core.documents.roff import arguments, characters, inline


def read(tmp_path, source):
    (tmp_path / "page.1").write_text(source)
    (part,) = read_manual(tmp_path / "page.1")
    assert part.is_markdown
    return part


MAN = r"""'\" t
.\" a comment
.de Xx
.SH HIDDEN
..
.ds Aq \(aq
.ie n .ds C` ""
.el .ds C` loud
.if t \{\
.SH PRINTED
\}
.TH LS "1" "September 2022" "GNU coreutils 9.1"
.SH NAME
ls \- list directory
contents
.SH "SEE \fIALSO\fR"
.BR dir (1),
.I file
.PP
It\*(Aqs \fBbold\fR\&. \(bu \(:u \[u20AC] a\e b \-\-all
.SS Options
.TP
\fB\-a\fR, \fB\-\-all\fR \" why
do not ignore
entries
.IP \(bu 2
a point
.IP "\-x file" 4
a term
.nf
# no heading
  .\|.\|. code
.fi
.UR https://example.org
here
.UE .
.IX hidden
.br
# a line
.TS
tab(|);
l l.
a|b
_
c|T{
long
cell
T}
.TE
"""


def test_a_page_of_man_is_markdown_with_its_name_as_title(tmp_path):
    part = read(tmp_path, MAN)
    assert part.title == "ls(1) - list directory contents"
    assert part.text == (
        "# NAME\n\nls - list directory contents\n\n# SEE ALSO\n\ndir(1), file\n\nIt's bold. • ü € a\\ b --all\n\n## Options\n\n"
        "-a, --all\ndo not ignore entries\n\n• a point\n\n-x file\na term\n\n```\n# no heading\n  ... code\n```\n\n"
        "here <https://example.org>.\n\\# a line\n\na | b\nc | long cell"
    )


MDOC = r""".Dd January 1, 2024
.Dt SCP 1
.Os
.Sh NAME
.Nm scp
.Nd secure file copy
.Sh SYNOPSIS
.Nm
.Op Fl 46
.Op Fl c Ar cipher
.Oo Ar user Ns @ Oc Ns Ar host ...
.Sh DESCRIPTION
.Nm
copies, see
.Xr ssh 1 ,
.Dq quoted text .
.Bl -tag -width Ds
.It Fl c Ar cipher
Selects
.Pa /etc/cipher
.Pq see below .
.El
.Bd -literal -offset indent
# scp a b:
.Ed
.Fn open "char *path" "int flags"
"""


def test_a_page_of_mdoc_is_read_too(tmp_path):
    part = read(tmp_path, MDOC)
    assert part.title == "scp(1) - secure file copy"
    assert part.text == (
        "# NAME\n\nscp - secure file copy\n\n# SYNOPSIS\n\nscp [-46] [-c cipher] [user@]host ...\n\n# DESCRIPTION\n\n"
        "scp copies, see ssh(1), “quoted text”.\n\n-c cipher\nSelects /etc/cipher (see below).\n\n```\n# scp a b:\n```\n\n"
        "open(char *path, int flags)"
    )


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"\fBa\fP\f[I]b\f(CWc\fR", "abc"),
        (r"\s-1A\s0\s+2b", "Ab"),
        (r"\m[blue]x\m[]\h'1n'y\v'-2'z", "xyz"),
        (r"\(co\[rs]\(lq\(rq\(->", "©\\“”→"),
        (r"\[u00E9]\[u0065_0301]\('e\(,c", "ée\u0301éç"),
        (r"\[uDFFF]\[uFFFFFF]\(zz\[nonsense]", ""),
        (r"a\&b\ c\~d\|e\cf", "ab c def"),
        (r"\*x\*(xx\*[name]", "123"),
        (r"\*(lo", ""),
        ("a\\", "a"),
    ],
)
def test_escapes_become_characters(source, text):
    assert characters(source, {"x": "1", "xx": "2", "name": "3", "lo": r"\*(lo"}) == text


def test_arguments_may_be_in_quotes():
    assert arguments(r'"a b" c\ d "e ""f""" "open') == ["a b", r"c\ d", 'e "f"', "open"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("Ql :", "‘:’"),
        ("Fl", "-"),
        ("Fl a b", "-a -b"),
        ("Ar", "file ..."),
        ("Op Fl x Ns Ar n , Ar m", "[-xn, m]"),
        ("Pf $ Ev HOME", "$HOME"),
        ("In stdio.h", "<stdio.h>"),
        ("Lk https://example.org the site", "the site <https://example.org>"),
        ("Ux System V", "UNIX System V"),
        ("Nm", "page"),
    ],
)
def test_macros_of_mdoc_are_called_within_a_line(line, text):
    assert inline(line.split(), "page") == text


def test_a_page_that_only_names_another_is_named_as_a_link(tmp_path):
    (tmp_path / "a.1").write_text(".so man7/b.7\n")
    with pytest.raises(UnreadableFileError, match=r"a\.1 says nothing but that its text is in man7/b\.7") as error:
        list(read_manual(tmp_path / "a.1"))
    assert error.value.kind == "link"


def test_a_page_without_text_has_no_parts(tmp_path):
    (tmp_path / "a.1").write_text(".TH A 1\n.SH\n")
    assert list(read_manual(tmp_path / "a.1")) == []
