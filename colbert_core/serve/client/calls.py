"""What can be asked of a service: each as a request and how to read its answer. Nothing is sent here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlencode

import numpy as np

from colbert_core.checks import check_count, check_relevance, check_similarity, id_list
from colbert_core.metadata import plain_metadata
from colbert_core.search.lexical import by_words
from colbert_core.serve.client import reading
from colbert_core.serve.where import where_as_json
from colbert_core.types import Hit, Passage, check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from colbert_core.evidence.evidence import Evidence
    from colbert_core.index.reports import IndexStats, MetadataField
    from colbert_core.types import Page, Query, TokenEmbeddings

T = TypeVar("T")

# Passages, and fields, of one request for a page.
PAGE = 100
# Ids of one request for passages.
MOST_IDS = 1000


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and how to read its answer.

    Attributes:
        method: of HTTP.
        path: from the root of the service if it begins with a slash, else below the index.
        read: makes a value of the answer's JSON.
        body: JSON; None for none.
        again: whether it may be sent once more when nobody knows whether it arrived: the outcome is the same.
    """

    method: str
    path: str
    read: Callable[[dict[str, Any]], T]
    body: bytes | None = None
    again: bool = True


def names() -> Call[list[str]]:
    """Which indexes there are."""
    return Call("GET", "/v1/indexes", lambda answer: [each["name"] for each in answer["indexes"]])


def about() -> Call[dict[str, Any]]:
    """What an index is, with its figures."""
    return Call("GET", "", dict)


def stats() -> Call[IndexStats]:
    """The figures of an index."""
    return Call("GET", "", reading.stats)


def has_words() -> Call[bool]:
    """Whether an index can be searched by words."""
    return Call("GET", "", lambda answer: bool(answer["has_words"]))


def search(query: Query, k: int, *, evidence: bool, **options: Any) -> Call[list[Hit]]:
    """``Index.search``."""
    body = {"query": _query(query, evidence), **_ranking([query], k, **options), **_full(evidence)}
    return _post("search", body, reading.hits)


def search_many(queries: Iterable[Query], k: int, *, evidence: bool, **options: Any) -> Call[list[list[Hit]]]:
    """``Index.search_many``."""
    listed = _query_list(queries)
    body = {
        "queries": [_query(query, evidence) for query in listed],
        **_ranking(listed, k, **options),
        **_full(evidence),
    }
    return _post("search_many", body, reading.hits_of_each)


def search_mean(queries: Iterable[Query], k: int, **options: Any) -> Call[list[Hit]]:
    """``Index.search_mean``."""
    listed = _query_list(queries)
    body = {"queries": [_query(query) for query in listed], **_ranking(listed, k, **options)}
    return _post("search_mean", body, reading.hits)


def explain(query: str, passage: str | Passage | Hit, *, min_similarity: float | None = None, mode: str) -> Call[Evidence]:
    """``Index.explain``."""
    if not isinstance(query, str):
        raise TypeError(f"explain needs the words of the query, got a {type(query).__name__}.")
    passage = passage.passage if isinstance(passage, Hit) else passage
    if not isinstance(passage, str | Passage):
        raise TypeError(f"passage must be an id, a Passage or a Hit, got {passage!r:.80}.")
    by_words(mode, None, [query])
    body = {
        "query": check_text(query, "query"),
        "id": passage if isinstance(passage, str) else passage.id,
        "mode": mode,
        "min_similarity": None if min_similarity is None else check_similarity(min_similarity),
        "full": True,
    }
    return _post("explain", body, reading.evidence)


def get(ids: Sequence[str]) -> Call[list[Passage | None]]:
    """``Index.get``, for at most ``MOST_IDS``."""
    return _post("passages/get", {"ids": list(ids)}, reading.passages)


def passages(where: Any, ids: Iterable[str] | None, limit: int | None, after: str | None) -> Call[Page[Passage]]:
    """``Index.passages``; a page of some if there is no limit."""
    body = {
        "where": where_as_json(where),
        "ids": None if ids is None else id_list(ids),
        "limit": PAGE if limit is None else check_count(limit, "limit"),
        "after": None if after is None else check_text(after, "after"),
    }
    return _post("passages/list", body, reading.page_of_passages)


def count(where: Any) -> Call[int]:
    """``Index.count``."""
    return _post("count", {"where": where_as_json(where)}, lambda answer: int(answer["count"]))


def fields(limit: int, after: str | None) -> Call[Page[MetadataField]]:
    """``Index.fields``."""
    asked = {"limit": str(check_count(limit, "limit", "fields"))}
    asked |= {} if after is None else {"after": check_text(after, "after")}
    return Call("GET", f"fields?{urlencode(asked)}", reading.page_of_fields)


def add(body: bytes) -> Call[list[str]]:
    """``Index.add`` of what fits into one request; passages that are there already are replaced by themselves."""
    return Call("POST", "passages", lambda answer: list(answer["ids"]), body)


def delete(ids: Iterable[str]) -> Call[int]:
    """``Index.delete``."""
    return _post("passages/delete", {"ids": id_list(ids)}, lambda answer: int(answer["deleted"]), again=False)


def delete_where(where: Any) -> Call[int]:
    """``Index.delete_where``."""
    if where is None:
        raise TypeError("A filter is a dict such as {'year': 2024}, got NoneType: None; {} deletes all passages.")
    return _post("passages/delete", {"where": where_as_json(where)}, lambda answer: int(answer["deleted"]), again=False)


def update_metadata(metadata: Mapping[str, Any], *, where: Any, ids: Iterable[str] | None, remove: Iterable[str]) -> Call[int]:
    """``Index.update_metadata``; the service checks the rest."""
    if where is None and ids is None:
        raise TypeError("update_metadata takes where={...} or ids=[...], to say of which passages; where={} is all of them.")
    if isinstance(remove, str):
        raise TypeError(f"remove must be a list of keys, got one str; write [{remove!r}].")
    body = {
        "metadata": plain_metadata(metadata, "The metadata"),
        "where": where_as_json(where),
        "ids": None if ids is None else id_list(ids),
        "remove": [check_text(key, "A key to remove") for key in remove],
    }
    call = _post("passages", body, lambda answer: int(answer["changed"]), again=False)
    return Call("PATCH", call.path, call.read, call.body, call.again)


def encode_queries(texts: Sequence[str], index: str) -> Call[list[NDArray[np.float32]]]:
    """``TokenEncoder.encode_queries`` of the index's encoder."""
    body = {"texts": list(texts), "kind": "query", "index": index}
    return _post("/v1/encode", body, lambda answer: [np.array(matrix, np.float32) for matrix in answer["vectors"]])


def query_spans(text: str, index: str) -> Call[NDArray[np.int32]]:
    """``Encoder.query_spans`` of the index's encoder."""
    body = {"texts": [text], "kind": "query", "index": index, "windows": True}
    return _post("/v1/encode", body, lambda answer: np.array(answer["spans"][0], np.int32).reshape(-1, 2))


def encode_passages(texts: Sequence[str], index: str, dim: int) -> Call[TokenEmbeddings]:
    """``TokenEncoder.encode_passages`` of the index's encoder."""
    body = {"texts": list(texts), "kind": "passage", "index": index, "windows": True}
    return _post("/v1/encode", body, lambda answer: reading.embeddings(answer, dim))


def _post(path: str, body: dict[str, Any], read: Callable[[dict[str, Any]], T], *, again: bool = True) -> Call[T]:
    return Call("POST", path, read, json.dumps(body, ensure_ascii=False, allow_nan=False).encode(), again)


def _ranking(
    queries: list[Query],
    k: int,
    *,
    where: Any,
    ids: Iterable[str] | None,
    min_relevance: float | None,
    mode: str,
    weight: float | None,
) -> dict[str, Any]:
    """What every search takes. Mistakes are found here, with the errors of the engine."""
    by_words(mode, weight, queries)
    return {
        "k": check_count(k, "k"),
        "where": where_as_json(where),
        "ids": None if ids is None else id_list(ids),
        "min_relevance": check_relevance(min_relevance, "min_relevance"),
        "mode": mode,
        "weight": None if weight is None else float(weight),
    }


def _full(evidence: bool) -> dict[str, Any]:
    return {"evidence": "full"} if evidence else {}


def _query_list(queries: Iterable[Query]) -> list[Query]:
    if isinstance(queries, str) or hasattr(queries, "__array__"):
        raise TypeError(f"queries must be a list, got one {type(queries).__name__}; use search for a single query.")
    return list(queries)


def _query(query: Query, evidence: bool = False) -> str | list[list[float]]:
    """A query as JSON: a text, or the rows of its matrix.

    Raises:
        TypeError: it is neither, or no text where evidence is wanted.
        ValueError: it has a lone surrogate, or a component that is not finite.
    """
    if isinstance(query, str):
        return check_text(query, "The query")
    if evidence:
        raise TypeError(f"evidence needs the words of each query, got a {type(query).__name__}; search by text for it.")
    if not isinstance(query, list | tuple) and not hasattr(query, "__array__"):
        raise TypeError(
            f"The query must be a str, or vectors as a NumPy array or a PyTorch tensor, got {type(query).__name__}: "
            f"{query!r:.40}."
        )
    try:
        values = query.detach().cpu().float() if hasattr(query, "detach") else query
        matrix = np.asarray(values, np.float32)
    except (ValueError, TypeError) as error:
        raise ValueError(f"The query's vectors must be real numbers of shape (n, dim): {error}.") from None
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(f"The query's vectors must be finite numbers of shape (n, dim), got the shape {matrix.shape}.")
    rows: list[list[float]] = matrix.tolist()
    return rows
