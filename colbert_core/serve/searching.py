"""Routes that search: questions in, hits, evidence and excerpts out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from colbert_core.rerank import Reranker
from colbert_core.search.explain import query_spans
from colbert_core.serve.catalogue import mode_of
from colbert_core.serve.requests import (
    EncodeRequest,
    ExcerptsRequest,
    ExplainRequest,
    SearchManyRequest,
    SearchMeanRequest,
    SearchRequest,
)
from colbert_core.serve.service import Served, warnings_of
from colbert_core.values import hit_as_json, passage_as_json
from colbert_core.vectors.embeddings import of_owner, token_ends

if TYPE_CHECKING:
    from colbert_core.cluster import ShardedIndex
    from colbert_core.index.index import Index
    from colbert_core.types import Hit, Passage, TokenEmbeddings, TokenEncoder

    AnyIndex = Index | ShardedIndex

router = APIRouter(prefix="/v1", tags=["search"])


@router.post("/indexes/{name}/search")
async def search(name: str, body: SearchRequest, service: Served) -> JSONResponse:
    """Find the passages that match a question best. Answers ``{"hits": [...]}``, best first.

    Where nothing is found and the filter asks for what no passage has, ``"warnings"`` says so.
    """
    service.limits.check_queries([body.query])
    service.limits.check_k(body.k)

    def find(index: AnyIndex) -> dict[str, Any]:
        hits = index.search(body.query, evidence=bool(body.evidence), **_options(index, body))
        return {"hits": _as_json(hits, full=body.evidence == "full"), **warnings_of(index, body.where, bool(hits))}

    return JSONResponse(await service.read(name, find))


@router.post("/indexes/{name}/search_many")
async def search_many(name: str, body: SearchManyRequest, service: Served) -> JSONResponse:
    """Search for several questions over one state of the index. Answers ``{"results": [{"hits": [...]}, ...]}``."""
    service.limits.check_queries(body.queries)
    service.limits.check_k(body.k)

    def find(index: AnyIndex) -> dict[str, Any]:
        each = index.search_many(body.queries, evidence=bool(body.evidence), **_options(index, body))
        results = [{"hits": _as_json(hits, full=body.evidence == "full")} for hits in each]
        return {"results": results, **warnings_of(index, body.where, any(each))}

    return JSONResponse(await service.read(name, find))


@router.post("/indexes/{name}/search_mean")
async def search_mean(name: str, body: SearchMeanRequest, service: Served) -> JSONResponse:
    """Find the passages that match several questions best on average. Answers as ``search`` does."""
    service.limits.check_queries(body.queries)
    service.limits.check_k(body.k)

    def find(index: AnyIndex) -> dict[str, Any]:
        hits = index.search_mean(body.queries, **_options(index, body))
        return {"hits": _as_json(hits), **warnings_of(index, body.where, bool(hits))}

    return JSONResponse(await service.read(name, find))


@router.post("/indexes/{name}/explain")
async def explain(name: str, body: ExplainRequest, service: Served) -> JSONResponse:
    """Show which words of a passage answer which words of a question. Answers ``{"evidence": {...}, "text": "..."}``."""
    service.limits.check_queries([body.query])
    given = {} if body.min_similarity is None else {"min_similarity": body.min_similarity}

    def find(index: AnyIndex) -> dict[str, Any]:
        evidence = index.explain(body.query, body.id, mode=body.mode, **given)
        return {"evidence": evidence.to_dict(full=body.full), "text": evidence.text}

    return JSONResponse(await service.read(name, find))


@router.post("/indexes/{name}/excerpts")
async def excerpts(name: str, body: ExcerptsRequest, service: Served) -> JSONResponse:
    """Cut passages down to the sentences that answer a question, for an LLM. Answers ``{"excerpts": [...]}``."""
    service.limits.check_queries([body.query])
    service.limits.check_k(body.k)

    def cut(index: AnyIndex) -> list[dict[str, Any]]:
        found = Reranker(index.encoder).excerpts(
            body.query,
            _wanted_passages(index, body),
            max_tokens=body.max_tokens,
            keep_ratio=body.keep_ratio,
            progress=False,
        )
        return [
            {
                "id": each.passage.id,
                "text": each.text,
                "spans": each.spans,
                "passage": passage_as_json(each.passage),
            }
            for each in found
        ]

    return JSONResponse({"excerpts": await service.read(name, cut)})


@router.post("/encode")
async def encode(body: EncodeRequest, service: Served) -> JSONResponse:
    """Encode texts. Answers ``{"vectors": [[[...], ...], ...]}``: for each text a list of unit vectors.

    With ``windows`` it says of queries ``"spans"``, the characters of each vector; and of passages ``"windows"``, a list of
    ``{"span": [start, end], "tokens": [[start, end], ...]}`` for each text.
    """
    if body.kind == "query":
        service.limits.check_queries(body.texts)
    service.limits.check_number(len(body.texts), service.limits.queries, "texts")

    def work() -> dict[str, Any]:
        catalogue = service.catalogue
        encoder = catalogue.encoder() if body.index is None else catalogue.get(body.index).encoder
        return _encoded_queries(encoder, body) if body.kind == "query" else _encoded_passages(encoder, body)

    return JSONResponse(await service.reading.run(work))


def _encoded_queries(encoder: TokenEncoder, body: EncodeRequest) -> dict[str, Any]:
    matrices = encoder.encode_queries(body.texts)
    answer: dict[str, Any] = {"vectors": [matrix.tolist() for matrix in matrices]}
    if body.windows:
        pairs = zip(body.texts, matrices, strict=True)
        answer["spans"] = [query_spans(encoder, text, len(matrix)).tolist() for text, matrix in pairs]
    return answer


def _encoded_passages(encoder: TokenEncoder, body: EncodeRequest) -> dict[str, Any]:
    embeddings = encoder.encode_passages(body.texts, progress=False)
    ends = token_ends(embeddings)
    parts = [of_owner(embeddings, owner, ends) for owner in range(len(body.texts))]
    answer: dict[str, Any] = {"vectors": [part.vectors.tolist() for part in parts]}
    if body.windows:
        answer["windows"] = [_windows(part) for part in parts]
    return answer


def _windows(embeddings: TokenEmbeddings) -> list[dict[str, Any]]:
    """The windows of one text, as JSON holds them."""
    ends = token_ends(embeddings).tolist()
    spans = embeddings.window_spans.tolist()
    return [
        {"span": span, "tokens": embeddings.token_spans[start:end].tolist()}
        for span, start, end in zip(spans, ends[:-1], ends[1:], strict=True)
    ]


def _options(index: AnyIndex, body: SearchRequest | SearchManyRequest | SearchMeanRequest) -> dict[str, Any]:
    return {
        "k": body.k,
        "where": body.where,
        "ids": body.ids,
        "min_relevance": body.min_relevance,
        "mode": mode_of(index, body.mode, body.weight) if _have_words(body) else body.mode or "maxsim",
        "weight": body.weight,
    }


def _have_words(body: SearchRequest | SearchManyRequest | SearchMeanRequest) -> bool:
    """Whether the questions are texts; vectors have no words to rank by."""
    return all(isinstance(query, str) for query in ([body.query] if isinstance(body, SearchRequest) else body.queries))


def _as_json(hits: list[Hit], *, full: bool = False) -> list[dict[str, Any]]:
    return [hit_as_json(hit, full=full) for hit in hits]


def _wanted_passages(index: AnyIndex, body: ExcerptsRequest) -> list[Passage]:
    """The passages with the ids of a request, else the best."""
    if body.ids is None:
        hits = index.search(body.query, body.k, where=body.where, mode=mode_of(index, body.mode))
        return [hit.passage for hit in hits]
    found = index.get(body.ids)
    unknown = [passage_id for passage_id, passage in zip(body.ids, found, strict=True) if passage is None]
    if unknown:
        raise ValueError(f"There is no passage with the id {unknown[0]!r:.100}.")
    return [passage for passage in found if passage is not None]
