"""Model copies, collections, training data and indexes of other libraries that came by mail."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import threading
import zipfile

import numpy as np
import pytest
import torch
from builders import checkpoints, foreign_indexes
from builders.colbertv1 import passages_of
from builders.encoders import WordEncoder, write_stanford
from builders.training import EXAMPLES
from safetensors.torch import load_file, save_file

from colbert_core import (
    CheckpointError,
    DamagedIndexError,
    Encoder,
    IndexNotFoundError,
    UnsupportedIndexError,
    read_foreign_index,
)
from colbert_core.colbertv1.encoded import EncodedCollection, encode_collection
from colbert_core.colbertv1.ivfpq import IVFPQ
from colbert_core.evaluation import open_dataset
from colbert_core.storage.incoming import check_tensor, load_torch, map_npy, read_json_file
from colbert_core.train import TrainConfig, read_examples
from colbert_core.train.data import Examples, prepare
from colbert_core.train.folder import RunFolder
from colbert_core.train.model import ColBERT

QUERY = np.eye(2, 16, dtype=np.float32)
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


def put_pipe(path):
    """A pipe in the place of a file. Whoever opens it would wait; after ten seconds it is opened here, so that no test hangs."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)

    def rescue():
        with pytest.MonkeyPatch.context():
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))

    timer = threading.Timer(10, rescue)
    timer.daemon = True
    timer.start()
    return timer


def header(text, length=None):
    """The beginning of a .npy file."""
    content = text.encode()
    return b"\x93NUMPY\x02\x00" + (len(content) if length is None else length).to_bytes(4, "little") + content


# Files


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 8), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 10**30), }"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (0,), }"),
        header("{'descr': '|V0', 'fortran_order': False, 'shape': (10000000000000,), }"),
        header("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (0,), }"),
        header("{'descr': '<f4', 'fortran_order': 7, 'shape': (0,), }"),
        header("[" * 5000),
        header("{'descr': '<f4'", length=2**31),
        header("__import__('os').abort()"),
    ],
)
def test_a_npy_file_whose_header_says_more_than_it_has_is_refused(tmp_path, content):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"it is no \.npy file|its header|its shape|it holds|behind its header"):
        map_npy(path)


@pytest.mark.parametrize(
    "array", [np.arange(6, dtype="<i8").reshape(2, 3), np.zeros((0, 4), np.float16), np.float32(2)], ids=str
)
def test_a_npy_file_of_numpys_own_is_mapped_as_it_is(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    mapped = map_npy(tmp_path / "x.npy")
    assert (mapped.dtype, mapped.shape, mapped.tolist()) == (array.dtype, array.shape, array.tolist())
    if array.ndim:
        np.save(tmp_path / "x.npy", np.asfortranarray(array))
        assert map_npy(tmp_path / "x.npy").tolist() == array.tolist()


def test_json_that_is_nested_too_deeply_or_too_large_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json_file(path)
    path.write_text("[1, 2]")
    assert read_json_file(path) == [1, 2]
    with pytest.raises(ValueError, match="has 6 bytes, more than 5"):
        read_json_file(path, 5)


def test_a_torch_file_that_unpacks_to_more_than_its_size_is_refused(tmp_path):
    path, packed = tmp_path / "x.pt", tmp_path / "packed.pt"
    torch.save({"a": torch.zeros(10_000)}, path)
    assert load_torch(path)["a"].shape == (10_000,)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as small:
        for part in whole.infolist():
            small.writestr(part.filename, whole.read(part))
    with pytest.raises(ValueError, match="its parts unpack to more than its"):
        load_torch(packed)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_tensor_of_one_number_a_billion_times_is_refused(tmp_path, is_zip):
    path = tmp_path / "x.pt"
    torch.save(torch.zeros(1, 16).half().expand(10**9, 16), path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match="it says that there are 1000000000 of something"):
        load_torch(path)
    torch.save(torch.zeros(1, 16).expand(500, 16), path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ValueError, match=r"a tensor of shape \(500, 16\) in 64 bytes"):
        check_tensor(load_torch(path))


def test_a_torch_file_of_the_old_format_is_read_if_it_is_whole(tmp_path):
    tensor = torch.arange(12.0).reshape(3, 4)
    torch.save({"a": tensor, "n": 7}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    content = load_torch(tmp_path / "x.pt")
    assert content["n"] == 7
    assert torch.equal(check_tensor(content["a"]), tensor)
    assert torch.equal(check_tensor(tensor.T), tensor.T)


def test_a_pickle_that_makes_a_large_object_by_itself_is_refused(tmp_path):
    content = b"\x80\x02cbuiltins\nbytearray\n" + b"\x8a\x05" + (2**36).to_bytes(5, "little") + b"\x85R."
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ValueError, match=f"it says that there are {2**36} of something"):
        load_torch(tmp_path / "x.pt")


@pytest.mark.parametrize("make", [torch.Tensor.to_sparse, lambda tensor: tensor.to("meta")], ids=["sparse", "meta"])
def test_a_tensor_of_another_kind_is_refused(make):
    with pytest.raises(ValueError, match="of a kind that was not expected"):
        check_tensor(make(torch.zeros(3, 3)))


@needs_pipes
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path):
    stanford, plaid = tmp_path / "stanford", tmp_path / "plaid"
    foreign_indexes.write_stanford_index(stanford)
    foreign_indexes.write_fast_plaid_index(plaid)
    timers = [put_pipe(stanford / "buckets.pt"), put_pipe(plaid / "doclens.0.json")]
    with pytest.raises(UnsupportedIndexError, match="no regular file"):
        read_foreign_index(stanford)
    with pytest.raises(DamagedIndexError, match="no regular file"):
        read_foreign_index(plaid)
    folder = tmp_path / "model"
    write_stanford(folder)
    for name in ("special_tokens_map.json", "config.json"):
        timers.append(put_pipe(folder / name))
        with pytest.raises(CheckpointError, match=rf"{name} is neither a file nor a folder"):
            Encoder.from_pretrained(folder)
        (folder / name).unlink()
    timers.append(put_pipe(tmp_path / "x.jsonl.gz"))
    with pytest.raises(ValueError, match="no regular file"):
        list(read_examples(tmp_path / "x.jsonl.gz"))
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    (beir / "corpus.jsonl").write_text('{"_id": "a", "text": "x"}\n')
    timers.append(put_pipe(beir / "qrels" / "test.tsv"))
    assert open_dataset(beir).splits == ()
    assert all(timer.is_alive() for timer in timers)  # nobody had to be rescued
    for timer in timers:
        timer.cancel()


# Indexes of other libraries


def test_codes_of_a_merged_array_without_dimensions_are_a_named_error(tmp_path):
    foreign_indexes.write_fast_plaid_index(tmp_path / "x", merged=True)
    np.save(tmp_path / "x" / "merged_codes.npy", np.int64(3))
    with pytest.raises(DamagedIndexError, match=r"codes of int64 \(\)"):
        list(read_foreign_index(tmp_path / "x").batches())


@pytest.mark.parametrize(
    ("name", "array"), [("centroids", np.zeros((0, 32), np.float16)), ("bucket_weights", np.zeros(0, np.float32))]
)
def test_a_codec_of_no_centroids_or_levels_is_refused_by_name(tmp_path, name, array):
    foreign_indexes.write_fast_plaid_index(tmp_path / "x")
    np.save(tmp_path / "x" / f"{name}.npy", array)
    with pytest.raises(DamagedIndexError, match="0 centroids of dim 32|its levels are damaged"):
        read_foreign_index(tmp_path / "x")


# Encoded collections and IVFPQ indexes


@pytest.fixture
def encoded(tmp_path):
    encode_collection(passages_of(24), WordEncoder(16), tmp_path / "encoded", shard_passages=10, progress=False)
    return tmp_path / "encoded"


def seal(folder, name=None, array=None):
    """Write an array of a shard, and give the manifest the sizes that belong to it."""
    if name is not None:
        np.save(folder / name, array)
    manifest = json.loads((folder / "manifest.json").read_text())
    for shard in manifest["shards"]:
        for file, about in shard["files"].items():
            content = (folder / file).read_bytes()
            about |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("vectors", lambda a: a[:, :3]),
        ("vectors", lambda a: a.astype(np.float32)),
        ("vectors", np.asfortranarray),
        ("doclens", lambda a: a + 1),
        ("doclens", lambda a: a - a),
        ("doclens", lambda a: np.full_like(a, 2**31 - 1)),
        ("doclens", lambda a: a[:0]),
        ("owners", lambda a: a[::-1].copy()),
        ("owners", lambda a: a + 1),
        ("owners", lambda a: a * 2),
        ("owners", lambda a: a[:0]),
        ("owners", lambda a: np.where(np.arange(len(a)) == len(a) - 1, a + 1, a)),
        ("owners", lambda a: np.where(a == 0, a - 1, a)),
        ("owners", lambda a: a.astype(np.int64)),
        ("id_ends", lambda a: a[::-1].copy()),
        ("id_ends", lambda a: a * 2**40),
        ("id_ends", lambda a: a - 5),
        ("ids", lambda a: a[:-1]),
    ],
)
def test_arrays_of_a_shard_that_lead_nowhere_are_a_named_error(encoded, part, change):
    seal(encoded, f"00001.{part}.npy", change(np.load(encoded / f"00001.{part}.npy")))
    with pytest.raises(DamagedIndexError, match="Shard 1 of .* is damaged: its"):
        EncodedCollection.open(encoded)


def test_a_vector_of_a_shard_that_is_none_and_an_id_that_is_no_text_are_named_errors(encoded):
    vectors = np.load(encoded / "00000.vectors.npy")
    vectors[0], vectors[-20:] = 100, np.nan
    seal(encoded, "00000.vectors.npy", vectors)
    ids = np.load(encoded / "00001.ids.npy")
    ids[0] = 255
    seal(encoded, "00001.ids.npy", ids)
    collection = EncodedCollection.open(encoded)
    for row in (0, 9):
        with pytest.raises(DamagedIndexError, match="not finite or not of length 1"):
            collection.score(QUERY, np.array([row]))
    with pytest.raises(DamagedIndexError, match="an id is no UTF-8"):
        collection.ids_of([10])


@pytest.mark.parametrize(
    "change",
    [
        {"complete": "yes"},
        {"dim": 10**12},
        {"dim": "16"},
        {"encoder": None},
        {"encoder": {"name": 3}},
        {"probe": 7},
        {"probe": "é"},
        {"shards": []},
        {"shards": 3},
        {"shards": [{"number": 0, "passages": 10, "files": {"../../x": {"size": 1, "sha256": ""}}}]},
        {"shard_passages": None},
    ],
    ids=str,
)
def test_a_manifest_that_no_encoding_writes_is_a_named_error(encoded, change):
    manifest = json.loads((encoded / "manifest.json").read_text()) | change
    (encoded / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedIndexError, match="damaged"):
        EncodedCollection.open(encoded)


@pytest.fixture
def ivfpq(encoded):
    IVFPQ.build(encoded, encoded.parent / "ivfpq", nlist=3, m=4, nbits=4, progress=False)
    return encoded.parent / "ivfpq"


def put_faiss(folder, content):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "index.faiss").write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"size": len(content)}))


def test_every_length_and_number_of_a_faiss_file_is_checked_before_faiss_reads_it(ivfpq):
    """FAISS itself crashes on some of these, and asks for any memory that the file names."""
    content = (ivfpq / "index.faiss").read_bytes()
    assert IVFPQ.open(ivfpq).search_many([QUERY], 3)[0]
    (at_quantizer, at_lists) = (content.index(name) for name in (b"IxF2", b"ilar"))
    n_codes = at_quantizer + 4 + 33
    places = {
        "dim": 4,
        "n": 8,
        "nlist": 37,
        "quantizer": at_quantizer + 4,
        "codes": n_codes,
        "lists": at_lists + 4,
        "code size": at_lists + 12,
    }
    for place in places.values():
        for number in (0, 1, 2**31, 2**40, 2**63):
            changed = content[:place] + number.to_bytes(8, "little") + content[place + 8 :]
            put_faiss(ivfpq, changed)
            with pytest.raises(DamagedIndexError, match=r"index\.faiss cannot be read"):
                IVFPQ.open(ivfpq)
    for changed in (
        b"",
        content[:50],
        content[:-1],
        content + b"\0",
        content.replace(b"IxF2", b"IxFI"),
        content.replace(b"full", b"blob"),
    ):
        put_faiss(ivfpq, changed)
        with pytest.raises(DamagedIndexError, match="damaged|cannot be read"):
            IVFPQ.open(ivfpq)
    for number in (-1, 10**6):  # the last token
        put_faiss(ivfpq, content[:-8] + number.to_bytes(8, "little", signed=True))
        with pytest.raises(DamagedIndexError, match="a list names vector"):
            IVFPQ.open(ivfpq)
    put_faiss(ivfpq, content)
    assert IVFPQ.open(ivfpq).search_many([QUERY], 3)[0]


def test_an_index_of_which_most_lists_are_empty_is_read(encoded):
    import faiss

    IVFPQ.build(encoded, encoded.parent / "sparse", nlist=3, m=4, nbits=4, progress=False)
    folder = encoded.parent / "sparse"
    index = faiss.read_index(str(folder / "index.faiss"))
    lists = [faiss.rev_swig_ptr(index.invlists.get_ids(n), index.invlists.list_size(n)).copy() for n in range(3)]
    vectors = np.concatenate([np.asarray(shard) for shard in EncodedCollection.open(encoded).shards]).astype(np.float32)
    index.reset()
    first = np.tile(index.quantizer.reconstruct(0), (len(vectors), 1)).astype(np.float32)
    index.add(first)
    faiss.write_index(index, str(folder / "index.faiss"))
    content = (folder / "index.faiss").read_bytes()
    assert b"sprs" in content
    assert sum(map(len, lists)) == len(vectors)
    put_faiss(folder, content)
    assert IVFPQ.open(folder).search_many([QUERY], 3, nprobe=3)[0]
    at = content.index(b"sprs") + 12
    put_faiss(folder, content[:at] + (2**40).to_bytes(8, "little") + content[at + 8 :])
    with pytest.raises(DamagedIndexError, match="do not follow each other"):
        IVFPQ.open(folder)


@pytest.mark.parametrize(
    "change",
    [{"embeddings": 3}, {"embeddings": "x" * 5000}, {"settings": {}}, {"size": -1}, {"embeddings_sha256": None}],
    ids=str,
)
def test_a_manifest_that_no_build_writes_is_a_named_error(ivfpq, change):
    manifest = json.loads((ivfpq / "manifest.json").read_text()) | change
    (ivfpq / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises((DamagedIndexError, IndexNotFoundError)):
        IVFPQ.open(ivfpq)


# Training


@pytest.fixture(scope="module")
def trained(untrained_folder, tmp_path_factory):
    model = ColBERT.from_pretrained(str(untrained_folder), TrainConfig(query_length=10, passage_length=12, dim=16))
    folder = tmp_path_factory.mktemp("data") / "data"
    prepare(EXAMPLES[:8], model, folder, progress=False)
    return folder


@pytest.fixture
def data(trained, tmp_path):
    import shutil

    return shutil.copytree(trained, tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "dtype", "change"),
    [
        ("query_ids", "<u2", lambda a: a + 60_000),
        ("query_kept", "|u1", lambda a: a + 2),
        ("query_offsets", "<i8", lambda a: a * 2**40),
        ("query_offsets", "<i8", lambda a: a[::-1]),
        ("query_offsets", "<i8", lambda a: a - 1),
        ("passage_attended", "<i4", lambda a: a - 2**20),
        ("passage_attended", "<i4", lambda a: a + 2**20),
        ("example_queries", "<i4", lambda a: a - 1),
        ("example_queries", "<i4", lambda a: a + 1),
        ("example_passages", "<i4", lambda a: a + 10**6),
        ("example_offsets", "<i8", lambda a: a * 0),
    ],
)
def test_training_data_that_lead_nowhere_are_refused_when_they_are_opened(data, name, dtype, change):
    array = np.frombuffer((data / name).read_bytes(), dtype)
    (data / name).write_bytes(change(array).astype(dtype).tobytes())
    with pytest.raises(ValueError, match="is damaged: .*; remove the folder and prepare it again"):
        Examples.open(data)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{}", '{"version": 1}', '{"version": "x"}', "\xff"])
def test_a_manifest_of_training_data_that_is_none_is_refused(data, text):
    (data / "manifest.json").write_text(text, encoding="latin1")
    with pytest.raises(ValueError, match="is damaged: |has examples of version"):
        Examples.open(data)


@pytest.mark.parametrize(
    "change", [{"dtype": "|O"}, {"dtype": "<f8"}, {"length": -1}, {"length": 10**15}, {"length": "4"}, {"sha256": 3}], ids=str
)
def test_an_array_of_training_data_of_another_type_or_length_is_refused(data, change):
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["arrays"]["query_ids"] |= change
    (data / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="prepare it again"):
        Examples.open(data)


def test_a_compressed_line_without_an_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("colbert_core.train.examples._LONGEST_LINE", 10_000)
    with gzip.open(tmp_path / "x.jsonl.gz", "wb") as file:
        file.write(b" " * 10**6)
    with pytest.raises(ValueError, match="a line has 10000 bytes or more"):
        list(read_examples(tmp_path / "x.jsonl.gz"))


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '{"config": 3}'])
def test_the_settings_of_a_run_that_are_none_are_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="name another folder, or remove it"):
        RunFolder(tmp_path, is_main=True).begin({"config": {}})


@pytest.mark.parametrize("line", ["[]", "{", "{}", '{"step": "1"}', '{"step": 1, "loss": "x"}', "[" * 100_000])
def test_a_line_of_a_log_that_no_run_writes_is_refused(tmp_path, line):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n' + line + "\n")
    with pytest.raises(ValueError, match="line 2 is none that a run writes"):
        RunFolder(tmp_path, is_main=True).result()


def test_a_folder_beside_the_checkpoints_of_a_run_is_no_step(tmp_path):
    for name in ("step-3", "step-x", "step--1", "step-" + "9" * 200):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert RunFolder(tmp_path, is_main=True)._steps() == [3]


# Models


@pytest.fixture(scope="module")
def whole_model(tmp_path_factory):
    return write_stanford(tmp_path_factory.mktemp("model") / "x")


@pytest.fixture
def model(whole_model, tmp_path):
    import shutil

    return shutil.copytree(whole_model, tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 2 * 10**9}, "but there are|by config.json"),
        ({"vocab_size": 10**6}, "by config.json"),
        ({"hidden_size": 10**6}, "hidden size is 1000000"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers=1e"),
        ({"intermediate_size": 10**9}, "intermediate_size=1e"),
        ({"max_position_embeddings": 10**7}, "by config.json"),
        ({"num_attention_heads": 0}, "no model that loads here"),
        ({"num_attention_heads": -32}, "no model that loads here"),  # fits the weights, and fails in the first pass
        ({"hidden_dropout_prob": float("nan")}, "hidden_dropout_prob=nan"),
        ({"attention_probs_dropout_prob": 7}, "attention_probs_dropout_prob=7"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps=nan"),
        ({"hidden_act": "x"}, "no model that loads here"),
        ({"auto_map": ["x"], "hidden_act": "x"}, "no model that loads here"),
    ],
    ids=str,
)
def test_a_config_that_asks_for_more_than_the_weights_have_is_refused_before_it_is_built(model, change, message):
    checkpoints.edit_json(model / "config.json", **change)
    with pytest.raises(CheckpointError, match=message):
        Encoder.from_pretrained(model)


def test_weights_that_are_not_finite_are_told_when_a_text_is_encoded(model):
    tensors = load_file(model / "model.safetensors")
    tensors["bert.embeddings.word_embeddings.weight"][:] = torch.nan
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    encoder = Encoder.from_pretrained(model)
    for call in (lambda: encoder.encode_queries(["cat"]), lambda: encoder.encode_passages(["cat"], progress=False)):
        with pytest.raises(CheckpointError, match="vectors that are not finite"):
            call()


@pytest.mark.parametrize("number", [200, 2**31, 2**32 - 1])
def test_a_token_whose_number_is_beyond_the_vocabulary_is_refused(model, number):
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["cat"] = number
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match=f"token with the number {number}|the tokenizer knows {number + 1} tokens"):
        Encoder.from_pretrained(model)


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/etc/passwd", "a\0b", "x" * 300])
def test_a_path_that_leads_out_of_the_folder_is_refused(model, name):
    (model / "model.safetensors").rename(model / "other.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="names no files under weight_map"):
        Encoder.from_pretrained(model)
    (model / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Transformer", "path": name}]))
    with pytest.raises(CheckpointError, match="a type and a path within the folder"):
        Encoder.from_pretrained(model)


def test_int8_weights_that_are_no_matrix_are_refused(model):
    tensors = load_file(model / "model.safetensors")
    tensors["bert.embeddings.LayerNorm.weight"] = torch.zeros(32, dtype=torch.int8)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"has the shape \(32,\) and is no matrix"):
        Encoder.from_pretrained(model)
