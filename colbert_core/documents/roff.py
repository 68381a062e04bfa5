r"""What stands within the lines of a manual page: its special characters, and mdoc's macros that are called in one another."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Names and what they stand for, in turn.
_NAMED = r"""
bu •  em —  en –  hy -  mi -  lq “  rq ”  oq ‘  cq ’  Bq „  bq ‚  aq '  dq "  ga `  ha ^  ti ~  rs \  sl /
ba |  or |  bv |  at @  sh #  Do $  lB [  rB ]  lC {  rC }  la <  ra >  aa '  ul _  ru _  co ©  rg ®  tm ™
de °  +- ±  mu ×  di ÷  <= ≤  >= ≥  != ≠  == ≡  -> →  <- ←  ua ↑  da ↓  <> ↔  rA ⇒  lA ⇐  sc §  Fo «  Fc »
fo ‹  fc ›  Eu €  eu €  Po £  Ye ¥  ct ¢  ss ß  AE Æ  ae æ  OE Œ  oe œ  /o ø  /O Ø  oa å  oA Å  /l ł  /L Ł
vs š  vS Š  vz ž  vZ Ž  TP Þ  12 ½  14 ¼  34 ¾  S2 ²  S3 ³  mc µ  if ∞  *m μ  *p π  *a α  *b β  dg †  dd ‡
ps ¶  ci ○  sq □  OK ✓  r! ¡  r? ¿  pl +  eq =  ** *
""".split()  # noqa: SIM905
_CHARACTERS = dict(zip(_NAMED[::2], _NAMED[1::2], strict=True))
_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", ":": "\u0308", "~": "\u0303", ",": "\u0327"}
# After a backslash alone; those with nothing are spaces too thin to see, places of hyphens and the like.
_SINGLE = {**dict.fromkeys("&|^/,)%:!?cdupraz{}\n", ""), **dict.fromkeys(" 0~", " "), "e": "\\", "E": "\\", "t": "\t"}
_ESCAPE = re.compile(
    r"""\\(?:
    [fFgkmMVYnO](?:\[[^\]]*\]|\(..|[+-]?.)                                  # fonts, colors, numbers
    |s(?:[+-]?[1-3]\d|[+-]?\d|\[[^\]]*\]|\([+-]?\d\d|[+-]?'[^']*')           # sizes
    |\*(?:\[([^\]]*)\]|\((..)|(.))                                          # 1-3: strings
    |\((..)|\[([^\]]*)\]|C'([^']*)'                                         # 4-6: characters
    |[hvwbolLDXZNABHSRx]'[^']*'                                             # movements and drawings
    |(.)?)""",  # 7: one character
    re.VERBOSE,
)
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\.|[^\s\\])+)')
_TOO_DEEP = 5

# mdoc: what encloses the rest of the line, and what begins and ends enclosures over several lines.
_AROUND = {
    "Op": "[]",
    "Pq": "()",
    "Bq": "[]",
    "Brq": "{}",
    "Aq": "<>",
    "Dq": "“”",
    "Sq": "‘’",
    "Qq": '""',
    "Ql": "‘’",
    "In": "<>",
}
_OPEN = {"Oo": "[", "Po": "(", "Bo": "[", "Bro": "{", "Ao": "<", "Do": "“", "So": "‘", "Qo": '"', "Xo": ""}
_CLOSE = {"Oc": "]", "Pc": ")", "Bc": "]", "Brc": "}", "Ac": ">", "Dc": "”", "Sc": "’", "Qc": '"', "Xc": ""}
_SYSTEMS = {"Ux": "UNIX", "Bx": "BSD", "Nx": "NetBSD", "Fx": "FreeBSD", "Ox": "OpenBSD", "Dx": "DragonFly", "At": "AT&T UNIX"}
_WORDS = frozenset(
    "Ad An Ar Cd Cm Dv Em Er Ev Fa Fl Fn Ft Ic Li Lk Ms Mt Nm No Pa St Sx Sy Tn Va Vt Xr Ns Pf Ap Nd Bsx".split()  # noqa: SIM905
)
INLINE = frozenset((*_AROUND, *_OPEN, *_CLOSE, *_SYSTEMS, *_WORDS))
"""Macros of mdoc that stand for words."""

_ENDS = frozenset(".,:;)]?!")


def characters(text: str, strings: Mapping[str, str], depth: int = 0) -> str:
    r"""Replace escapes such as \fB (a font), \(bu (a bullet) and \*(lq (a string).

    Args:
        text: a line.
        strings: what was defined on the page.
        depth: of strings in strings.
    """

    def meant(match: re.Match[str]) -> str:
        string = next(filter(None, match.group(1, 2, 3)), None)
        if string is not None:
            return characters(strings.get(string, ""), strings, depth + 1) if depth < _TOO_DEEP else ""
        name = next(filter(None, match.group(4, 5, 6)), None)
        if name is not None:
            return _character(name)
        single = match[7]
        return "" if single is None else _SINGLE.get(single, single)

    return _ESCAPE.sub(meant, text) if "\\" in text else text


def _character(name: str) -> str:
    if name in _CHARACTERS:
        return _CHARACTERS[name]
    if re.fullmatch(r"u[0-9A-F]{4,6}(_[0-9A-F]{4,6})*", name):
        codes = [int(code, 16) for code in name[1:].split("_")]
        return "".join(chr(code) for code in codes if code < 0x110000 and not 0xD800 <= code < 0xE000)
    if len(name) == 2 and name[0] in _ACCENTS and name[1].isalpha():
        return unicodedata.normalize("NFC", name[1] + _ACCENTS[name[0]])
    return ""


def arguments(text: str) -> list[str]:
    """The arguments of a macro; one in quotes may have spaces."""
    return [match[1].replace('""', '"') if match[1] is not None else match[2] for match in _ARGUMENT.finditer(text.strip())]


def inline(words: list[str], page: str) -> str:
    """Write a line of mdoc, whose words may be macros.

    Args:
        words: the line, cut at spaces.
        page: name of the page, for Nm without a name.
    """
    written = ""
    is_close = True  # no space before the next word
    ends: list[str] = []  # of what encloses the rest of the line
    number = 0
    while number < len(words):
        word = words[number]
        number += 1
        if word in ("Ns", "Pf", "Ap"):
            if word == "Pf" and number < len(words):
                written += ("" if is_close else " ") + words[number]
                number += 1
            written += "'" if word == "Ap" else ""
            is_close = True
            continue
        if word in _AROUND or word in _OPEN:
            written += ("" if is_close else " ") + (_AROUND[word][0] if word in _AROUND else _OPEN[word])
            ends += [_AROUND[word][1]] if word in _AROUND else []
            is_close = True
            continue
        if word in _CLOSE or word in _ENDS:
            written += _CLOSE.get(word, word)
            is_close = False
            continue
        n_own = _n_words(words, number) if word in INLINE else 0
        text = _word(word, words[number : number + n_own], page) if word in INLINE else word
        number += n_own
        if text:
            written += ("" if is_close else " ") + text
            is_close = word in ("(", "[")
    tail = ""
    while ends and written.rstrip(".,:;")[-1:].isalnum() and written[-1] in ".,:;":  # at the end of a line it is outside
        tail, written = written[-1] + tail, written[:-1]
    return written + "".join(reversed(ends)) + tail


def _n_words(words: list[str], number: int) -> int:
    """How many words belong to a macro: up to the next macro or sign."""
    n_words = 0
    while number + n_words < len(words) and words[number + n_words] not in INLINE | _ENDS:
        n_words += 1
    return n_words


def _word(macro: str, own: list[str], page: str) -> str:
    """What a macro with its own words stands for."""
    text = " ".join(own)
    match macro:
        case "Fl":
            return " ".join(f"-{each}" for each in own) or "-"
        case "Ar":
            return text or "file ..."
        case "Nm":
            return text or page
        case "Nd":
            return f"- {text}"
        case "Xr":
            return f"{own[0]}({own[1]})" + "".join(own[2:]) if len(own) > 1 else text
        case "Fn":
            return f"{own[0]}({', '.join(own[1:])})" if own else ""
        case "Lk":
            return f"{' '.join(own[1:])} <{own[0]}>".strip() if own else ""
        case _:
            return " ".join(filter(None, (_SYSTEMS.get(macro, ""), text)))
