"""How well passages cover the words of a query: BM25 divided by the most that any passage could get.

It lies in [0, 1] and depends on the query, the passage and the collection's counts alone, so that it can be added to a
relevance: a filter changes no score, and shards that know each other's counts give what one index gives.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from colbert_core.checks import check_share
from colbert_core.search.modes import HYBRID_WEIGHT, MODES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

# For words that are as rare as can be, such as an identifier by itself: for 200 that were planted among 26,000 passages MRR@10
# is .82 at .1, .97 at .3, and 1 at .5.
_WEIGHT_OF_RARE = 0.5

# Mean rarity from which the weight rises, and from which it is the greatest. Questions of seven collections have .38 to .56 in
# the median, and .45 to .75 in one of twenty; those 200 identifiers have .74 to 1.
_RARITIES = (0.5, 0.75)

# With fewer passages nothing is known to be rare.
_FEW_PASSAGES = 1000

# Anserini's, as measured over 19 collections.
K1, B = 0.9, 0.4


@dataclass(frozen=True, slots=True)
class WordCounts:
    """What a collection says about terms.

    Attributes:
        passages: number of passages.
        terms: number of terms of all of them.
        found: in how many passages each term of some queries is.
    """

    passages: int
    terms: int
    found: Mapping[str, int]

    @classmethod
    def together(cls, counts: Iterable[WordCounts]) -> WordCounts:
        """Add up the counts of the parts of one collection."""
        listed, found = list(counts), Counter[str]()
        for each in listed:
            found.update(each.found)
        return cls(sum(each.passages for each in listed), sum(each.terms for each in listed), found)


@dataclass(frozen=True, slots=True)
class ByWords:
    """That a search ranks by words as well, or by words alone.

    Attributes:
        texts: the queries.
        alone: rank by the coverage alone; otherwise it is added to the relevance.
        weight: of the coverage; None for that of ``weight_for`` each query.
        counts: of the whole collection, of which this index is a part; None where it is the whole.
    """

    texts: tuple[str, ...]
    alone: bool = False
    weight: float | None = None
    counts: WordCounts | None = field(default=None)


def by_words(mode: str, weight: float | None, queries: Iterable[object]) -> ByWords | None:
    """Check how a search is to rank; None for MaxSim alone.

    Raises:
        TypeError: a query has no words.
        ValueError: there is no such mode, or the weight is out of range or means nothing.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r:.80}.")
    if weight is not None and mode != "hybrid":
        raise ValueError(f"weight is for mode='hybrid', got weight={weight!r:.80} with mode={mode!r}.")
    if mode == "maxsim":
        return None
    texts = []
    for query in queries:
        if not isinstance(query, str):
            raise TypeError(f"mode={mode!r} needs the words of each query, got a {type(query).__name__}; search by text.")
        texts.append(query)
    if mode == "words":
        return ByWords(tuple(texts), alone=True)
    return ByWords(tuple(texts), weight=None if weight is None else check_share(weight, "weight"))


def weight_for(terms: Iterable[str], counts: WordCounts) -> float:
    """Choose the weight of the coverage by how rare the terms of a query are, and by nothing else.

    Rarity is a term's idf beside that of a term of one passage, so from 0 to 1. A sentence has frequent words; what has none is
    the name of something, which a model that never saw it cannot tell from others that look like it.

    Returns:
        From .1 to .5.
    """
    rarest = _idf(max(counts.passages, _FEW_PASSAGES), 1)
    rarities = [min(_idf(counts.passages, counts.found.get(term, 0)) / rarest, 1.0) for term in terms]
    if not rarities:
        return HYBRID_WEIGHT
    low, high = _RARITIES
    share = min(max((sum(rarities) / len(rarities) - low) / (high - low), 0.0), 1.0)
    return HYBRID_WEIGHT + share * (_WEIGHT_OF_RARE - HYBRID_WEIGHT)


def _idf(n_passages: int, n: int) -> float:
    return math.log(1 + (n_passages - n + 0.5) / (n + 0.5))


def coverage(
    postings: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]], lengths: NDArray[np.int64], counts: WordCounts
) -> NDArray[np.float64]:
    """Compute how well each passage covers some terms.

    BM25 (Robertson et al., TREC-3, 1994) with the idf of Lucene, divided by its bound ``(k1 + 1) * sum of idf``. Terms that no
    passage has count in the bound: a passage that lacks the rarest word of a query covers little of it.

    Args:
        postings: for each term the places of the passages that have it, and how often each has it, *Shape:* (n_found,) each.
        lengths: number of terms of each passage, *Shape:* (n,).
        counts: of the collection.

    Returns:
        *Shape:* (n,), float64, from 0 to 1; all 0 without terms.
    """
    covered = np.zeros(len(lengths), np.float64)
    if not len(lengths) or not postings:
        return covered
    per_length = K1 * B / max(counts.terms / max(counts.passages, 1), 1e-9)
    bound = 0.0
    for term, (places, times) in postings.items():
        idf = _idf(counts.passages, counts.found.get(term, 0))
        bound += idf
        covered[places] += idf * times / (times + (K1 * (1 - B) + per_length * lengths[places]))
    return covered / bound
