"""Whoever does long work shows a bar by itself on a terminal, and can be told to show none."""

from __future__ import annotations

import contextlib
import importlib
import inspect

import pytest
from builders.cluster import sharded_here
from builders.colbertv1 import TINY, passages_of, write_collection
from builders.documents import DOCUMENTS
from builders.encoders import WordEncoder
from builders.foreign_indexes import write_stanford_index
from builders.nodes import nodes
from builders.training import CAT, DOG, write_base
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.schema import NodeWithScore

import langchain_colbert as lc
import llama_index_colbert as li
from colbert_core import Encoder, Index, Passage, Reranker, read_foreign_index, sync
from colbert_core.cluster import publish, restore, split
from colbert_core.colbertv1.encoded import EncodedCollection, encode_collection
from colbert_core.colbertv1.ivfpq import IVFPQ
from colbert_core.colbertv1.mining import mine, mine_pairs
from colbert_core.colbertv1.pipeline import mine_with_bm25, run_pipeline
from colbert_core.evaluation import BM25, open_dataset, rerank_run, run_of
from colbert_core.train import ColBERT, TrainConfig, prepare, train
from langchain_colbert.ragatouille import RAGPretrainedModel

PASSAGES = passages_of(300)
TEXTS = ["the cat sat on a mat", "dogs bark", "rust is a language"]


class Given:
    """What the work below is done with. What takes long is made once."""

    def __init__(self, encoder, folder):
        self.encoder, self.folder = encoder, folder

    def new(self):
        """A folder that is not there yet."""
        self.n = getattr(self, "n", 0) + 1
        return self.folder / str(self.n)

    def index(self, n=3, **settings):
        index = Index.create(None, WordEncoder(), **settings)
        index.add(PASSAGES[:n], progress=False)
        return index

    def base(self):
        if not (self.folder / "base").exists():
            write_base(self.folder / "base")
        return self.folder / "base"

    def shards(self):
        if not (self.folder / "shards").exists():
            sharded_here(self.folder / "shards", PASSAGES[:20])
        return self.folder / "shards"

    def published(self):
        if not (self.folder / "published").exists():
            publish(self.shards(), self.folder / "published", progress=False)
        return self.folder / "published"

    def collection(self):
        if not (self.folder / "collection").exists():
            write_collection(self.folder / "collection", train=True)
        return self.folder / "collection"

    def vectors(self):
        if not (self.folder / "vectors").exists():
            encode_collection(PASSAGES, WordEncoder(), self.folder / "vectors", shard_passages=70, progress=False)
        return self.folder / "vectors"


@pytest.fixture(scope="module")
def given(stanford, tmp_path_factory):
    return Given(stanford, tmp_path_factory.mktemp("given"))


def convert(given, shown):
    folder = given.new()
    write_stanford_index(folder)
    Index.convert(read_foreign_index(folder), progress=shown)


def prepare_examples(given, shown):
    model = ColBERT.from_pretrained(given.base(), TrainConfig(query_length=12, passage_length=20, dim=16))
    prepare([CAT, DOG], model, given.new(), progress=shown)


def mine_bm25(given, shown):
    dataset = open_dataset(given.collection())
    list(mine_with_bm25(dataset, dataset.qrels("train"), 2, triples=False, progress=shown))


def mine_ranked(given, shown):
    ranked = [(str(number), 1 / number) for number in range(1, 30)]
    list(mine({"q": "cat"}, {"q": {"1": 1}}, lambda texts, k: [ranked[:k]], lambda ids: ids, n_negatives=2, progress=shown))


def rerank_all(given, shown):
    passages = {"a": Passage("a", "cats purr"), "b": Passage("b", "dogs bark")}
    rerank_run(Reranker(WordEncoder()), {"q": {"a": 1.0, "b": 0.5}}, {"q": "cat"}, passages, progress=shown)


def sync_folder(given, shown):
    folder = given.new()
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.txt").write_text("the cat sat")
    sync(folder, Index.create(None, given.encoder), progress=shown)


# By what is called; ``shown`` is its ``progress``.
CORE = {
    "sync": sync_folder,
    "Encoder.encode_passages": lambda given, shown: given.encoder.encode_passages(TEXTS, progress=shown),
    "Index.add": lambda given, shown: Index.create(None, given.encoder).add(PASSAGES, progress=shown),
    "Index.compact": lambda given, shown: given.index(300, nbits=4).compact(progress=shown),
    "Index.convert": convert,
    "Index.tune": lambda given, shown: given.index(300).tune(progress=shown),
    "Index.verify": lambda given, shown: given.index().verify(progress=shown),
    "Reranker.excerpts": lambda given, shown: Reranker(given.encoder).excerpts("cat", PASSAGES[:9], progress=shown),
    "Reranker.rank": lambda given, shown: Reranker(given.encoder).rank("cat", PASSAGES[:9], progress=shown),
    "BM25.build": lambda given, shown: BM25.build(PASSAGES, progress=shown),
    "rerank_run": rerank_all,
    "run_of": lambda given, shown: run_of(lambda texts: [[("a", 1.0)] for _ in texts], {"q": "cat"}, progress=shown),
    "prepare": prepare_examples,
    "train": lambda given, shown: train(
        [CAT, DOG] * 4, given.base(), out=given.new(), steps=1, batch_size=2, dim=16, progress=shown
    ),
    "encode_collection": lambda given, shown: encode_collection(PASSAGES, WordEncoder(), given.new(), progress=shown),
    "EncodedCollection.verify": lambda given, shown: EncodedCollection.open(given.vectors()).verify(progress=shown),
    "IVFPQ.build": lambda given, shown: IVFPQ.build(given.vectors(), given.new(), nlist=10, nbits=4, progress=shown),
    "mine": mine_ranked,
    "mine_pairs": lambda given, shown: list(mine_pairs([CAT, DOG], given.encoder, n_negatives=1, progress=shown)),
    "mine_with_bm25": mine_bm25,
    "run_pipeline": lambda given, shown: run_pipeline(
        given.collection(), given.new(), base=given.base(), say=lambda line: None, progress=shown, **TINY
    ),
    "publish": lambda given, shown: publish(given.shards(), given.new(), progress=shown),
    "restore": lambda given, shown: restore(given.published(), given.new(), progress=shown),
    "split": lambda given, shown: split(given.shards(), given.new(), shards=3, progress=shown),
}
# Tested in tests/cluster, on a cluster.
ON_A_CLUSTER = [*(f"ShardedIndex.{method}" for method in ("add", "compact", "open", "refit", "tune", "verify")), "build"]
# What others implement.
PROTOCOLS = [
    *(f"IndexBase.{method}" for method in ("add", "compact", "tune", "verify")),
    "PassageIndex.add",
    "TokenEncoder.encode_passages",
]


def retrieve_llama(given, shown):
    documents = [LlamaDocument(text=text, id_=text) for text in TEXTS]
    li.ColBERTRetriever.from_documents(documents, model=given.encoder, show_progress=shown)
    li.ColBERTRetriever.from_defaults(nodes=nodes(), model=given.encoder, show_progress=shown).add_nodes(nodes())


def use_index(given, shown):
    documents = [LlamaDocument(text=text, id_=text) for text in TEXTS]
    index = li.ColBERTIndex.from_documents(documents, model_name=given.encoder, show_progress=shown)
    index.insert(LlamaDocument(text="cats purr", id_="new"))
    index.insert_nodes(nodes())
    index.refresh_ref_docs([LlamaDocument(text="dogs purr", id_="new")])
    index.as_retriever().add_nodes(nodes())


def fill_llama_store(given, shown):
    store = li.ColBERTVectorStore(given.encoder, show_progress=shown)
    store.add(nodes())
    IngestionPipeline(transformations=[store.embed_model], vector_store=store).run(nodes=nodes(), show_progress=bool(shown))
    store.as_index().insert_nodes(nodes())


def fill_store(given, shown):
    for store in (
        lc.ColBERTVectorStore.from_texts(TEXTS, model=given.encoder, show_progress=shown),
        lc.ColBERTVectorStore.from_documents(DOCUMENTS, model=given.encoder, show_progress=shown),
        lc.ColBERTVectorStore(given.encoder, persist_directory=given.new(), show_progress=shown),
    ):
        store.add_documents(DOCUMENTS)
        store.add_texts(TEXTS)
    store.save_local(folder := given.new())
    lc.ColBERTVectorStore.load_local(folder, given.encoder, show_progress=shown).add_documents(DOCUMENTS)


def retrieve(given, shown):
    lc.ColBERTRetriever.from_documents(DOCUMENTS, model=given.encoder, show_progress=shown).add_documents(DOCUMENTS)
    lc.ColBERTRetriever.from_texts(TEXTS, model=given.encoder, show_progress=shown)


def use_ragatouille(given, shown):
    rag = RAGPretrainedModel(given.encoder, None, given.new(), verbose=0 if shown is False else 1)
    rag.index(TEXTS, index_name="x", max_document_length=given.encoder.config.passage_length)
    rag.add_to_index(["cats purr"])
    rag.encode(TEXTS)
    rag.rerank("cat", TEXTS)
    rag.search("cat")
    rag.search_encoded_docs("cat")
    rag.as_langchain_retriever().add_documents(DOCUMENTS)
    rag.as_langchain_document_compressor().compress_documents(DOCUMENTS, "cat")


def scored():
    return [NodeWithScore(node=node) for node in nodes()]


# By package and class; ``shown`` is its ``show_progress``.
ADAPTERS = {
    "langchain_colbert.ColBERTContextCompressor": lambda given, shown: lc.ColBERTContextCompressor(
        model=given.encoder, show_progress=shown
    ).compress_documents(DOCUMENTS, "cat"),
    "langchain_colbert.ColBERTRerank": lambda given, shown: lc.ColBERTRerank(
        model=given.encoder, show_progress=shown
    ).compress_documents(DOCUMENTS, "cat"),
    "langchain_colbert.ColBERTRetriever": retrieve,
    "langchain_colbert.ColBERTVectorStore": fill_store,
    "langchain_colbert.ragatouille.RAGPretrainedModel": use_ragatouille,
    "llama_index_colbert.ColBERTIndex": use_index,
    "llama_index_colbert.ColBERTRerank": lambda given, shown: li.ColBERTRerank(
        model=given.encoder, show_progress=shown
    ).postprocess_nodes(scored(), query_str="cat"),
    "llama_index_colbert.ColBERTRetriever": retrieve_llama,
    "llama_index_colbert.ColBERTSentencePostprocessor": lambda given, shown: li.ColBERTSentencePostprocessor(
        model=given.encoder, show_progress=shown
    ).postprocess_nodes(scored(), query_str="cat"),
    "llama_index_colbert.ColBERTVectorStore": fill_llama_store,
}
WITHOUT_WORK = ["langchain_colbert.ColBERTTranslator"]
# Bars of LlamaIndex's indexes are shown where they are asked for, and this one does as they do.
ONLY_IF_ASKED = ["llama_index_colbert.ColBERTIndex"]
SLOW = ["run_pipeline"]
WORK = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in (CORE | ADAPTERS)]


@pytest.mark.parametrize("name", WORK)
def test_a_bar_is_shown_by_itself_and_none_where_none_is_wanted(name, given, terminal):
    work = (CORE | ADAPTERS)[name]
    stderr = terminal()
    work(given, True if name in ONLY_IF_ASKED else None)
    assert "/s]" in stderr.getvalue()
    stderr = terminal()
    work(given, False)
    assert stderr.getvalue() == ""


def test_loading_a_model_shows_nothing(stanford_folder, terminal, capfd):
    stderr = terminal()
    for folder in (None, stanford_folder):
        Encoder.from_pretrained(folder).encode_queries(["cat"])
    assert stderr.getvalue() == ""
    assert "".join(capfd.readouterr()) == ""


# That none is missing above


def public(module):
    """The public functions of a module, and the public methods of its public classes, by their names."""
    module = importlib.import_module(module)
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__ and name[0] != "_"
    ]
    for name in names:
        value = getattr(module, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            yield from ((f"{name}.{key}", method) for key, method in inspect.getmembers(value, callable) if key[0] != "_")


def test_all_of_the_core_that_shows_bars_is_tested_here():
    packages = ["colbert_core", "colbert_core.cluster", "colbert_core.evaluation", "colbert_core.train"]
    packages += [f"colbert_core.colbertv1.{name}" for name in ("encoded", "ivfpq", "mining", "pipeline")]
    found = set()
    for package in packages:
        for name, function in public(package):
            with contextlib.suppress(ValueError, TypeError):  # it has no signature, as methods of C
                if "progress" in inspect.signature(function).parameters:
                    found.add(name)
    assert found == {*CORE, *ON_A_CLUSTER, *PROTOCOLS}


def test_every_class_of_the_adapters_can_be_silenced_and_is_tested_here():
    classes = {
        f"{package.__name__}.{name}": value
        for package in (lc, li)
        for name in package.__all__
        if inspect.isclass(value := getattr(package, name)) and value.__name__ == name
    }
    for name in WITHOUT_WORK:
        del classes[name]
    assert {*classes, "langchain_colbert.ragatouille.RAGPretrainedModel"} == {*ADAPTERS}
    for name, value in classes.items():
        fields = {*getattr(value, "model_fields", {}), *inspect.signature(value.__init__).parameters}
        assert "show_progress" in fields, name
