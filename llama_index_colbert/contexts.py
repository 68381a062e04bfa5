"""Let a ``StorageContext`` persist a ``ColBERTIndex``, and ``load_index_from_storage`` give it back.

LlamaIndex knows the class of an index by the type of its struct, and writes each vector store of a context into a file. The
index stands among them, and its file says where the index itself is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.data_structs.data_structs import IndexDict
from llama_index.core.data_structs.registry import INDEX_STRUCT_TYPE_TO_INDEX_STRUCT_CLASS
from llama_index.core.indices.registry import INDEX_STRUCT_TYPE_TO_INDEX_CLASS
from llama_index.core.vector_stores import SimpleVectorStore

from colbert_core import Index, IndexNotFoundError
from llama_index_colbert.store import ColBERTVectorStore

if TYPE_CHECKING:
    from llama_index.core.indices.base import BaseIndex
    from llama_index.core.storage.storage_context import StorageContext

_TYPE: Any = "llama_index_colbert"  # where the package was not imported, LlamaIndex's KeyError names it
_KEY = "ColBERTIndex"


class ColBERTStruct(IndexDict):
    """The identity of a ``ColBERTIndex``."""

    @classmethod
    def get_type(cls) -> Any:
        """The name by which LlamaIndex finds the class of the index."""
        return _TYPE


class _OfIndex(ColBERTVectorStore):
    """An index among the vector stores of a context."""

    struct: Any = Field(exclude=True)

    def persist(self, persist_path: str | Path, fs: Any = None) -> None:
        super().persist(persist_path, fs)
        path = Path(persist_path).resolve()
        about = {"index_id": self.struct.index_id, "folder": str(path.with_suffix(".idx"))}
        SimpleVectorStore.from_dict({"metadata_dict": {_KEY: about}}).persist(str(path))


def register(index_class: type[BaseIndex[Any]]) -> None:
    """Tell LlamaIndex which class a struct of ours belongs to."""
    INDEX_STRUCT_TYPE_TO_INDEX_STRUCT_CLASS[_TYPE] = ColBERTStruct
    INDEX_STRUCT_TYPE_TO_INDEX_CLASS[_TYPE] = index_class


def attach(index: Index, struct: IndexDict, context: StorageContext) -> None:
    """Put an index among the vector stores of a context, in the place that it had when it was persisted."""
    name = next(iter(_persisted(struct, context)), f"colbert_{struct.index_id}")
    context.add_vector_store(_OfIndex(index=index, struct=struct), name)  # type: ignore[call-arg]


def folder_in(context: StorageContext | None, struct: IndexDict) -> Path:
    """Return the folder of the index that was persisted with a context.

    Raises:
        IndexNotFoundError: it is not there.
        ValueError: the context has no such index.
    """
    folders = [] if context is None else list(_persisted(struct, context).values())
    if not folders:
        raise ValueError(
            "index_struct needs index_path=..., the folder of its index. This storage context has none that belongs to it: "
            "write a ColBERTIndex with index.persist(directory), and open it with ColBERTIndex.load(directory)."
        )
    if not folders[0].is_dir():
        raise IndexNotFoundError(
            f"{folders[0]} is missing. If its directory was moved, open it with "
            f"ColBERTIndex.load(directory, {folders[0].stem!r})."
        )
    return folders[0]


def _persisted(struct: IndexDict, context: StorageContext) -> dict[str, Path]:
    """The folders of an index that was loaded with a context, by their namespaces."""
    found = {}
    for name, store in context.vector_stores.items():
        about = store.data.metadata_dict.get(_KEY, {}) if isinstance(store, SimpleVectorStore) else {}
        if about.get("index_id") == struct.index_id:
            found[name] = Path(about["folder"])
    return found
