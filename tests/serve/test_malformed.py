"""Requests that make no sense: each is answered with a 4xx, and the service is what it was.

The default run takes seconds; ``pytest tests/serve/test_malformed.py --requests 10000`` tries ten thousand.
"""

from __future__ import annotations

import http.client
import json
import random
import resource
import socket
from pathlib import Path

import pytest
from builders.encoders import SpanEncoder
from builders.indexes import THREE
from builders.service import serving

from colbert_core import Index
from colbert_core.serve import Limits

BODIES = {
    "search": {
        "query": "cat",
        "k": 3,
        "where": {"n": 1},
        "ids": ["a"],
        "min_relevance": 0.1,
        "mode": "maxsim",
        "evidence": True,
    },
    "search_many": {"queries": ["cat", "dog"], "k": 3, "weight": 0.5, "mode": "hybrid"},
    "search_mean": {"queries": ["cat", "dog"], "k": 3},
    "explain": {"query": "cat", "id": "a", "min_similarity": 0.3, "mode": "maxsim"},
    "excerpts": {"query": "cat", "ids": ["a"], "max_tokens": 50},
    "passages": {"passages": [{"id": "x", "text": "y", "metadata": {"n": 1}}]},
    "passages/list": {"where": {"n": 1}, "limit": 10, "after": None},
    "passages/get": {"ids": ["a"]},
    "passages/delete": {"ids": ["nobody"]},
    "count": {"where": {"n": {"$gte": 1}}},
}
VALUES = [
    None, True, 0, -1, 1.5, 10**400, -(10**30), 2**63, 1e308, float("nan"), float("inf"), "", " ", "\ud800", "x" * 5000, "\x00",
    [], [[]], [None], {}, {"$or": 1}, {"$and": [{}]}, {"n": {"$gte": None}}, {"n": {"$in": 3}}, {"": {"": ""}}, {"$not": 5},
    {"n": {"$regex": "(" * 50}}, ["a"] * 2000, {"a": {"b": {"c": []}}},
]  # fmt: skip


def malformed(rng):
    """A path of the service, and bytes to send to it, which are almost never right."""
    path = rng.choice(list(BODIES))
    body = json.loads(json.dumps(BODIES[path]))
    kind = rng.randrange(6)
    if kind < 3:
        for _ in range(rng.randint(1, 3)):
            key = rng.choice([*body, "unknown", ""])
            body[key] = rng.choice(VALUES)
        content = json.dumps(body).encode("utf-8", "surrogatepass")
    elif kind == 3:
        content = json.dumps(rng.choice(VALUES)).encode("utf-8", "surrogatepass")
    elif kind == 4:
        content = bytearray(json.dumps(body).encode())
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        content = bytes(content[: rng.randint(0, len(content))])
    else:
        content = rng.choice([b"[" * 20_000, b'{"query":' * 5_000, rng.randbytes(300), b"\xff\xfe{}", b"1" * 10_000])
    name = rng.choice(["wiki"] * 20 + ["..%2f..%2fetc", "%00", "x" * 300, "wiki%2fsearch", "%ff"])
    return f"/v1/indexes/{name}/{path}", content


def usage():
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * resource.getpagesize() / 2**20 if pages.exists() else 0


def test_malformed_requests_are_answered_as_what_they_are_and_memory_stays(request):
    n_requests = request.config.getoption("--requests")
    index = Index.create(encoder=SpanEncoder())
    index.add(THREE)
    rng, statuses, early = random.Random(5), {}, 0
    limits = Limits(query_characters=2000, k=100, body_bytes=100_000)
    with serving({"wiki": index}, writable=True, limits=limits) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        for n in range(n_requests):
            path, content = malformed(rng)
            method = rng.choice(["POST"] * 9 + ["PUT", "GET", "PATCH"])
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            statuses[answer.status] = statuses.get(answer.status, 0) + 1
            assert answer.status < 500, (method, path, content[:300], text[:300])
            if answer.status >= 400:
                assert set(json.loads(text)) >= {"type", "message"}, text
            if n == n_requests // 4:
                early = usage()
        late = usage()
        connection.close()
        assert [hit.passage.id for hit in index.search("dog", 1)] == ["b"]
    print(f"{n_requests} requests: {dict(sorted(statuses.items()))}, {early:.0f} to {late:.0f} MiB")
    assert sum(n for status, n in statuses.items() if status >= 400) > n_requests * 0.7
    if n_requests >= 1000:
        assert late - early < 30


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00" * 1000,
        b"POST /v1/indexes/wiki/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/indexes/wiki/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["version", "zeros", "length", "chunks", "header", "hosts", "tls"],
)
def test_what_is_no_http_ends_its_connection_alone(sent):
    index = Index.create(encoder=SpanEncoder())
    with serving({"wiki": index}) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.settimeout(20)
            answer = b""
            try:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(4096):
                    answer += piece
            except OSError:  # it was closed before all was sent
                pass
        assert not answer or answer.split()[1].startswith((b"4", b"2")), answer
        connection = http.client.HTTPConnection(f"{host}:{port}", timeout=20)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()
