"""A codec gets more centroids while its collection is searched: no score changes, whoever is killed, and whatever comes between."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from builders.cluster import QUERIES, checksums, passages_of, sharded_here
from builders.encoders import WordEncoder
from builders.processes import environment
from builders.replicas import FEW, MORE, codecs, grown, opened_here, scores

from colbert_core import DamagedIndexError, Index, IndexLockedError, Passage, ReadOnlyIndexError, sync
from colbert_core.cluster import Refit, ShardedIndex, publish, restore, split
from colbert_core.cluster.layout import Layout, Settings
from colbert_core.cluster.locks import alone
from colbert_core.errors import ClusterError
from colbert_core.index.extension import Extension, codec_bytes
from colbert_core.storage import files
from colbert_core.storage.durable import sha256_of
from colbert_core.vectors.codec import ResidualCodec, count_centroids


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """A few passages make a file beside the database."""
    monkeypatch.setattr(files, "_LARGEST_ROW", 2000)


# When


def test_a_codec_was_fitted_to_what_is_noted_or_else_to_the_vectors_of_the_passages_that_were_built_in():
    settings = Settings(2, 4, "default", passages=100)
    assert settings.fitted_on(n_tokens=3000, n_passages=300) == 1000
    assert dataclasses.replace(settings, passages=None).fitted_on(3000, 300) == 3000
    assert settings.fitted_on(0, 0) == 0
    assert dataclasses.replace(settings, codec_tokens=7).fitted_on(3000, 300) == 7


def test_an_index_that_has_not_grown_fourfold_is_left_as_it_is(tmp_path):
    folder = sharded_here(tmp_path / "index", FEW, seed_passages=FEW)
    with opened_here(folder) as index:
        built = index.stats().tokens
        index.add(MORE[:90], progress=False)
        before, tokens = checksums(folder), index.stats().tokens
        assert built < tokens < 4 * built
        done = index.refit(progress=False)
        assert done == Refit(0, 16, tokens, round(tokens * 50 / 140))
        assert checksums(folder) == before
    assert not Layout(folder).refit.exists()


def test_an_index_that_has_grown_gets_as_many_centroids_as_one_index_would_and_not_twice(tmp_path):
    folder = grown(tmp_path / "index")
    with opened_here(folder) as index:
        tokens = index.stats().tokens
        done = index.refit(progress=False)
        assert done == Refit(count_centroids(tokens), 16 + count_centroids(tokens), tokens, tokens)
        assert index.stats().centroids == done.centroids
        assert Layout(folder).read().codec_tokens == tokens
        assert index.refit(progress=False) == dataclasses.replace(done, added=0)
        assert index.verify().ok
    (codec,) = set(codecs(folder))
    assert sha256_of(Layout(folder).codec) == codec
    assert not Layout(folder).refit.exists()


def test_vectors_that_are_kept_as_they_are_have_no_codec(tmp_path):
    folder = sharded_here(tmp_path / "index", FEW, nbits=32)
    with opened_here(folder) as index:
        assert index.refit(progress=False) == Refit(0, 0, index.stats().tokens, None)


def test_every_shard_gives_a_sample_in_proportion_to_its_vectors(tmp_path, monkeypatch):
    folder, asked = grown(tmp_path / "index"), {}
    monkeypatch.setattr("colbert_core.cluster.refitting.sample_size", lambda _: 600)
    with opened_here(folder) as index:
        call = index._replicas.call

        def noted(shard, method, arguments, options):
            if method == "_sample":
                asked[shard] = arguments[0]
            return call(shard, method, arguments, options)

        monkeypatch.setattr(index._replicas, "call", noted)
        index.refit(progress=False)
        tokens = [stats.tokens for stats in index._replicas.ask_all("stats")]
    assert asked == {shard: round(600 * each / sum(tokens)) for shard, each in enumerate(tokens)}
    assert len(set(asked.values())) > 1 and abs(sum(asked.values()) - 600) <= 3


# What is found


@pytest.mark.parametrize("nbits", [1, 4])
def test_passages_score_what_they_scored_before_and_new_ones_what_they_score_in_one_index(tmp_path, nbits):
    folder = grown(tmp_path / "index", nbits=nbits)
    encoder = WordEncoder()
    with (
        opened_here(folder) as index,
        Index.create(tmp_path / "one", encoder, nbits=nbits, codec=codec_of(folder)) as one,
    ):
        one.add(FEW, refit=False)
        one.add(MORE, refit=False)
        one.delete([passage.id for passage in FEW[:3]])
        before = scores(index)
        assert before == scores(one)
        assert index.refit(progress=False).added
        assert scores(index) == before
        Extension(codec_of(folder), str(one.codec_id), tokens=0).write(tmp_path / "extension")
        one._extend_codec(tmp_path / "extension")
        assert one.codec_id == index.codec_id
        new = [dataclasses.replace(passage, id=f"new{passage.id}") for passage in passages_of(40, seed=2)]
        index.add(new, progress=False)
        one.add(new, refit=False)
        index.compact(progress=False)
        assert scores(index) == scores(one)
        for options in ({"mode": "hybrid"}, {"where": {"year": 2003}}, {"ids": ["newid3", "moreid4"]}):
            found = index.search_many(QUERIES, 10, exact=True, **options)
            assert found == one.search_many(QUERIES, 10, exact=True, **options)


def codec_of(folder):
    with Index.open(Layout(folder).shard(0)) as index:
        return ResidualCodec.from_arrays(index._codec_arrays())


def clustered(n, dim=64, seed=0):
    """Passages of vectors around as many centers as there are tens of passages, and queries that are near some passages."""
    chosen = np.random.default_rng(seed)
    centers = chosen.normal(size=(n // 10, dim))
    vectors = centers[chosen.integers(len(centers), size=(n, 8))] + 0.8 * chosen.normal(size=(n, 8, dim))
    vectors = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float32)
    queries = vectors[:: n // 40] + 0.05 * chosen.normal(size=(len(vectors[:: n // 40]), 8, dim))
    return list(vectors), [(query / np.linalg.norm(query, axis=1, keepdims=True)).astype(np.float32) for query in queries]


@pytest.mark.slow
def test_what_comes_after_a_refit_is_found_better_than_with_the_codec_of_a_small_collection(tmp_path):
    vectors, queries = clustered(8000)
    names = [Passage(f"p{n}", "p") for n in range(len(vectors))]
    small, large = 400, 4000
    codec = ResidualCodec.fit(np.concatenate(vectors[:small]), count_centroids(8 * small), 1)
    layout = Layout(tmp_path / "index")
    layout.folder.mkdir()
    for shard in range(2):
        Index.create(layout.shard(shard), dim=64, nbits=1, codec=codec).close()
    layout.write(Settings(2, 1, "none", passages=small, words=False))
    shutil.copytree(layout.folder, tmp_path / "as it was")
    recalls = {}
    with Index.create(None, dim=64) as truth:
        truth.add(names, embeddings=vectors)
        right = [{hit.passage.id for hit in truth.search(query, 10, exact=True)} for query in queries]
    for folder, is_refit in ((layout.folder, True), (tmp_path / "as it was", False)):
        with opened_here(folder) as index:
            index.add(names[:large], embeddings=vectors[:large], progress=False)
            if is_refit:
                assert index.refit(progress=False).added == count_centroids(8 * large)
            index.add(names[large:], embeddings=vectors[large:], progress=False)
            for exact in (True, False):
                found = [{hit.passage.id for hit in index.search(query, 10, exact=exact)} for query in queries]
                recalls[is_refit, exact] = np.mean([len(a & b) / 10 for a, b in zip(found, right, strict=True)])
    print(recalls)
    assert recalls[True, True] >= recalls[False, True] + 0.02
    assert recalls[True, False] >= recalls[False, False] + 0.02


# Interruptions

REFIT = """
import sys
from builders.dying import die_at
from builders.replicas import opened_here
from colbert_core.storage import files
files._LARGEST_ROW = 2000
folder, step, turn = sys.argv[1:]
with opened_here(folder) as index:
    die_at(step, turn)
    index.refit(progress=False)
"""


def killed_at(folder, step, turn):
    arguments = [sys.executable, "-c", REFIT, str(folder), step, str(turn)]
    done = subprocess.run(arguments, env=environment(), timeout=200, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """An index of three shards, of which the first has the new codec: its process was killed before the second got it."""
    folder = grown(tmp_path_factory.mktemp("interrupted") / "index")
    killed_at(folder, "committed", 1)
    first, *others = codecs(folder)
    assert len(set(others)) == 1 and first not in others
    return folder


@pytest.fixture
def halfway(interrupted, tmp_path):
    shutil.copytree(interrupted, tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.parametrize(
    ("step", "turn", "n_taken"),
    [
        ("committed", 2, 2),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("codec fitted", 1, 0), ("rows written", 1, 0))),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("codec taken", 1, 3), ("codec replaced", 1, 3))),
    ],
)
def test_who_is_killed_leaves_an_index_that_is_searched_and_added_to_and_the_next_one_goes_on(tmp_path, step, turn, n_taken):
    folder = grown(tmp_path / "index")
    with opened_here(folder) as index:
        before, tokens, old = scores(index), index.stats().tokens, index.codec_id
    killed_at(folder, step, turn)
    layout = Layout(folder)
    extension = Extension.read(layout.refit)
    assert (extension.extends, extension.tokens) == (old, tokens)
    assert codecs(folder) == [extension.id] * n_taken + [old] * (3 - n_taken)
    with opened_here(folder) as index:
        assert scores(index) == before
        new = [Passage(f"new{n}", "zebras graze quietly") for n in range(9)]
        index.add(new, progress=False)
        assert {hit.passage.id for hit in index.search("zebras graze quietly", 9)} == {passage.id for passage in new}
        assert index.refit(progress=False) == Refit(extension.added, 16 + extension.added, index.stats().tokens, tokens)
        assert codecs(folder) == [extension.id] * 3
        assert not index.refit(progress=False).added
        index.delete([passage.id for passage in new])
        assert scores(index) == before
        assert index.verify().ok
    assert layout.codec.read_bytes() == codec_bytes(extension.codec)
    assert (layout.read().codec_tokens, layout.refit.exists()) == (tokens, False)


def test_shards_with_two_codecs_are_not_copied_before_the_refit_is_done(halfway, tmp_path):
    words = "is being refit, or that was interrupted.*colbert cluster refit"
    with opened_here(halfway) as index:
        for copy in (
            lambda: index.save(tmp_path / "copy"),
            lambda: publish(halfway, tmp_path / "published", progress=False),
            lambda: split(halfway, tmp_path / "split", shards=2, progress=False),
        ):
            with pytest.raises(ClusterError, match=words):
                copy()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]
        wanted = scores(index)
        index.refit(progress=False)
        index.save(tmp_path / "copy")
    publish(halfway, tmp_path / "published", progress=False)
    restore(tmp_path / "published", tmp_path / "restored", progress=False)
    settings = split(halfway, tmp_path / "split", shards=2, progress=False)
    assert settings.codec_tokens == Layout(halfway).read().codec_tokens
    (codec,) = set(codecs(halfway))
    for name in ("copy", "restored", "split"):
        assert set(codecs(tmp_path / name)) == {codec}
        assert sha256_of(Layout(tmp_path / name).codec) == codec
        with opened_here(tmp_path / name) as index:
            assert scores(index) == wanted
            assert not index.refit(progress=False).added


def test_a_snapshot_that_a_refit_came_between_is_not_published(tmp_path, monkeypatch):
    folder = grown(tmp_path / "index")
    put, calls = publish.__globals__["_put_shard"], []

    def put_and_refit(shard, *rest):
        if calls:
            with opened_here(folder) as index:
                index.refit(progress=False)
        calls.append(shard)
        return put(shard, *rest)

    monkeypatch.setitem(publish.__globals__, "_put_shard", put_and_refit)
    with pytest.raises(ClusterError, match="was refit while it was published; publish it again"):
        publish(folder, tmp_path / "published", progress=False)
    monkeypatch.undo()
    publish(folder, tmp_path / "published", progress=False)


def test_a_copy_that_a_refit_came_between_is_not_kept(tmp_path, monkeypatch):
    folder = grown(tmp_path / "index")
    with opened_here(folder) as index, opened_here(folder) as other:
        call = index._replicas.call

        def save_and_refit(shard, method, *rest):
            if method == "save" and shard == 1:
                other.refit(progress=False)
            return call(shard, method, *rest)

        monkeypatch.setattr(index._replicas, "call", save_and_refit)
        with pytest.raises(ClusterError, match="was refit while it was saved; save it again"):
            index.save(tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
        index.save(tmp_path / "copy")
        assert len(set(codecs(tmp_path / "copy"))) == 1


def test_an_index_split_before_its_codec_was_noted_keeps_when_it_is_due(tmp_path):
    folder = sharded_here(tmp_path / "index", FEW, seed_passages=FEW)
    with opened_here(folder) as index:
        built = index.stats().tokens
        index.add(MORE[:90], progress=False)
        tokens = index.stats().tokens
    assert split(folder, tmp_path / "new", shards=3, progress=False).codec_tokens == round(tokens * 50 / 140)
    with opened_here(tmp_path / "new") as index:
        index.add(MORE[90:], progress=False)
        assert index.stats().tokens > 4 * built
        assert index.refit(progress=False).added


def test_files_that_have_moved_take_their_codes_to_shards_that_had_the_old_codec(tmp_path, stanford, codec):
    from builders.cluster import begin_shards

    docs, folder = tmp_path / "docs", begin_shards(tmp_path / "index", 3, stanford, codec)
    docs.mkdir()
    for number, passage in enumerate(passages_of(60, seed=3)):
        (docs / f"{number}.md").write_text(passage.text)
    with opened_here(folder, stanford) as index:
        layout, call = Layout(folder), index._replicas.call
        layout.write(dataclasses.replace(layout.read(), codec_tokens=1))  # as if it had grown
        sync(docs, index, progress=False)

        def first_alone(shard, method, *rest):
            return None if method == "_extend_codec" and shard else call(shard, method, *rest)

        index._replicas.call = first_alone
        index._replicas.layout = layout
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("colbert_core.cluster.refitting._finish", lambda *_: None)
            assert index.refit(progress=False).added
        index._replicas.call = call
        assert len(set(codecs(folder))) == 2
        (docs / "more.md").write_text("the cat sat on a mat and rust is a language")
        sync(docs, index, progress=False)
        for path in sorted(docs.glob("*.md")):
            (docs / "deep").mkdir(exist_ok=True)
            path.rename(docs / "deep" / path.name)
        before = {hit.passage.text: hit.score for hit in index.search(QUERIES[0], 100, exact=True)}
        report = sync(docs, index, progress=False)
        assert len(report.moved) == 61
        assert {hit.passage.text: hit.score for hit in index.search(QUERIES[0], 100, exact=True)} == before
        assert len(set(codecs(folder))) == 1
        assert index.refit(progress=False).added
        assert index.verify().ok


# Mistakes


def test_codecs_of_which_none_extends_the_other_are_still_refused(halfway, tmp_path):
    layout = Layout(halfway)
    refit = layout.refit.read_bytes()
    layout.refit.unlink()
    with pytest.raises(ClusterError, match="Shards 0 and 1 .* have different codecs"), opened_here(halfway):
        pass
    layout.refit.write_bytes(refit[:-1])
    with pytest.raises(DamagedIndexError, match=r"refit\.safetensors is damaged"), opened_here(halfway):
        pass
    other = grown(tmp_path / "other", nbits=2)
    killed_at(other, "codec fitted", 1)
    layout.refit.write_bytes(Layout(other).refit.read_bytes())
    with pytest.raises(ClusterError, match="have different codecs"), opened_here(halfway):
        pass
    with Index.open(layout.shard(0)) as index:
        with pytest.raises(ClusterError, match="it is no part of the same collection"):
            index._extend_codec(layout.refit)
        assert index.verify().ok


def test_a_code_that_names_no_centroid_of_a_shard_is_not_taken(halfway):
    with Index.open(Layout(halfway).shard(0), WordEncoder()) as new, Index.open(Layout(halfway).shard(1)) as old:
        new.add([Passage(f"n{n}", passage.text) for n, passage in enumerate(FEW)], refit=False)
        codes = [part.segment.codes for part in new._versions.read(lambda view: view.state).snapshot.parts]
        assert max(each.max() for each in codes) >= 16
        segment = new._versions.read(lambda view: view.state).snapshot.parts[-1].segment
        before = old.ids()
        pids = np.unique(segment.pids)
        moved = dataclasses.replace(segment, pids=np.searchsorted(pids, segment.pids).astype(np.int64), lists=None)
        with pytest.raises(DamagedIndexError, match="there are 16 centroids"):
            old._put_windows([Passage(f"x{n}", "") for n in range(len(pids))], moved)
        assert old.ids() == before and old.verify().ok


def test_one_refits_at_a_time(tmp_path):
    folder = grown(tmp_path / "index")
    with (
        opened_here(folder, timeout=0.1) as index,
        alone(Layout(folder).refit_lock),
        pytest.raises(IndexLockedError, match="Somebody else is refitting"),
    ):
        index.refit(progress=False)


def test_a_format_of_before_is_read_and_strange_numbers_are_refused(tmp_path):
    layout = Layout(tmp_path)
    text = '{"format": 3, "shards": 2, "nbits": 4, "model": "m", "passages": 7}'
    (tmp_path / "cluster.json").write_text(text)
    assert layout.read().codec_tokens is None
    (tmp_path / "cluster.json").write_text(text.replace("3,", "4,", 1).replace("}", ', "codec_tokens": -1}'))
    with pytest.raises(DamagedIndexError, match="fitted to -1 vectors"):
        layout.read()


# In the end


def test_what_was_interrupted_is_opened_and_finished(halfway, capsys):
    extension = Extension.read(Layout(halfway).refit)
    with opened_here(halfway) as here, ShardedIndex.open(halfway, WordEncoder(), address="local") as index:
        assert scores(index) == scores(here)
        assert index.stats().centroids == len(extension.codec.centroids)
        assert index.refit(progress=True).added == extension.added
        assert "Refitting" in capsys.readouterr().err
        assert index.refit(progress=False).added == 0
        assert {index.codec_id, *codecs(halfway)} == {extension.id}


def test_a_published_index_is_not_refit(objects, tmp_path):
    folder = sharded_here(tmp_path / "index", FEW)
    address = objects.address(f"{objects.make_bucket('refit')}/wiki")
    publish(folder, address, progress=False)
    with (
        ShardedIndex.open(address, WordEncoder(), cache=tmp_path / "cache", address="local", progress=False) as index,
        pytest.raises(ReadOnlyIndexError, match="is published, so it can be searched only"),
    ):
        index.refit(progress=False)


def test_the_command_says_what_was_done(run, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    folder = grown(tmp_path / "index", shards=2)
    code, printed, error = run("cluster", "refit", str(folder), "--quiet")
    assert (code, error) == (0, "")
    settings = Layout(folder).read()
    assert printed.startswith("256 centroids more, 272 in all, fitted to ") and f"{settings.codec_tokens:,} v" in printed
    code, printed, _ = run("cluster", "refit", str(folder), "--quiet")
    assert code == 0
    assert printed.startswith("Nothing to do: the codec has 272 centroids, fitted to ")
