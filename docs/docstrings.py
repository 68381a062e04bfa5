"""Shows what docstrings have beside Google's sections as Markdown: doctests, LlamaIndex's examples and LangChain's headings."""

import re
import textwrap
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)\.\. code-block:: (\w+)\n\n((?:\1 +\S.*\n?|\s*\n)+)", flags=re.MULTILINE)
_DOCTEST = re.compile(r"^( *)>>> .*\n?(?:\1\S.*\n?)*", flags=re.MULTILINE)
_HEADING = re.compile(r"^([A-Z][\w ]+):\n((?:    .*(?:\n|$)|\n)+)", flags=re.MULTILINE)
_ARGUMENT = re.compile(r"^(\w+): ", flags=re.MULTILINE)
_OF_GOOGLE = {"Args", "Attributes", "Raises", "Returns", "Yields"}


class Docstrings(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            text = _EXAMPLE.sub(lambda match: _fence(*match.groups()), obj.docstring.value)
            text = _DOCTEST.sub(lambda match: _fence(match[1], "pycon", match[0]), text)
            obj.docstring.value = _HEADING.sub(_as_paragraphs, text)


def _fence(indent: str, language: str, code: str) -> str:
    return textwrap.indent(f"```{language}\n{textwrap.dedent(code).strip()}\n```\n", indent) + "\n"


def _as_paragraphs(match: re.Match[str]) -> str:
    """``Example:``, LangChain's ``Setup:`` and so on in bold, and its ``Key init args:`` as a list."""
    heading, body = match.groups()
    if heading in _OF_GOOGLE:
        return match[0]
    body = textwrap.dedent(body).strip()
    if heading == "Key init args":
        body = _ARGUMENT.sub(r"- `\1`: ", body)
    return f"**{heading}**\n\n{body}\n\n"
