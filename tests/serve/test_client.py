"""A client over a real service gives what the index gives, and says what went wrong."""

from __future__ import annotations

import copy
import datetime
import decimal
import gc
import multiprocessing
import os
import pickle
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from builders.encoders import SpanEncoder
from builders.indexes import THREE
from builders.service import serving
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from colbert_core import (
    FilterWarning,
    Index,
    IndexNotFoundError,
    PartialAddError,
    Passage,
    PassageIndex,
    ReadOnlyIndexError,
    Reranker,
    ServiceBusyError,
    ServiceDeniedError,
    ServiceError,
    ServiceTimeoutError,
    ServiceUnreachableError,
    open_index,
    plain_metadata,
)
from colbert_core.serve import AsyncClient, Client, Limits
from colbert_core.serve.client import connection
from colbert_core.serve.client.parcels import parcels

LONG = "one two three four five six seven eight nine ten cat eleven dog twelve thirteen"
MORE = [
    *THREE,
    Passage("ü/ä?#", LONG, {"when": "2024-05-01", "tags": ["x", "ü"], "none": None, "deep": {"a.b": 1.5}}),
    Passage("empty", "", {"when": "no date"}),
]


@pytest.fixture(scope="module")
def index():
    index = Index.create(None, SpanEncoder())
    index.add(MORE)
    return index


@pytest.fixture(scope="module")
def url(index):
    with serving({"wiki": index}, writable=True) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with Client(url) as client:
        yield client


@pytest.fixture
def own():
    """An index of this test's own, and a client of it."""
    index = Index.create(None, SpanEncoder())
    index.add(THREE)
    with serving({"own": index}, writable=True) as url, Client(url) as client:
        yield index, client


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(connection, "_FIRST_WAIT", 0.001)


def answering(*answers):
    """An application that gives these answers to searches one after the other, the last one again and again."""
    app, asked = FastAPI(), []

    @app.get("/v1/indexes/wiki")
    def about():
        return {"name": "wiki", "encoder": None, "dim": 64, "has_words": False}

    @app.api_route("/{path:path}", methods=["GET", "POST", "PATCH"])
    async def other(path: str, request: Request):
        asked.append((path, await request.body(), request.headers.get("authorization")))
        return answers[min(len(asked), len(answers)) - 1]

    return app, asked


def failing(status, kind=None, **headers):
    content = {"type": kind, "message": "Because."} if kind else {"detail": "Because."}
    return JSONResponse(content, status, headers)


EMPTY = JSONResponse({"hits": []})


class TestWhatItFinds:
    @pytest.mark.parametrize("mode", ["maxsim", "hybrid", "words"])
    def test_hits_are_those_of_the_index_to_the_last_bit(self, client, index, mode):
        for query in ("the cat sat", "dog", "eleven dog ü"):
            assert client.search(query, 5, mode=mode) == index.search(query, 5, mode=mode)

    def test_what_a_service_says_of_a_filter_is_a_warning_at_the_users_line(self):
        said = "No passage has the field 'm' that the filter asks for."
        several = JSONResponse({"results": [{"hits": []}], "warnings": [said]})
        app, _ = answering(JSONResponse({"hits": [], "warnings": [said]}), several)
        with serving(app=app) as url, Client(url, index="wiki") as client:
            with pytest.warns(FilterWarning, match="No passage has the field 'm'") as warned:
                assert client.search("cat", where={"m": 1}) == []
            assert warned[0].filename == __file__
            with pytest.warns(FilterWarning, match="No passage has the field 'm'"):
                assert client.search_many(["cat"], where={"m": 1}) == [[]]

    def test_scores_of_a_thousand_digits_survive_json(self, client, index):
        (score,) = {hit.score for hit in client.search("cat twelve bird", 1)}
        assert score.hex() == index.search("cat twelve bird", 1)[0].score.hex()

    def test_evidence_is_the_same_with_all_that_it_knows(self, client, index):
        for mode in ("maxsim", "hybrid"):
            theirs = client.search("dog eleven", 2, evidence=True, mode=mode)
            ours = index.search("dog eleven", 2, evidence=True, mode=mode)
            assert [hit.evidence for hit in theirs] == [hit.evidence for hit in ours]
            assert theirs[0].evidence.to_html() == ours[0].evidence.to_html()

    @pytest.mark.parametrize("passage", ["a", THREE[0]])
    def test_explain_is_that_of_the_index(self, client, index, passage):
        assert client.explain("cat dog", passage) == index.explain("cat dog", passage)
        assert client.explain("cat dog", passage, min_similarity=0.9, mode="hybrid") == index.explain(
            "cat dog", passage, min_similarity=0.9, mode="hybrid"
        )

    def test_a_hit_can_be_explained(self, client, index):
        (hit,) = client.search("dog", 1)
        assert client.explain("dog", hit) == index.explain("dog", hit)

    def test_many_and_mean_are_those_of_the_index(self, client, index):
        queries = ["cat sat", "dog", "bird sings"]
        assert client.search_many(queries, 2, evidence=True) == index.search_many(queries, 2, evidence=True)
        assert client.search_many([]) == index.search_many([])
        assert client.search_mean(queries, 3, mode="hybrid", weight=0.3) == index.search_mean(
            queries, 3, mode="hybrid", weight=0.3
        )

    def test_a_query_may_be_vectors(self, client, index):
        matrix = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
        assert client.search(matrix, 3) == index.search(matrix, 3)
        assert client.search(matrix.astype(np.float64).tolist(), 3) == index.search(matrix, 3)
        assert client.search_many(["cat", matrix]) == index.search_many(["cat", matrix])
        assert client.search_mean([matrix, "cat"]) == index.search_mean([matrix, "cat"])

    @pytest.mark.parametrize(
        "where",
        [
            {"n": {"$gte": 2}},
            {"tags": {"$contains": "ü"}},
            {"when": {"$gte": datetime.date(2024, 1, 1)}},
            {"when": datetime.date(2024, 5, 1)},
            {"when": np.datetime64("2024-05-01")},
            {"when": {"$in": [datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)]}},
            {"$or": [{"n": np.int64(1)}, {r"deep.a\.b": decimal.Decimal("1.5")}]},
            {"$not": {"n": {"$in": {1, 2}}}},
            {},
        ],
        ids=str,
    )
    def test_filters_match_what_they_match_in_the_index(self, client, index, where):
        assert client.count(where) == index.count(where)
        assert client.passages(where) == index.passages(where)
        assert client.search("cat", 5, where=where) == index.search("cat", 5, where=where)

    def test_ids_and_thresholds_restrict(self, client, index):
        options = {"ids": ["a", "c", "unknown"], "min_relevance": 0.2}
        assert client.search("cat bird", **options) == index.search("cat bird", **options)
        assert client.search("cat", ids=[]) == []


class TestWhatItLooksAt:
    def test_it_is_a_passage_index(self, client):
        assert isinstance(client, PassageIndex)

    def test_figures_and_names_are_those_of_the_index(self, client, index):
        assert (client.encoder_name, client.dim, client.stats()) == (index.encoder_name, index.dim, index.stats())
        assert (len(client), client.has_words()) == (len(index), True)
        assert "a" in client and "ü/ä?#" in client and "z" not in client and 3 not in client

    def test_passages_come_in_pages(self, client, index):
        page = client.passages(limit=2)
        assert ids_of(page) == ["a", "b"]
        assert ids_of(client.passages(limit=5, after=page.next)) == ["c", "ü/ä?#", "empty"]
        assert client.passages().next is None
        assert client.passages(ids=["a"]) == index.passages(ids=["a"])

    def test_all_passages_are_asked_for_page_by_page(self, client, index, monkeypatch):
        monkeypatch.setattr("colbert_core.serve.client.calls.PAGE", 2)
        monkeypatch.setattr("colbert_core.serve.client.calls.MOST_IDS", 2)
        assert client.passages() == index.passages()
        wanted = ["c", "z", "a", "ü/ä?#", "c"]
        assert client.get(wanted) == index.get(wanted)

    def test_fields_are_those_of_the_index(self, client, index):
        assert client.fields() == index.fields()
        page = client.fields(limit=2)
        assert page.next == index.fields(limit=2).next
        assert client.fields(after=page.next) == index.fields(after=page.next)

    def test_its_encoder_encodes_as_the_index_does(self, client, index):
        ours, theirs = index.encoder, client.encoder
        for a, b in zip(ours.encode_queries(["cat", "a dog"]), theirs.encode_queries(["cat", "a dog"]), strict=True):
            assert np.array_equal(a, b) and a.dtype == b.dtype
        texts = [LONG, "", "a cat"] * 7
        a, b = ours.encode_passages(texts), theirs.encode_passages(texts, progress=False)
        for name in ("vectors", "token_spans", "doclens", "window_spans", "owners"):
            assert np.array_equal(getattr(a, name), getattr(b, name)) and getattr(a, name).dtype == getattr(b, name).dtype
        b.check(len(texts), 64)
        assert np.array_equal(ours.query_spans("a dog"), theirs.query_spans("a dog"))
        assert len(theirs.encode_passages([], progress=False).owners) == 0

    def test_a_reranker_takes_it(self, client, index):
        candidates = [Passage("a", "the cat sat"), Passage("elsewhere", "a cat and a dog")]
        ours = Reranker(index=index).rank("cat dog", candidates, evidence=True, progress=False)
        theirs = Reranker(index=client).rank("cat dog", candidates, evidence=True, progress=False)
        assert theirs == ours
        assert [marked(hit) for hit in theirs] == [marked(hit) for hit in ours] != [[], []]


def marked(hit):
    return [(mark.start, mark.end, mark.terms) for mark in hit.evidence.highlights]


def ids_of(passages):
    return [passage.id for passage in passages]


class TestWhatItChanges:
    def test_passages_are_added_replaced_and_deleted(self, own):
        index, client = own
        assert client.add([Passage("d", "a fish swims", {"n": 4}), Passage("a", "the cat slept")]) == ["d", "a"]
        assert index.get(["a", "d"]) == client.get(["a", "d"])
        assert client.delete(["a", "unknown"]) == 1
        assert client.delete_where({"n": {"$lte": 3}}) == 2
        assert ids_of(index.passages()) == ["d"]

    def test_metadata_are_changed(self, own):
        index, client = own
        day = datetime.date(2024, 1, 2)
        assert client.update_metadata({"day": day}, where={"n": {"$gte": 2}}, ids=["b", "a"], remove=["n"]) == 1
        assert index.get(["b"])[0].metadata == {"day": "2024-01-02"}

    def test_a_stream_is_added_in_bounded_requests(self, own, monkeypatch):
        index, client = own
        monkeypatch.setattr("colbert_core.serve.client.parcels._BYTES", 1000)
        taken = []

        def stream():
            for n in range(60):
                taken.append(n)
                yield Passage(f"p{n}", "a cat " * 10)

        first = next(iter(parcels(stream())))
        assert len(first.ids) < len(taken) < 20 and len(first.body) < 1200
        assert client.add(stream()) == [f"p{n}" for n in range(60)]
        assert len(index) == 63

    def test_nothing_of_a_list_is_added_if_a_part_of_it_is_wrong(self, own):
        index, client = own
        for wrong, kind in [
            ([Passage("x", "x"), "no passage"], TypeError),
            ([Passage("x", "x"), Passage("x", "y")], ValueError),
            ([Passage("x", "x", {"a": b"bytes"})], TypeError),
            (Passage("x", "x"), TypeError),
        ]:
            with pytest.raises(kind) as theirs:
                client.add(wrong)
            with pytest.raises(kind) as ours:
                index.add(wrong)
            assert str(theirs.value) == str(ours.value)
        assert len(index) == 3

    def test_a_stream_that_fails_says_what_is_in(self, own, monkeypatch):
        index, client = own
        monkeypatch.setattr("colbert_core.serve.client.parcels._PASSAGES", 2)
        with pytest.raises(PartialAddError, match="2 passages of this call are in the index, up to 'y'") as raised:
            client.add(iter([Passage("x", "x"), Passage("y", "y"), Passage("z", "z"), Passage("x", "again")]))
        assert raised.value.added == ["x", "y"]
        assert isinstance(raised.value.__cause__, ValueError)
        assert index.get(["z"]) == [None]

    def test_a_service_that_goes_away_in_the_middle_is_no_silent_loss(self, quick, monkeypatch):
        monkeypatch.setattr("colbert_core.serve.client.parcels._PASSAGES", 1)
        app, _ = answering(JSONResponse({"ids": ["x"]}), failing(503))
        added = pytest.raises(PartialAddError, match="1 passages of this call are in the index")
        with serving(app=app) as url, Client(url, "wiki") as client, added as raised:
            client.add(iter([Passage("x", "x"), Passage("y", "y")]))
        assert isinstance(raised.value.__cause__, ServiceBusyError)

    JSON = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats()
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3)
        ),
        max_leaves=8,
    )
    VALUES = JSON | st.dates() | st.datetimes() | st.uuids() | st.sets(st.integers(0, 9)) | st.decimals(allow_nan=True)

    @given(metadata=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), VALUES, max_size=4))
    @settings(max_examples=60)
    def test_metadata_come_back_in_their_plain_form(self, client, index, metadata):
        text = "snowman ☃"
        client.add([Passage("m", text, metadata)])
        (found,) = client.get(["m"])
        assert found == index.get(["m"])[0] == Passage("m", text, plain_metadata(metadata))
        assert client.search("snowman", 1) == index.search("snowman", 1)
        client.delete(["m"])


class TestWhereItIs:
    def test_an_index_may_be_named_by_the_url_or_beside_it_or_be_the_only_one(self, url):
        for client in (Client(url), Client(url + "/", "wiki"), Client(url, index="wiki"), Client(url + "/v1/indexes/wiki")):
            with client:
                assert client.url == f"{url}/v1/indexes/wiki" and repr(client) == f"Client('{url}/v1/indexes/wiki')"

    def test_names_are_listed_and_several_must_be_chosen_from(self, index):
        with serving({"wiki": index, "a b/ü": index}) as url:
            assert Client.indexes(url) == ["a b/ü", "wiki"]
            with pytest.raises(ValueError, match=r"serves 2 indexes: a b/ü, wiki; name one as index="):
                Client(url)
        with serving({"a b": index}) as url, Client(url) as client:
            assert client.url.endswith("/v1/indexes/a%20b") and len(client) == 5
            with Client(client.url) as again:
                assert again.search("cat", 1) == client.search("cat", 1)

    def test_no_index_is_an_error(self, url):
        with serving({}) as empty, pytest.raises(IndexNotFoundError, match=re.escape(f"{empty} serves no index")):
            Client(empty)
        with pytest.raises(IndexNotFoundError, match="no index 'nope' here; those are 'wiki'"):
            Client(url, index="nope")

    @pytest.mark.parametrize(
        ("wrong", "options", "kind", "message"),
        [
            ("wiki.idx", {}, ValueError, "url must begin with http"),
            ("ftp://host", {}, ValueError, "url must begin with http"),
            ("http://", {}, ValueError, "and a host"),
            ("http://user:secret@host", {}, ValueError, "takes no user"),
            ("http://host/v1/indexes/a", {"index": "b"}, ValueError, "name it once"),
            (3, {}, TypeError, "url must be a str"),
            ("http://host", {"timeout": 0}, ValueError, "timeout is a number of seconds above 0, got 0"),
            ("http://host", {"token": "a\n"}, ValueError, "line break"),
            ("http://host", {"token": 3}, TypeError, "token must be a str"),
        ],
    )
    def test_wrong_arguments_are_named(self, wrong, options, kind, message):
        with pytest.raises(kind, match=message) as raised:
            Client(wrong, **options)
        assert "secret" not in str(raised.value)

    def test_a_folder_and_a_url_are_opened_by_one_function(self, url, tmp_path, index):
        index.save(tmp_path / "x.idx")
        with open_index(tmp_path / "x.idx", SpanEncoder()) as folder, open_index(url) as client:
            assert isinstance(folder, Index) and isinstance(client, Client)
            assert folder.search("cat") == client.search("cat")
        with pytest.raises(ValueError, match="has its own model"):
            open_index(url, "some model")

    def test_a_pickle_has_the_address_and_the_token_and_no_repr_shows_it(self):
        app, asked = answering(EMPTY)
        with serving(app=app) as url, Client(url, "wiki", token="s3cret", timeout=7) as client:
            with pickle.loads(pickle.dumps(client)) as other, copy.deepcopy(client) as third:
                assert other.search("cat") == third.search("cat") == []
            assert [header for *_, header in asked] == ["Bearer s3cret"] * 2
            assert "s3cret" not in repr(client)

    def test_a_closed_client_says_so(self, url):
        client = Client(url)
        client.close()
        client.close()
        with pytest.raises(ValueError, match="is closed"):
            client.search("cat")

    def test_a_client_that_nobody_closes_leaves_no_connection_open(self, url, recwarn):
        assert Client(url).search("cat")
        gc.collect()
        assert not recwarn

    def test_threads_share_a_client(self, client, index):
        expected = index.search("cat dog", 3)
        with ThreadPoolExecutor(8) as pool:
            assert all(hits == expected for hits in pool.map(lambda _: client.search("cat dog", 3), range(64)))

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_process_has_connections_of_its_own(self, client, index):
        client.search("cat")
        pipe, end = multiprocessing.Pipe()
        child = os.fork()
        if not child:
            try:
                end.send([hit.score for hit in client.search("dog", 2)])
            finally:
                os._exit(0)
        mine = [client.search("cat", 2) for _ in range(5)]
        assert pipe.poll(60) and pipe.recv() == [hit.score for hit in index.search("dog", 2)]
        os.waitpid(child, 0)
        assert mine == [index.search("cat", 2)] * 5


class TestErrors:
    @pytest.mark.parametrize(
        "ask",
        [
            lambda index: index.search("  "),
            lambda index: index.search("cat", 0),
            lambda index: index.search("cat", 1.5),
            lambda index: index.search("cat", where={"n": {"$near": 1}}),
            lambda index: index.search("cat", where={"n": {"$gt": None}}),
            lambda index: index.search("cat", where=["n"]),
            lambda index: index.search("cat", ids="a"),
            lambda index: index.search("cat", min_relevance=2),
            lambda index: index.search("cat", mode="bm25"),
            lambda index: index.search("cat", weight=0.5),
            lambda index: index.search(np.ones((2, 64)), mode="words"),
            lambda index: index.search(np.ones((2, 64)), evidence=True),
            lambda index: index.search(np.zeros((2, 64))),
            lambda index: index.search(np.ones((2, 3))),
            lambda index: index.search_many("cat"),
            lambda index: index.search_mean([]),
            lambda index: index.explain("cat", "nope"),
            lambda index: index.explain("cat", 3),
            lambda index: index.explain(3, "a"),
            lambda index: index.explain("cat", "a", min_similarity=2),
            lambda index: index.get("a"),
            lambda index: index.passages(limit=0),
            lambda index: index.passages(after="nonsense"),
            lambda index: index.fields(limit=0),
            lambda index: index.delete("a"),
            lambda index: index.delete([3]),
            lambda index: index.delete_where(None),
            lambda index: index.update_metadata({"a": 1}),
            lambda index: index.update_metadata({"a": 1}, ids=["a"], remove="a"),
            lambda index: index.update_metadata({"a": 1}, ids=["a"], remove=["a"]),
            lambda index: index.update_metadata({}, ids=["a"]),
            lambda index: index.update_metadata([1], ids=["a"]),
        ],
    )
    def test_mistakes_have_the_errors_of_the_index(self, client, index, ask):
        with pytest.raises((TypeError, ValueError)) as ours:
            ask(index)
        with pytest.raises(type(ours.value)):
            ask(client)

    def test_a_function_cannot_be_a_filter(self, client):
        def recent(passage):
            return True

        for ask in (client.count, client.delete_where, lambda where: client.search("cat", where=where)):
            with pytest.raises(
                TypeError, match="where is the function 'recent', which cannot be sent.*write the filter as a dict"
            ):
                ask(recent)

    def test_what_only_an_index_of_this_process_can_is_no_argument(self, client):
        with pytest.raises(TypeError, match="exact"):
            client.search("cat", exact=True)

    def test_limits_of_the_service_are_named(self, index):
        with serving({"wiki": index}, limits=Limits(k=3)) as url, Client(url) as client:
            with pytest.raises(ValueError, match="k is 4, and at most 3 is allowed"):
                client.search("cat", 4)
            with pytest.raises(ReadOnlyIndexError, match="--writable"):
                client.add([Passage("x", "x")])

    def test_nobody_there_is_said_with_the_address(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        with pytest.raises(
            ServiceUnreachableError, match=rf"Nothing answers at http://127.0.0.1:{port} .*colbert serve"
        ) as raised:
            Client(f"http://127.0.0.1:{port}", "wiki")
        assert isinstance(raised.value, ConnectionError)

    def test_a_service_that_does_not_answer_in_time_is_named(self):
        late = pytest.raises(ServiceTimeoutError, match=r"did not answer within 0\.2 s.*timeout=")
        with socket.create_server(("127.0.0.1", 0)) as silent, late:
            Client(f"http://127.0.0.1:{silent.getsockname()[1]}", "wiki", timeout=0.2)

    @pytest.mark.parametrize(
        ("answer", "kind", "message"),
        [
            (failing(401), ServiceDeniedError, "wants a token.*token="),
            (failing(403), ServiceDeniedError, r"refused this \(403\)"),
            (failing(404), ServiceError, r"no such page \(404\).*colbert serve"),
            (failing(413), ServiceError, r"\(413\).*send less"),
            (failing(429), ServiceBusyError, r"too much to do \(429\)"),
            (failing(503, "IndexLockedError"), TimeoutError, "Because"),
            (failing(429, "TooBusyError"), ServiceBusyError, "Because"),
            (failing(500, "DamagedIndexError"), Exception, "v1/indexes/wiki answered: Because"),
            (failing(500, "SomethingNewError"), ServiceError, "status 500: Because"),
            (failing(400, "TooLargeError"), ValueError, "Because"),
            (Response("<html>", 502), ServiceError, "status 502: <html>"),
            (Response("<html>", 200), ServiceError, "something else than JSON"),
            (Response(status_code=307, headers={"Location": "http://elsewhere"}), ServiceError, "moved to 'http://elsewhere'"),
        ],
    )
    def test_each_status_has_its_error_with_the_address_and_the_fix(self, quick, answer, kind, message):
        app, _ = answering(answer)
        with serving(app=app) as url, Client(url, "wiki") as client, pytest.raises(kind, match=message) as raised:
            client.search("cat")
        assert pickle.loads(pickle.dumps(raised.value)).args == raised.value.args

    def test_a_busy_service_is_asked_again_and_no_more_than_three_times(self, quick):
        app, asked = answering(failing(503, **{"Retry-After": "0"}), failing(429), EMPTY)
        with serving(app=app) as url, Client(url, "wiki") as client:
            assert client.search("cat") == []
        assert len(asked) == 3
        app, asked = answering(failing(503, "ShardUnavailableError"))
        with serving(app=app) as url, Client(url, "wiki") as client, pytest.raises(TimeoutError):
            client.delete(["a"])
        assert len(asked) == 4

    def test_a_broken_connection_is_asked_again_where_that_is_safe(self, quick):
        with breaking(times=2) as (url, asked), Client(url, "wiki") as client:
            assert client.count() == 7
            assert len(asked) == 3
        with breaking(times=1) as (url, asked), Client(url, "wiki") as client:
            with pytest.raises(ServiceUnreachableError, match="Nobody knows whether it was done"):
                client.delete(["a"])
            assert len(asked) == 1
        with breaking(times=99) as (url, asked), Client(url, "wiki") as client:
            with pytest.raises(ServiceUnreachableError, match="'x' to 'x' nobody knows whether they are in"):
                client.add([Passage("x", "x")])
            assert len(asked) == 4


class breaking:
    """A server that closes the connection instead of answering, so many times, and says then that there are 7 passages."""

    def __init__(self, times):
        self.times, self.asked = times, []

    def __enter__(self):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        return f"http://127.0.0.1:{self.listening.getsockname()[1]}", self.asked

    def _serve(self):
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                line = connection.recv(65536).split(b"\r\n")[0]
                if not line:
                    return
                if line.startswith(b"GET"):
                    body = b'{"name": "wiki", "encoder": null, "dim": 64, "has_words": false}'
                else:
                    self.asked.append(line)
                    if len(self.asked) <= self.times:
                        continue
                    body = b'{"count": 7}'
                head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)

    def __exit__(self, *_):
        with socket.create_connection(self.listening.getsockname()):
            pass
        self.thread.join(10)
        self.listening.close()


class TestAwaited:
    async def test_it_gives_what_the_index_gives(self, url, index):
        async with AsyncClient(url) as client:
            assert await client.search("cat dog", 3, evidence=True) == index.search("cat dog", 3, evidence=True)
            assert await client.search_many(["cat", "dog"], 2) == index.search_many(["cat", "dog"], 2)
            assert await client.search_mean(["cat", "dog"], 2) == index.search_mean(["cat", "dog"], 2)
            assert await client.explain("cat", "a") == index.explain("cat", "a")
            assert await client.get(["a", "z"]) == index.get(["a", "z"])
            assert await client.passages() == index.passages()
            assert await client.fields() == index.fields()
            assert (await client.count({"n": 1}), await client.has_words(), await client.stats()) == (1, True, index.stats())
            assert client.url == f"{url}/v1/indexes/wiki" and repr(client) == f"AsyncClient({client.url!r})"
            assert await AsyncClient.indexes(url) == ["wiki"]
        with pytest.raises(ValueError, match="is closed"):
            await client.count()

    async def test_it_changes_the_index(self, own):
        index, client = own
        async with AsyncClient(client.url) as awaited:
            assert await awaited.add([Passage("d", "a fish")]) == ["d"]
            assert await awaited.update_metadata({"x": 1}, ids=["d"]) == 1
            assert index.get(["d"])[0].metadata == {"x": 1}
            assert (await awaited.delete(["d"]), await awaited.delete_where({})) == (1, 3)

    async def test_its_errors_are_those_of_the_client(self, url, quick):
        async with AsyncClient(url, "nope") as client:
            with pytest.raises(IndexNotFoundError):
                await client.search("cat")
        app, asked = answering(failing(503), EMPTY)
        with serving(app=app) as busy:
            async with AsyncClient(busy, "wiki") as client:
                assert await client.search("cat") == [] and len(asked) == 2
        with breaking(times=1) as (broken, asked):
            async with AsyncClient(broken, "wiki") as client:
                with pytest.raises(ServiceUnreachableError):
                    await client.delete(["a"])


def test_without_httpx_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(ImportError, match="pip install httpx"):
        Client("http://127.0.0.1:1")
