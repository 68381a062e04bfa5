"""Which fields the passages of an index have, by a few steps through the table ``fields`` and never by all of its rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from colbert_core.storage.filters import readings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Self

    from colbert_core.storage.filters import Expectation

    Select = Callable[[str, Sequence[Any]], list[Any]]
    """Gives the rows of a query with these values of its question marks."""

# Names that are looked at: of an index with a field for each of a million users, the first ones tell enough.
_MOST_NAMES = 1000
# Of so many of them the kinds are looked up, to be shown.
N_SHOWN = 10
# SQLite takes 2,000 columns.
_AT_A_TIME = 500

# Each step is one descent of the B-tree: 1,000 names in 2 million rows take 1.6 ms, and DISTINCT takes 110.
_STEPS_FROM = (
    "WITH RECURSIVE names(path) AS (SELECT min(path) FROM fields{} UNION ALL "
    "SELECT (SELECT min(path) FROM fields WHERE path > names.path) FROM names WHERE path IS NOT NULL LIMIT ?) "
)
_STEPS = _STEPS_FROM.format("")
_NAMES_OF_FIELDS = f"{_STEPS} SELECT path FROM names"  # noqa: S608
_NAMES_BEHIND = f"{_STEPS_FROM.format(' WHERE path > ?')} SELECT path FROM names"  # noqa: S608
_COUNTS_BY_NAME = (
    f"{_STEPS} SELECT path, (SELECT count(*) FROM fields WHERE path = names.path AND kind = 's' AND value = ?) "  # noqa: S608
    "FROM names"
)
_KINDS = (
    "WITH kinds(kind) AS (VALUES ('z'), ('b'), ('n'), ('s'), ('a'), ('o'), ('Z'), ('B'), ('N'), ('S')) "
    "SELECT kind FROM kinds WHERE EXISTS (SELECT 1 FROM fields WHERE path = ? AND fields.kind = kinds.kind)"
)

# The types of values, by the kinds of ``fields``. Of each passage that has a field there is one row of one of these kinds.
TYPES = {"s": "string", "n": "number", "b": "boolean", "z": "null", "a": "list", "o": "object"}
_COUNT = "SELECT count(*) FROM fields WHERE path = ? AND kind = ?"
_N_EXAMPLES = 3
# Each example is one descent as well.
_EXAMPLES = (
    "WITH RECURSIVE steps(value) AS (SELECT min(value) FROM fields WHERE path = ? AND kind = ? UNION ALL "
    "SELECT (SELECT min(value) FROM fields WHERE path = ? AND kind = ? AND value > steps.value) "
    "FROM steps WHERE value IS NOT NULL LIMIT ?) SELECT value FROM steps WHERE value IS NOT NULL"
)

Outline = dict[str, dict[str, tuple[int, list[Any]]]]
"""For paths of fields, for each kind of their values how many rows there are, and the smallest values."""


@dataclass(frozen=True)
class Survey:
    """What an index says of its fields.

    Attributes:
        kinds: kinds of ``fields``, by the path of the field; those that were asked for and the first ones. A field that no
            passage has is not there, or has none.
        names: paths of all fields in their order, or of the first 1,000.
        is_cut: there are more.
        n_passages: how many there are; only whether there are any, where there are fields.
        equal: how many passages have just the string that was asked for in a field, by its path.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    is_cut: bool = False
    n_passages: int = 0
    equal: dict[str, int] = field(default_factory=dict)

    def meets(self, expected: Expectation) -> bool:
        """Whether some passage has the field with a value of a kind that is expected."""
        return not set(expected.kinds).isdisjoint(self.kinds_of(expected.path))

    def kinds_of(self, path: str) -> str:
        """The kinds of the values of a field that a filter names."""
        return "".join(sorted({kind for reading in readings(path) for kind in self.kinds.get(reading, "")}))

    def __or__(self, other: Self) -> Survey:
        """What two parts of an index say together."""
        names = sorted({*self.names, *other.names})
        paths = {**self.kinds, **other.kinds}
        return Survey(
            kinds={path: "".join(sorted({*self.kinds.get(path, ""), *other.kinds.get(path, "")})) for path in paths},
            names=names[:_MOST_NAMES],
            is_cut=self.is_cut or other.is_cut or len(names) > _MOST_NAMES,
            n_passages=self.n_passages + other.n_passages,
            equal={path: self.equal.get(path, 0) + other.equal.get(path, 0) for path in {**self.equal, **other.equal}},
        )


def unmet(select: Select, expected: Sequence[Expectation]) -> list[Expectation]:
    """Those of the expectations that no passage meets, by one step through the table for each kind."""
    missing = []
    for start in range(0, len(expected), _AT_A_TIME):
        chunk = expected[start : start + _AT_A_TIME]
        tests = (
            f"EXISTS (SELECT 1 FROM fields WHERE path IN ({', '.join('?' * len(readings(each.path)))}) "  # noqa: S608
            f"AND kind IN ({_listed(each.kinds)}))"
            for each in chunk
        )
        (answers,) = select(f"SELECT {', '.join(tests)}", [path for each in chunk for path in readings(each.path)])
        missing += [each for each, is_met in zip(chunk, answers, strict=True) if not is_met]
    return missing


def outline(select: Select, limit: int, after: str | None = None) -> Outline:
    """Tell what there is in the first fields, by steps through the table; only the rows of these fields are counted.

    Args:
        select: asks the database.
        limit: how many fields.
        after: path behind which to begin; None for the beginning.
    """
    names = select(_NAMES_OF_FIELDS, [limit]) if after is None else select(_NAMES_BEHIND, [after, limit])
    # A damaged index may have anything for a path or a value.
    return {path: _outline_of(select, path) for (path,) in names if isinstance(path, str)}


def _outline_of(select: Select, path: str) -> dict[str, tuple[int, list[Any]]]:
    found: dict[str, tuple[int, list[Any]]] = {}
    for kind in [*TYPES, "S", "N", "B"]:
        if kind.islower() or "a" in found:
            ((count,),) = select(_COUNT, [path, kind])
            values = select(_EXAMPLES, [path, kind, path, kind, _N_EXAMPLES]) if count and kind in "snbSNB" else []
            if count:
                of_kind = str if kind in "sS" else (int, float)
                found[kind] = int(count), [value for (value,) in values if isinstance(value, of_kind)]
    return found


def together(outlines: Iterable[Outline], limit: int) -> Outline:
    """What several parts of an index say together of the first ``limit`` fields; each says as much of its own."""
    joined: Outline = {}
    for part in outlines:
        for path, kinds in part.items():
            known = joined.setdefault(path, {})
            for kind, (count, values) in kinds.items():
                n, others = known.get(kind, (0, []))
                known[kind] = n + count, sorted({*others, *values})[:_N_EXAMPLES]
    return {path: joined[path] for path in sorted(joined)[:limit]}


def survey(select: Select, paths: Iterable[str], value: str | None = None) -> Survey:
    """Look around in the table.

    Args:
        select: asks the database.
        paths: fields that a filter names, to look up beside the first ones.
        value: string to look for in every field; None for none.
    """
    # A damaged index may have anything for a path.
    found = [path for (path,) in select(_NAMES_OF_FIELDS, [_MOST_NAMES + 1]) if isinstance(path, str)]
    names = found[:_MOST_NAMES]
    asked = [reading for path in paths for reading in readings(path)]
    kinds = {path: _kinds(select, path) for path in dict.fromkeys([*asked, *names[:N_SHOWN]])}
    equal = {} if value is None else _fields_with(select, value)
    n_passages = 1 if names else int(select("SELECT count(*) FROM passages", [])[0][0])
    return Survey(kinds, names, len(found) > _MOST_NAMES, n_passages, equal)


def _kinds(select: Select, path: str) -> str:
    return "".join(kind for (kind,) in select(_KINDS, [path]))


def _fields_with(select: Select, value: str) -> dict[str, int]:
    counts = select(_COUNTS_BY_NAME, [_MOST_NAMES, value])
    return {path: count for path, count in counts if count and isinstance(path, str)}


def _listed(kinds: str) -> str:
    return ", ".join(f"'{kind}'" for kind in kinds)
