"""The command line, ``colbert``. Only this package prints.

In reading order: main (parser, exit codes), quickstart, model_commands, file_commands, index_commands, passage_commands,
serving_commands, cluster_commands, training_options and training_commands (the commands); options, reading and printing (what
they share).
"""

from __future__ import annotations

import argparse
import atexit
import gc
import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import colbert_core
from colbert_core.cli.cluster_commands import add_cluster_commands
from colbert_core.cli.file_commands import add_file_commands
from colbert_core.cli.index_commands import add_import_command, add_index_commands
from colbert_core.cli.model_commands import add_inspect_command, add_rerank_command
from colbert_core.cli.options import command_maker
from colbert_core.cli.passage_commands import add_passage_commands
from colbert_core.cli.printing import filter_warnings, guarded
from colbert_core.cli.quickstart import add_quickstart_command
from colbert_core.cli.serving_commands import add_serving_commands
from colbert_core.cli.training_options import add_training_commands
from colbert_core.errors import ColBERTError, FilterWarning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from colbert_core.cli.options import Command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: words of the command line after the program's name; None for those of this process.

    Returns:
        The exit code: 0 done, 1 an error that is explained on standard error, 2 wrong usage (argparse), 130 interrupted.
    """
    with guarded(pages=True):
        options = build_parser().parse_args(arguments)
    for stream, encoding in ((sys.stdin, "utf-8-sig"), (sys.stdout, "utf-8")):
        if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
            stream.reconfigure(encoding=encoding)  # pipes and files; on Windows they default to an old code page
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what an old terminal has no letter for
    with guarded(), _rare_collections():
        return _run(options)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for garbage every 50,000 objects, not every 700: .3 of the 2.1 s of a search went into that while modules load.

    At its end Python looks through all objects several times. What is frozen is passed over, which saves a search a quarter of
    its time; files and connections were closed before.
    """
    atexit.register(gc.freeze)
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def _run(options: argparse.Namespace) -> int:
    """Run a command; say what was wrong, and return the exit code."""
    try:
        with filter_warnings(strict=getattr(options, "strict", False)):
            code = int(options.run(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough; nothing more must reach its pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ColBERTError, FilterWarning, ValueError, TypeError, OSError) as error:
        print(f"colbert: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("colbert: interrupted", file=sys.stderr)
        return 130
    except Exception:
        import traceback

        for line in traceback.format_exc().splitlines():  # Python itself would print the message as it is
            print(line, file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands.

    Returns:
        A parser. What it parses has the function of the command as ``run``, which takes the parsed options and returns the
        exit code.
    """
    parser = argparse.ArgumentParser(prog="colbert", description="Late-interaction (ColBERT) retrieval and reranking.")
    parser.add_argument("--version", action="version", version=colbert_core.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = command_maker(commands)

    def group(name: str, help_: str) -> Command:
        members = commands.add_parser(name, help=help_, description=help_)
        return command_maker(members.add_subparsers(required=True, metavar="COMMAND"))

    # The help lists the commands in this order.
    add_quickstart_command(command)
    add_rerank_command(command)
    add_file_commands(command)
    add_index_commands(command)
    add_passage_commands(command)
    add_serving_commands(command)
    add_cluster_commands(command, group)
    add_import_command(command)
    add_training_commands(command, group)
    add_inspect_command(command)
    return parser
