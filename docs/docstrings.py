"""Shows the reST examples of docstrings, which LlamaIndex's own are written in, as Markdown."""

import re
import textwrap
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)\.\. code-block:: (\w+)\n\n((?:\1 +\S.*\n?|\s*\n)+)", flags=re.MULTILINE)


class RestExamples(griffe.Extension):
    """Turns ``.. code-block:: python`` into a fence."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class or function before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(_as_fence, obj.docstring.value)


def _as_fence(match: re.Match[str]) -> str:
    indent, language, code = match.groups()
    fence = f"```{language}\n{textwrap.dedent(code).strip()}\n```\n"
    return textwrap.indent(fence, indent) + "\n"
