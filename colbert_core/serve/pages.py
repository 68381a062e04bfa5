"""Routes that serve the page to search with and the one that lists the routes. Neither loads anything from elsewhere."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import NamedTuple

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Passages may hold anything. Should one ever get into a page as more than text, the browser does not run or send it:
# no inline script or style, no string as HTML (Trusted Types), nothing from or to another address, no frame around the page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, but asked for again: an update of the package shows at once
}


class _Asset(NamedTuple):
    body: bytes
    kind: str
    etag: str


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """Answer the page to search with."""
    return _answer(request, "index.html")


@router.api_route("/docs", methods=["GET", "HEAD"])
async def docs(request: Request) -> Response:
    """Answer the page that lists the routes."""
    return _answer(request, "api.html")


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
async def asset(name: str, request: Request) -> Response:
    """Answer a script, style sheet or picture of the pages, or 404."""
    if name.endswith(".html"):  # those have their own addresses
        raise HTTPException(404, f"The page has no file {name!r:.100}.")
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    """Answer a file, or that it has not changed.

    Raises:
        HTTPException: there is none of this name.
    """
    found = _assets().get(name)
    if found is None:
        raise HTTPException(404, f"The page has no file {name!r:.100}.")
    headers = {**_HEADERS, "ETag": found.etag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if known & {found.etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(found.body, headers=headers, media_type=found.kind)


@cache
def _assets() -> dict[str, _Asset]:
    """Read the files of the pages, by name. A name that somebody asks for never becomes part of a path."""
    files = [file for file in resources.files("colbert_core.serve").joinpath("page").iterdir() if file.is_file()]
    assets = {}
    for file in files:
        body = file.read_bytes()
        assets[file.name] = _Asset(body, _TYPES[file.name.rpartition(".")[2]], f'"{hashlib.sha256(body).hexdigest()[:20]}"')
    return assets
