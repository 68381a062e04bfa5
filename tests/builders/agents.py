"""Indexes for agents, and the command ``colbert mcp`` as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from builders.processes import environment
from colbert_core import Index, Passage

FILLER = " ".join(f"Report {n} tells of the weather in town {n}." for n in range(150))
LONG = f"{FILLER} The zebra escaped from the zoo at midnight. {FILLER}"
PASSAGES = [
    Passage("cats", "Cats purr when they are content.", {"year": 2020, "kind": "cat"}),
    Passage("dogs", "Dogs bark at strangers.", {"year": 2023, "kind": "dog", "tags": ["loud"]}),
    Passage("long", LONG, {"year": 2024}),
]
HELLO = {
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


def write_pets(folder, encoder):
    """An index of three passages, one of which is long, made with the model in the box."""
    with Index.create(folder, encoder) as index:
        index.add(PASSAGES, progress=False)
    return folder


def command(*arguments):
    return [sys.executable, "-m", "colbert_core.cli", "mcp", *map(str, arguments)]


@contextmanager
def process(*arguments, **variables):
    """``colbert mcp`` as a process, which is there no longer than this."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = subprocess.Popen(command(*arguments), env=environment(HF_HUB_OFFLINE="1", **variables), **pipes)
    try:
        yield started
    finally:
        started.kill()
        started.wait()
        for pipe in (started.stdin, started.stdout, started.stderr):
            with suppress(BrokenPipeError):  # of what the process has not read
                pipe.close()


def say(started, *messages):
    for message in messages:
        line = message if isinstance(message, bytes) else json.dumps({"jsonrpc": "2.0", **message}).encode()
        started.stdin.write(line + b"\n")
    started.stdin.flush()


def hear(started):
    return json.loads(started.stdout.readline())


def greet(started):
    say(started, HELLO)
    answer = hear(started)
    say(started, {"method": "notifications/initialized"})
    return answer


def call(id_, tool, **arguments):
    return {"id": id_, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


def loaded(started):
    """The files that a process has mapped into its memory."""
    return Path(f"/proc/{started.pid}/maps").read_text(encoding="utf-8")


@contextmanager
def listening(*arguments, **variables):
    """``colbert mcp --http`` as a process at a free port, and its address."""
    with process(*arguments, "--http", "--port", "0", **variables) as started:
        line = started.stderr.readline().decode()
        assert "http://" in line, line + started.stderr.read().decode()
        yield started, line.split()[-1]
