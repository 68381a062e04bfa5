"""Show a text with some of its characters marked, as HTML and for a terminal. Strings and numbers in, a string out."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Colours are semi-transparent, so that they suit light and dark pages alike; everything is in one element, styles included,
# since notebooks and mails drop style sheets.
_MARK = "border-radius:.25em;padding:0 .1em;color:inherit;background:rgba(255,165,0,{opacity:.2f})"
_BOX = "font-family:system-ui,sans-serif;line-height:1.6;max-width:60em;padding:.6em .8em;margin:.4em 0;border-left:.25em solid"
_FAINT = "opacity:.65;font-size:.85em"
_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"></head>
<body>
{body}
</body></html>
"""

# Opacity of the faintest and the strongest mark: a fainter one is not seen, under a stronger one the text is hard to read.
_FAINTEST, _STRONGEST = 0.15, 0.75

# Of a terminal's 256 colours, those for weights up to 1/3, 2/3 and 1: ever stronger yellow, under black text.
_SHADES = (230, 227, 214)


def as_html(
    query: Sequence[tuple[str, bool]],
    text: str,
    marks: Sequence[tuple[int, int, float, str]],
    window: tuple[int, int],
    caption: str,
) -> str:
    """Make one element with the query, and below it the text with its marks. Everything from outside is escaped.

    Args:
        query: pieces in order, each with a flag: True if it is crossed out.
        text: the text to mark.
        marks: for each mark its first character, the one behind its last, weight from 0 to 1, and a tooltip; in order, and
            without overlap.
        window: characters that are shown; an ellipsis stands for the rest.
        caption: line below the text.
    """
    words = "".join(
        f'<s title="not found" style="opacity:.55">{html.escape(word)}</s>' if missing else html.escape(word)
        for word, missing in query
    )
    body = "".join(
        html.escape(piece)
        if mark is None
        else f'<mark style="{_style(mark[2])}" title="{html.escape(mark[3])}">{html.escape(piece)}</mark>'
        for piece, mark in _pieces(text, marks, window)
    )
    return (
        f'<div class="colbert-evidence" style="{_BOX} rgba(255,165,0,.8)"><div style="font-weight:600">{words}</div>'
        f'<div style="white-space:pre-wrap">{body}</div><div style="{_FAINT}">{html.escape(caption)}</div></div>'
    )


def page(elements: Iterable[str], title: str) -> str:
    """Make a document of such elements. It loads nothing, and follows the reader's light or dark scheme."""
    return _PAGE.format(title=html.escape(title), body="\n".join(elements))


def as_terminal(text: str, marks: Sequence[tuple[int, int, float, str]], window: tuple[int, int], *, color: bool) -> str:
    """Write the text on one line with its marks in colour, or between square brackets.

    Characters that would move the cursor or forge another line are shown as blanks.
    """
    shown = []
    for piece, mark in _pieces(text, marks, window):
        printable = "".join(character if character.isprintable() else " " for character in piece)
        if mark is None:
            shown.append(printable)
        elif color:
            shade = _SHADES[min(int(mark[2] * len(_SHADES)), len(_SHADES) - 1)]
            shown.append(f"\x1b[30;48;5;{shade}m{printable}\x1b[0m")
        else:
            shown.append(f"[{printable}]")
    return "".join(shown)


def _pieces(
    text: str, marks: Sequence[tuple[int, int, float, str]], window: tuple[int, int]
) -> Iterator[tuple[str, tuple[int, int, float, str] | None]]:
    """Yield the text of the window in pieces, each with its mark or None."""
    at, last = window
    if at > 0:
        yield "… ", None
    for mark in marks:
        start, end = max(mark[0], at), min(mark[1], last)
        if start >= end:
            continue
        if start > at:
            yield text[at:start], None
        yield text[start:end], mark
        at = end
    if at < last:
        yield text[at:last], None
    if last < len(text):
        yield " …", None


def _style(weight: float) -> str:
    return _MARK.format(opacity=_FAINTEST + (_STRONGEST - _FAINTEST) * weight)
