"""``ColBERTVectorStore``: a LangChain vector store over an index of colbert_core."""

from __future__ import annotations

import os
import threading
import warnings
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import run_in_executor

from colbert_core import Collections, IndexNotFoundError, TokenEncoder, open_index, open_or_create
from langchain_colbert.documents import add_documents, delete_documents, to_document, to_documents, to_where
from langchain_colbert.searching import SearchableStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from langchain_core.documents import Document

    from colbert_core import IndexBase
    from langchain_colbert.documents import Filter

    Model = str | PathLike[str] | TokenEncoder


class ColBERTVectorStore(SearchableStore):
    """Store documents and search them by late interaction: one vector per word instead of one per document.

    Setup:
        Nothing beyond the package: no network, no GPU, no API key and no ``Embeddings``. Without a ``model``, the checkpoint
        that ships with the package encodes.

    Key init args:
        model: a checkpoint's name or folder, or a loaded encoder.
        persist_directory: folder of the index, made when documents are first added; None keeps everything in memory.
        collection_name: the collection of ``persist_directory`` that is meant, which then holds several.
        index: a ``colbert_core.Index`` or ``colbert_core.cluster.ShardedIndex``, instead of both.
        show_progress: False shows no bars.

    Instantiate:
        ```python
        from langchain_colbert import ColBERTVectorStore
        from langchain_core.documents import Document

        store = ColBERTVectorStore()  # persist_directory="wiki.idx" keeps it on disk
        ```

    Add Documents:
        ```python
        store.add_documents(
            [
                Document("Cats purr when they are content.", metadata={"legs": 4}, id="cats"),
                Document("Sparrows chirp at dawn.", metadata={"legs": 2}, id="sparrows"),
            ]
        )
        ```

    Update Documents:
        ```python
        store.add_documents([Document("Sparrows sing at dawn.", metadata={"legs": 2}, id="sparrows")])  # the same id
        print(len(store), store.get_by_ids(["sparrows"])[0].page_content)
        ```

        ```text
        2 Sparrows sing at dawn.
        ```

    Search:
        ```python
        print(store.similarity_search("What do happy pets do?", k=1)[0].page_content)
        ```

        ```text
        Cats purr when they are content.
        ```

    Search with filter:
        ```python
        print(store.similarity_search("happy pets", filter={"legs": {"$lt": 4}})[0].id)
        print(store.similarity_search("happy pets", filter=lambda document: document.metadata["legs"] == 2)[0].id)
        ```

        ```text
        sparrows
        sparrows
        ```

        The operators are those of ``colbert_core.storage.filters``. The filter acts before the search, so ``k`` documents are
        returned whenever ``k`` match.

    Search with score:
        ```python
        # MaxSim: a sum over the query's vectors
        document, score = store.similarity_search_with_score("cats purr", k=1, mode="maxsim")[0]
        document, relevance = store.similarity_search_with_relevance_scores("cats purr", k=1, score_threshold=0.5)[0]
        print(document.id, score > 1, 0.5 <= relevance <= 1)
        ```

        ```text
        cats True True
        ```

    Search by words too, the default, or by words alone:
        ```python
        store.add_texts(["Ticket ZX-4711 is about the heating."], ids=["ticket"])
        print(store.similarity_search("Who reported ZX-4711?", k=1)[0].id)  # mode="maxsim" for meanings alone
        print(store.as_retriever(search_type="words").invoke("zx-4711")[0].id)
        ```

        ```text
        ticket
        ticket
        ```

    Async:
        Every method that adds, deletes or searches has a twin with an ``a`` before its name, which runs off the event loop.

    Look without a query:
        ```python
        print(store.count(), store.count({"legs": 2}), [document.id for document in store.get(limit=2)])
        ```

        ```text
        3 1 ['cats', 'sparrows']
        ```

    Delete:
        ```python
        store.delete(ids=["cats", "ticket"])
        store.delete(filter={"legs": 2})
        print(len(store))
        ```

        ```text
        0
        ```

    Use as Retriever:
        ```python
        store.add_texts(["Cats purr when they are content.", "Sparrows sing at dawn."], ids=["cats", "sparrows"])
        retriever = store.as_retriever(k=1, score_threshold=0.45)
        print(retriever.invoke("happy pets")[0].id, len(retriever.invoke("happy pets", k=2)))
        diverse = store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "lambda_mult": 0.3})
        print(len(diverse.invoke("happy pets")))
        ```

        ```text
        cats 1
        2
        ```

    Metadata come back as they went in, with nothing added, in the form of ``colbert_core.plain_metadata``: dates as strings in
    ISO 8601, for example. Long documents are indexed in windows; with
    ``text="window"`` a search returns the part that matched instead of the whole. Threads may share one store.
    """

    show_progress: bool | None = None

    def __init__(
        self,
        model: Model | None = None,
        *,
        persist_directory: str | PathLike[str] | None = None,
        collection_name: str | None = None,
        index: IndexBase | None = None,
        show_progress: bool | None = None,
    ) -> None:
        """Open a store. It loads no model before the first use, and makes no folder before documents are added.

        Args:
            model: a checkpoint's name or folder, or a loaded encoder. None is the model with which an existing index was made,
                and the model in the box for a new one.
            persist_directory: folder of the index; None for an index in memory. Adding documents makes it if it is not there,
                and until then a search in it is an error: its name may be mistyped.
            collection_name: a collection in ``persist_directory``, which holds several then, such as one for each tenant: see
                ``colbert_core.Collections``. None is an index in the folder itself.
            index: the index to search, instead of both.
            show_progress: show bars; None shows them on a terminal or in a notebook once a second has passed. May be set later.

        Raises:
            ValueError: an index is given together with a model or a folder, or a collection without a folder.
            EncoderMismatchError: the index in the folder was made with another model.
        """
        if index is not None and not (model is None and persist_directory is None):
            raise ValueError("index= brings its own model and folder; leave out model= and persist_directory=.")
        if collection_name is not None:
            if persist_directory is None:
                raise ValueError(f"collection_name={collection_name!r} needs persist_directory=, the folder that it is in.")
            persist_directory = Collections(persist_directory).folder_of(collection_name)
        if model is not None and not isinstance(model, str | PathLike | TokenEncoder):
            raise TypeError(
                f"model is a ColBERT checkpoint's name or folder, or a loaded encoder, got {type(model).__name__}; "
                "no Embeddings are needed."
            )
        self._model, self.show_progress = model, show_progress
        # The working folder may change.
        self._path = None if persist_directory is None else Path(persist_directory).expanduser().absolute()
        self._index: IndexBase | None = index
        if self._path is not None and self._path.is_dir() and any(self._path.iterdir()):
            self._make()

    @property
    def index(self) -> IndexBase:
        """The index of the engine. One in memory is made at the first use, one in a folder when documents are first added.

        Raises:
            IndexNotFoundError: the folder is not there, and nothing was added.
        """
        if self._index is None:
            if self._path is not None and not self._path.exists():
                raise IndexNotFoundError(
                    f"There is no folder {self._path}, so there is nothing to search, get or delete; check its name, or add "
                    "documents, which makes it."
                )
            self._make()
        assert self._index is not None
        return self._index

    def _make(self) -> None:
        with _MAKING:
            if self._index is None:
                self._index = open_or_create(self._path, self._model)

    @property
    def embeddings(self) -> None:
        """None: a document has many vectors, and the index makes them."""
        return

    # Adding and deleting

    def add_documents(
        self, documents: Iterable[Document], *, ids: Iterable[str | None] | None = None, batch_size: int | None = None
    ) -> list[str]:
        """Add documents, replacing those whose id is known.

        Args:
            documents: the documents, as a list or as a stream of any length, of which some thousand are in memory at a time;
                the index copies them.
            ids: one id or None for each document, which beats the document's own. A document with neither gets a random id.
            batch_size: means nothing here, where LangChain's indexing API gives it; the engine cuts its own batches.

        Returns:
            The ids of the documents, in the order given.

        Raises:
            ValueError: there are more or fewer ids than documents, or an id stands twice.
            TypeError: metadata hold what an index cannot keep, such as bytes.
        """
        if self._index is None and self._path is not None:
            self._make()
        return add_documents(self.index, documents, ids, self.show_progress)

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str | None] | None = None,
        batch_size: int | None = None,
    ) -> list[str]:
        """``add_documents`` for texts, with their metadata and ids in lists or streams of the same length."""
        return self.add_documents(to_documents(texts, metadatas, ids), batch_size=batch_size)

    def delete(self, ids: list[str] | None = None, *, filter: Filter | None = None) -> bool:
        """Delete documents by ids, where unknown ones are no error, or by a filter; ``filter={}`` deletes all.

        Raises:
            ValueError: neither or both are given.
        """
        delete_documents(self.index, ids, filter)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents with these ids, in their order, without unknown ones."""
        return [to_document(passage) for passage in self.index.get(ids) if passage is not None]

    def get(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: Filter | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Document]:
        """Return documents without a query, in the order in which they were added, where a replaced one is last.

        Args:
            ids: only documents with these ids; unknown ones are no error. None is all.
            filter: only documents whose metadata match, as in ``similarity_search``. With ``ids``, those that are both.
            limit: most documents, at least 1; None for all, which are in memory together.
            offset: leave out so many of the first ones. ``store.index.passages`` has pages that stay right while others write.

        Raises:
            TypeError: ids is one string, or limit or offset is no whole number.
            ValueError: limit is below 1 or offset below 0, or a filter's operator is unknown.
        """
        if isinstance(offset, bool) or not isinstance(offset, int):
            raise TypeError(f"offset must be a whole number of documents, got {offset!r:.80}.")
        if offset < 0:
            raise ValueError(f"offset must be at least 0, got {offset}.")
        # One moment for both, so that nothing is seen twice; the index checks the limit.
        most = limit + offset if type(limit) is int and limit > 0 else limit
        return [to_document(passage) for passage in self.index.passages(to_where(filter), ids=ids, limit=most)[offset:]]

    def count(self, filter: Filter | None = None) -> int:
        """Return how many documents there are, or how many of them a filter matches."""
        return self.index.count(to_where(filter))

    async def aget(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: Filter | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Document]:
        """``get`` off the event loop."""
        return await run_in_executor(None, self.get, ids, filter=filter, limit=limit, offset=offset)

    async def acount(self, filter: Filter | None = None) -> int:
        """``count`` off the event loop."""
        return await run_in_executor(None, self.count, filter)

    def __len__(self) -> int:
        """Number of documents; 0 as well if the folder is not there yet."""
        return len(self.index) if self._index is not None or self._path is None or self._path.exists() else 0

    def __bool__(self) -> bool:
        """True, also while the store is empty."""
        return True

    # Making and keeping

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Any = None,
        metadatas: Sequence[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        model: Model | None = None,
        persist_directory: str | PathLike[str] | None = None,
        collection_name: str | None = None,
        show_progress: bool | None = None,
    ) -> ColBERTVectorStore:
        """Make a store of texts.

        Args:
            texts: one string per document, of any length.
            embedding: None; it is in LangChain's signature, and a ColBERT index needs none.
            metadatas: one dict per text.
            ids: one string per text; random ids by default.
            model: as in the constructor.
            persist_directory: as in the constructor.
            collection_name: as in the constructor.
            show_progress: as in the constructor.
        """
        options: dict[str, Any] = {"persist_directory": persist_directory, "collection_name": collection_name}
        options["show_progress"] = show_progress
        return cls.from_documents(to_documents(texts, metadatas, ids), embedding, model=model, **options)

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        embedding: Any = None,
        *,
        ids: Iterable[str | None] | None = None,
        model: Model | None = None,
        persist_directory: str | PathLike[str] | None = None,
        collection_name: str | None = None,
        show_progress: bool | None = None,
    ) -> ColBERTVectorStore:
        """Make a store of documents.

        Args:
            documents: the documents; the index copies them. Those without an id get a random one.
            embedding: None; it is in LangChain's signature, and a ColBERT index needs none.
            ids: one id or None for each document, which beats the document's own.
            model: as in the constructor.
            persist_directory: as in the constructor.
            collection_name: as in the constructor.
            show_progress: as in the constructor.
        """
        if embedding is not None:
            warnings.warn(
                f"{cls.__name__} encodes with its own model, one vector for each word; the embedding "
                f"{type(embedding).__name__} is not used. Leave it out, or name a ColBERT checkpoint with model=.",
                stacklevel=2,
            )
        store = cls(model, persist_directory=persist_directory, collection_name=collection_name, show_progress=show_progress)
        store.add_documents(documents, ids=ids)
        return store

    @classmethod
    async def afrom_texts(cls, *args: Any, **kwargs: Any) -> ColBERTVectorStore:
        """``from_texts`` off the event loop."""
        return await run_in_executor(None, cls.from_texts, *args, **kwargs)

    @classmethod
    async def afrom_documents(cls, *args: Any, **kwargs: Any) -> ColBERTVectorStore:
        """``from_documents`` off the event loop."""
        return await run_in_executor(None, cls.from_documents, *args, **kwargs)

    def save_local(self, folder_path: str | PathLike[str]) -> None:
        """Write the store to a folder, in one step. An index that is there is replaced.

        Raises:
            IndexExistsError: the folder holds something else.
        """
        self.index.save(folder_path, overwrite=True)

    @classmethod
    def load_local(
        cls, folder_path: str | PathLike[str], model: Model | None = None, *, show_progress: bool | None = None
    ) -> ColBERTVectorStore:
        """Open an index that ``save_local``, ``persist_directory``, the command line or LlamaIndex wrote. Changes go there.

        Args:
            folder_path: folder of the index.
            model: None for the model with which it was made, which is loaded at the first use.
            show_progress: as in the constructor.

        Raises:
            IndexNotFoundError: there is no index.
            EncoderMismatchError: the index was made with another model.
        """
        index: Any = open_index(Path(folder_path), model)
        return cls(index=index, show_progress=show_progress)

    def __repr__(self) -> str:
        return f"ColBERTVectorStore({self._index or self._path or 'in memory, not made yet'})"


# One lock for all: a lock inside the object would keep it from being copied and pickled.
_MAKING = threading.Lock()
if hasattr(os, "register_at_fork"):
    # A thread that is not in the child may have held it.
    os.register_at_fork(after_in_child=_MAKING._at_fork_reinit)  # type: ignore[attr-defined]
