"""Where a service is, and which of its indexes is meant."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

_INDEXES = "/v1/indexes"


@dataclass(frozen=True)
class Address:
    """A service, and one of its indexes.

    Attributes:
        root: of the service, without a slash at the end: "http://127.0.0.1:8080", or below a path of a proxy.
        index: name of the index; None where none is named.
    """

    root: str
    index: str | None = None

    @classmethod
    def of(cls, url: str, index: str | None = None) -> Address:
        """Read an address, which may end in that of an index, ``/v1/indexes/wiki``.

        Raises:
            TypeError: the address is no string.
            ValueError: it is none of HTTP, or it names an index as ``index`` does.
        """
        if not isinstance(url, str):
            raise TypeError(f"url must be a str such as 'http://127.0.0.1:8080', got {type(url).__name__}: {url!r:.80}")
        if not is_url(url) or not urlsplit(url).hostname:
            raise ValueError(f"url must begin with http:// or https:// and a host, got {url!r:.200}.")
        if urlsplit(url).query or urlsplit(url).fragment or "@" in urlsplit(url).netloc:
            raise ValueError(
                "url takes no user, query or fragment, only the service and perhaps its index: 'http://127.0.0.1:8080'; "
                "a token is given as token=..."
            )
        root, found, name = url.rstrip("/").partition(_INDEXES)
        name = unquote(name.removeprefix("/")) if found else ""
        if name and index is not None:
            raise ValueError(f"The url names the index {name!r:.100} and index= names {index!r:.100}; name it once.")
        return cls(root.rstrip("/"), name or index)

    def within(self, path: str) -> str:
        """Return the URL of a path; one without a slash in front is below the index."""
        if path.startswith("/"):
            return self.root + path
        assert self.index is not None
        return f"{self.root}{_INDEXES}/{quote(self.index, safe='')}" + (f"/{path}" if path else "")

    def __str__(self) -> str:
        return self.root if self.index is None else self.within("")


def is_url(value: object) -> bool:
    """Whether something is an address of HTTP rather than a path."""
    return isinstance(value, str) and value.lower().startswith(("http://", "https://"))
