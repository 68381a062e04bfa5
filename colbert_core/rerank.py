"""Rerank: order passages that something else retrieved by how well they answer a query."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from colbert_core.checks import check_count, check_passages, check_relevance, check_share, check_similarity
from colbert_core.search.excerpts import Excerpt, excerpts
from colbert_core.search.explain import best_window, evidence_of, query_spans
from colbert_core.search.hits import Ranked, to_hits
from colbert_core.search.ranking import search
from colbert_core.threads import new_lock
from colbert_core.types import PassageIndex
from colbert_core.vectors.embeddings import encode_queries, of_owner, token_ends, without_blank
from colbert_core.vectors.snapshot import as_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from os import PathLike

    from numpy.typing import NDArray

    from colbert_core.evidence.evidence import Evidence
    from colbert_core.types import Hit, Passage, TokenEmbeddings, TokenEncoder
    from colbert_core.vectors.background import Background

# Excerpts keep this part of the tokens if no budget is given. .993 of 993 questions still have their answer then, and .984 of
# them at a quarter.
_KEEP_RATIO = 0.35
# One lock for all: a lock inside an object would keep it from being copied and pickled.
_LOADING = new_lock()


class RerankerOwner(Protocol):
    """An object that keeps a reranker for the model that it names, such as a framework's adapter."""

    @property
    def model(self) -> str | PathLike[str] | TokenEncoder | None:
        """A checkpoint's name or folder, or a loaded encoder; None for the model in the box."""

    @property
    def device(self) -> str | None:
        """Where a named model runs; None for the best device present."""

    _loaded: tuple[Any, Reranker] | None


class Reranker:
    """Late interaction over a handful of candidates, whoever found them.

    Example:
        >>> reranker = Reranker()
        >>> hits = reranker.rank("happy pets", [Passage("a", "Rust is a language."), Passage("b", "Cats purr.")], top_n=1)
        >>> hits[0].passage.id
        'b'
    """

    def __init__(
        self,
        encoder: str | PathLike[str] | TokenEncoder | None = None,
        *,
        device: str | None = None,
        index: PassageIndex | None = None,
    ) -> None:
        """Load an encoder, or take a loaded one, or an index with its vectors.

        Args:
            encoder: a checkpoint's name or folder, or a loaded encoder; None for the model in the box.
            device: where an encoder loaded by name runs; None for the best device present.
            index: an index that holds some of the candidates. ``rank`` scores those by the index's vectors, as ``search``
                does, so no model reads them; its encoder reads the others. Compressed vectors are not quite those that the
                encoder makes, and scores differ as much.

        Raises:
            CheckpointNotFoundError: there is no such checkpoint.
            TypeError: it is no encoder, or no index.
            ValueError: there is an index beside an encoder or a device.
        """
        from colbert_core.model.encoder import as_encoder  # here, so that importing the package does not import torch

        if index is None:
            self._encoder: TokenEncoder | None = as_encoder(encoder, device=device)
        elif encoder is not None or device is not None:
            raise ValueError("An index brings its own encoder: give index=... alone, without an encoder or a device.")
        else:
            self._encoder = None
            if not isinstance(index, PassageIndex):
                raise TypeError(f"index must be an Index of colbert_core, got {type(index).__name__}.")
        self._index = index
        self._background: Background | None = None

    @property
    def encoder(self) -> TokenEncoder:
        """What reads queries, and passages whose vectors are in no index."""
        if self._encoder is not None:
            return self._encoder
        encoder: TokenEncoder = self._index.encoder  # type: ignore[union-attr]  # a protocol with it would load it to be checked
        return encoder

    def against(self, background: Background | None) -> Reranker:
        """Return a copy whose evidence takes a collection's vectors as the background; None for that of the ``index``."""
        reranker = copy(self)
        reranker._background = background
        return reranker

    @property
    def background(self) -> Background | None:
        """How the vectors of the collection are spread; None where there is none, and each window is its own background."""
        of_index = getattr(self._index, "background", None)  # an index of the user's own may have none
        return of_index() if self._background is None and of_index is not None else self._background

    @classmethod
    def kept_by(cls, owner: RerankerOwner) -> Reranker:
        """Return the reranker of an object, which keeps it in ``_loaded``; load its model at the first use.

        Load again if ``model``, ``device`` or an ``index`` has changed since, on the object or on a copy of it. Threads may
        share the object: its model is loaded once. An object whose model is loaded never waits for another one to load.

        Args:
            owner: the object. Its ``_loaded`` is None at first, and is copied and pickled with it.

        Raises:
            CheckpointNotFoundError: there is no such checkpoint.
        """
        index = getattr(owner, "index", None)
        wanted = (owner.model, owner.device, index)
        loaded = owner._loaded
        if loaded is None or loaded[0] != wanted:
            with _LOADING:
                loaded = owner._loaded
                if loaded is None or loaded[0] != wanted:
                    loaded = owner._loaded = (wanted, cls(owner.model, device=owner.device, index=index))
        return loaded[1]

    def rank(
        self,
        query: str,
        passages: Iterable[Passage],
        top_n: int | None = None,
        min_relevance: float | None = None,
        *,
        evidence: bool = False,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> list[Hit]:
        """Score all passages and return them best first; equal scores keep the order given.

        Passages with nothing to read come last, with a score of 0. Those that stand in the ``index`` under their id, with the
        same text, are scored by its vectors.

        Args:
            query: the question.
            passages: candidates. The same objects come back; their ids need not differ.
            top_n: most hits, at least 1; None for all.
            min_relevance: least relevance of a hit, from 0 to 1.
            evidence: give each hit the ``evidence`` of its window, as ``explain`` does.
            batch_size: passages whose vectors are in memory at a time; None for all. Scores do not depend on it.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

        Raises:
            TypeError: the query is not a string, or something is not a ``Passage``.
            ValueError: the query is blank, or top_n or batch_size is below 1.
        """
        passages = check_passages(passages)
        top_n = len(passages) if top_n is None else check_count(top_n, "top_n")
        min_relevance = check_relevance(min_relevance, "min_relevance")
        batch_size = len(passages) if batch_size is None else check_count(batch_size, "batch_size")
        indexed = self._indexed(query, passages, evidence)
        hits = [(place, hit) for place, hit in indexed.items() if min_relevance is None or hit.relevance >= min_relevance]
        silent: list[tuple[int, Hit]] = []
        rest = [place for place in range(len(passages)) if place not in indexed]
        if rest or not passages:  # a mistake in the query is an error for no passages as well
            (query_vectors,) = encode_queries(self.encoder, [query])
        for start in range(0, len(rest), batch_size or 1):
            places = rest[start : start + batch_size]
            batch = [passages[place] for place in places]
            embeddings = self._encode(batch, progress)
            readable = without_blank(embeddings, [passage.text for passage in batch])
            ranked = search(as_snapshot(readable), query_vectors, top_n, sort_keys=list)
            rows = np.setdiff1d(np.arange(len(batch)), readable.owners).tolist()
            nothing = Ranked(rows, [0.0] * len(rows), [(0, len(batch[row].text)) for row in rows])
            for ranking, found in ((ranked, hits), (nothing, silent)):
                best = to_hits([batch[row] for row in ranking.pids], ranking, len(query_vectors), min_relevance)
                if evidence:
                    best = self._explain(best, ranking.pids, query, query_vectors, embeddings)
                found += zip([places[row] for row in ranking.pids], best, strict=False)  # a threshold may have dropped some
        hits.sort(key=lambda pair: (-pair[1].score, pair[0]))
        hits += silent
        return [replace(hit, rank=rank) for rank, (_, hit) in enumerate(hits[:top_n], 1)]

    def _indexed(self, query: str, passages: list[Passage], evidence: bool) -> dict[int, Hit]:
        """Hits of the passages that the index holds with the same text, by their places."""
        if self._index is None or not passages:
            return {}
        ids = list(dict.fromkeys(passage.id for passage in passages))
        found = {hit.passage.id: hit for hit in self._index.search(query, len(ids), ids=ids, evidence=evidence)}
        return {
            place: replace(found[passage.id], passage=passage)
            for place, passage in enumerate(passages)
            if passage.id in found and found[passage.id].passage.text == passage.text
        }

    def explain(self, query: str, passage: Passage, *, min_similarity: float | None = None) -> Evidence:
        """Show which words of a passage answer which words of a query, in the window of the passage that scores highest.

        What a word of the passage has to exceed is what the ``index`` has of similar words; where there is none, what the
        passage itself has.

        Args:
            query: the question.
            passage: any.
            min_similarity: cosine from which a word of the query counts as found, and below which no word of the passage is
                marked, from -1 to 1. None leaves both to the lifts: by how much a cosine exceeds what is to be expected.

        Raises:
            TypeError: the query is not a string, or the passage is no ``Passage``.
            ValueError: the query is blank, or the threshold is out of range.
        """
        (passage,) = check_passages([passage])
        check_similarity(min_similarity)
        (query_vectors,) = encode_queries(self.encoder, [query])
        window, vectors, token_spans = best_window(query_vectors, self._encode([passage], progress=False))
        spans = query_spans(self.encoder, query, len(query_vectors))
        background = self.background
        return evidence_of(query, query_vectors, spans, passage, window, vectors, token_spans, min_similarity, background)

    def excerpts(
        self,
        query: str,
        passages: Iterable[Passage],
        *,
        max_tokens: int | None = None,
        keep_ratio: float | None = None,
        count_tokens: Callable[[str], int] | None = None,
        progress: bool | None = None,
    ) -> list[Excerpt]:
        """Cut passages down to the sentences that match the query best, so that an LLM reads less.

        Args:
            query: the question.
            passages: what was retrieved; their order stays.
            max_tokens: most tokens of all excerpts together. The best sentence stays even if it alone has more.
            keep_ratio: instead, the part of all passages' tokens to keep at most, above 0 to 1; 0.35 if neither is given.
            count_tokens: returns the length of a text, as an LLM's tokenizer counts it; None for the model's own tokenizer.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

        Returns:
            One excerpt for each passage of which anything is left. There is none only if all passages are blank.

        Raises:
            TypeError: the query is not a string, or something is not a ``Passage``.
            ValueError: the query is blank, both budgets are given, one is out of range, or the encoder cannot count.
        """
        passages = check_passages(passages)
        max_tokens, keep_ratio = self.check_budget(max_tokens, keep_ratio)
        counter: Any = getattr(self.encoder, "count_tokens", None) if count_tokens is None else count_tokens
        if counter is None:
            raise ValueError(f"{self.encoder!r} has no count_tokens; give the length of a text as count_tokens=...")
        (query_vectors,) = encode_queries(self.encoder, [query])
        if not passages:
            return []
        embeddings = self._encode(passages, progress)
        return excerpts(query_vectors, passages, embeddings, counter, max_tokens=max_tokens, keep_ratio=keep_ratio)

    @staticmethod
    def check_budget(max_tokens: int | None, keep_ratio: float | None) -> tuple[int | None, float | None]:
        """Return the budget of ``excerpts`` if it makes sense, with the default for none.

        Raises:
            TypeError: it is no number.
            ValueError: both are given, or one is out of range.
        """
        if max_tokens is not None and keep_ratio is not None:
            raise ValueError(f"Give max_tokens or keep_ratio, one of them; got {max_tokens!r} and {keep_ratio!r}.")
        if max_tokens is not None:
            return check_count(max_tokens, "max_tokens", "tokens"), None
        ratio = check_share(_KEEP_RATIO if keep_ratio is None else keep_ratio, "keep_ratio")
        if not ratio:
            raise ValueError("keep_ratio must be above 0, got 0.")
        return None, ratio

    def _encode(self, passages: list[Passage], progress: bool | None) -> TokenEmbeddings:
        embeddings = self.encoder.encode_passages([passage.text for passage in passages], progress=progress)
        return embeddings.check(len(passages), self.encoder.dim)

    def _explain(
        self, hits: list[Hit], rows: list[int], query: str, query_vectors: NDArray[np.float32], embeddings: TokenEmbeddings
    ) -> list[Hit]:
        """Give hits their evidence; ``rows`` are the places of their passages in the embeddings."""
        ends, spans = token_ends(embeddings), query_spans(self.encoder, query, len(query_vectors))
        explained, background = [], self.background
        for hit, row in zip(hits, rows, strict=False):  # a threshold may have dropped the last hits
            window, vectors, token_spans = best_window(query_vectors, of_owner(embeddings, row, ends))
            evidence = evidence_of(query, query_vectors, spans, hit.passage, window, vectors, token_spans, None, background)
            explained.append(replace(hit, evidence=evidence))
        return explained

    def __repr__(self) -> str:
        return (
            f"Reranker({getattr(self._encoder, 'name', self._encoder)!r})"
            if self._index is None
            else f"Reranker({self._index!r})"
        )
