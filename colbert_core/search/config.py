"""How much of a compressed index a search looks at."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from colbert_core.checks import check_count

# From so many windows on, narrowing down by the lists is faster than ranking all that are listed: the same time at 2,000,
# 1.2 times as fast at 4,000, 1.4 times at 8,000, 1.6 times at 26,000.
_WORTH_LISTS = 2**11
# The windows that are scored over their residuals have so many tokens at least: 94 windows of 26,000 passages, of 85 tokens.
_TOKENS = 8000


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """How much a search of a compressed index looks at. More of each finds more, and takes longer.

    Attributes:
        nprobe: number of centroids of each layer whose lists are read for each query vector, at least 1.
        n_candidates: number of listed windows to rank by their centroids, those at the nearest centroids first; None ranks all
            that are listed.
        n_exact: number of passages to score over their residuals, the best by their centroids; at least k are scored.
        n_tokens: score by XTR's rule, for a model that was trained for it: of each query vector only so many nearest tokens
            count, and a passage with none of them has the cosine of the last. It takes all tokens of the candidates into
            account, however large ``n_exact`` is, and also counts in a collection that is not compressed. None for MaxSim.
    """

    nprobe: int
    n_candidates: int | None = None
    n_exact: int = 512
    n_tokens: int | None = None

    def __post_init__(self) -> None:
        check_count(self.nprobe, "nprobe", "centroids")
        if self.n_candidates is not None:
            check_count(self.n_candidates, "n_candidates", "windows")
        check_count(self.n_exact, "n_exact")
        if self.n_tokens is not None:
            check_count(self.n_tokens, "n_tokens", "tokens")

    def __setstate__(self, state: list[Any]) -> None:
        """Take what a pickle holds; one that was made before there was ``n_tokens`` scores by MaxSim."""
        for name, value in zip_longest(self.__slots__, state):
            object.__setattr__(self, name, value)

    def share(self, shards: int) -> SearchConfig:
        """What each of so many parts of a collection looks at, so that together they look at as much as this.

        How many of the best n passages lie in one of s parts is spread about n / s by up to the square root of that; two such
        spreads more miss next to nothing.
        """
        if shards == 1:
            return self

        def of(n: int) -> int:
            return math.ceil(n / shards + 2 * math.sqrt(n / shards))

        return replace(
            self, n_candidates=None if self.n_candidates is None else of(self.n_candidates), n_exact=of(self.n_exact)
        )


def default_config(k: int, n_windows: int = 0, n_q: int = 32, n_tokens: int = 0, n_layers: int = 1) -> SearchConfig:
    """Choose a config that finds at least 95 % of the ``k`` passages that exact scoring of the same codes would find.

    Over 26,000 passages it finds .97 of the top 10 and .95 of the top 100.

    Args:
        k: hits that are wanted.
        n_windows: number of windows of the collection.
        n_q: number of query vectors.
        n_tokens: number of vectors of the collection; 0 if that is not known.
        n_layers: number of layers of its codec.
    """
    # A collection that grew has fewer centroids to rank by: over 104,000 passages as much as over 26,000 finds .955 of the top
    # 10 where this finds .98.
    growth = max(1.0, n_windows / 2**15)
    # A query of few vectors ranks more roughly by centroids, as fewer errors cancel out: of 43 with 6 to 15, over 14,581
    # passages, as many find .993 of the top 10 and twice as many .998.
    shortness = max(32 / n_q, 1) ** 0.5
    wanted = min(k, n_windows) if n_windows else k
    # Scores over residuals take as long as they have tokens, 25 ns each. Short windows are ranked more roughly by centroids.
    least = (_TOKENS * n_windows // n_tokens if n_tokens else 128) * growth**0.5 * shortness
    n_exact = max(least, 4 * wanted * growth**0.3 * shortness)
    n_candidates = None if n_windows < _WORTH_LISTS else round(400 + 12 * (least * growth**0.4 + n_exact - least))
    # Of two layers, both are probed: ten of each find as much as sixteen.
    return SearchConfig(min(round((12 if n_layers == 1 else 10) * shortness), 64), n_candidates, round(n_exact))


def ladder_of_configs(k: int, n_windows: int) -> list[SearchConfig]:
    """Configs to try, each looking at more than the one before; the last one looks at everything.

    Args:
        k: hits that are wanted.
        n_windows: number of windows of the collection.
    """
    ladder = []
    for factor in (2, 4, 8, 16, 32, 64, 128, 256):
        n_exact = factor * max(k, 8)
        if 4 * n_exact < n_windows:
            ladder += [SearchConfig(nprobe, 4 * n_exact, n_exact) for nprobe in (4, 8, 16, 32) if nprobe <= 4 * factor]
    return [*ladder, SearchConfig(2**16, None, max(n_windows, 1))]
