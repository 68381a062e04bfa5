"""An encoded collection: the encoder's vectors, kept in shards, and an encoding that goes on where it was interrupted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from builders.colbertv1 import brute_force, passages_of
from builders.encoders import WordEncoder

from colbert_core import EncoderMismatchError, Passage
from colbert_core.colbertv1.encoded import EncodedCollection, encode_collection
from colbert_core.errors import DamagedIndexError, IndexExistsError, IndexNotFoundError, UnsupportedIndexError


class Interrupted(WordEncoder):
    """Presses Ctrl-C at a text; remembers what it has encoded."""

    def __init__(self, at=None):
        super().__init__()
        self.at, self.texts = at, []

    def encode_passages(self, texts, *, progress=None):
        if self.at in texts:
            raise KeyboardInterrupt
        self.texts += texts
        return super().encode_passages(texts, progress=progress)


def test_encoded_passages_are_the_encoders_vectors_in_float16(tmp_path, words):
    passages = passages_of(7)
    encoded = encode_collection(passages, words, tmp_path / "vectors", shard_passages=3, progress=False)
    embeddings = words.encode_passages([passage.text for passage in passages])
    assert np.array_equal(np.concatenate(encoded.shards), embeddings.vectors.astype(np.float16))
    assert np.array_equal(encoded.doclens, embeddings.doclens)
    assert np.array_equal(encoded.owners, embeddings.owners)
    assert encoded.ids_of(range(7)) == [passage.id for passage in passages]
    assert (len(encoded), encoded.n_tokens, encoded.dim) == (7, len(embeddings.vectors), 64)
    assert encoded.verify(progress=False) == []


def test_a_shard_is_plain_numpy_files_that_are_mapped(tmp_path, words):
    encoded = encode_collection(passages_of(5), words, tmp_path, shard_passages=3, progress=False)
    vectors = np.load(tmp_path / "00000.vectors.npy", mmap_mode="r")
    assert vectors.dtype == np.float16
    assert np.array_equal(vectors, encoded.shards[0])
    assert isinstance(encoded.shards[0].base, np.memmap)
    assert sorted(file.name for file in tmp_path.glob("00001*")) == [
        f"00001.{part}.npy" for part in ("doclens", "id_ends", "ids", "owners", "vectors")
    ]


def test_more_than_ten_shards_stay_in_the_order_of_their_numbers(tmp_path, words):
    passages = passages_of(25)
    encode_collection(passages, words, tmp_path, shard_passages=2, progress=False)
    encoded = EncodedCollection.open(tmp_path)
    assert len(encoded.shards) == 13
    assert encoded.ids_of(range(25)) == [passage.id for passage in passages]
    (query,) = words.encode_queries(["the cat sat"])
    scores = dict(zip(encoded.ids_of(range(25)), encoded.score(query, np.arange(25)).tolist(), strict=True))
    assert scores == pytest.approx(dict(brute_force(passages, words, query, 25)), abs=1e-5)


def test_what_was_interrupted_goes_on_and_encodes_only_what_is_missing(tmp_path, words):
    passages = passages_of(9)
    passages[7] = Passage("p7", "Ctrl C")
    broken = Interrupted(at="Ctrl C")
    with pytest.raises(KeyboardInterrupt):
        encode_collection(passages, broken, tmp_path, shard_passages=3, progress=False)
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith((".", "00002"))]
    with pytest.raises(IndexNotFoundError, match="interrupted after 2 shards"):
        EncodedCollection.open(tmp_path)
    (tmp_path / ".00002.vectors.npy.unfinished").write_bytes(b"left by a process that was killed")
    whole = Interrupted()
    encoded = encode_collection(passages, whole, tmp_path, shard_passages=3, progress=False)
    assert not list(tmp_path.glob(".*"))
    assert [text for text in whole.texts if "tell one model" not in text] == [passage.text for passage in passages[6:]]
    embeddings = words.encode_passages([passage.text for passage in passages])
    assert np.array_equal(np.concatenate(encoded.shards), embeddings.vectors.astype(np.float16))


def test_what_is_finished_is_not_encoded_again_but_what_was_lost_is(tmp_path):
    passages = passages_of(6)
    encode_collection(passages, Interrupted(), tmp_path, shard_passages=3, progress=False)
    (tmp_path / "00001.vectors.npy").write_bytes(b"cut short")
    with pytest.raises(DamagedIndexError, match="00001.vectors.npy is missing or cut short"):
        EncodedCollection.open(tmp_path)
    again = Interrupted()
    encode_collection(iter(passages), again, tmp_path, shard_passages=3, progress=False)
    assert [text for text in again.texts if "tell one model" not in text] == [passage.text for passage in passages[3:]]
    assert EncodedCollection.open(tmp_path).verify(progress=False) == []


def test_a_changed_byte_is_found_by_verify(tmp_path, words):
    encoded = encode_collection(passages_of(3), words, tmp_path, progress=False)
    content = bytearray((tmp_path / "00000.vectors.npy").read_bytes())
    content[-1] ^= 1
    (tmp_path / "00000.vectors.npy").write_bytes(content)
    assert encoded.verify(progress=False) == [f"{tmp_path / '00000.vectors.npy'} is missing or not what was written"]


def test_other_passages_encoders_or_sizes_are_refused_and_leave_what_is_there(tmp_path, words):
    passages = passages_of(6)
    encode_collection(passages, words, tmp_path, shard_passages=3, progress=False)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="Shard 1 of .* holds other passages than passages 3 and following"):
        encode_collection([*passages[:5], Passage("p5", "new")], words, tmp_path, shard_passages=3, progress=False)
    with pytest.raises(ValueError, match="holds 2 shards, but the passages given end after 1"):
        encode_collection(passages[:3], words, tmp_path, shard_passages=3, progress=False)
    with pytest.raises(ValueError, match="has shards of 3 passages, not of 4"):
        encode_collection(passages, words, tmp_path, shard_passages=4, progress=False)
    with pytest.raises(EncoderMismatchError, match="of dim 64, but .* has dim 32"):
        encode_collection(passages, WordEncoder(dim=32), tmp_path, shard_passages=3, progress=False)
    renamed = WordEncoder()
    renamed.name = "other"
    with pytest.raises(EncoderMismatchError, match="of the encoder 'words', not of 'other'"):
        encode_collection(passages, renamed, tmp_path, shard_passages=3, progress=False)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_collection_that_grew_is_refused_where_the_last_shard_was_not_full_and_else_goes_on(tmp_path, words):
    encode_collection(passages_of(6), words, tmp_path, shard_passages=3, progress=False)
    encode_collection(passages_of(8), words, tmp_path, shard_passages=3, progress=False)
    assert len(EncodedCollection.open(tmp_path)) == 8
    with pytest.raises(ValueError, match="Shard 2"):
        encode_collection(passages_of(9), words, tmp_path, shard_passages=3, progress=False)


def test_a_collection_that_grew_is_not_opened_before_all_of_it_is_encoded(tmp_path, words):
    passages = passages_of(12)
    encode_collection(passages[:6], words, tmp_path / "vectors", shard_passages=3, progress=False)

    def broken_off():
        yield from passages[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_collection(broken_off(), words, tmp_path / "vectors", shard_passages=3, progress=False)
    with pytest.raises(IndexNotFoundError, match="interrupted after 3 shards"):
        EncodedCollection.open(tmp_path / "vectors")
    encode_collection(passages, words, tmp_path / "vectors", shard_passages=3, progress=False)
    assert len(EncodedCollection.open(tmp_path / "vectors")) == 12


def test_no_passages_ids_that_come_twice_and_foreign_folders_are_errors(tmp_path, words):
    with pytest.raises(ValueError, match="no passages"):
        encode_collection([], words, tmp_path / "a", progress=False)
    for number in (1, 3):  # in the same shard, and in another
        with pytest.raises(ValueError, match="The id 'p0' comes twice"):
            passages = [*passages_of(number), Passage("p0", "again")]
            encode_collection(passages, words, tmp_path / f"b{number}", shard_passages=2, progress=False)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "notes.txt").write_text("mine")
    with pytest.raises(IndexExistsError, match="something else"):
        encode_collection(passages_of(1), words, tmp_path / "c", progress=False)
    with pytest.raises(ValueError, match="shard_passages"):
        encode_collection(passages_of(1), words, tmp_path / "d", shard_passages=0, progress=False)


def test_a_folder_without_vectors_or_of_a_newer_version_says_so(tmp_path, words):
    with pytest.raises(IndexNotFoundError, match="There is no encoded collection in"):
        EncodedCollection.open(tmp_path / "nowhere")
    encode_collection(passages_of(2), words, tmp_path, progress=False)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(UnsupportedIndexError, match="format 2, not 1"):
        EncodedCollection.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DamagedIndexError, match="manifest.json is damaged"):
        EncodedCollection.open(tmp_path)
