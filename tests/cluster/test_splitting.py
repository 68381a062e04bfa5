"""The passages of a sharded index in another number of shards: not one score is another, whoever is killed meanwhile."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys

import numpy as np
import pytest
from builders.cluster import PASSAGES, QUERIES, contents_of, passages_of, sharded_here
from builders.encoders import WordEncoder
from builders.processes import environment

from colbert_core import DamagedIndexError, Index, IndexExistsError, IndexLockedError, IndexNotFoundError, Passage
from colbert_core.cluster import ShardedIndex, split, splitting
from colbert_core.cluster.layout import Layout, shard_of
from colbert_core.storage import files
from colbert_core.vectors.codec import ResidualCodec

# Ray Data warns of its own settings when it copies them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """A few passages make a file beside the database."""
    monkeypatch.setattr(files, "_LARGEST_ROW", 2000)


def changed(folder):
    """A sharded index with several segments, dead windows and passages that were replaced."""
    for shard in range(Layout(folder).read().shards):
        with Index.open(Layout(folder).shard(shard), WordEncoder()) as index:
            mine = [p for p in passages_of(60, seed=1) if shard_of(p.id, Layout(folder).read().shards) == shard]
            index.add(mine, refit=False)
            index.delete(index.ids()[::7])
            index.update_metadata({"seen": True}, where={"year": 2003})
    return folder


def found(folder):
    """What exact searches over all shards find, merged; and the passages."""
    each = contents_of(folder)
    passages = sorted((passage for passages, _ in each for passage in passages), key=lambda passage: passage.id)
    hits = [
        sorted((hit for _, of_queries in each for hit in of_queries[n]), key=lambda hit: (-hit[1], hit[0]))
        for n in range(len(QUERIES))
    ]
    return passages, hits


@pytest.mark.parametrize(("before", "after", "nbits"), [(2, 4, 4), (2, 3, 1), (3, 1, 4), (1, 5, 32)])
def test_every_passage_goes_to_the_shard_of_its_id_and_scores_what_it_scored(tmp_path, before, after, nbits, monkeypatch):
    folder = changed(sharded_here(tmp_path / "old", shards=before, nbits=nbits))
    wanted = found(folder)
    monkeypatch.setattr(ResidualCodec, "decompress", None)
    monkeypatch.setattr(ResidualCodec, "compress", None)
    monkeypatch.setattr(splitting, "_BATCH", 16)
    settings = split(folder, tmp_path / "new", shards=after)
    monkeypatch.undo()
    assert (settings.shards, settings.passages) == (after, len(wanted[0]))
    assert found(tmp_path / "new") == wanted == found(folder)
    assert Layout(tmp_path / "new").read() == settings
    for shard in range(after):
        with Index.open(Layout(tmp_path / "new").shard(shard)) as index:
            assert {shard_of(passage_id, after) for passage_id in index.ids()} <= {shard}
            assert index.stats().dead_tokens == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
    assert not list((tmp_path / "new").glob("split*"))


def test_a_passage_without_vectors_and_a_shard_without_passages_stay(tmp_path):
    folder = sharded_here(tmp_path / "old", [Passage("blank", ""), Passage("cat", "the cat sat")], shards=2)
    split(folder, tmp_path / "new", shards=5)
    assert found(tmp_path / "new") == found(folder)
    with Index.open(Layout(tmp_path / "new").shard(shard_of("blank", 5))) as index:
        assert index.get(["blank"]) == [Passage("blank", "")]


def test_a_split_index_is_added_to_with_the_codec_that_it_had(tmp_path):
    folder = sharded_here(tmp_path / "old")
    split(folder, tmp_path / "new", shards=3)
    for before, after in ((folder, 2), (tmp_path / "new", 3)):
        with Index.open(Layout(before).shard(shard_of("more", after)), WordEncoder()) as index:
            index.add([Passage("more", "happy pets purr")])
            index.compact()
    assert found(tmp_path / "new") == found(folder)
    with Index.open(Layout(folder).shard(0)) as old, Index.open(Layout(tmp_path / "new").shard(2)) as new:
        assert old.codec_id == new.codec_id is not None


def test_all_searches_of_a_sharded_index_find_the_same_after_it_was_split(tmp_path):
    folder = changed(sharded_here(tmp_path / "old"))
    split(folder, tmp_path / "new", shards=3)
    encoder = WordEncoder()
    with (
        ShardedIndex.open(folder, encoder, address="local") as old,
        ShardedIndex.open(tmp_path / "new", encoder, address="local") as new,
    ):
        for options in (
            {"k": 300, "exact": True},
            {"k": 10},
            {"k": 10, "where": {"year": {"$gte": 2003}}},
            {"k": 10, "where": {"seen": True}},
            {"k": 10, "ids": ["id7", "id8", "nobody"]},
            {"k": 10, "min_relevance": 0.5},
            {"k": 10, "mode": "hybrid"},
            {"k": 10, "mode": "words"},
        ):
            assert new.search_many(QUERIES, **options) == old.search_many(QUERIES, **options)
        assert new.search_mean(QUERIES[:2], 10) == old.search_mean(QUERIES[:2], 10)
        assert sorted(new.ids()) == sorted(old.ids())
        assert new.stats().tokens == old.stats().tokens


# Faults

SPLIT = """
import sys
from builders.dying import die_at
from colbert_core.cluster import split
from colbert_core.storage import files
files._LARGEST_ROW = 2000
folder, out, step, turn = sys.argv[1:]
die_at(step, turn)
split(folder, out, shards=4, progress=False)
"""


def killed_at(step, turn, folder, out):
    arguments = [sys.executable, "-c", SPLIT, str(folder), str(out), step, str(turn)]
    done = subprocess.run(arguments, env=environment(), timeout=200, check=False, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode == -signal.SIGKILL


def made_shards(tmp_path):
    return {path: path.stat().st_ino for path in sorted((tmp_path / ".new.unfinished").glob("shard-*"))}


@pytest.mark.parametrize(
    ("step", "turn", "n_made"),
    [
        ("shard made", 2, 2),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("committed", 7, None), ("split", 1, 4))),
    ],
)
def test_who_is_killed_leaves_the_old_index_and_the_next_one_goes_on(tmp_path, step, turn, n_made):
    folder = changed(sharded_here(tmp_path / "old"))
    wanted = found(folder)
    assert killed_at(step, turn, folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert found(folder) == wanted
    made = made_shards(tmp_path)
    assert n_made in (None, len(made))
    split(folder, tmp_path / "new", shards=4)
    assert all((tmp_path / "new" / path.name).stat().st_ino == inode for path, inode in made.items())
    assert found(tmp_path / "new") == wanted


def test_what_was_made_of_an_earlier_moment_is_made_anew(tmp_path, caplog):
    folder = sharded_here(tmp_path / "old")
    assert killed_at("shard made", 2, folder, tmp_path / "new")
    with Index.open(Layout(folder).shard(shard_of("more", 2)), WordEncoder()) as index:
        index.add([Passage("more", "happy pets purr")], refit=False)
    with caplog.at_level(logging.WARNING):
        assert split(folder, tmp_path / "new", shards=4).passages == 241
    assert "is of another moment" in caplog.text
    assert found(tmp_path / "new") == found(folder)


def test_nobody_writes_while_an_index_is_split_and_searches_go_on(tmp_path, monkeypatch):
    folder = sharded_here(tmp_path / "old")
    fill, seen = splitting._fill, []

    def fill_and_look(*arguments):
        with Index.open(Layout(folder).shard(1), WordEncoder(), timeout=0) as index:
            seen.append(len(index.search("the cat sat", 3)))
            with pytest.raises(IndexLockedError):
                index.delete(["id0"])
        fill(*arguments)

    monkeypatch.setattr(splitting, "_fill", fill_and_look)
    split(folder, tmp_path / "new", shards=3)
    assert seen == [3, 3, 3]


def test_damage_is_not_carried_over(tmp_path):
    folder = sharded_here(tmp_path / "old")
    path = max((Layout(folder).shard(1) / "files").iterdir(), key=lambda path: path.stat().st_size)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedIndexError, match=f"Nothing was split: File {path.name} .* has changed"):
        split(folder, tmp_path / "new", shards=3)
    path.write_bytes(content)
    with Index.open(Layout(folder).shard(1)) as index, index._store.connections.used() as connection:
        connection.execute("UPDATE passages SET text = 'the dog sat' WHERE row = 3")
    with pytest.raises(DamagedIndexError, match="Nothing was split: Passage .* has changed"):
        split(folder, tmp_path / "new", shards=3)
    assert not (tmp_path / "new").exists()


def test_arguments_are_checked(tmp_path):
    folder = sharded_here(tmp_path / "old", PASSAGES[:20])
    for wrong, error, words in (
        ({"shards": 0}, ValueError, "shards"),
        ({"shards": 2}, ValueError, "is in 2 shards already"),
        ({"out": folder}, IndexExistsError, "exists already"),
        ({"folder": tmp_path}, IndexNotFoundError, "no sharded index"),
    ):
        with pytest.raises(error, match=words):
            split(**{"folder": folder, "out": tmp_path / "new", "shards": 3} | wrong)
    Layout(folder).shard(1).rename(tmp_path / "away")
    with pytest.raises(DamagedIndexError, match="lacks 1 of its 2 shards"):
        split(folder, tmp_path / "new", shards=3)
    assert np.unique([shard_of(passage.id, 2) for passage in PASSAGES]).tolist() == [0, 1]
