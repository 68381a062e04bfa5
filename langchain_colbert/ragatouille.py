"""RAGatouille's interface over this package: change the import line, and a RAGatouille notebook runs.

    from langchain_colbert.ragatouille import RAGPretrainedModel, get_wikipedia_page

Methods, arguments and result keys are RAGatouille's, and scores are MaxSim sums. Arguments that steer its engine (``n_gpu``,
``bsize``, ``use_faiss``, ``force_fast``) are accepted and mean nothing here. Without ``verbose`` no progress bar is shown.
"""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbert_core import Encoder, Hit, Index, IndexExistsError, Passage, Reranker
from langchain_colbert.found import own_metadata
from langchain_colbert.rerank import ColBERTRerank
from langchain_colbert.retriever import ColBERTRetriever

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from os import PathLike

    Splitter = Callable[[list[str], list[str], int], list[dict[str, str]]]
    Preprocessing = Callable[[list[dict[str, str]]], list[dict[str, str]]]

# Neighbouring pieces of a document share so many tokens, as RAGatouille's do for pieces of 256 tokens.
_OVERLAP = 64
# Of the model's own tokens a query has fewer: [CLS], a marker, a prompt and [SEP].
_OWN_TOKENS = 16
# Metadata keys that say which document a piece is from.
_RESERVED = ("document_id", "passage_id")
_ADDING = threading.Lock()
if hasattr(os, "register_at_fork"):
    # A thread that is not in the child may have held it.
    os.register_at_fork(after_in_child=_ADDING._at_fork_reinit)  # type: ignore[attr-defined]


class RAGPretrainedModel:
    """A ColBERT model, an index on disk and documents in memory, under RAGatouille's names.

    Example:
        ```python
        from langchain_colbert.ragatouille import RAGPretrainedModel

        rag = RAGPretrainedModel.from_pretrained()  # "colbert-ir/colbertv2.0" where there is a network
        rag.index(["Cats purr when they are content.", "Rust is a language."], document_ids=["cats", "rust"], index_name="demo")
        for result in rag.search("happy pets", k=1):
            print(result["rank"], result["document_id"], result["content"])
        ```

        ```text
        1 cats Cats purr when they are content.
        ```
    """

    def __init__(self, encoder: Encoder | None, index: Index | None, folder: Path, verbose: int = 1) -> None:
        """Use ``from_pretrained`` or ``from_index``."""
        self._progress = None if verbose else False
        self._given = encoder
        self._index = index
        self._name: str | None = None
        self._folder = folder
        self._encoded: Index | None = None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str] | None = None,
        n_gpu: int = -1,
        verbose: int = 1,
        index_root: str | PathLike[str] | None = None,
    ) -> RAGPretrainedModel:
        """Load a model.

        Args:
            pretrained_model_name_or_path: a checkpoint's name or folder; None for the model in the box.
            n_gpu: means nothing here; the best device present is used.
            verbose: 0 shows no progress bars; otherwise long work shows one on a terminal or in a notebook.
            index_root: folder for indexes, which lie in ``index_root/colbert/indexes``; None for ".ragatouille".

        Raises:
            CheckpointNotFoundError: there is no such checkpoint, or no network to fetch it by.
        """
        return cls(
            Encoder.from_pretrained(pretrained_model_name_or_path),
            None,
            Path(index_root or ".ragatouille").expanduser() / "colbert" / "indexes",
            verbose,
        )

    @classmethod
    def from_index(cls, index_path: str | PathLike[str], n_gpu: int = -1, verbose: int = 1) -> RAGPretrainedModel:
        """Open an index of this package with its model. For one of RAGatouille, use ``colbert import OLD --out NEW`` first.

        Raises:
            IndexNotFoundError: there is no index.
        """
        path = Path(index_path).expanduser()
        opened = cls(None, Index.open(path), path.parent, verbose)
        opened._name = path.name
        return opened

    def index(
        self,
        collection: Sequence[str],
        document_ids: Sequence[str] | None = None,
        document_metadatas: Sequence[dict[str, Any] | None] | None = None,
        index_name: str | None = None,
        overwrite_index: bool | str = True,
        max_document_length: int = 256,
        split_documents: bool = True,
        document_splitter_fn: Splitter | None = None,
        preprocessing_fn: Preprocessing | list[Preprocessing] | None = None,
        bsize: int = 32,
        use_faiss: bool = False,
    ) -> str:
        """Make an index of documents, in one step: the old one stays until the new one is complete.

        Args:
            collection: texts of the documents.
            document_ids: one id for each document, all different; random ids by default.
            document_metadatas: one dict for each document.
            index_name: name of the index, and of its folder.
            overwrite_index: replace an index of this name. RAGatouille's "force_silent_overwrite" does the same, since
                nothing waits here.
            max_document_length: most tokens of a piece, the model's own included.
            split_documents: cut documents into pieces. A whole document is found as well, by its best window.
            document_splitter_fn: replaces the model's own splitter: takes texts, ids and a length, and returns dicts with
                ``document_id`` and ``content``.
            preprocessing_fn: one function or several, each of which takes such dicts and returns others.
            bsize: means nothing here.
            use_faiss: means nothing here.

        Returns:
            The folder of the index.

        Raises:
            ValueError: there are no documents, the lists differ in length, an id stands twice, or metadata have a key that is
                reserved for pieces.
            IndexExistsError: the folder holds something else, or an index that must not be replaced.
        """
        encoder = self._encoder
        if encoder.config.passage_length != max_document_length:
            encoder = Encoder.from_pretrained(
                None if encoder.name == "default" else encoder.name, passage_length=max_document_length
            )
        index_name = index_name or f"{Path(encoder.name).name}_new_index"
        path = self._path(index_name)
        if path.exists() and not overwrite_index:
            raise IndexExistsError(f"{path} exists already; name another index, or pass overwrite_index=True.")
        # Index in memory first: if the collection cannot be indexed, the index that is there stays.
        made = Index.create(None, encoder, nbits=4)
        splitter = (document_splitter_fn or _make_splitter(encoder)) if split_documents else _keep_whole
        documents = _check_documents(collection, document_ids, document_metadatas)
        if not documents:
            raise ValueError(f"There are no documents to index, so {path} stays as it is; give at least one.")
        made.add(_to_passages(made, documents, splitter, preprocessing_fn), progress=self._progress)
        made.save(path, overwrite=True)
        self._index, self._name = Index.open(path, encoder), index_name
        return str(path)

    def add_to_index(
        self,
        new_collection: Sequence[str],
        new_document_ids: Sequence[str] | None = None,
        new_document_metadatas: Sequence[dict[str, Any] | None] | None = None,
        index_name: str | None = None,
        split_documents: bool = True,
        document_splitter_fn: Splitter | None = None,
        preprocessing_fn: Preprocessing | list[Preprocessing] | None = None,
        bsize: int = 32,
        use_faiss: bool = False,
    ) -> None:
        """Add documents; one whose id is known replaces the old one.

        Args:
            new_collection: texts of the documents.
            new_document_ids: one id for each document, all different; random ids by default.
            new_document_metadatas: one dict for each document.
            index_name: another index than the current one.
            split_documents: as in ``index``.
            document_splitter_fn: as in ``index``.
            preprocessing_fn: as in ``index``.
            bsize: means nothing here.
            use_faiss: means nothing here.
        """
        index = self._named(index_name)
        documents = _check_documents(new_collection, new_document_ids, new_document_metadatas)
        splitter = (document_splitter_fn or _make_splitter(index.encoder)) if split_documents else _keep_whole
        with _ADDING:  # one thread at a time, so that each number is given once
            passages = _to_passages(index, documents, splitter, preprocessing_fn)
            before = _piece_ids(index, documents)
            added = set(index.add(passages, progress=self._progress))
            index.delete([passage_id for passage_id in before if passage_id not in added])

    def delete_from_index(self, document_ids: str | Sequence[str], index_name: str | None = None) -> None:
        """Delete documents with all their pieces; unknown ids are no error."""
        index = self._named(index_name)
        index.delete(_piece_ids(index, [document_ids] if isinstance(document_ids, str) else document_ids))

    def search(
        self,
        query: str | Sequence[str],
        index_name: str | None = None,
        k: int = 10,
        force_fast: bool = False,
        zero_index_ranks: bool = False,
        doc_ids: Sequence[str] | None = None,
    ) -> Any:
        """Search the index.

        Args:
            query: one query, or a list.
            index_name: another index than the current one.
            k: most results.
            force_fast: means nothing here.
            zero_index_ranks: count ranks from 0.
            doc_ids: search only these documents.

        Returns:
            Dicts with ``content``, ``score`` (MaxSim), ``rank``, ``document_id``, ``passage_id`` and, for a document with
            metadata, ``document_metadata``; a list of such lists for several queries.

        Raises:
            ValueError: no index was made or opened, or a query is blank.
        """
        index = self._named(index_name)
        ids = None if doc_ids is None else _piece_ids(index, [doc_ids] if isinstance(doc_ids, str) else doc_ids)
        queries = [query] if isinstance(query, str) else list(query)
        hits_by_query = index.search_many(_readable(index.encoder, queries), k, ids=ids, mode="maxsim")
        results = [[_to_result(hit, zero_index_ranks) for hit in hits] for hits in hits_by_query]
        return results[0] if len(results) == 1 else results

    def rerank(
        self,
        query: str | Sequence[str],
        documents: Sequence[str],
        k: int = 10,
        zero_index_ranks: bool = False,
        bsize: int | str = "auto",
    ) -> Any:
        """Order texts by how well they answer a query.

        Returns:
            Dicts with ``content``, ``score`` (MaxSim), ``rank`` and ``result_index``, the place in ``documents``; a list of
            such lists for several queries.
        """
        queries = [query] if isinstance(query, str) else list(query)
        passages = [Passage(str(place), text) for place, text in enumerate(_texts(documents))]
        results = [
            [
                _to_numbered_result(hit, zero_index_ranks)
                for hit in Reranker(_reading(self._encoder, text)).rank(text, passages, k, progress=self._progress)
            ]
            for text in queries
        ]
        return results[0] if len(results) == 1 else results

    def encode(
        self,
        documents: Sequence[str],
        bsize: int | str = "auto",
        document_metadatas: Sequence[dict[str, Any] | None] | None = None,
        verbose: bool = True,
        max_document_length: int | str = "auto",
    ) -> None:
        """Encode documents in memory, after those encoded before, for ``search_encoded_docs``. Long ones are not cut.

        Without ``verbose`` no progress bar is shown.
        """
        texts = _texts(documents)
        metadatas = _as_many(document_metadatas, texts, "document_metadatas") or [None] * len(texts)
        if self._encoded is None:
            self._encoded = Index.create(None, self._encoder)
        first = len(self._encoded)
        self._encoded.add(
            [
                Passage(str(first + place), text, own_metadata(metadata or {}))
                for place, (text, metadata) in enumerate(zip(texts, metadatas, strict=True))
            ],
            progress=self._progress if verbose else False,
        )

    def search_encoded_docs(self, query: str | Sequence[str], k: int = 10, bsize: int = 32) -> Any:
        """Search the documents that ``encode`` was given.

        Returns:
            Dicts with ``content``, ``score`` (MaxSim), ``rank``, ``result_index`` (the place among all encoded documents)
            and, for a document with metadata, ``document_metadata``; a list of such lists for several queries.

        Raises:
            ValueError: nothing was encoded.
        """
        if self._encoded is None:
            raise ValueError("There are no encoded documents to search; call encode(documents) first.")
        queries = [query] if isinstance(query, str) else list(query)
        hits_by_query = self._encoded.search_many(_readable(self._encoded.encoder, queries), k, mode="maxsim")
        results = [[_to_numbered_result(hit, zero_index_ranks=False) for hit in hits] for hits in hits_by_query]
        return results[0] if len(results) == 1 else results

    def clear_encoded_docs(self, force: bool = False) -> None:
        """Forget the documents that ``encode`` was given, at once; ``force`` means nothing here."""
        self._encoded = None

    def as_langchain_retriever(
        self, k: int = 10, index_name: str | None = None, doc_ids: Sequence[str] | None = None, **fields: Any
    ) -> ColBERTRetriever:
        """Make a LangChain retriever of the index. Documents have the user's metadata, ``document_id`` and scores.

        Args:
            k: documents to return.
            index_name: another index than the current one.
            doc_ids: search only these documents.
            fields: of ``ColBERTRetriever``, such as ``filter``; ``mode`` is "maxsim" unless given, and ``show_progress`` is
                False where ``verbose`` is 0.
        """
        if doc_ids is not None:
            if "filter" in fields:
                raise ValueError("doc_ids are a filter; give one of the two.")
            fields["filter"] = {"document_id": {"$in": [doc_ids] if isinstance(doc_ids, str) else list(doc_ids)}}
        defaults = {"show_progress": self._progress, "mode": "maxsim"}  # scores are MaxSim sums, whatever our default is
        return ColBERTRetriever(index=self._named(index_name), k=k, **(defaults | fields))

    def as_langchain_document_compressor(self, k: int = 5, **fields: Any) -> ColBERTRerank:
        """Make a LangChain document compressor of the model; ``relevance_score`` is from 0 to 1.

        Args:
            k: documents to keep.
            fields: of ``ColBERTRerank``, such as ``score_threshold``; ``show_progress`` is False where ``verbose`` is 0.
        """
        return ColBERTRerank(model=self._encoder, top_n=k, **({"show_progress": self._progress} | fields))

    @property
    def _encoder(self) -> Encoder:
        encoder: Any = self._given if self._index is None else self._index.encoder
        return encoder  # type: ignore[no-any-return]

    def _named(self, index_name: str | None) -> Index:
        """Return the current index; if another name is given, open that index first, which is the current one from then on."""
        if index_name is not None and index_name != self._name:
            self._index, self._name = Index.open(self._path(index_name)), index_name
        if self._index is None:
            raise ValueError("There is no index yet; call index(collection=[...]) first, or use from_index.")
        return self._index

    def _path(self, index_name: str) -> Path:
        if index_name != Path(index_name).name:
            raise ValueError(f"index_name is the name of a folder in {self._folder}, without a path; got {index_name!r}.")
        return self._folder / index_name


def get_wikipedia_page(title: str) -> str:
    """Fetch the plain text of a page of the English Wikipedia.

    Raises:
        ConnectionError: the page cannot be fetched.
        ValueError: there is no such page.
    """
    parameters = {
        "action": "query",
        "format": "json",
        "titles": title,
        "prop": "extracts",
        "explaintext": "1",
        "redirects": "1",
    }
    url = f"https://en.wikipedia.org/w/api.php?{urllib.parse.urlencode(parameters)}"
    request = urllib.request.Request(url, headers={"User-Agent": "colbert-retrievers"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            pages = json.load(answer)["query"]["pages"]
    except (OSError, ValueError, KeyError) as error:
        raise ConnectionError(
            f"The Wikipedia page {title!r} could not be fetched ({error}); without a network, read your text from a file."
        ) from error
    text = next(iter(pages.values())).get("extract")
    if not text:
        raise ValueError(f"Wikipedia has no page {title!r}; use its exact title.")
    return str(text)


def _reading(encoder: Any, query: str) -> Any:
    """Return the encoder, or for a query that it would cut one that reads it, as RAGatouille does since 0.0.7."""
    if not isinstance(encoder, Encoder):
        return encoder
    spans, n_tokens = encoder.query_spans(query), encoder.count_tokens(query)
    is_cut = n_tokens > int((spans[:, 1] > spans[:, 0]).sum())
    return encoder.with_query_length(n_tokens + _OWN_TOKENS) if is_cut else encoder


def _readable(encoder: Any, queries: list[str]) -> list[Any]:
    """Return the queries, with the vectors of each that the encoder would cut in its place."""
    readers = [_reading(encoder, query) for query in queries]
    return [
        query if reader is encoder else reader.encode_queries([query])[0]
        for query, reader in zip(queries, readers, strict=True)
    ]


def _check_documents(
    collection: Sequence[str],
    document_ids: Sequence[str] | None,
    document_metadatas: Sequence[dict[str, Any] | None] | None,
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the text and the metadata of each document by its id."""
    texts = _texts(collection)
    names = _as_many(document_ids, texts, "document_ids") or [str(uuid.uuid4()) for _ in texts]
    metadatas = _as_many(document_metadatas, texts, "document_metadatas") or [None] * len(texts)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{len(twice)} document_ids stand more than once, among them {twice[0]!r}; give each its own.")
    for name, metadata in zip(names, metadatas, strict=True):
        if taken := [key for key in _RESERVED if key in (metadata or {})]:
            raise ValueError(f"Metadata of document {name!r} may not have the key {taken[0]!r}, which tells of its pieces.")
    return {name: (text, own_metadata(metadata or {})) for name, text, metadata in zip(names, texts, metadatas, strict=True)}


def _make_splitter(encoder: Any) -> Splitter:
    """Make a splitter that counts the model's own tokens and cuts at headings, paragraphs and sentences."""
    overlap = min(_OVERLAP, encoder.config.passage_length // 4)

    def split(documents: list[str], document_ids: list[str], chunk_size: int | None = None) -> list[dict[str, str]]:
        return [
            {"document_id": name, "content": piece.text}
            for name, text in zip(document_ids, documents, strict=True)
            for piece in encoder.split(text, name, overlap=overlap) or [Passage(name, text)]
        ]

    return split


def _keep_whole(documents: list[str], document_ids: list[str], chunk_size: int | None = None) -> list[dict[str, str]]:
    return [{"document_id": name, "content": text} for name, text in zip(document_ids, documents, strict=True)]


def _to_passages(
    index: Index,
    documents: dict[str, tuple[str, dict[str, Any]]],
    splitter: Splitter,
    preprocessing: Preprocessing | list[Preprocessing] | None,
) -> list[Passage]:
    """Split documents into passages.

    The pieces of a document are named ``ID#1`` and so on; a document of one piece keeps its id. ``passage_id`` numbers them,
    after those of the index.
    """
    encoder: Any = index.encoder
    pieces = splitter([text for text, _ in documents.values()], list(documents), encoder.config.passage_length)
    for step in preprocessing if isinstance(preprocessing, list) else [preprocessing] if preprocessing else []:
        pieces = step(pieces)
    last = [passage.metadata.get("passage_id", -1) for passage in index.get(index.ids()[-1:]) if passage]
    counts, seen = Counter(piece["document_id"] for piece in pieces), Counter[str]()
    plain_names = []
    for piece in pieces:
        document = piece["document_id"]
        seen[document] += 1
        plain_names.append(document if counts[document] == 1 else f"{document}#{seen[document]}")
    known = index.get(plain_names)
    names: set[str] = set()
    passages = []
    first = 1 + max([len(index) - 1, *last])
    for number, (piece, name, old) in enumerate(zip(pieces, plain_names, known, strict=True), first):
        document = piece["document_id"]
        while name in names or (name != document and name in documents) or _is_of_another(old, document):
            name += "#"  # another document, or a piece of one, has this name
            (old,) = index.get([name])
        names.add(name)
        metadata = {**documents[document][1], "document_id": document, "passage_id": number}
        passages.append(Passage(name, piece["content"], metadata))
    return passages


def _is_of_another(passage: Passage | None, document: str) -> bool:
    return passage is not None and passage.metadata.get("document_id", passage.id) != document


def _piece_ids(index: Index, document_ids: Iterable[str]) -> list[str]:
    """Return the ids of the passages of these documents; one that was never cut has the document's own id."""
    names = list(document_ids)
    piece_ids = [passage.id for passage in index.get(names) if passage and not _is_of_another(passage, passage.id)]
    for start in range(0, len(names), 10_000):
        test = {"$exists": True, "$in": names[start : start + 10_000]}  # perhaps none was cut: no warning
        piece_ids += index.ids({"document_id": test})
    return list(dict.fromkeys(piece_ids))


def _to_result(hit: Hit, zero_index_ranks: bool) -> dict[str, Any]:
    known = hit.passage.metadata
    metadata = {key: value for key, value in known.items() if key not in _RESERVED}
    return {
        "content": hit.passage.text,
        "score": hit.score,
        "rank": hit.rank - zero_index_ranks,
        "document_id": known.get("document_id", hit.passage.id),
        "passage_id": known.get("passage_id", hit.passage.id),
        **({"document_metadata": metadata} if metadata else {}),
    }


def _to_numbered_result(hit: Hit, zero_index_ranks: bool) -> dict[str, Any]:
    return {
        "content": hit.passage.text,
        "score": hit.score,
        "rank": hit.rank - zero_index_ranks,
        "result_index": int(hit.passage.id),
        **({"document_metadata": hit.passage.metadata} if hit.passage.metadata else {}),
    }


def _texts(collection: Sequence[str]) -> list[str]:
    if isinstance(collection, str):
        raise TypeError("The documents must be a list of strings, got one str; write [text].")
    return list(collection)


def _as_many(values: Sequence[Any] | None, texts: Sequence[str], name: str) -> list[Any] | None:
    if isinstance(values, str | dict):
        raise TypeError(f"{name} must be a list with one for each document, got one {type(values).__name__}; write [value].")
    if values is not None and len(values) != len(texts):
        raise ValueError(f"There are {len(texts)} documents but {len(values)} {name}; give one for each.")
    return None if values is None else list(values)
