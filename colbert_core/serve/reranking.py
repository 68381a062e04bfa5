"""Routes that rerank, as clients of Cohere and Jina ask for it."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from colbert_core.errors import ColBERTError
from colbert_core.rerank import Reranker
from colbert_core.serve.failures import answer_error, answer_invalid
from colbert_core.serve.rerank_requests import RerankRequest, first_tokens
from colbert_core.serve.service import Served
from colbert_core.serve.work import TooBusyError
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.requests import Request
    from starlette.responses import Response

    from colbert_core.serve.service import Service
    from colbert_core.types import TokenEncoder

# Documents whose vectors are in memory at a time: 50 MB at 200 tokens of 128 components.
_BATCH = 512


class _RerankRoute(APIRoute):
    """Says what went wrong under "detail" as well, the only place where clients of Jina look."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                response = await answer_invalid(request, error)
            except (TooBusyError, ColBERTError, TypeError, ValueError) as error:
                response = await answer_error(request, error)
            body = json.loads(bytes(response.body))
            headers = {name: value for name, value in response.headers.items() if name == "retry-after"}
            return JSONResponse(body | {"detail": body["message"]}, response.status_code, headers)

        return answer


router = APIRouter(tags=["rerank"], route_class=_RerankRoute)


@router.post("/v1/rerank")
async def rerank_v1(body: RerankRequest, service: Served) -> JSONResponse:
    """Order documents by how well they answer a question, as Cohere's first API and Jina's do.

    Answers ``{"id": ..., "results": [{"index": i, "relevance_score": x}, ...], "meta": ..., "usage": ...}``, best first.
    """
    results, n_tokens = await _rank(body, service)
    usage = {} if n_tokens is None else {"usage": {"total_tokens": n_tokens, "prompt_tokens": n_tokens}}
    return JSONResponse(_answer(body, results, n_tokens, "1") | usage)


@router.post("/v2/rerank")
async def rerank_v2(body: RerankRequest, service: Served) -> JSONResponse:
    """Order documents by how well they answer a question, as Cohere's second API does.

    Answers ``{"id": ..., "results": [{"index": i, "relevance_score": x}, ...], "meta": ...}``, best first.
    """
    results, n_tokens = await _rank(body, service)
    return JSONResponse(_answer(body, results, n_tokens, "2"))


async def _rank(body: RerankRequest, service: Service) -> tuple[list[dict[str, Any]], int | None]:
    """The results of a request, and how many tokens were read; None for an encoder that does not count."""
    service.limits.check_queries([body.query])
    service.limits.check_number(len(body.documents), service.limits.passages, "documents")
    texts = body.texts()

    def work() -> tuple[list[dict[str, Any]], int | None]:
        encoder = service.catalogue.encoder()
        count = getattr(encoder, "count_tokens", None)
        read = _shortened(texts, body.max_tokens_per_doc, count)
        results = _results(encoder, body, read)
        return results, None if count is None else sum(map(count, [body.query, *read]))

    return await service.reading.run(work)


def _shortened(texts: list[str], n: int | None, count: Callable[[str], int] | None) -> list[str]:
    if n is None:
        return texts
    if count is None:
        raise ValueError(f"max_tokens_per_doc is {n}, but the encoder of this service cannot count tokens; leave it out.")
    return [first_tokens(text, n, count) for text in texts]


def _results(encoder: TokenEncoder, body: RerankRequest, texts: list[str]) -> list[dict[str, Any]]:
    passages = [Passage(f"documents.{place}", text) for place, text in enumerate(texts)]
    places = {passage.id: place for place, passage in enumerate(passages)}
    hits = Reranker(encoder).rank(body.query, passages, body.top_n, batch_size=_BATCH, progress=False)
    results = []
    for hit in hits:
        place = places[hit.passage.id]
        document = {"document": body.document(place)} if body.return_documents else {}
        results.append({"index": place, "relevance_score": hit.relevance, **document})
    return results


def _answer(body: RerankRequest, results: list[dict[str, Any]], n_tokens: int | None, version: str) -> dict[str, Any]:
    tokens = {} if n_tokens is None else {"tokens": {"input_tokens": n_tokens, "output_tokens": 0}}
    return {
        "id": str(uuid.uuid4()),
        **({} if body.model is None else {"model": body.model}),
        "results": results,
        "meta": {"api_version": {"version": version}, "billed_units": {"search_units": 0}, **tokens},
    }
