"""``colbert mcp --http``: a real server on the loopback interface, who may reach it, and with which token."""

from __future__ import annotations

import json

import httpx
import pytest
from builders.agents import HELLO, call, listening, process, write_pets
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

TOKEN = "a-token-of-more-than-sixteen-letters"
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, default_encoder):
    return write_pets(tmp_path_factory.mktemp("served") / "pets.idx", default_encoder)


@pytest.fixture(scope="module")
def address(folder):
    with listening(folder) as (_, address):
        yield address


@pytest.fixture(scope="module")
def guarded(folder):
    token = folder.parent / "token"
    token.write_text(f"{TOKEN}\n")
    with listening(folder, "--token-file", token) as (_, address):
        yield address


def post(address, message=HELLO, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(address, json={"jsonrpc": "2.0", **message}, headers=ACCEPT | named, timeout=60)


# The SDK has named its client anew, and has the old name with a warning.
@pytest.mark.filterwarnings("ignore:Use `streamable_http_client` instead:DeprecationWarning")
async def test_a_client_of_the_sdk_searches_over_http(address):
    async with streamablehttp_client(address) as (reading, writing, _), ClientSession(reading, writing) as session:
        assert (await session.initialize()).serverInfo.name == "colbert"
        assert "search" in {tool.name for tool in (await session.list_tools()).tools}
        result = await session.call_tool("search", {"query": "happy cats", "k": 1})
        assert result.structuredContent["hits"][0]["id"] == "cats"
        assert (await session.call_tool("search", {"query": "cats", "where": {"a": {"$b": 1}}})).isError


@pytest.mark.parametrize("half", [r"cat\ud800", r"\ud800"])
def test_half_a_character_is_an_error_that_is_answered(address, half):
    body = json.dumps({"jsonrpc": "2.0", **call(1, "search", query="HALF")}).replace("HALF", half)
    answer = httpx.post(address, content=body.encode(), headers=ACCEPT | {"Content-Type": "application/json"}, timeout=60)
    assert answer.status_code in (200, 400)
    assert "Traceback" not in answer.text
    assert post(address).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "evil.example:8081"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "http://localhost:1", "Host": "localhost:1"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_no_web_page_reaches_the_server_through_a_name_of_its_own(address, headers, status):
    assert post(address, **headers).status_code == status


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
    ],
)
def test_with_a_token_file_every_request_needs_the_token(guarded, header, status):
    answer = post(guarded, **({} if header is None else {"Authorization": header}))
    assert answer.status_code == status
    assert TOKEN not in answer.text
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_a_request_that_is_too_large_is_refused_whether_it_says_so_or_not(address):
    assert post(address, call(1, "search", query="x" * 17_000_000)).status_code == 413
    streamed = httpx.post(address, content=iter([b"x" * 1_000_000] * 17), headers=ACCEPT | {"Content-Type": "application/json"})
    assert streamed.status_code == 413
    assert httpx.get(address.replace("/mcp", "/etc/passwd")).status_code == 404


def test_other_machines_are_let_in_only_with_a_token(folder):
    with process(folder, "--http", "--host", "0.0.0.0", "--port", "0") as started:
        out, err = started.communicate(timeout=60)
    assert (started.returncode, out) == (1, b"")
    assert b"could ask without a token; give --token-file" in err
