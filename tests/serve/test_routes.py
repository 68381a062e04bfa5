"""What the service answers is what the index says."""

from __future__ import annotations

import json
import threading

import httpx
import pytest
from builders.encoders import SpanEncoder
from builders.indexes import THREE
from builders.service import serving

from colbert_core import Collections, Index, Passage
from colbert_core.serve import Catalogue, Limits, make_app


@pytest.fixture(scope="module")
def wiki():
    index = Index.create(encoder=SpanEncoder())
    index.add(THREE)
    return index


@pytest.fixture(scope="module")
def reading(wiki):
    limits = Limits(k=50, query_characters=200, queries=3, body_bytes=20_000, body_seconds=1.0)
    with serving({"wiki": wiki}, limits=limits) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture
def writing():
    index = Index.create(encoder=SpanEncoder())
    index.add(THREE)
    with serving({"wiki": index}, writable=True) as url, httpx.Client(base_url=url) as client:
        client.index = index
        yield client


def test_a_search_finds_what_the_index_finds(reading, wiki):
    answer = reading.post("/v1/indexes/wiki/search", json={"query": "a dog", "k": 2, "mode": "maxsim"}).json()
    hits = wiki.search("a dog", 2)
    assert [(hit["id"], hit["score"], hit["relevance"], hit["rank"], hit["text"]) for hit in answer["hits"]] == [
        (hit.passage.id, hit.score, hit.relevance, hit.rank, hit.passage.text) for hit in hits
    ]
    assert answer["hits"][0]["metadata"] == {"n": 2}
    assert "evidence" not in answer["hits"][0]


def test_words_rank_as_well_where_the_index_has_some_and_nothing_else_is_asked(reading, wiki):
    answer = reading.post("/v1/indexes/wiki/search", json={"query": "dog"}).json()
    assert [hit["hybrid_relevance"] for hit in answer["hits"]] == [
        hit.hybrid_relevance for hit in wiki.search("dog", mode="hybrid")
    ]


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"where": {"n": {"$gte": 2}}}, {"b", "c"}),
        ({"ids": ["a"]}, {"a"}),
        ({"ids": []}, set()),
        ({"min_relevance": 1}, set()),
        ({"k": 1}, {"b"}),
    ],
)
def test_a_search_takes_what_the_index_takes(reading, more, found):
    answer = reading.post("/v1/indexes/wiki/search", json={"query": "a dog", "mode": "maxsim", **more}).json()
    assert {hit["id"] for hit in answer["hits"]} == found


def test_several_questions_have_hits_of_their_own_or_a_mean(reading, wiki):
    queries = ["cat", "bird"]
    each = reading.post("/v1/indexes/wiki/search_many", json={"queries": queries, "k": 1}).json()["results"]
    assert [result["hits"][0]["id"] for result in each] == ["a", "c"]
    mean = reading.post("/v1/indexes/wiki/search_mean", json={"queries": queries, "k": 3, "mode": "maxsim"}).json()["hits"]
    assert [(hit["id"], hit["score"]) for hit in mean] == [(hit.passage.id, hit.score) for hit in wiki.search_mean(queries, 3)]


def test_evidence_and_excerpts(reading, wiki):
    (hit,) = reading.post("/v1/indexes/wiki/search", json={"query": "cat", "k": 1, "evidence": True}).json()["hits"]
    explained = reading.post("/v1/indexes/wiki/explain", json={"query": "cat", "id": "a"}).json()
    assert hit["evidence"]["highlights"][0]["text"] == "cat" == explained["evidence"]["highlights"][0]["text"]
    assert explained["text"] == "the cat sat"
    unknown = reading.post("/v1/indexes/wiki/explain", json={"query": "cat", "id": "x"})
    assert unknown.status_code == 400
    assert "'x'" in unknown.json()["message"]


def test_texts_are_encoded(reading):
    answer = reading.post("/v1/encode", json={"texts": ["cat", "a dog"]}).json()
    expected = SpanEncoder().encode_queries(["cat", "a dog"])
    assert answer["vectors"] == [matrix.tolist() for matrix in expected]
    passages = reading.post("/v1/encode", json={"texts": ["the cat"], "kind": "passage", "index": "wiki"}).json()
    assert [len(rows) for rows in passages["vectors"]] == [len(SpanEncoder().encode_passages(["the cat"]).vectors)]


def test_passages_are_listed_page_by_page(reading):
    first = reading.get("/v1/indexes/wiki/passages", params={"limit": 2}).json()
    assert [passage["id"] for passage in first["passages"]] == ["a", "b"]
    rest = reading.get("/v1/indexes/wiki/passages", params={"limit": 2, "after": first["next"]}).json()
    assert rest == {"passages": [{"id": "c", "text": "a bird sings", "metadata": {"n": 3}}], "next": None}
    filtered = reading.post("/v1/indexes/wiki/passages/list", json={"where": {"n": 1}}).json()
    assert [passage["id"] for passage in filtered["passages"]] == ["a"]


def test_passages_are_had_by_their_ids(reading):
    assert reading.get("/v1/indexes/wiki/passages/b").json()["text"] == "a dog barks"
    missing = reading.get("/v1/indexes/wiki/passages/x")
    assert (missing.status_code, missing.json()["message"]) == (404, "There is no passage with the id 'x'.")
    several = reading.post("/v1/indexes/wiki/passages/get", json={"ids": ["c", "x"]}).json()["passages"]
    assert (several[0]["id"], several[1]) == ("c", None)


def test_counts_fields_and_figures(reading, wiki):
    assert reading.post("/v1/indexes/wiki/count", json={"where": {"n": {"$lt": 3}}}).json() == {"count": 2}
    (field,) = reading.get("/v1/indexes/wiki/fields").json()["fields"]
    assert field == {"path": "n", "types": {"number": 3}, "passages": 3, "examples": [1, 2, 3]}
    assert reading.get("/v1/indexes").json()["indexes"][0]["passages"] == 3
    assert reading.get("/v1/indexes/wiki").json()["tokens"] == wiki.stats().tokens


def test_a_write_is_in_the_index_when_it_answers(writing):
    added = writing.post(
        "/v1/indexes/wiki/passages", json={"passages": [{"id": "x/y z", "text": "rust", "metadata": {"é": 1}}]}
    )
    assert added.json() == {"ids": ["x/y z"]}
    assert writing.index.get(["x/y z"]) == [Passage("x/y z", "rust", {"é": 1})]
    assert writing.get("/v1/indexes/wiki/passages/x/y z").json()["metadata"] == {"é": 1}
    changed = writing.patch("/v1/indexes/wiki/passages", json={"ids": ["a", "b"], "metadata": {"lang": "en"}, "remove": ["n"]})
    assert changed.json() == {"changed": 2}
    assert writing.index.get(["a"])[0].metadata == {"lang": "en"}
    assert writing.post("/v1/indexes/wiki/passages/delete", json={"where": {"lang": "en"}}).json() == {"deleted": 2}
    assert writing.delete("/v1/indexes/wiki/passages/x/y z").json() == {"deleted": 1}
    assert writing.post("/v1/indexes/wiki/passages/delete", json={"ids": ["c", "c", "nobody"]}).json() == {"deleted": 1}
    assert len(writing.index) == 0


def test_deleting_needs_to_be_told_what(writing):
    for body in ({}, {"ids": ["a"], "where": {}}):
        refused = writing.post("/v1/indexes/wiki/passages/delete", json=body)
        assert refused.status_code == 400
    assert len(writing.index) == 3
    assert writing.post("/v1/indexes/wiki/passages/delete", json={"where": {}}).json() == {"deleted": 3}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "passages", {"passages": []}),
        ("POST", "passages/delete", {"ids": ["a"]}),
        ("PATCH", "passages", {"ids": ["a"], "metadata": {"n": 9}}),
        ("DELETE", "passages/a", None),
        ("POST", "passages/stream", {"id": "x", "text": "y"}),
    ],
)
def test_a_service_that_reads_only_refuses_writes(reading, wiki, method, path, body):
    refused = reading.request(method, f"/v1/indexes/wiki/{path}", json=body)
    assert refused.status_code == 403
    assert refused.json() == {
        "type": "ReadOnlyIndexError",
        "message": "This service only reads; start it with --writable to change indexes over HTTP.",
    }
    assert wiki.get(["a"]) == [THREE[0]]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("nope/search", {"query": "cat"}, 404, "There is no index 'nope' here; those are 'wiki'."),
        ("wiki/search", {"query": "  "}, 400, "The query is empty; ask with at least one word."),
        ("wiki/search", {"query": "cat", "where": {"n": {"$near": 1}}}, 400, "$near"),
        ("wiki/search", {"query": "cat", "filter": {}}, 422, "filter: Extra inputs"),
        ("wiki/search", {"query": 5}, 422, "query.str: Input should be a valid string, got 5"),
        ("wiki/search", {"query": "cat", "k": 0}, 422, "k: Input should be greater than or equal to 1, got 0"),
        ("wiki/search", {"query": "cat", "k": "3"}, 422, "k: Input should be a valid integer"),
        ("wiki/search", {"query": "cat", "mode": "best"}, 422, "mode: Input should be 'maxsim', 'hybrid' or 'words'"),
        ("wiki/search", {"query": "cat", "k": 51}, 413, "k is 51, and at most 50 is allowed"),
        ("wiki/search", {"query": "c" * 201}, 413, "Query 0 has 201 characters, and at most 200 are allowed"),
        ("wiki/search_many", {"queries": ["a"] * 4}, 413, "There are 4 queries, and at most 3 are allowed"),
        ("wiki/search", {"query": "cat", "ids": ["x" * 30_000]}, 413, "more than 20,000 bytes"),
        ("wiki/passages/list", {"after": "elsewhere-3"}, 400, "of another index"),
        ("wiki/search", {"query": "\ud800"}, 400, "surrogate"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(reading, path, body, status, words):
    answer = reading.post(f"/v1/indexes/{path}", content=json.dumps(body), headers={"content-type": "application/json"})
    assert (answer.status_code, words in answer.json()["message"]) == (status, True), answer.text


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"query": "\xff"}', b"[" * 100_00, b'{"k": 1' + b"0" * 5000 + b"}", b"NaN"]
)
def test_what_is_no_json_object_is_a_wrong_request(reading, content):
    answer = reading.post("/v1/indexes/wiki/search", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert set(answer.json()) == {"type", "message"}


def test_health_readiness_and_the_description_of_the_api(reading):
    assert reading.get("/health").json()["status"] == "ok"
    assert reading.get("/ready").json() == {"status": "ready"}
    paths = reading.get("/openapi.json").json()["paths"]
    assert {"/v1/indexes/{name}/search", "/v1/indexes/{name}/passages", "/metrics", "/v1/encode"} <= paths.keys()
    assert reading.get("/v2/nothing").status_code == 404
    assert reading.put("/health").status_code == 405


def test_a_damaged_index_is_not_ready_and_names_no_path(tmp_path):
    kb = Collections(tmp_path / "secret-place", SpanEncoder())
    kb.create("a").close()
    app = make_app(Catalogue([tmp_path / "secret-place"], SpanEncoder()))
    database = next(path for path in kb.folder_of("a").iterdir() if path.suffix == ".sqlite" or path.is_file())
    database.write_bytes(b"no database" * 1000)
    with serving(app=app) as url:
        ready = httpx.get(f"{url}/ready")
        answer = httpx.post(f"{url}/v1/indexes/a/search", json={"query": "cat"})
    assert (ready.status_code, answer.status_code) == (503, 500)
    assert "secret-place" not in ready.text + answer.text
    assert answer.json()["type"] == "DamagedIndexError"


def test_requests_beyond_those_that_may_wait_are_sent_away():
    begun, go_on = threading.Event(), threading.Event()

    class Slow(SpanEncoder):
        def encode_queries(self, texts):
            if "dog" in texts:
                begun.set()
                go_on.wait(30)
            return super().encode_queries(texts)

    index = Index.create(encoder=Slow())
    index.add(THREE)
    answers = []
    with serving({"wiki": index}, limits=Limits(at_once=1, waiting=1)) as url:

        def ask():
            answers.append(httpx.post(f"{url}/v1/indexes/wiki/search", json={"query": "dog"}, timeout=60).status_code)

        while httpx.get(f"{url}/ready").status_code != 200:
            pass
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert begun.wait(30)
        while "colbert_requests_in_progress 3.0" not in httpx.get(f"{url}/metrics").text:
            pass
        sent_away = httpx.post(f"{url}/v1/indexes/wiki/search", json={"query": "cat"})
        alive = httpx.get(f"{url}/health").status_code
        go_on.set()
        for thread in threads:
            thread.join()
        after = httpx.post(f"{url}/v1/indexes/wiki/search", json={"query": "cat"}).status_code
    assert (sent_away.status_code, sent_away.headers["retry-after"], alive) == (429, "1", 200)
    assert (answers, after) == ([200, 200], 200)


def test_figures_are_counted_by_route_and_not_by_path(reading):
    def counted():
        return [line for line in reading.get("/metrics").text.splitlines() if not line.startswith("#")]

    for name in ("wiki", "x1", "x2"):
        reading.post(f"/v1/indexes/{name}/count", json={})
        reading.get(f"/{name}")
    lines = counted()
    assert 'colbert_requests_total{method="POST",route="/v1/indexes/{name}/count",status="404"} 2.0' in lines
    assert not any("x1" in line for line in lines)


def test_passages_stream_in_as_lines(writing):
    lines = [{"id": f"s{n}", "text": f"cat {n}", "metadata": {"n": n}} for n in range(600)]
    content = "\n".join(map(json.dumps, lines)) + "\n\n"
    answer = writing.post("/v1/indexes/wiki/passages/stream", content=content, headers={"content-type": "application/x-ndjson"})
    assert json.loads(answer.text.splitlines()[-1]) == {"added": 600, "done": True}
    assert len(writing.index) == 603
    assert writing.index.get(["s599"])[0].metadata == {"n": 599}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "x"}', "text: Field required"),
        ("{", "The line is no JSON"),
        ('{"id": "", "text": "x"}', "Passage id is empty"),
        ('{"id": "x", "text": "x", "meta": {}}', "meta: Extra inputs"),
        ("\xff", "The line is no JSON"),
    ],
)
def test_a_wrong_line_ends_a_stream_and_says_what_is_in(writing, line, words):
    good = "\n".join(json.dumps({"id": f"s{n}", "text": "cat"}) for n in range(256))
    answer = writing.post(
        "/v1/indexes/wiki/passages/stream",
        content=f"{good}\n".encode() + line.encode("latin-1") + b'\n{"id": "after", "text": "cat"}',
        headers={"content-type": "application/x-ndjson"},
    )
    last = json.loads(answer.text.splitlines()[-1])
    assert (last["added"], last["line"], words in last["message"]) == (256, 257, True), last
    assert len(writing.index) == 3 + 256


def test_a_line_without_an_end_is_bounded(wiki):
    index = Index.create(encoder=SpanEncoder())
    with serving({"wiki": index}, writable=True, limits=Limits(body_bytes=10_000)) as url:
        pieces = (b"x" * 5_000 for _ in range(100))
        answer = httpx.post(
            f"{url}/v1/indexes/wiki/passages/stream", content=pieces, headers={"content-type": "application/x-ndjson"}
        )
    assert "Line 1 has more than 10,000 bytes" in json.loads(answer.text.splitlines()[-1])["message"]
