from __future__ import annotations

import http.client
import json
import socket
import time

import httpx
import pytest
from builders.encoders import WordEncoder
from builders.indexes import THREE
from builders.service import serving

from colbert_core import Index
from colbert_core.serve import Limits
from colbert_core.serve.access import check_bind, is_loopback, read_token

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def wiki():
    index = Index.create(encoder=WordEncoder())
    index.add(THREE)
    return index


@pytest.fixture(scope="module")
def guarded(wiki):
    with serving({"wiki": wiki}, token=TOKEN) as url:
        yield url


def search(url, **headers):
    return httpx.post(f"{url}/v1/indexes/wiki/search", json={"query": "cat"}, headers=headers)


def test_who_has_the_token_may_ask(guarded):
    assert search(guarded, Authorization=f"Bearer {TOKEN}").status_code == 200
    assert search(guarded, Authorization=f"bearer  {TOKEN}").status_code == 200


@pytest.mark.parametrize(
    "authorization", [None, "", TOKEN, "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}"]
)
def test_who_has_not_is_refused_before_anything_is_looked_at(guarded, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    refused = search(guarded, **headers)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert "send the header 'Authorization: Bearer TOKEN'" in refused.json()["message"]


@pytest.mark.parametrize(
    "path", ["/v1/indexes", "/metrics", "/openapi.json", "/nothing", "//health", "/health/x", "/page/../v1/indexes"]
)
def test_only_paths_without_data_are_open(guarded, path):
    connection = http.client.HTTPConnection(guarded.removeprefix("http://"))
    connection.request("GET", path)  # as it is, where httpx would tidy it up
    status = connection.getresponse().status
    connection.close()
    assert status in (401, 404)
    if path == "/page/../v1/indexes":
        assert status == 404
    assert httpx.get(f"{guarded}/health").status_code == 200


def test_any_host_may_be_named_where_there_is_a_token(guarded):
    assert search(guarded, Authorization=f"Bearer {TOKEN}", Host="search.example.org").status_code == 200


def test_without_a_token_only_this_machine_is_answered(wiki):
    with serving({"wiki": wiki}) as url:
        port = url.rpartition(":")[2]
        assert search(url, Host=f"localhost:{port}").status_code == 200
        assert search(url, Host="[::1]").status_code == 200
        for host in ("evil.example", "127.0.0.1.evil.example", f"evil.example:{port}", "", "localhost.evil.example"):
            refused = search(url, Host=host)
            assert refused.status_code in (400, 403), host


def test_pages_of_other_sites_may_not_ask(wiki):
    with serving({"wiki": wiki}) as url:
        assert search(url, Origin=url).status_code == 200
        for origin in ("http://evil.example", "null", "https://127.0.0.1:1"):
            assert search(url, Origin=origin).status_code == 403
        answer = search(url, Origin=url)
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(wiki):
    with serving({"wiki": wiki}, limits=Limits(body_bytes=1000)) as url:
        said = httpx.post(f"{url}/v1/indexes/wiki/search", content=b'{"query": "' + b"x" * 2000 + b'"}')
        unsaid = httpx.post(f"{url}/v1/indexes/wiki/search", content=(b"x" * 100 for _ in range(100)))
    assert (said.status_code, unsaid.status_code) == (413, 413)
    assert "more than 1,000 bytes" in said.json()["message"]
    assert said.json() == unsaid.json() or unsaid.json()["message"] == said.json()["message"]


def test_a_body_that_comes_too_slowly_is_given_up(wiki):
    with serving({"wiki": wiki}, limits=Limits(body_seconds=0.5)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(
                b"POST /v1/indexes/wiki/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
            answer = b""
            started = time.monotonic()
            while b"seconds" not in answer and time.monotonic() - started < 15:
                answer += connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"did not come whole within 0.5 seconds" in answer
        assert search(url).status_code == 200


def test_a_token_is_one_word_of_some_length(tmp_path):
    file = tmp_path / "token"
    file.write_text(f" {TOKEN}\n")
    assert read_token(file) == TOKEN
    for wrong in ("", "short", "two words of some length", "ünicode-ünicode-ünicode"):
        file.write_text(wrong)
        with pytest.raises(ValueError, match=r"must be one word of at least 16 printable ASCII characters.*openssl rand"):
            read_token(file)


def test_nothing_but_this_machine_is_served_without_a_token():
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert is_loopback(host)
        check_bind(host, None)
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", "", "localhost.example.org"):
        with pytest.raises(ValueError, match=r"could ask without a token; give --token-file FILE, or listen at 127\.0\.0\.1"):
            check_bind(host, None)
        check_bind(host, TOKEN)


def test_errors_are_json_for_every_status(guarded):
    for answer in (httpx.get(f"{guarded}/v1/indexes"), search(guarded, Authorization="Bearer x")):
        assert set(json.loads(answer.text)) == {"type", "message"}
