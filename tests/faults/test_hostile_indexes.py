"""Indexes that came by mail: whatever their database and arrays say, they are refused by name or read right."""

from __future__ import annotations

import hashlib
import sqlite3

import numpy as np
import pytest
from builders.grown import collection, unit

from colbert_core import DamagedIndexError, Index, Passage, SearchConfig, UnsupportedIndexError
from colbert_core.storage.arrays import dump_arrays, load_arrays
from colbert_core.vectors.codec import MOST_LAYERS, ResidualCodec
from colbert_core.vectors.inverted_lists import InvertedLists

DIM = 16
QUERY = unit(np.random.default_rng(1).standard_normal((4, DIM)))


@pytest.fixture
def path(tmp_path):
    """An index of ten passages, uncompressed, one of them deleted."""
    folder = tmp_path / "x.idx"
    rng = np.random.default_rng(0)
    with Index.create(folder, dim=DIM, words="words") as index:
        passages = [Passage(f"p{n}", f"text {n}", {"n": n}) for n in range(10)]
        index.add(passages, embeddings=[unit(rng.standard_normal((3, DIM))) for _ in passages])
        index.delete(["p9"])
    return folder


@pytest.fixture
def compressed(tmp_path):
    """The same of 300 passages, compressed by a codec of 20 centroids in two layers."""
    folder = tmp_path / "compressed.idx"
    passages, vectors, _ = collection(300, dim=DIM)
    sample = np.concatenate(vectors)
    codec = ResidualCodec.fit(sample, 16, 4).extended(sample[::-1], 4)
    with Index.create(folder, dim=DIM, words="words", nbits=4, codec=codec) as index:
        index.add(passages, embeddings=vectors)
    return folder


def sql(folder, *statements):
    connection = sqlite3.connect(folder / "index.sqlite")
    for statement in statements:
        if isinstance(statement, tuple):
            connection.execute(*statement)
        else:
            connection.executescript(statement)
    connection.commit()
    connection.close()


def put(folder, kind, **changes):
    """Put arrays into a file of the index, with the name and checksum that go with them."""
    connection = sqlite3.connect(folder / "index.sqlite")
    name, data = connection.execute("SELECT name, data FROM files WHERE kind = ?", (kind,)).fetchone()
    arrays = {key: np.array(array) for key, array in load_arrays(np.frombuffer(data, np.uint8)).items()} | changes
    content = b"".join(bytes(piece) for piece in dump_arrays({key: [array] for key, array in arrays.items()}))
    digest = hashlib.sha256(content).hexdigest()
    row = (digest, len(content), digest, content, name)
    connection.execute("UPDATE files SET name = ?, size = ?, sha256 = ?, data = ? WHERE name = ?", row)
    connection.commit()
    connection.close()


def arrays_of(folder, kind):
    connection = sqlite3.connect(folder / "index.sqlite")
    (data,) = connection.execute("SELECT data FROM files WHERE kind = ?", (kind,)).fetchone()
    connection.close()
    return {key: np.array(array) for key, array in load_arrays(np.frombuffer(data, np.uint8)).items()}


# What an index says of itself


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("dim", value) for value in (None, 0, -1, 10**12, "16", b"16", 1.5)],
        *[("nbits", value) for value in (3, "4", -1, 2**40)],
        *[("identity", value) for value in (None, 7, b"x")],
        *[("generation", value) for value in (None, -1, "0", 2**62, 2**63 - 1, 1e300)],
        *[("next_row", value) for value in (None, -5, "12", 2**62, 0.5)],
        *[("codec_tokens", value) for value in ("many", -1)],
        *[("codec_given", value) for value in ("yes", 7)],
        *[("pool_factor", value) for value in ("2", b"2", 0.5, 0, -2, float("inf"))],
        *[("encoder", value) for value in ("[", "7", "[" * 100_000, '{"name": 3, "origin": null}', 12, b"\xff")],
        *[("probe", value) for value in ("text", b"123", np.full(DIM, np.nan, np.float32).tobytes())],
    ],
)
def test_a_setting_that_makes_no_sense_is_a_named_error(path, name, value):
    sql(path, ("UPDATE about SET value = ? WHERE key = ?", (value, name)))
    with pytest.raises(DamagedIndexError, match=r"damaged.*"):
        Index.open(path)


@pytest.mark.parametrize("name", ["dim", "nbits", "identity", "generation", "next_row", "encoder", "probe"])
def test_a_setting_that_is_missing_is_a_named_error(path, name):
    sql(path, ("DELETE FROM about WHERE key = ?", (name,)))
    with pytest.raises(DamagedIndexError, match="damaged"):
        Index.open(path)


def test_a_next_row_that_is_taken_is_refused_before_anything_is_written(path):
    for row in (3, 10):  # of a live passage, and of one that is gone but still has windows
        sql(path, ("UPDATE about SET value = ? WHERE key = 'next_row'", (row,)))
        with Index.open(path) as index:
            with pytest.raises(DamagedIndexError, match=f"row {row} is taken"):
                index.add([Passage("new", "new")], embeddings=[QUERY])
            assert len(index) == 9


def test_a_dead_row_that_would_hide_the_next_passage_is_refused(path):
    sql(path, "INSERT INTO dead VALUES (11)")
    with Index.open(path) as index, pytest.raises(DamagedIndexError, match="row 11 is taken"):
        index.add([Passage("new", "new")], embeddings=[QUERY])


def test_a_passage_that_is_dead_already_cannot_be_deleted_again(path):
    sql(path, "INSERT INTO dead VALUES (3)")
    with Index.open(path) as index, pytest.raises(DamagedIndexError, match="UNIQUE constraint failed"):
        index.delete(["p2"])


# Tables


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"


@pytest.mark.parametrize(
    "statements",
    [
        f"ALTER TABLE passages RENAME TO o; CREATE VIEW passages AS {ENDLESS} SELECT i AS row, 'a' AS id, '' AS text, '' AS metadata FROM n",
        f"DROP TABLE about; CREATE VIEW about AS {ENDLESS} SELECT i AS key, i AS value FROM n",
        f"DROP TABLE dead; CREATE VIEW dead AS {ENDLESS} SELECT i AS row FROM n",
        "CREATE TRIGGER t AFTER INSERT ON passages BEGIN DELETE FROM passages; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE more(x)",
        "CREATE INDEX i ON passages(lower(text))",
        "ALTER TABLE passages ADD COLUMN more AS (hex(zeroblob(1000000000)))",
        "DROP TABLE dead; CREATE TABLE dead(row TEXT)",
        "CREATE VIRTUAL TABLE v USING fts5(x)",
    ],
)
def test_a_table_that_is_not_one_of_ours_is_refused_before_it_is_read(path, statements):
    try:
        sql(path, statements)
    except sqlite3.OperationalError as error:
        pytest.skip(f"this SQLite cannot do it: {error}")
    with pytest.raises(UnsupportedIndexError, match="which no version of this package makes"):
        Index.open(path)


def test_a_table_that_is_missing_is_a_named_error(path):
    sql(path, "DROP TABLE dead")
    with pytest.raises(DamagedIndexError, match="CREATE TABLE dead.*is missing"):
        Index.open(path)


def test_statistics_of_the_users_own_are_no_fault(path):
    sql(path, "ANALYZE")
    with Index.open(path) as index:
        assert len(index.search(QUERY, 3)) == 3


@pytest.mark.parametrize(
    "row",
    [
        ("text", 1, 100, None),
        ("segment", "first", 100, None),
        ("segment", -1, 100, None),
        ("segment", 50, -1, None),
        ("segment", 50, 0, None),
        ("segment", 50, "x", None),
        ("segment", 50, 4, "text"),
        ("segment", 50, 4, b"123"),
        ("codec", 50, 2**63 - 1, None),
    ],
)
def test_a_file_that_no_writer_makes_is_a_named_error(path, row):
    kind, position, size, data = row
    sql(path, ("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)", ("a" * 64, kind, position, size, "a" * 64, data)))
    with pytest.raises(DamagedIndexError, match="damaged|missing"):
        Index.open(path)


def test_two_codecs_and_a_passage_in_two_segments_are_named_errors(path, compressed):
    connection = sqlite3.connect(compressed / "index.sqlite")
    (codec,) = connection.execute("SELECT data FROM files WHERE kind = 'codec'").fetchone()
    connection.close()
    for name in ("a", "b"):
        sql(path, ("INSERT INTO files VALUES (?, 'codec', 0, ?, ?, ?)", (name * 64, len(codec), name * 64, codec)))
    with pytest.raises(DamagedIndexError, match="it has 2 codecs"):
        Index.open(path)
    sql(
        compressed,
        "INSERT INTO files SELECT replace(hex(zeroblob(32)), '0', 'c'), kind, position, size, sha256, data FROM files WHERE kind = 'segment'",
    )
    with pytest.raises(DamagedIndexError, match="a passage lies in two segments"):
        Index.open(compressed)


# Passages


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("text", b"bytes"),
        ("text", 7),
        ("id", b"bytes"),
        ("id", ""),
        ("id", 3.5),
        ("metadata", "no JSON"),
        ("metadata", "[1]"),
        ("metadata", '{"n": NaN}'),
        ("metadata", '{"a":' * 100_000),
        ("metadata", b"{}"),
        ("metadata", "9" * 5000),
    ],
)
def test_a_passage_that_is_not_what_was_written_is_a_named_error(path, column, value):
    # The affinity of the columns turns numbers into text, but neither of these.
    sql(path, (f"UPDATE passages SET {column} = ? WHERE row = 1", (value,)))
    is_text = isinstance(value, int | float)
    with Index.open(path) as index:
        if is_text:
            assert len(index.search(QUERY, 10)) == 9
            return
        for call in (lambda: index.search(QUERY, 10), lambda: index.search(QUERY, 10, exact=True)):
            with pytest.raises(DamagedIndexError, match="passage .* in row 1 cannot be read"):
                call()
        if column != "id":
            with pytest.raises(DamagedIndexError, match="in row 1 cannot be read"):
                index.get(["p0"])
        assert any("in row 1 cannot be read" in problem for problem in index.verify().problems)


@pytest.mark.parametrize("column", ["id", "text", "metadata"])
def test_a_text_that_is_no_utf_8_is_a_named_error(path, column):
    sql(path, (f"UPDATE passages SET {column} = CAST(? AS TEXT) WHERE row = 1", (b"\xff\xfe",)))
    with Index.open(path) as index, pytest.raises(DamagedIndexError, match="Could not decode to UTF-8"):
        index.search(QUERY, 10)


def test_metadata_as_deep_as_json_allows_are_got_as_often_as_they_are_asked_for(path):
    sql(path, ("UPDATE passages SET metadata = ? WHERE row = 1", ('{"a":' * 400 + "1" + "}" * 400,)))
    with Index.open(path) as index:
        one, other = index.get(["p0", "p0"])
    assert one == other
    assert one.metadata is not other.metadata


# Arrays


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rows", lambda a: a - 5),
        ("rows", lambda a: a + 2**62),
        ("rows", lambda a: a[:, None]),
        ("spans", lambda a: a - 1),
        ("spans", lambda a: a[:, ::-1].copy()),
        ("doclens", lambda a: np.where(np.arange(len(a)) == 0, 2**31 - 1, a).astype(np.int32)),
        ("doclens", lambda a: a[:, None]),
        ("vectors", lambda a: a[:, :0]),
        ("vectors", lambda a: a.reshape(-1)),
    ],
)
def test_windows_that_do_not_fit_together_are_a_named_error(path, name, change):
    put(path, "segment", **{name: change(arrays_of(path, "segment")[name])})
    with pytest.raises(DamagedIndexError, match="File .* of the index is damaged"):
        Index.open(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, 0.0, 2.0])
def test_a_vector_that_is_none_is_a_named_error_wherever_it_is_used(path, value):
    vectors = arrays_of(path, "segment")["vectors"]
    vectors[4] = value
    put(path, "segment", vectors=vectors)
    with Index.open(path) as index:
        for call in (
            lambda: index.search(QUERY, 3),
            lambda: index.search(QUERY, 3, exact=True),
            lambda: index.embeddings(["p1"]),
            lambda: index.search_diverse(QUERY, 3),
        ):
            with pytest.raises(DamagedIndexError, match="a vector is not finite or not of length 1"):
                call()
        assert any("not of length 1" in problem for problem in index.verify().problems)
        assert [passage.id for passage in index.get(["p1"])] == ["p1"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("layers", lambda a: np.arange(20, dtype=np.int32)[: MOST_LAYERS + 1][::-1].copy(), "layers"),
        ("layers", lambda a: np.array([0, 0, 4], np.int32), "layers"),
        ("layers", lambda a: np.array([0, 20], np.int32), "layers"),
        ("layers", lambda a: np.array([0.0], np.float32), "layers"),
        ("layers", lambda a: np.zeros((1, 1), np.int32), "layers"),
        ("layers", lambda a: np.zeros(0, np.int32), "layers"),
        ("centroids", lambda a: a * np.float16(5), "a centroid is damaged: its length"),
        ("centroids", lambda a: np.full_like(a, np.nan), "a centroid is damaged"),
        ("centroids", lambda a: np.full_like(a, np.inf), "a centroid is damaged"),
        ("centroids", lambda a: a[:0], "0 centroids"),
        ("centroids", lambda a: a[:, :0], "dim 0"),
        ("centroids", lambda a: a.astype(np.int32), "int32"),
        ("levels", lambda a: a[:0], "levels"),
        ("levels", lambda a: a[::-1].copy(), "levels"),
        ("levels", lambda a: a * np.float32(1e9), "levels"),
        ("levels", lambda a: np.full_like(a, np.nan), "levels"),
        ("levels", lambda a: np.arange(16, dtype=np.int32), "levels"),
    ],
)
def test_a_codec_that_could_mislead_a_kernel_is_a_named_error(compressed, name, change, message):
    put(compressed, "codec", **{name: change(arrays_of(compressed, "codec")[name])})
    with pytest.raises(DamagedIndexError, match=message):
        Index.open(compressed)


def test_a_codec_of_more_layers_than_any_collection_has_is_refused():
    arrays = {"centroids": np.eye(100, 100, dtype=np.float16), "levels": np.array([-1, 1], np.float32)}
    layers = np.arange(MOST_LAYERS + 1, dtype=np.int32)
    assert len(ResidualCodec.from_arrays({**arrays, "layers": layers[:-1]}).layers) == MOST_LAYERS
    with pytest.raises(ValueError, match="not 1 to 64 whole numbers"):
        ResidualCodec.from_arrays({**arrays, "layers": layers})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("list_centroids", lambda a: a[::-1].copy()),
        ("list_centroids", lambda a: np.zeros_like(a)),
        ("list_centroids", lambda a: a + np.uint16(60_000)),
        ("list_offsets", lambda a: np.concatenate([a[:1], a[:-2], a[-1:]])),
        ("list_offsets", lambda a: a * 2**40),
        ("list_offsets", lambda a: a - 1),
        ("list_windows", lambda a: a[::-1].copy()),
        ("list_windows", lambda a: np.zeros_like(a)),
        ("list_windows", lambda a: a - 300),
        ("list_windows", lambda a: a + 2**30),
        ("codes", lambda a: np.full_like(a, 20)),
    ],
)
@pytest.mark.parametrize("options", [{}, {"where": {}}, {"ids": [f"{n:05}" for n in range(0, 300, 2)]}], ids=str)
def test_lists_and_codes_that_lead_nowhere_are_a_named_error(compressed, name, change, options):
    put(compressed, "segment", **{name: change(arrays_of(compressed, "segment")[name])})
    with Index.open(compressed) as index:
        with pytest.raises(DamagedIndexError, match="run verify to see where"):
            index.search(QUERY, 3, config=SearchConfig(2, 8, 4), **options)
        assert any(problem.startswith("Segment 0 is damaged") for problem in index.verify().problems)


def test_lists_by_hand_that_are_whole_and_those_that_are_not():
    offsets, windows = np.array([0, 2, 3]), np.array([0, 1, 0], np.int32)
    InvertedLists(np.array([1, 4], np.uint16), offsets, windows).check(5, 2)
    for centroids, ends, listed in (
        ([4, 1], offsets, windows),
        ([1, 5], offsets, windows),
        ([1, 4], np.array([0, 3, 3]), windows),
        ([1, 4], np.array([1, 2, 3]), windows),
        ([1, 4], np.array([0, 2, 4]), windows),
        ([1, 4], offsets, np.array([1, 1, 0], np.int32)),
        ([1, 4], offsets, np.array([0, 2, 0], np.int32)),
        ([1, 4], offsets, np.array([-1, 1, 0], np.int32)),
    ):
        with pytest.raises(IndexError, match="list"):
            InvertedLists(np.array(centroids, np.uint16), ends, listed).check(5, 2)


def test_what_a_writer_makes_of_damaged_vectors_is_a_named_error(path):
    vectors = arrays_of(path, "segment")["vectors"]
    vectors[4] = np.nan
    put(
        path,
        "segment",
        vectors=np.tile(vectors, (40, 1)),
        rows=np.arange(1, 401),
        doclens=np.full(400, 3, np.int32),
        spans=np.zeros((400, 2), np.int32),
    )
    sql(path, "UPDATE about SET value = 500 WHERE key = 'next_row'")
    with Index.open(path) as index, pytest.raises(DamagedIndexError, match="not of length 1"):
        index.compact()  # fits a codec to them


# Long queries


def test_a_query_of_thousands_of_vectors_over_many_layers_is_searched_right():
    passages, vectors, _ = collection(3000, dim=DIM, tokens=(2, 5))
    sample = np.concatenate(vectors)
    codec = ResidualCodec.fit(sample, 64, 4)
    layered = ResidualCodec(codec.centroids, codec.levels, (0, 16, 32, 48))
    index = Index.create(None, dim=DIM, words="words", nbits=4, codec=layered)
    index.add(passages, embeddings=vectors)
    query = np.tile(vectors[7], (40_000 // len(vectors[7]), 1))  # so that sums of cosines pass 2**31
    config = SearchConfig(16, 1024, 64)
    (found,) = index.search(query, 1, config=config)
    (best,) = index.search(query, 1, exact=True)
    assert found.passage.id == best.passage.id
    assert found.score == pytest.approx(best.score)


def test_a_query_too_long_for_a_table_of_all_centroids_scores_everything(grown, monkeypatch):
    index, queries = grown
    monkeypatch.setattr("colbert_core.search.ranking._LARGEST_TABLE", 10)
    assert index.search(queries[0], 5, config=SearchConfig(1, 8, 4)) == index.search(queries[0], 5, exact=True)


def test_a_query_of_more_than_100_000_vectors_is_refused(grown):
    index, queries = grown
    query = np.tile(queries[0], (1 + 100_000 // len(queries[0]), 1))
    with pytest.raises(ValueError, match="at most 100,000 vectors, got 100,00"):
        index.search(query, 1)


def test_no_segments_and_a_filter_give_no_hits(path):
    sql(path, "DELETE FROM files")
    with Index.open(path) as index:
        assert index.search(QUERY, 3, ids=["p1", "p2"]) == []
        assert index.verify().problems == [
            "9 passages have no vectors, and vectors of 0 have no passage",
            "The settings of the index, or the names of its files, have changed since they were written (checksum)",
        ]
