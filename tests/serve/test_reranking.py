"""Reranking over HTTP: the clients of Cohere and Jina, as they are, ask a service and get what ``Reranker`` gives."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import json
import random
import threading
import weakref

import cohere
import httpx
import pytest
from builders.encoders import WordEncoder
from builders.service import serving
from langchain_cohere import CohereRerank as LangChainRerank
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank as LlamaIndexRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank

from colbert_core import Index, Passage, Reranker
from colbert_core.serve import Catalogue, Limits, make_app
from colbert_core.serve.rerank_requests import first_tokens

KEY = "a-key-that-nobody-checks"
QUERY = "what sound does the cat make?"
TEXTS = [
    "dogs bark and cats purr",
    "rust is a language of systems",
    "",
    "the cat sat on the mat, and the dog sat on the cat. " * 9,  # several windows
    "dogs bark and cats purr",  # a second time
    "  \n\t ",
    "die Katze schnurrt: 猫はゴロゴロ鳴く 🐈‍⬛ Ω",
    "cats make the sound of a happy cat",
]


@pytest.fixture(scope="module")
def url(stanford):
    with serving(app=make_app(Catalogue(encoder=stanford))) as url:
        yield url


@pytest.fixture
def by_words():
    """A service whose vectors can be computed by hand: texts match by the words they share."""
    with serving(app=make_app(Catalogue(encoder=WordEncoder()))) as url:
        yield url


@pytest.fixture
def opened():
    """Takes a client and closes it after the test."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


def ranked(encoder, texts, query=QUERY, **options):
    """What ``Reranker`` says, as places and relevances."""
    hits = Reranker(encoder).rank(query, [Passage(str(place), text) for place, text in enumerate(texts)], **options)
    return [(int(hit.passage.id), hit.relevance) for hit in hits]


def given(response):
    return [(result.index, result.relevance_score) for result in response.results]


def post(url, version=1, /, **body):
    response = httpx.post(f"{url}/v{version}/rerank", json=body)
    return response.status_code, response.json()


def results(url, version=1, /, **body):
    status, answer = post(url, version, **body)
    assert status == 200, answer
    return [(result["index"], result["relevance_score"]) for result in answer["results"]]


# By hand


def test_the_relevance_is_the_mean_over_the_words_of_the_question(by_words):
    documents = ["rust", "cats purr", "cats bark"]
    found = results(by_words, query="cats purr", documents=documents)
    (best, one), (second, half), (last, none) = found
    words = WordEncoder()
    cosines = [float(words.vector("purr") @ words.vector(word)) for word in ("cats", "bark")]
    assert (best, second, last) == (1, 2, 0)
    assert one == pytest.approx(1, abs=1e-6)
    assert half == pytest.approx((1 + max(cosines)) / 2, abs=1e-6)
    assert 0 <= none < half


# The clients, as they are


@pytest.mark.parametrize("client", [cohere.Client, cohere.ClientV2])
def test_cohere_s_clients_get_what_the_reranker_gives(url, stanford, client, opened):
    response = opened(client(api_key=KEY, base_url=url)).rerank(model="rerank-v3.5", query=QUERY, documents=TEXTS)
    assert given(response) == ranked(stanford, TEXTS)
    assert response.id
    assert response.meta.api_version.version == ("1" if client is cohere.Client else "2")
    assert response.meta.billed_units.search_units == 0
    assert response.model == "rerank-v3.5"


@pytest.mark.parametrize("client", [cohere.AsyncClient, cohere.AsyncClientV2])
async def test_cohere_s_async_clients_do_too_many_at_once(url, stanford, client):
    async with client(api_key=KEY, base_url=url) as asking:
        queries = [f"{QUERY} {word}" for word in ("mat", "rust", "purr", "bark")]
        responses = await asyncio.gather(
            *(asking.rerank(model="any", query=query, documents=TEXTS, top_n=3) for query in queries)
        )
    assert [given(response) for response in responses] == [ranked(stanford, TEXTS, query, top_n=3) for query in queries]


def test_cohere_s_first_client_sends_objects_and_gets_them_back(url, stanford, opened):
    documents = [{"text": text, "title": f"number {place}"} for place, text in enumerate(TEXTS)]
    response = opened(cohere.Client(KEY, base_url=url)).rerank(query=QUERY, documents=documents, return_documents=True, top_n=2)
    assert given(response) == ranked(stanford, TEXTS, top_n=2)
    assert [(each.document.text, each.document.title) for each in response.results] == [
        (TEXTS[each.index], f"number {each.index}") for each in response.results
    ]


def test_langchain_s_cohere_reranker_orders_documents(url, stanford, opened):
    compressor = LangChainRerank(model="rerank-v3.5", base_url=url, cohere_api_key=KEY, top_n=4)
    opened(compressor.client)
    documents = [Document(text, metadata={"place": place}) for place, text in enumerate(TEXTS)]
    found = compressor.compress_documents(documents, QUERY)
    assert [(each.metadata["place"], each.metadata["relevance_score"]) for each in found] == ranked(stanford, TEXTS, top_n=4)
    assert [each.page_content for each in found] == [TEXTS[each.metadata["place"]] for each in found]
    assert compressor.compress_documents([], QUERY) == []
    assert compressor.rerank(TEXTS, QUERY, top_n=None, max_tokens_per_doc=6) == compressor.rerank(
        [first_tokens(text, 6, stanford.count_tokens) for text in TEXTS], QUERY, top_n=None
    )


def nodes():
    return [NodeWithScore(node=TextNode(text=text, id_=str(place)), score=0.0) for place, text in enumerate(TEXTS)]


def llama_index_reranker(kind, url, opened, **options):
    reranker = kind(base_url=f"{url}/v1" if kind is JinaRerank else url, api_key=KEY, **options)
    opened(reranker._session if kind is JinaRerank else reranker._client)
    return reranker


@pytest.mark.parametrize("kind", [LlamaIndexRerank, JinaRerank])
def test_llama_index_s_rerankers_order_nodes(url, stanford, kind, opened):
    found = llama_index_reranker(kind, url, opened, top_n=5).postprocess_nodes(nodes(), QueryBundle(QUERY))
    assert [(int(each.node.node_id), each.score) for each in found] == ranked(stanford, TEXTS, top_n=5)


def test_a_mistake_reaches_each_client_as_an_error_of_its_own_with_our_sentence(url, opened):
    with pytest.raises(cohere.BadRequestError) as blank:
        opened(cohere.ClientV2(KEY, base_url=url)).rerank(model="any", query=" ", documents=TEXTS)
    assert "query is empty" in blank.value.body["message"]
    with pytest.raises(cohere.UnprocessableEntityError) as wrong:
        opened(cohere.Client(KEY, base_url=url)).rerank(query=QUERY, documents=TEXTS, top_n=-1)
    assert "top_n" in wrong.value.body["message"]
    with pytest.raises(RuntimeError, match="query is empty"):
        llama_index_reranker(JinaRerank, url, opened).postprocess_nodes(nodes(), QueryBundle("  "))


def test_the_key_of_a_client_is_the_token_of_the_service(stanford, opened):
    with serving(app=make_app(Catalogue(encoder=stanford), token="the-token-of-the-service")) as url:
        known = opened(cohere.ClientV2("the-token-of-the-service", base_url=url))
        assert given(known.rerank(model="any", query=QUERY, documents=TEXTS)) == ranked(stanford, TEXTS)
        with pytest.raises(cohere.UnauthorizedError):
            opened(cohere.ClientV2(KEY, base_url=url)).rerank(model="any", query=QUERY, documents=TEXTS)


# Shapes


def test_jina_s_answer_has_the_model_and_the_tokens_that_were_read(url, stanford):
    status, answer = post(url, query=QUERY, documents=TEXTS[:2], model="jina-reranker-v2-base-multilingual")
    n_tokens = sum(map(stanford.count_tokens, [QUERY, *TEXTS[:2]]))
    assert status == 200
    assert set(answer) == {"id", "model", "results", "meta", "usage"}
    assert answer["usage"] == {"total_tokens": n_tokens, "prompt_tokens": n_tokens}
    assert answer["meta"]["tokens"] == {"input_tokens": n_tokens, "output_tokens": 0}
    assert answer["model"] == "jina-reranker-v2-base-multilingual"
    assert set(answer["results"][0]) == {"index", "relevance_score"}


def test_an_encoder_that_cannot_count_gives_no_usage(by_words):
    status, answer = post(by_words, query="cats", documents=["cats"])
    assert status == 200
    assert set(answer) == {"id", "results", "meta"}
    assert "tokens" not in answer["meta"]


@pytest.mark.parametrize("version", [1, 2])
def test_documents_come_back_only_if_asked_for(url, version):
    documents = ["cats purr", {"text": "dogs bark", "pages": [1, 2], "nothing": None}]
    _, answer = post(url, version, query=QUERY, documents=documents, return_documents=True)
    assert {each["index"]: each["document"] for each in answer["results"]} == {0: {"text": "cats purr"}, 1: documents[1]}
    for keys in ({"return_documents": False}, {"return_documents": None}, {}):
        _, answer = post(url, version, query=QUERY, documents=documents, **keys)
        assert all("document" not in each for each in answer["results"])


def test_keys_that_mean_nothing_here_and_nulls_are_ignored(url, stanford):
    unknown = {"max_chunks_per_doc": 10, "priority": 1, "truncation": True, "user": {"id": 7}}
    nulls = dict.fromkeys(["top_n", "model", "rank_fields", "return_documents", "max_tokens_per_doc"])
    for version in (1, 2):
        assert results(url, version, query=QUERY, documents=TEXTS, **unknown, **nulls) == ranked(stanford, TEXTS)


def test_fields_are_read_in_the_order_named_and_missing_ones_left_out(url, stanford):
    documents = [
        {"title": "cats", "body": "they purr", "text": "of no account", "year": 1999},
        {"body": "rust is a language"},
        "a plain text is read as it is",
    ]
    read = ["they purr\ncats", "rust is a language", "a plain text is read as it is"]
    assert results(url, query=QUERY, documents=documents, rank_fields=["body", "title"]) == ranked(stanford, read)


# Edges


def test_blank_documents_come_last_with_nothing(url):
    found = results(url, query=QUERY, documents=TEXTS)
    assert found[-2:] == [(2, 0.0), (5, 0.0)]
    assert results(url, query=QUERY, documents=["", " "]) == [(0, 0.0), (1, 0.0)]


def test_equal_documents_have_equal_scores_and_keep_their_order(url):
    found = results(url, query=QUERY, documents=["dogs bark", "cats purr", "dogs bark", "cats purr"])
    places, scores = zip(*found, strict=True)
    assert set(places[:2]) in ({0, 2}, {1, 3})
    assert places[0] < places[1] and places[2] < places[3]
    assert scores[0] == scores[1] and scores[2] == scores[3]


def test_a_top_n_above_the_number_of_documents_gives_all(url, stanford):
    assert results(url, query=QUERY, documents=TEXTS, top_n=1000) == ranked(stanford, TEXTS)
    assert results(url, query=QUERY, documents=TEXTS, top_n=1) == ranked(stanford, TEXTS)[:1]


def test_a_thousand_documents_are_taken_and_batches_change_no_score(url, stanford):
    random.seed(3)
    words = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "dogs",
        "bark",
        "rust",
        "is",
        "language",
        "of",
        "systems",
        "happy",
        "pets",
        "and",
        "purr",
    ]
    texts = [" ".join(random.choices(words, k=random.randint(0, 30))) for _ in range(1000)]
    assert results(url, 2, query=QUERY, documents=texts) == ranked(stanford, texts)


def test_more_documents_than_the_limit_and_a_longer_question_are_refused(words):
    limits = Limits(passages=3, query_characters=20)
    with serving(app=make_app(Catalogue(encoder=words), limits=limits)) as url:
        assert len(results(url, query="cats", documents=["a"] * 3)) == 3
        status, answer = post(url, query="cats", documents=["a"] * 4)
        assert (status in (400, 413), answer["type"]) == (True, "TooLargeError")
        assert "There are 4 documents, and at most 3 are allowed" in answer["message"]
        status, answer = post(url, query="c" * 21, documents=["a"])
        assert status in (400, 413) and "21 characters" in answer["message"]


@pytest.mark.parametrize("n", [1, 2, 6, 19, 500])
def test_max_tokens_per_doc_reads_the_beginning_of_each_document(url, stanford, n):
    cut = [first_tokens(text, n, stanford.count_tokens) for text in TEXTS]
    for version in (1, 2):
        assert results(url, version, query=QUERY, documents=TEXTS, max_tokens_per_doc=n) == ranked(stanford, cut)
    _, answer = post(url, query=QUERY, documents=TEXTS, max_tokens_per_doc=n, return_documents=True)
    assert all(each["document"]["text"] == TEXTS[each["index"]] for each in answer["results"])  # they come back whole


@pytest.mark.parametrize(
    ("n", "beginning"), [(1, "rust"), (2, "rust is"), (4, "rust is a language"), (9, "rust is a language")]
)
def test_a_text_is_cut_behind_the_last_token_that_fits(stanford, n, beginning):
    assert first_tokens("rust is a language", n, stanford.count_tokens).rstrip() == beginning


@pytest.mark.parametrize("n", [1, 2, 5, 19])
def test_one_word_more_would_be_too_many_tokens(stanford, n):
    for text in [*TEXTS, "猫はゴロゴロ鳴く" * 20, "purrpurrzzz" * 9]:
        beginning = first_tokens(text, n, stanford.count_tokens)
        assert text.startswith(beginning) and stanford.count_tokens(beginning) <= n
        if beginning != text:
            longer = text[: len(beginning)] + text[len(beginning) :].lstrip().partition(" ")[0]
            assert stanford.count_tokens(longer) > n or not longer[len(beginning) :].strip()


def test_of_a_long_text_only_the_beginning_is_counted():
    counted = []

    def count(text):
        counted.append(len(text))
        return len(text.split())

    assert first_tokens("word " * 100_000, 10, count).split() == ["word"] * 10
    assert sum(counted) < 2000


def test_max_tokens_per_doc_needs_an_encoder_that_counts(by_words):
    status, answer = post(by_words, query="cats", documents=["cats"], max_tokens_per_doc=3)
    assert (status, "cannot count tokens" in answer["message"]) == (400, True)


WRONG = {
    "no documents": ({"documents": []}, 400, "documents is empty"),
    "documents left out": ({"documents": None}, 422, "documents"),
    "a text for a list": ({"documents": "cats"}, 422, "documents"),
    "a number for a text": ({"documents": ["cats", 5]}, 422, "documents.1"),
    "an object without text": ({"documents": ["cats", {"title": "a"}]}, 400, "documents.1 has none of the fields 'text'"),
    "a text that is a number": ({"documents": [{"text": 5}]}, 400, "documents.0.text must be a text, got int"),
    "a text that is null": ({"documents": [{"text": None}]}, 400, "documents.0.text must be a text, got NoneType"),
    "fields that no document has": ({"rank_fields": ["body"], "documents": [{"text": "a"}]}, 400, "its fields are 'text'"),
    "no fields": ({"rank_fields": []}, 400, "rank_fields is empty"),
    "fields as a text": ({"rank_fields": "text"}, 422, "rank_fields"),
    "a blank question": ({"query": " \n"}, 400, "query is empty"),
    "a question that is no text": ({"query": 5}, 422, "query"),
    "no question": ({"query": None}, 422, "query"),
    "top_n of zero": ({"top_n": 0}, 422, "top_n"),
    "top_n as a text": ({"top_n": "3"}, 422, "top_n"),
    "top_n as a fraction": ({"top_n": 1.5}, 422, "top_n"),
    "top_n as a truth": ({"top_n": True}, 422, "top_n"),
    "no tokens": ({"max_tokens_per_doc": 0}, 422, "max_tokens_per_doc"),
    "a model that is a list": ({"model": ["a"]}, 422, "model"),
    "return_documents as a number": ({"return_documents": 7}, 422, "return_documents"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("version", [1, 2])
def test_what_is_wrong_is_said_with_a_status_of_4xx(url, case, version):
    body, expected, sentence = WRONG[case]
    status, answer = post(url, version, **({"query": QUERY, "documents": TEXTS} | body))
    assert (status, sentence in answer["message"]) == (expected, True), answer
    assert answer["detail"] == answer["message"]
    assert set(answer) == {"type", "message", "detail"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"cats"',
        b'{"query": "cats", "documents": ["a"',
        b'\xff{"query": "cats"}',
        b'{"query": "\\ud800", "documents": ["a"]}',
        b'{"query": "cats", "documents": ["a \\udfff"]}',
        b'{"query": "cats", "documents": [{"text": "a \\udfff"}]}',
        b'{"query": "cats", "documents": [{"text": "a", "b": NaN}], "return_documents": true}',
        b'{"query": "cats", "documents": [{"text": "a", "b": "\\ud800"}], "return_documents": true}',
        b'{"query": "cats", "documents": ' + b"[" * 100_000,
    ],
)
def test_a_body_that_is_no_request_is_a_mistake_of_the_client(url, body):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/v1/rerank", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status in (400, 422), response.read()
    assert json.loads(response.read())["message"]
    connection.close()


def test_too_many_at_once_are_told_when_to_come_again(words):
    started, go_on = threading.Event(), threading.Event()

    class Slow(WordEncoder):
        def encode_passages(self, texts, *, progress=None):
            started.set()
            assert go_on.wait(60)
            return super().encode_passages(texts)

    with serving(app=make_app(Catalogue(encoder=Slow()), limits=Limits(at_once=1, waiting=0))) as url:
        first = threading.Thread(target=post, args=(url,), kwargs={"query": "cats", "documents": ["cats"]})
        first.start()
        assert started.wait(60)
        response = httpx.post(f"{url}/v1/rerank", json={"query": "cats", "documents": ["cats"]})
        go_on.set()
        first.join()
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert response.json()["detail"] == response.json()["message"]


# Which model reads


def test_a_service_without_an_index_reads_by_the_model_in_the_box(default_encoder, opened):
    with serving() as url:
        assert httpx.get(f"{url}/v1/indexes").json()["indexes"] == []
        client = opened(cohere.ClientV2(KEY, base_url=url))
        response = client.rerank(model="any", query="How do cats show that they are happy?", documents=TEXTS)
        assert given(response) == ranked(default_encoder, TEXTS, "How do cats show that they are happy?")
        encoded = httpx.post(f"{url}/v1/encode", json={"texts": [QUERY]}).json()["vectors"]
        assert len(encoded) == 1


def test_beside_an_index_its_encoder_reads(stanford):
    index = Index.create(None, stanford)
    index.add([Passage("a", "cats purr")])
    with serving({"pets": index}) as url:
        assert results(url, 2, query=QUERY, documents=TEXTS) == ranked(stanford, TEXTS)


def test_the_model_of_a_catalogue_without_indexes_is_loaded_once_and_anew_after_reopen(stanford_folder):
    catalogue = Catalogue(encoder=stanford_folder)
    kept = weakref.ref(catalogue.encoder())
    gc.collect()
    assert kept() is catalogue.encoder()
    catalogue.reopen()
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("name", ["warm", "cold"])
def test_a_service_without_an_index_is_ready_once_its_model_is(stanford_folder, tmp_path, name):
    encoder = stanford_folder if name == "warm" else tmp_path
    with serving(app=make_app(Catalogue(encoder=encoder))) as url:
        while (answer := httpx.get(f"{url}/ready")).status_code == 503 and "being opened" in answer.text:
            pass
        assert answer.status_code == (200 if name == "warm" else 503)
