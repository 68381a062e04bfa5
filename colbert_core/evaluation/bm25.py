"""BM25, the lexical baseline that late interaction should beat: bm25s with English stems and stop words."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.checks import check_count
from colbert_core.errors import DamagedIndexError, IndexExistsError, IndexNotFoundError
from colbert_core.extras import import_extra
from colbert_core.paths import as_path
from colbert_core.progress import progress_bar
from colbert_core.storage.aside import folder_aside, is_free
from colbert_core.storage.durable import put_in_place
from colbert_core.storage.incoming import read_json_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike

    from colbert_core.types import Passage

_PACKAGES = "bm25s PyStemmer"
_IDS = "ids.json"


class BM25:
    """Ranks passages by the words they share with a query (Robertson et al., TREC-3, 1994), as Lucene scores them.

    Words are lower-cased, without English stop words, and cut to their stems by the Snowball stemmer (Porter2).

    Example:
        >>> bm25 = BM25.build([Passage("a", "Cats purr."), Passage("b", "Rust is a language.")])
        >>> bm25.search_many(["a purring cat"], k=1)
        [[('a', 0.36481431126594543)]]
    """

    def __init__(self, scorer: Any, ids: list[str]) -> None:
        """Use ``build`` or ``load``."""
        self._scorer = scorer
        self._ids = ids

    @classmethod
    def build(cls, passages: Iterable[Passage], *, k1: float = 0.9, b: float = 0.4, progress: bool | None = None) -> BM25:
        """Count the words of passages.

        Args:
            passages: read as a stream; the numbers of their words are kept in memory, not their texts.
            k1: how much a word's repetition counts, at least 0. The default is Anserini's.
            b: how much a passage's length counts, from 0 to 1. The default is Anserini's.
            progress: show a bar; None shows it on a terminal or in a notebook once a second has passed.

        Raises:
            ValueError: there are no passages, none has a word, an id comes twice, or a setting is out of range.
            MissingExtraError: bm25s or PyStemmer is not installed.
        """
        if k1 < 0 or not 0 <= b <= 1:
            raise ValueError(f"k1 must be at least 0 and b from 0 to 1, got k1={k1} and b={b}.")
        bm25s = import_extra("bm25s", "BM25", _PACKAGES)
        ids: list[str] = []
        with progress_bar("Counting words", None, "passage", progress) as bar:

            def texts() -> Iterable[str]:
                for passage in passages:
                    ids.append(passage.id)
                    bar.update()
                    yield passage.text

            words = _tokenize(texts(), return_ids=True)
        if len(set(ids)) < len(ids):
            ((repeated, _),) = Counter(ids).most_common(1)
            raise ValueError(f"The id {repeated!r} comes twice among the passages; give each its own.")
        if not words.vocab:
            raise ValueError(f"None of the {len(ids)} passages has a word that is no stop word; give passages with text.")
        scorer = bm25s.BM25(k1=k1, b=b, method="lucene")
        scorer.index(words, show_progress=False)
        return cls(scorer, ids)

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> BM25:
        """Load what ``save`` wrote.

        Raises:
            IndexNotFoundError: there is no such folder.
            DamagedIndexError: a file is missing or damaged.
            MissingExtraError: bm25s or PyStemmer is not installed.
        """
        bm25s = import_extra("bm25s", "BM25", _PACKAGES)
        folder = as_path(folder)
        if not folder.is_dir():
            raise IndexNotFoundError(f"There is no folder {folder}; make a BM25 index with build and save.")
        try:
            ids = read_json_file(folder / _IDS, math.inf)
            scorer = bm25s.BM25.load(folder, show_progress=False)
            if len(ids) != scorer.scores["num_docs"]:
                raise ValueError(f"{len(ids)} ids for {scorer.scores['num_docs']} passages")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedIndexError(f"{folder} holds no BM25 index, or a damaged one ({error}); build it again.") from error
        return cls(scorer, ids)

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the index to a folder, whole or not at all.

        Raises:
            IndexExistsError: there is something at the folder.
        """
        folder = as_path(folder)
        if not is_free(folder):
            raise IndexExistsError(f"There is something at {folder} already; choose another path, or remove it.")
        with folder_aside(folder) as aside:
            work = aside / "new"
            self._scorer.save(work, show_progress=False)
            (work / _IDS).write_text(json.dumps(self._ids), encoding="utf-8")
            put_in_place(work, folder)

    def __len__(self) -> int:
        """The number of passages."""
        return len(self._ids)

    def search_many(self, queries: Sequence[str], k: int = 10) -> list[list[tuple[str, float]]]:
        """Find the passages with the greatest BM25 scores for each query.

        Args:
            queries: texts.
            k: most passages for each query, at least 1.

        Returns:
            For each query pairs of id and score, best first, equal scores by id. Only passages that share a word with the
            query are found.

        Raises:
            TypeError: queries is no list of strings, or k no whole number.
            ValueError: k is below 1.
        """
        if isinstance(queries, str) or not all(isinstance(query, str) for query in queries):
            raise TypeError(f"queries must be a list of strings, got {queries!r:.80}.")
        k = check_count(k, "k")
        return [self._search(words, k) for words in _tokenize(queries, return_ids=False)]

    def _search(self, words: list[str], k: int) -> list[tuple[str, float]]:
        if not any(word in self._scorer.vocab_dict for word in words):
            return []
        scores = self._scorer.get_scores(words)  # (n_passages,)
        least = np.partition(scores, len(scores) - k)[len(scores) - k] if k < len(scores) else 0
        rows = np.flatnonzero((scores >= least) & (scores > 0))  # all that tie with the k-th as well
        pairs = zip((self._ids[row] for row in rows.tolist()), scores[rows].tolist(), strict=True)
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:k]

    def __repr__(self) -> str:
        return f"BM25({len(self)} passages, k1={self._scorer.k1}, b={self._scorer.b})"


def _tokenize(texts: Iterable[str], *, return_ids: bool) -> Any:
    """Return the stems of each text: as numbers with their vocabulary, for an index, or as strings, for a query."""
    bm25s, stemmer = (import_extra(module, "BM25", _PACKAGES) for module in ("bm25s", "Stemmer"))
    return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer.Stemmer("english"), return_ids=return_ids, show_progress=False)
