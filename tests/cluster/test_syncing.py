"""Folders kept in step with an index in shards: the same as with one index, also after interruptions between the shards."""

from __future__ import annotations

import os
import random
import shutil

import pytest
from builders.cluster import begin_shards
from builders.encoders import WORDS

from colbert_core import Index, sync
from colbert_core.cluster import ShardedIndex
from colbert_core.folders import syncing


@pytest.fixture(scope="module")
def opened(stanford, codec, tmp_path_factory):
    """Three shards, which several tests empty and fill again."""
    folder = begin_shards(tmp_path_factory.mktemp("synced") / "three", 3, stanford, codec)
    with ShardedIndex.open(folder, stanford, address="local") as index:
        yield index


@pytest.fixture
def both(opened, stanford, codec, tmp_path):
    """Shards without files, and one index with the same codec."""
    opened.clear()
    opened._put_files([], syncing.FileChanges(sources=dict.fromkeys(source.name for source, _ in opened._sources())))
    assert opened._sources() == []
    with Index.create(tmp_path / "one", stanford, codec=codec) as one:
        yield opened, one


class Interrupted(Exception):
    """Something that ends a sync between two shards."""


def interrupted(index, monkeypatch, at, chosen):
    """Let only some shards do the write with the number ``at``, and then fail."""
    ask, number = index._replicas.ask, iter(range(10_000))

    def ask_some(calls, **options):
        is_write = any(method == "_put_part" for method, _, _ in calls.values())
        if is_write and next(number) == at:
            ask({shard: call for shard, call in calls.items() if chosen.random() < 0.5})
            raise Interrupted
        return ask(calls, **options)

    monkeypatch.setattr(index._replicas, "ask", ask_some)


def content(index):
    return {passage.id: passage for passage in index.passages()}


def told(report):
    """What a report says, without the time that it took."""
    return (
        sorted(report.added),
        sorted(report.changed),
        sorted(report.removed),
        report.moved,
        report.unchanged,
        report.read,
        report.n_passages,
        [(problem.name, problem.kind) for problem in report.problems],
    )


def text_of(chosen):
    """A text of several pieces, or of one."""
    return "\n\n".join(
        f"# {chosen.choice(WORDS)}\n\n{' '.join(chosen.choices(WORDS, k=30))}" for _ in range(chosen.randint(1, 4))
    )


def change(folder, chosen):
    """Add, change, move and remove some files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        fate = chosen.random()
        if fate < 0.2:
            path.write_text(text_of(chosen))
        elif fate < 0.35:
            path.unlink()
        elif fate < 0.5:
            (folder / f"moved{chosen.randint(0, 2)}").mkdir(exist_ok=True)
            target = folder / f"moved{chosen.randint(0, 2)}" / path.name
            if target.parent.is_dir() and not target.exists():
                path.rename(target)
    for _ in range(chosen.randint(1, 5)):
        (folder / f"file{chosen.randint(0, 20)}.md").write_text(text_of(chosen))
    (folder / "rows.jsonl").write_text(
        "".join(f'{{"id": "row{n}", "text": "{chosen.choice(WORDS)}"}}\n' for n in range(chosen.randint(1, 9)))
    )
    (folder / "empty.txt").write_text("")
    for path in folder.rglob("*.md"):  # a change within the clock's step is told by the content alone
        if chosen.random() < 0.3:
            os.utime(path, ns=(chosen.randint(1, 10**18),) * 2)


def assert_same(index, one):
    assert content(index) == content(one)
    assert index._sources() == one._sources()
    for query in ("the cat sat on a mat", "happy dogs"):
        for options in ({}, {"mode": "hybrid"}, {"where": {"source": {"$exists": True}}}):
            assert index.search(query, 20, exact=True, **options) == one.search(query, 20, exact=True, **options)


@pytest.mark.parametrize("seed", range(4))
def test_shards_are_kept_in_step_as_one_index_is(both, tmp_path, monkeypatch, seed):
    index, one = both
    chosen, docs = random.Random(seed), tmp_path / "docs"
    docs.mkdir()
    monkeypatch.setattr(syncing, "_MOST_CHARACTERS", chosen.choice([300, 2000, 2**18]))
    for _ in range(4):
        change(docs, chosen)
        dry = sync(docs, index, dry_run=True, progress=False)
        assert told(dry) == told(sync(docs, one, dry_run=True, progress=False))
        assert told(sync(docs, index, progress=False)) == told(sync(docs, one, progress=False))
        assert_same(index, one)
        generations = [each.stats().generation for each in (index, one)]
        again = [sync(docs, each, progress=False) for each in (index, one)]
        assert told(again[0]) == told(again[1])
        assert (again[0].added, again[0].changed, again[0].removed, again[0].moved) == ([], [], [], {})
        is_written = one.stats().generation > generations[1]  # a file that gave no passages for now is looked into again
        assert is_written or index.stats().generation == generations[0]
    assert index.verify(progress=False).ok


@pytest.mark.parametrize("seed", range(6))
def test_a_run_that_ended_between_two_shards_is_gone_on_with(both, tmp_path, monkeypatch, seed):
    index, one = both
    chosen, docs = random.Random(seed), tmp_path / "docs"
    docs.mkdir()
    monkeypatch.setattr(syncing, "_MOST_CHARACTERS", chosen.choice([300, 1000]))
    change(docs, chosen)
    sync(docs, index, progress=False)
    sync(docs, one, progress=False)
    change(docs, chosen)
    sync(docs, one, progress=False)
    n_interrupted = 0
    for _ in range(3):  # each gets further than the one before, or is through
        with monkeypatch.context() as patch:
            interrupted(index, patch, chosen.randint(0, 2), chosen)
            try:
                sync(docs, index, progress=False)
            except Interrupted:
                n_interrupted += 1
    assert n_interrupted
    if seed % 2:  # and meanwhile files become what they were before
        shutil.rmtree(docs)
        docs.mkdir()
        change(docs, random.Random(seed))
        sync(docs, one, progress=False)
    sync(docs, index, progress=False)
    assert content(index) == content(one)
    by_name = {source.name: (source.sha256, left) for source, left in index._sources()}
    assert by_name == {source.name: (source.sha256, left) for source, left in one._sources()}
    before = index.stats().generation
    assert sync(docs, index, progress=False).unchanged == sync(docs, one, progress=False).unchanged
    assert index.stats().generation == before


def test_a_file_of_many_passages_is_put_in_by_several_commits_of_each_shard(both, tmp_path, monkeypatch):
    index, one = both
    monkeypatch.setattr(syncing, "_MOST_PASSAGES", 8)
    docs = tmp_path / "docs"
    docs.mkdir()
    for n, first in ((50, 0), (30, 20), (3, 0)):
        lines = "".join(f'{{"id": "r{first + number}", "text": "{WORDS[number % 20]} {n}"}}\n' for number in range(n))
        (docs / "many.jsonl").write_text(lines)
        assert told(sync(docs, index, progress=False)) == told(sync(docs, one, progress=False))
        assert_same(index, one)
        assert len(index) == n


def test_files_that_are_moved_keep_their_vectors_whichever_shards_they_belong_to(both, stanford, tmp_path, monkeypatch):
    index, one = both
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text(text_of(random.Random(1)) * 3)
    (docs / "blank.md").write_text("# \n\n" + text_of(random.Random(2)))
    for each in (index, one):
        sync(docs, each, progress=False)
    (docs / "deep").mkdir()
    for name in ("a.md", "blank.md"):
        (docs / name).rename(docs / "deep" / name)

    def fail(*_, **__):
        raise AssertionError("nothing is to be encoded")

    with monkeypatch.context() as patch:
        patch.setattr(type(stanford), "encode_passages", fail)
        reports = [sync(docs, each, progress=False) for each in (index, one)]
    assert told(reports[0]) == told(reports[1])
    assert len(reports[0].moved) == 2
    assert_same(index, one)
    assert all(passage_id.startswith("docs/deep/") for passage_id in index.ids())


def test_an_id_that_is_in_another_file_already_is_named(both, tmp_path):
    index, one = both
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.jsonl").write_text('{"id": "x", "text": "the cat"}\n')
    for each in (index, one):
        sync(docs, each, progress=False)
    (docs / "b.jsonl").write_text('{"id": "x", "text": "the dog"}\n')
    reports = [sync(docs, each, progress=False) for each in (index, one)]
    assert told(reports[0]) == told(reports[1])
    assert [problem.kind for problem in reports[0].problems] == ["duplicate"]
    assert_same(index, one)
