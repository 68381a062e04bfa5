"""``colbert mcp`` over standard input and output: real processes, and the SDK's own client."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from builders.agents import HELLO, call, command, greet, hear, loaded, process, say, write_pets
from builders.processes import environment
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


@pytest.fixture(scope="module")
def folder(tmp_path_factory, default_encoder):
    return write_pets(tmp_path_factory.mktemp("served") / "pets.idx", default_encoder)


async def test_a_client_of_the_sdk_lists_and_calls_the_tools_several_at_once(folder):
    python, *arguments = command(folder)
    parameters = StdioServerParameters(command=python, args=arguments, env=environment(HF_HUB_OFFLINE="1"))
    async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
        about = await session.initialize()
        assert about.serverInfo.name == "colbert"
        assert "'pets'" in about.instructions
        assert [tool.name for tool in (await session.list_tools()).tools] == [
            "search",
            "get_passage",
            "explain",
            "list_collections",
        ]
        questions = ["happy cats", "loud dogs", "which animal escaped at night?", "when do cats purr"]
        results = await asyncio.gather(*(session.call_tool("search", {"query": query, "k": 1}) for query in questions))
        assert [each.structuredContent["hits"][0]["id"] for each in results] == ["cats", "dogs", "long", "cats"]
        assert "The zebra escaped" in results[2].content[0].text
        wrong = await session.call_tool("search", {"query": "cats", "collection": "../../etc"})
        assert wrong.isError
        assert "those are 'pets'" in wrong.content[0].text


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads what Linux tells of a process")
def test_torch_is_loaded_by_the_first_search_that_needs_a_model_and_not_before(folder):
    with process(folder) as started:
        greet(started)
        say(started, {"id": 1, "method": "tools/list"})
        assert len(hear(started)["result"]["tools"]) == 4
        say(
            started,
            call(2, "list_collections"),
            call(3, "search", query="cats", mode="words"),
            call(4, "get_passage", id="cats"),
        )
        assert not any(hear(started)["result"].get("isError") for _ in range(3))
        assert "libtorch" not in loaded(started)
        say(started, call(5, "search", query="cats"))
        assert hear(started)["result"]["structuredContent"]["hits"][0]["id"] == "cats"
        assert "libtorch" in loaded(started)


def test_what_was_asked_before_the_input_ended_is_answered_and_the_process_ends(folder):
    with process(folder) as started:
        say(started, HELLO, {"method": "notifications/initialized"}, call(1, "search", query="happy cats", k=1))
        out, err = started.communicate(timeout=60)
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["id"] for answer in answers] == [0, 1]
    assert answers[1]["result"]["structuredContent"]["hits"][0]["id"] == "cats"
    assert started.returncode == 0
    assert b"Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
def test_ctrl_c_ends_it_at_once(folder):
    with process(folder) as started:
        greet(started)
        started.send_signal(signal.SIGINT)
        assert started.wait(timeout=20) == 130
        assert started.stderr.read() == b"colbert: interrupted\n"


def test_a_client_that_is_gone_ends_it_without_a_traceback(folder):
    with process(folder) as started:
        greet(started)
        started.stdout.close()
        say(started, {"id": 1, "method": "tools/list"})
        started.stdin.close()
        assert started.wait(timeout=20) == 0
        assert b"Traceback" not in started.stderr.read()


def test_lines_that_are_no_messages_are_answered_if_they_have_an_id_and_stop_nothing(folder):
    with process(folder) as started:
        greet(started)
        say(started, b"", b"no JSON", b"[1, 2]", b"\xff\xfe", b"[" * 100_000, b'{"jsonrpc": "2.0", "id": 7}', b"x" * 20_000_000)
        answer = hear(started)
        assert (answer["id"], answer["error"]["code"]) == (7, -32600)
        half = b'{"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": {"name": "search", "arguments": {"query": "cat\\ud800"}}}'
        say(started, half)
        assert hear(started)["result"]["structuredContent"]["hits"]
        say(started, call(9, "search", query="x" * 100_000), call(10, "search", query="cats", k="x"))
        assert all(hear(started)["result"]["isError"] for _ in range(2))


def test_nothing_but_the_protocol_is_on_standard_output(folder, tmp_path):
    # Python, C and a process of its own print at start, and while a tool works.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, subprocess, sys\n"
        "def chatter(event, arguments):\n"
        "    if event == 'sqlite3.connect':\n"
        "        print('printed'); os.write(1, b'written\\n'); subprocess.run([sys.executable, '-S', '-c', 'print(1)'])\n"
        "sys.addaudithook(chatter)\n"
    )
    paths = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    with process(folder, PYTHONPATH=paths) as started:
        greet(started)
        say(started, call(1, "search", query="cats", mode="words"))
        out, err = started.communicate(timeout=60)
    assert [json.loads(line)["id"] for line in out.splitlines()] == [1]
    assert b"printed" in err
    assert b"written" in err


def test_an_index_that_is_not_there_is_said_before_anything_is_served(tmp_path):
    with process(tmp_path / "none.idx") as started:
        out, err = started.communicate(timeout=60)
    assert (started.returncode, out) == (1, b"")
    assert b"none.idx is no index" in err


def test_added_passages_are_there_for_others(folder, tmp_path, default_encoder):
    own = write_pets(tmp_path / "own.idx", default_encoder)
    with process(own, "--writable") as started:
        greet(started)
        say(started, call(1, "add_passages", passages=[{"id": "hens", "text": "Hens cluck.", "metadata": {"year": 2025}}]))
        assert hear(started)["result"]["structuredContent"]["passages"] == 4
    with process(own) as started:
        greet(started)
        say(started, call(1, "search", query="", where={"year": 2025}), call(2, "add_passages", passages=[]))
        answers = {answer["id"]: answer["result"] for answer in (hear(started), hear(started))}
    assert answers[1]["structuredContent"]["hits"][0]["text"] == "Hens cluck."
    assert "There is no tool 'add_passages'" in answers[2]["content"][0]["text"]
