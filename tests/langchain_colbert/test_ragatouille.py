"""RAGatouille's interface: its method names, arguments and result keys, without what its users suffered."""

from __future__ import annotations

import io
import json
import urllib.error
from concurrent.futures import ThreadPoolExecutor

import pytest
from builders import checkpoints
from langchain_core.documents import Document

from colbert_core import Index, IndexExistsError, IndexNotFoundError, Passage
from langchain_colbert import ColBERTRerank, ColBERTRetriever
from langchain_colbert import ragatouille as module
from langchain_colbert.ragatouille import RAGPretrainedModel, get_wikipedia_page

TEXTS = ["the cat sat on the mat . " * 12, "a dog barks at night", "rust is a language"]
IDS = ["cat", "dog", "rust"]
METADATAS = [{"page": 1}, {"page": 2}, {}]


@pytest.fixture
def rag(tmp_path):
    """With the model in the box, which reads 256 tokens of a passage."""
    return RAGPretrainedModel.from_pretrained(index_root=tmp_path / "root")


@pytest.fixture
def indexed(rag):
    rag.index(TEXTS, IDS, METADATAS, index_name="demo", max_document_length=20)
    return rag


def test_documents_are_cut_into_pieces_that_know_their_document(indexed):
    found = indexed.search("the cat sat", k=99)
    cats = [result for result in found if result["document_id"] == "cat"]
    assert len(cats) > 3
    assert all(set(result["content"].split()) <= set(TEXTS[0].split()) for result in cats)
    assert {result["document_id"] for result in found} == set(IDS)
    assert sorted(result["passage_id"] for result in found) == list(range(len(found)))
    assert [result["rank"] for result in found] == list(range(1, len(found) + 1))


def test_a_result_has_ragatouilles_keys_and_a_raw_maxsim_score(indexed):
    (result,) = indexed.search("dog barks", k=1)
    assert set(result) == {"content", "score", "rank", "document_id", "passage_id", "document_metadata"}
    assert (result["content"], result["rank"], result["document_metadata"]) == (TEXTS[1], 1, {"page": 2})
    assert result["score"] == indexed._index.search("dog barks", 1)[0].score > 1
    (zero,) = indexed.search("dog barks", k=1, zero_index_ranks=True)
    assert zero["rank"] == 0
    json.dumps(result)
    (plain,) = indexed.search("rust is a language", doc_ids=["rust"])
    assert "document_metadata" not in plain


def test_several_queries_give_several_lists_and_doc_ids_restrict(indexed):
    cats, dogs = indexed.search(["the cat", "dog barks"], k=2)
    assert len(cats) == len(dogs) == 2
    assert {result["document_id"] for result in indexed.search("the cat", doc_ids=["dog", "rust", "no such"])} == {
        "dog",
        "rust",
    }
    assert indexed.search("the cat", doc_ids=[]) == []


def test_a_model_of_other_lengths_reads_pieces_of_the_length_asked_for(rag):
    rag.index(TEXTS, IDS, index_name="long", max_document_length=60)
    longer = [result for result in rag.search("cat", k=99) if result["document_id"] == "cat"]
    rag.index(TEXTS, IDS, index_name="short", max_document_length=20)
    shorter = [result for result in rag.search("cat", k=99) if result["document_id"] == "cat"]
    assert len(longer) < len(shorter)
    rag.index(TEXTS, IDS, index_name="whole", split_documents=False)
    assert [result["content"] for result in rag.search("cat", k=99) if result["document_id"] == "cat"] == [TEXTS[0]]


def test_adding_is_seen_at_once_replaces_known_documents_and_leaves_no_piece_behind(indexed):
    indexed.add_to_index(["a whale sings", "a dog sleeps"], ["whale", "dog"], [{"page": 9}, {}])
    assert indexed.search("a whale sings", k=1)[0]["document_id"] == "whale"
    assert [result["content"] for result in indexed.search("dog", k=99, doc_ids=["dog"])] == ["a dog sleeps"]
    n_pieces = len(indexed._index)
    indexed.add_to_index(["a cat"], ["cat"])
    assert [result["content"] for result in indexed.search("cat", k=99, doc_ids=["cat"])] == ["a cat"]
    assert len(indexed._index) < n_pieces
    numbers = [result["passage_id"] for result in indexed.search("cat", k=99)]
    assert len(set(numbers)) == len(numbers)


def test_deleting_takes_all_pieces_of_a_document(indexed):
    indexed.delete_from_index(["cat", "no such"])
    assert {result["document_id"] for result in indexed.search("the cat", k=99)} == {"dog", "rust"}
    indexed.delete_from_index("dog")
    assert [result["document_id"] for result in indexed.search("the cat", k=99)] == ["rust"]


def test_an_index_is_opened_again_with_all_changes(indexed, tmp_path):
    path = indexed.index(TEXTS, IDS, index_name="again", max_document_length=20)
    assert path == str(tmp_path / "root" / "colbert" / "indexes" / "again")
    indexed.delete_from_index(["rust"])
    opened = RAGPretrainedModel.from_index(path)
    assert opened.search("the cat sat", k=3) == indexed.search("the cat sat", k=3)
    opened.add_to_index(["a hen"], ["hen"])
    assert indexed.search("a hen", k=1)[0]["document_id"] == "hen"
    assert opened.search("dog", k=99, index_name="demo")[0]["document_id"] in IDS
    with pytest.raises(IndexNotFoundError):
        RAGPretrainedModel.from_index(tmp_path / "nowhere")


def test_indexing_again_replaces_at_once_unless_told_not_to_and_a_failure_loses_nothing(indexed):
    with pytest.raises(IndexExistsError, match="overwrite_index=True"):
        indexed.index(["new"], index_name="demo", overwrite_index=False)
    with pytest.raises(ValueError, match="lone surrogate"):
        indexed.index(["fine", "\ud800"], index_name="demo")
    again = RAGPretrainedModel.from_index(indexed._folder / "demo")
    assert len(again.search("the cat", k=99)) == len(indexed.search("the cat", k=99)) > 3
    indexed.index(["new text"], index_name="demo", overwrite_index="force_silent_overwrite")
    assert [result["content"] for result in indexed.search("text", k=99)] == ["new text"]


def test_rerank_gives_places_in_the_list(rag):
    results = rag.rerank("dog barks", TEXTS, k=2)
    assert len(results) == 2
    assert [TEXTS[result["result_index"]] for result in results] == [result["content"] for result in results]
    assert results[0]["score"] >= results[1]["score"]
    both = rag.rerank(["dog barks", "rust"], TEXTS, k=1, zero_index_ranks=True)
    assert [len(some) for some in both] == [1, 1]
    assert both[0][0]["rank"] == 0


def test_encoded_documents_pile_up_until_they_are_cleared(rag):
    rag.encode(["the cat sat", "a dog barks"], document_metadatas=[{"page": 1}, {}])
    rag.encode(["rust is a language"])
    results = rag.search_encoded_docs("rust is a language", k=3)
    assert sorted(result["result_index"] for result in results) == [0, 1, 2]
    assert results[0]["result_index"] == 2
    assert {result["result_index"]: result.get("document_metadata") for result in results} == {0: {"page": 1}, 1: None, 2: None}
    assert len(rag.search_encoded_docs(["cat", "dog"], k=1)) == 2
    rag.clear_encoded_docs()
    with pytest.raises(ValueError, match="no encoded documents"):
        rag.search_encoded_docs("cat")


async def test_as_a_langchain_retriever_and_compressor(indexed):
    retriever = indexed.as_langchain_retriever(k=3)
    assert isinstance(retriever, ColBERTRetriever)
    found = retriever.invoke("dog barks")
    assert len(found) == 3
    assert found[0].page_content == TEXTS[1]
    assert (found[0].metadata["page"], found[0].metadata["document_id"]) == (2, "dog")
    assert await retriever.ainvoke("dog barks", k=1) == found[:1]
    assert [document.id for document in indexed.as_langchain_retriever(filter={"page": 2}).invoke("cat")] == ["dog"]
    compressor = indexed.as_langchain_document_compressor(k=1)
    assert isinstance(compressor, ColBERTRerank)
    (best,) = compressor.compress_documents([Document(text) for text in TEXTS], "rust is a language")
    assert best.page_content == TEXTS[2]


def test_an_index_of_this_package_made_elsewhere_is_searched_too(default_encoder, tmp_path):
    store = Index.create(tmp_path / "elsewhere", default_encoder)
    store.add([Passage("p", "a dog barks", {"year": 2024})])
    rag = RAGPretrainedModel.from_index(tmp_path / "elsewhere")
    (result,) = rag.search("dog")
    assert (result["document_id"], result["document_metadata"]) == ("p", {"year": 2024})
    rag.add_to_index(["a cat"], ["c"])
    rag.delete_from_index("p")
    assert [found["document_id"] for found in rag.search("dog")] == ["c"]


def test_mistakes_are_errors(rag):
    with pytest.raises(ValueError, match="There is no index yet"):
        rag.search("cat")
    with pytest.raises(ValueError, match="There is no index yet"):
        rag.as_langchain_retriever()
    with pytest.raises(TypeError, match="must be a list of strings"):
        rag.index("one text")
    with pytest.raises(ValueError, match="3 documents but 1 document_ids"):
        rag.index(TEXTS, ["x"])
    with pytest.raises(ValueError, match="3 documents but 1 document_metadatas"):
        rag.index(TEXTS, IDS, [{}])
    with pytest.raises(ValueError, match="stand more than once, among them 'x'"):
        rag.index(TEXTS, ["x", "y", "x"])
    with pytest.raises(ValueError, match="may not have the key 'passage_id'"):
        rag.index(["a"], ["x"], [{"passage_id": 7}])
    with pytest.raises(TypeError, match="max_length"):
        rag.index(TEXTS, max_length=7)
    with pytest.raises(ValueError, match="without a path"):
        rag.index(TEXTS, index_name="../outside")


def test_ids_that_look_like_pieces_of_another_document_are_documents_of_their_own(rag):
    rag.index([TEXTS[0], "a hen"], ["cat", "cat#1"], index_name="demo", max_document_length=20)
    rag.add_to_index(["a whale", "a dog"], ["cat#2", "dog"])
    assert [result["content"] for result in rag.search("hen", doc_ids=["cat#1"])] == ["a hen"]
    assert [result["content"] for result in rag.search("whale", doc_ids=["cat#2"])] == ["a whale"]
    n_cat = len(rag.search("cat", k=99, doc_ids=["cat"]))
    rag.delete_from_index(["cat#3", "cat#2"])
    assert len(rag.search("cat", k=99, doc_ids=["cat"])) == n_cat > 3
    assert rag.search("whale", doc_ids=["cat#2"]) == []


def test_other_splitters_and_preprocessing_have_their_places(rag):
    def halves(documents, document_ids, chunk_size):
        assert chunk_size == 256
        cut = [
            (name, text[: len(text) // 2], text[len(text) // 2 :]) for name, text in zip(document_ids, documents, strict=True)
        ]
        return [{"document_id": name, "content": half} for name, *both in cut for half in both]

    def shout(documents):
        return [{**document, "content": document["content"].upper()} for document in documents]

    rag.index(["dogs bark."], ["d"], [None], "demo", True, 256, True, halves, [shout])
    assert sorted(result["content"] for result in rag.search("dogs")) == ["BARK.", "DOGS "]


def test_the_index_that_was_named_last_is_the_one_at_hand(rag):
    rag.index(["one"], ["1"], index_name="first", max_document_length=64)
    rag.index(["two"], ["2"], index_name="second")
    assert rag.search("x", index_name="first")[0]["document_id"] == "1"
    assert rag.search("x")[0]["document_id"] == "1"
    assert rag._index.encoder.config.passage_length == 64
    assert rag.as_langchain_retriever(k=3, index_name="second", doc_ids=["2"]).invoke("x")[0].metadata["document_id"] == "2"


def test_numbers_are_given_once_when_threads_add(rag):
    rag.index(["one"], ["1"], index_name="demo")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: rag.add_to_index([f"text {n}"], [f"t{n}"]), range(8)))
    assert sorted(result["passage_id"] for result in rag.search("text", k=99)) == list(range(9))


def answering(monkeypatch, answer):
    def urlopen(request, timeout):
        assert request.full_url.startswith("https://en.wikipedia.org/w/api.php?")
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(json.dumps(answer).encode())

    monkeypatch.setattr(module.urllib.request, "urlopen", urlopen)


def test_a_wikipedia_page_is_its_text(monkeypatch):
    answering(monkeypatch, {"query": {"pages": {"7": {"title": "Cat", "extract": "The cat is a small animal."}}}})
    assert get_wikipedia_page("Cat") == "The cat is a small animal."


def test_a_wikipedia_page_without_a_network_or_that_is_not_there_is_an_error(monkeypatch):
    answering(monkeypatch, urllib.error.URLError("Name or service not known"))
    with pytest.raises(ConnectionError, match="'Hayao_Miyazaki' could not be fetched .*without a network"):
        get_wikipedia_page("Hayao_Miyazaki")
    answering(monkeypatch, {"query": {"pages": {"-1": {"title": "Nothing"}}}})
    with pytest.raises(ValueError, match="no page 'Nothing'"):
        get_wikipedia_page("Nothing")


def test_no_bar_is_shown_without_verbose(tmp_path, monkeypatch):
    from colbert_core import Index, Reranker

    shown = []
    for of, name in ((Index, "add"), (Reranker, "rank")):
        real = getattr(of, name)
        monkeypatch.setattr(
            of, name, lambda *given, real=real, **options: shown.append(options["progress"]) or real(*given, **options)
        )

    def work(rag, **verbose):
        rag.encode(["a cat"], **verbose)
        rag.index(["a cat", "a dog"], index_name="x", overwrite_index=True)
        rag.add_to_index(["a mat"])
        rag.rerank("cat", ["a cat"])

    work(RAGPretrainedModel.from_pretrained(verbose=0, index_root=tmp_path))
    assert shown == [False] * 4
    shown.clear()
    work(RAGPretrainedModel.from_pretrained(index_root=tmp_path), verbose=False)
    assert shown == [False, None, None, None]
    quiet = RAGPretrainedModel.from_index(tmp_path / "colbert" / "indexes" / "x", verbose=0)
    quiet.add_to_index(["a hat"])
    assert shown[4:] == [False]


LONG = "what did the studio found in the language of systems and the mat that sat on a cat or others " * 2


def test_the_end_of_a_long_question_is_read_as_well(tmp_path):
    folder = checkpoints.stanford(tmp_path / "model")  # reads 24 tokens of a query, and its backbone 130
    rag = RAGPretrainedModel.from_pretrained(folder, index_root=tmp_path / "root")
    rag.index(TEXTS[1:], IDS[1:], index_name="demo", max_document_length=20)
    rag.encode(TEXTS[1:])
    ends = [LONG + "dogs bark", LONG + "rust is a language"]
    for search in (rag.search, rag.search_encoded_docs, lambda query: rag.rerank(query, TEXTS[1:])):
        one, two = ([(result["content"], result["score"]) for result in search(end)] for end in ends)
        assert dict(one) != dict(two)
        assert [[(result["content"], result["score"]) for result in each] for each in search(ends)] == [one, two]


def test_a_short_question_has_the_score_that_it_always_had(indexed):
    short, _ = indexed.search(["dog barks", LONG * 9], k=1)
    assert short[0]["score"] == pytest.approx(indexed.search("dog barks", k=1)[0]["score"], abs=1e-4)


def test_a_list_of_one_query_gives_one_flat_list(indexed):
    indexed.encode(TEXTS)
    assert indexed.search(["dog barks"], k=2) == indexed.search("dog barks", k=2)
    assert indexed.rerank(["dog barks"], TEXTS) == indexed.rerank("dog barks", TEXTS)
    assert indexed.search_encoded_docs(["dog barks"]) == indexed.search_encoded_docs("dog barks")


def test_an_empty_collection_replaces_no_index(indexed):
    with pytest.raises(ValueError, match="no documents to index"):
        indexed.index([], index_name="demo")
    assert indexed.search("dog barks", k=1)[0]["document_id"] == "dog"
    assert len(Index.open(indexed._path("demo"))) > 3


def test_a_string_for_a_list_is_meant_or_refused(indexed):
    assert {result["document_id"] for result in indexed.search("the cat", doc_ids="dog")} == {"dog"}
    retriever = indexed.as_langchain_retriever(doc_ids="dog")
    assert [document.metadata["document_id"] for document in retriever.invoke("the cat")] == ["dog"]
    for name, value in {"document_ids": "abc", "document_metadatas": {"page": 1}}.items():
        with pytest.raises(TypeError, match=f"{name} must be a list with one for each document"):
            indexed.index(TEXTS, index_name="other", **{name: value})


def test_what_a_search_added_to_metadata_is_not_indexed(indexed):
    found = ColBERTRetriever(index=indexed._index, k=1).invoke("dog barks")[0].metadata
    kept = {key: value for key, value in found.items() if key not in ("document_id", "passage_id")}
    assert "rank" in kept
    indexed.add_to_index(["a new text"], ["new"], [kept])
    indexed.encode(["a new text"], document_metadatas=[found])
    assert indexed._index.get(["new"])[0].metadata.keys() == {"page", "document_id", "passage_id"}
    assert "rank" not in indexed._encoded.get(["0"])[0].metadata
