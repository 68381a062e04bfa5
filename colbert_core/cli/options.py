"""Options that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any, Literal, Protocol

import colbert_core
from colbert_core.search.modes import MODES
from colbert_core.text.words import ANALYSERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from colbert_core import Encoder

    Run = Callable[[argparse.Namespace], int]


class Command(Protocol):
    """Adds a command to a parser, and returns the command's own parser."""

    def __call__(
        self, name: str, run: Run, help_: str, *shared: argparse.ArgumentParser, about: str = ""
    ) -> argparse.ArgumentParser:
        """Add a command.

        Args:
            name: word that calls it.
            run: runs it.
            help_: one line for the list of commands.
            shared: parsers whose options it has as well.
            about: description for its own help; ``help_`` if it is empty.
        """


class Group(Protocol):
    """Adds a command that has commands of its own, such as ``colbert cluster``, and returns what adds them."""

    def __call__(self, name: str, help_: str) -> Command:
        """Add a group of this name, with one line of help."""


def command_maker(commands: Any) -> Command:
    """Return a function that adds commands to ``commands``, which ``ArgumentParser.add_subparsers`` has made."""

    def command(name: str, run: Run, help_: str, *shared: argparse.ArgumentParser, about: str = "") -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, parents=shared, help=help_, description=about or help_)
        parser.set_defaults(run=run)
        return parser

    return command


# Parsers that commands take their options from


def model_options() -> argparse.ArgumentParser:
    """Options of a command that encodes and prints: the model, its device, JSON, bars."""
    parser = argparse.ArgumentParser(add_help=False)
    add_model(parser)
    parser.add_argument("--json", action="store_true", help="print JSON lines for programs")
    add_quiet(parser)
    return parser


def json_option() -> argparse.ArgumentParser:
    """The option ``--json``."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    return parser


def quiet_option() -> argparse.ArgumentParser:
    """The option ``--quiet``."""
    parser = argparse.ArgumentParser(add_help=False)
    add_quiet(parser)
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model and where it runs."""
    parser.add_argument("--model", help="checkpoint folder or hub name (default: the model in the box)")
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a model is loaded."""
    parser.add_argument("--device", help="cpu, cuda, mps (default: the best one present)")
    parser.add_argument("--language", help="language whose layers run, for a model that has some for each, such as fr_XX")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the checkpoint")
    parser.add_argument(
        "--dim", type=int, metavar="N", help="keep the first N components of its vectors, for a model trained for that"
    )


def add_where(parser: argparse.ArgumentParser, help_: str) -> None:
    """Add the options that filter by metadata."""
    parser.add_argument("--where", metavar="JSON", help=help_)
    parser.add_argument(
        "--strict", action="store_true", help="fail where no passage has a field of --where, or none with such a type"
    )


def add_mode(parser: argparse.ArgumentParser, of: str = "") -> None:
    """Add the option that says what ranks passages; its help begins with ``of``."""
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="maxsim",
        help=f"{of}what ranks: the model (maxsim, the default), the model and the words of the question (hybrid), or its words "
        "alone, without a model (words)",
    )


def add_pool_factor(parser: argparse.ArgumentParser) -> None:
    """Add ``--pool-factor``."""
    shown = "keep about one of N vectors, the means of similar ones, such as 2 (default: all)"
    parser.add_argument("--pool-factor", type=float, default=1.0, metavar="N", help=shown)


def add_words(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how texts are cut into words."""
    parser.add_argument(
        "--words",
        choices=(*ANALYSERS, "none"),
        help="how texts are cut into words for hybrid search: english (stems, without stop words; the default), words (of any "
        "language, as they are), trigrams (three letters each), none (no words)",
    )


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--quiet``."""
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")


# What the options mean


def read_where(options: argparse.Namespace) -> dict[str, Any] | None:
    """Read the condition of ``--where``.

    Raises:
        ValueError: it is no JSON object, or ``--strict`` stands without it.
    """
    if options.where is None:
        if options.strict:
            raise ValueError("--strict goes with --where; it is about the fields of a filter.")
        return None
    try:
        where = json.loads(options.where)
    except (ValueError, RecursionError) as error:
        example = """--where '{"source": "docs/cats.md"}'"""
        raise ValueError(f"--where is no JSON ({error}); write it like this: {example}") from None
    if not isinstance(where, dict):
        raise ValueError(f'--where is a JSON object such as {{"year": 2024}}, got {options.where:.80}')
    return where


def read_words(options: argparse.Namespace) -> str | Literal[False] | None:
    """Read ``--words`` as ``Index.create`` takes it."""
    return False if options.words == "none" else options.words


def load_encoder(options: argparse.Namespace) -> Encoder:
    """Load the model that ``--model``, ``--device``, ``--language``, ``--trust-remote-code`` and ``--dim`` name."""
    return colbert_core.Encoder.from_pretrained(
        options.model,
        device=options.device,
        language=options.language,
        trust_remote_code=options.trust_remote_code,
        dim=options.dim,
    )


def load_named_encoder(options: argparse.Namespace) -> Encoder | None:
    """Load the model of ``--model``; None without it, for the model that the index names.

    Raises:
        ValueError: an option of the model stands without ``--model``.
    """
    own = options.device or options.language or options.trust_remote_code or options.dim is not None
    if not options.model and own:
        raise ValueError(
            "--device and --trust-remote-code go with --model, and so do --language and --dim; name the model that the index "
            "was made with."
        )
    return load_encoder(options) if options.model else None


def wants_progress(options: argparse.Namespace) -> bool | None:
    """Return ``progress`` for a call: False with ``--quiet``, else None, which shows bars on a terminal."""
    return False if options.quiet else None
