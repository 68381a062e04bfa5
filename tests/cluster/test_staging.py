"""Passages on their way to their shards: what is written down, and how it is cut into batches."""

from __future__ import annotations

import json

import pytest
from builders.cluster import PASSAGES, as_record
from builders.encoders import WordEncoder

from colbert_core import DamagedIndexError, Index, Passage
from colbert_core.cluster import encoding, staging
from colbert_core.cluster.layout import Layout, shard_of
from colbert_core.cluster.staging import Batch, cut, find_sources
from colbert_core.documents.pieces import Whole
from colbert_core.vectors.codec import ResidualCodec


def test_batches_are_made_of_whole_blocks():
    # Number of the file, first byte, passages, weight.
    blocks = [(0, 0, 3, 40), (0, 500, 2, 40), (1, 0, 1, 30), (2, 0, 9, 250), (3, 0, 1, 1)]
    assert cut(7, blocks, 100) == [
        Batch(7, 0, 5, ((0, 0, 5),)),
        Batch(7, 1, 1, ((1, 0, 1),)),
        Batch(7, 2, 9, ((2, 0, 9),)),  # heavier than a batch may be, but one block
        Batch(7, 3, 1, ((3, 0, 1),)),
    ]
    assert cut(0, blocks, 110)[0] == Batch(0, 0, 6, ((0, 0, 5), (1, 0, 1)))
    assert cut(0, [], 100) == []


@pytest.fixture
def staged(tmp_path):
    """A function that stages files of passages in shards."""

    def stage(files, shards):
        layout = Layout(tmp_path / "out")
        layout.staged.mkdir(parents=True)
        for number, passages in enumerate(files):
            path = tmp_path / f"{number}.jsonl"
            path.write_text("".join(f"{json.dumps(as_record(passage))}\n" for passage in passages))
            task = {"number": number, "location": str(path), "name": path.name}
            assert staging._stage_passages(task, Whole(), layout=layout, shards=shards) == len(passages)
        return layout

    return stage


def test_batches_hold_the_passages_of_each_shard_in_the_order_of_the_files(staged, monkeypatch):
    monkeypatch.setattr(staging, "_SMALLEST", 40 * 256)
    files = [PASSAGES[:150], PASSAGES[150:153], PASSAGES[153:]]
    layout = staged(files, 2)
    batches = staging.plan_batches(layout, 3, 2)
    assert len(batches) > 3
    for shard in (0, 1):
        found = [passage for batch in batches if batch.shard == shard for passage in staging.read_batch(layout, batch)]
        wanted = [passage for passage in PASSAGES if shard_of(passage.id, 2) == shard]
        assert [(passage.id, passage.text) for passage in found] == [(passage.id, passage.text) for passage in wanted]
    assert [batch.number for batch in batches if batch.shard == 1] == list(range(sum(batch.shard for batch in batches)))
    staging.write_plan(layout, batches)
    assert staging.read_plan(layout) == batches


def test_a_small_collection_is_cut_into_small_batches_and_a_large_one_into_large(staged, monkeypatch):
    text = "rust is a systems language " * 100  # 2,700 characters, 13 to a block of 2**15
    layout = staged([[Passage(f"{n}", text) for n in range(100)]], 1)
    assert [batch.passages for batch in staging.plan_batches(layout, 1, 1)] == [13] * 6 + [22]  # the last block is smaller
    monkeypatch.setattr(staging, "_BATCHES", 2)  # of 135,000 each
    assert [batch.passages for batch in staging.plan_batches(layout, 1, 1)] == [39, 39, 22]
    monkeypatch.setattr(staging, "_LARGEST", 80_000)
    assert [batch.passages for batch in staging.plan_batches(layout, 1, 1)] == [26, 26, 26, 22]


def test_what_was_staged_and_is_cut_short_is_told(staged):
    layout = staged([PASSAGES[:20]], 1)
    (batch,) = staging.plan_batches(layout, 1, 1)
    path = layout.of_file(0) / "0000.jsonl"
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[: content.rindex(b"\n", 0, -1) + 1]):
        path.write_bytes(damaged)
        with pytest.raises(DamagedIndexError, match=r"0000\.jsonl is damaged .*; remove .*staged and build again"):
            list(staging.read_batch(layout, batch))
    path.unlink()
    with pytest.raises(DamagedIndexError, match="damaged"):
        list(staging.read_batch(layout, batch))


# Batches that are encoded


@pytest.fixture
def worker(tmp_path):
    """A function that makes a worker, in this process."""

    def make(nbits, pool_factor=1.0):
        made = encoding.Worker(tmp_path / "out", nbits, "english", pool_factor, WordEncoder(), "", 1)
        made._loaded = WordEncoder()
        return made

    return make


@pytest.mark.parametrize(("nbits", "pool_factor"), [(4, 1.0), (1, 2.0), (32, 1.0)])
def test_a_shard_of_batches_is_what_one_index_with_the_codec_holds(staged, worker, monkeypatch, nbits, pool_factor):
    monkeypatch.setattr(staging, "_SMALLEST", 1)  # each block a batch
    blank = [Passage("blank", " "), Passage("empty", "")]
    layout = staged([PASSAGES[:100], blank, PASSAGES[100:]], 1)
    codec = None
    if nbits != 32:
        vectors = WordEncoder().encode_passages([passage.text for passage in PASSAGES]).vectors
        codec = ResidualCodec.fit(vectors, 64, nbits)
        encoding.write_codec(layout, codec)
    one = Index.create(None, WordEncoder(), nbits=nbits, codec=codec, pool_factor=pool_factor)
    batches = staging.plan_batches(layout, 3, 1)
    assert [batch.passages for batch in batches] == [100, 2, 128, 12]
    passages = [passage for batch in batches for passage in staging.read_batch(layout, batch)]
    one.add(passages, refit=False)
    made = worker(nbits, pool_factor)
    tokens = [made.encode_batch(batch) for batch in reversed(batches)]
    assert tokens[2] == 0  # of the blank ones
    made.write(0, batches)
    made.write(0, batches)  # somebody else was taken for dead
    with Index.open(layout.shard(0), WordEncoder()) as shard, one:
        assert shard.get([passage.id for passage in passages]) == passages
        assert shard.stats().tokens == sum(tokens) == one.stats().tokens
        for query in ("the cat sat on a mat", "happy pets purr"):
            assert shard.search(query, 50, exact=True) == one.search(query, 50, exact=True)
        assert shard.verify().ok


def test_a_batch_that_is_damaged_is_told(staged, worker):
    layout = staged([PASSAGES[:20]], 1)
    (batch,) = staging.plan_batches(layout, 1, 1)
    made = worker(32)
    made.encode_batch(batch)
    path = layout.batch(0, 0)
    content = path.read_bytes()
    for damaged in (content[:-1], content[:-4] + b"\xff\xff\xff\x7f"):  # cut short; a NaN
        path.write_bytes(damaged)
        with pytest.raises(DamagedIndexError, match=r"000000\.safetensors is damaged .*; remove it and build again"):
            made.write(0, [batch])
        assert not layout.shard(0).exists()
    path.write_bytes(content)
    with pytest.raises(DamagedIndexError, match="it has a passage 19 of 3"):
        encoding.load_batch(layout, Batch(0, 0, 3, batch.pieces), WordEncoder().dim, None)


def test_an_id_that_stands_twice_is_found_before_anything_is_encoded(staged, worker):
    layout = staged([PASSAGES[:20], PASSAGES[19:30]], 1)
    with pytest.raises(ValueError, match="1 ids stand more than once .* 'id19'"):
        worker(4).check(staging.plan_batches(layout, 2, 1))


# An object storage


def test_files_at_an_address_are_found_with_its_settings_behind_their_names(objects):
    bucket = objects.make_bucket("staged")
    files = {"wiki/a.jsonl": b'{"id": "a", "text": "cats"}', "wiki/deep/b c#1%20?.md": b"# Dogs", "wiki/z.bin": b"0"}
    for name, content in files.items():
        objects.client.put_object(Bucket=bucket, Key=name, Body=content)
    for folder in ("staged/wiki", "staged/wiki/"):
        found = find_sources(objects.address(folder))
        assert [(name, size) for _, name, size in found] == [("a.jsonl", 27), ("deep/b c#1%20?.md", 6)]
        for location, name, _ in found:
            assert location.startswith("s3://somebody:secret@staged/wiki/") and "&scheme=http&endpoint_override=" in location
            with staging._fetch(location) as path:
                assert (path.name, path.read_bytes()) == (name.rpartition("/")[2], files[f"wiki/{name}"])
    ((location, name, size),) = find_sources(objects.address("staged/wiki/a.jsonl"))
    assert (location, name, size) == (objects.address("staged/wiki/a.jsonl"), "a.jsonl", 27)
    with staging._fetch(location) as path:
        assert path.name == "a.jsonl"


@pytest.mark.parametrize("place", ["staged-2/none", "staged-2/empty"])
def test_an_address_without_files_is_named_without_its_password(objects, place):
    bucket = objects.make_bucket("staged-2")
    objects.client.put_object(Bucket=bucket, Key="empty/z.bin", Body=b"0")
    with pytest.raises(ValueError, match=f"s3://{place} holds no") as raised:
        find_sources(objects.address(place))
    assert "secret" not in str(raised.value)
