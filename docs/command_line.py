"""Writes the page of the command line from its parser.

    python docs/command_line.py

tests/test_docs.py fails while docs/command-line.md is not what this writes.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from colbert_core.cli.main import build_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).with_name("command-line.md")

_HEAD = """\
# Command line

<!-- Written by docs/command_line.py from the parser. Change the help texts there, then run it again. -->

`colbert` does from a shell what the package does in Python. It prints results on standard output and everything else on
standard error. The exit code is 0 when the work is done, 1 for an error that is explained on standard error, 2 for wrong usage
and 130 for Ctrl-C.

"""


def page() -> str:
    """The page as Markdown: a table of all commands, then each with its arguments."""
    commands = list(_commands(build_parser(), "colbert", ""))
    lines = ["| command | does |", "|---|---|"]
    lines += [f"| [`{name}`](#{name.replace(' ', '-')}) | {_cell(does)} |" for name, does, _ in commands]
    lines += ["", "`colbert --version` prints the version, and `--help` after any command explains it.", ""]
    for name, _, parser in commands:
        lines += [f"## {name}", "", *_explained(name, parser)]
    return _HEAD + "\n".join(lines).rstrip() + "\n"


def _commands(parser: argparse.ArgumentParser, name: str, does: str) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Every command that runs, in the parser's order: its whole name, one line about it, and its parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield name, does, parser
    for group in groups:
        helps = {choice.dest: choice.help or "" for choice in group._choices_actions}
        for word, subparser in group.choices.items():
            yield from _commands(subparser, f"{name} {word}", helps.get(word, ""))


def _explained(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """The paragraphs of a command. Help of argparse itself wraps and counts options differently from Python to Python."""
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    arguments = [action for action in actions if not action.option_strings]
    options = [action for action in actions if action.option_strings]
    needed = [f"{action.option_strings[-1]} {_value(action)}" for action in options if action.required]
    usage = [name, *map(_value, arguments), *needed, *(["[options]"] if len(options) > len(needed) else [])]
    yield from ("```text", " ".join(usage), "```", "", _cell(parser.description or ""), "")
    if actions:
        yield from ("| argument | meaning |", "|---|---|")
    for action in [*arguments, *sorted(options, key=lambda option: not option.required)]:
        value = "" if action.option_strings and action.nargs == 0 else _value(action)
        written = " ".join(filter(None, (", ".join(action.option_strings), value)))
        required = " (required)" if action.required and action.option_strings else ""
        yield f"| `{written}` | {_cell(action.help or '')}{required} |"
    yield ""


def _value(action: argparse.Action) -> str:
    """What stands for a value: its metavar, its choices, or its name in capitals."""
    word = action.metavar or ("{" + ",".join(action.choices) + "}" if action.choices else action.dest.upper())
    word = " ".join(word) if isinstance(word, tuple) else word
    return {"?": f"[{word}]", "*": f"[{word} ...]", "+": f"{word} ..."}.get(str(action.nargs), word)


def _cell(text: str) -> str:
    """A help text as a line of Markdown that a table can hold. What is in backticks stays as it is."""
    line = " ".join(text.split()).replace("%%", "%")
    return re.sub(r"`[^`]*`|[|<>*_]", lambda match: match[0] if match[0][0] == "`" else "\\" + match[0], line)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
