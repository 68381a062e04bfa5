"""The kinds of files that come from others: small whole ones, how they are changed, and how they are used afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
from builders import foreign_indexes
from faults.fuzz_changes import change_array, change_bytes, change_cell, change_json_text, change_schema

from colbert_core import Index, Passage, SearchConfig, TokenEmbeddings
from colbert_core.errors import StorageError
from colbert_core.storage.arrays import dump_arrays, load_arrays
from colbert_core.vectors.codec import ResidualCodec

DIM = 16


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


class Kind:
    """A folder of files, how it is changed and what is done with it."""

    def __init__(self, name, folder: Path, use, changes) -> None:
        """Take a folder that is whole.

        Args:
            name: of the kind.
            folder: whose files are kept in memory.
            use: called with the changed folder, and one to write to; it checks what it gets.
            changes: functions of dice and a folder, one of which is called for an input.
        """
        self.name, self.use, self._changes = name, use, changes
        self._files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    def write(self, folder: Path) -> None:
        """Write the files to a folder."""
        for name, content in self._files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def change(self, dice, folder: Path) -> None:
        """Write the files to a folder, with something changed."""
        self.write(folder)
        for _ in range(dice.choice([1, 1, 1, 2])):
            with contextlib.suppress(Exception):  # there may be nothing left to change after the first
                dice.choice(self._changes)(dice, folder)


def files_in(folder, *patterns):
    return sorted(path for pattern in patterns for path in folder.rglob(pattern) if path.is_file())


def some_bytes(*patterns):
    """Change bytes of one of these files, or remove it."""

    def change(dice, folder):
        files = files_in(folder, *patterns)
        if not files:
            return
        path = dice.choice(files)
        if dice.random() < 0.03:
            path.unlink()
        else:
            path.write_bytes(change_bytes(dice, path.read_bytes()))

    return change


def some_json(*patterns):
    """Change a value in one of these files of JSON."""

    def change(dice, folder):
        if files := files_in(folder, *patterns):
            path = dice.choice(files)
            path.write_bytes(change_json_text(dice, path.read_bytes()))

    return change


def some_lines(*patterns):
    """Change, repeat or drop a line of a file of text."""

    def change(dice, folder):
        files = files_in(folder, *patterns)
        if not files:
            return
        path = dice.choice(files)
        lines = path.read_bytes().split(b"\n")
        place = dice.randrange(len(lines))
        way = dice.randrange(5)
        if way == 0:
            lines[place : place + 1] = []
        elif way == 1:
            lines[place : place + 1] = [lines[place]] * 2
        elif way == 2 and lines[place].startswith((b"{", b"[")):
            lines[place] = change_json_text(dice, lines[place])
        elif way == 3:
            columns = lines[place].split(b"\t")
            columns[dice.randrange(len(columns))] = dice.choice(
                [b"", b"-1", b"9" * 5000, b"\xff", b"\x00", b"nan", b"1e999", b"x\ty"]
            )
            lines[place] = b"\t".join(columns)
        else:
            lines[place] = change_bytes(dice, lines[place])
        path.write_bytes(b"\n".join(lines))

    return change


# Indexes


def make_index(folder, nbits):
    """Thirty-odd passages, some of several windows, in three segments, some of them deleted."""
    rng = np.random.default_rng(nbits)
    topics = unit(rng.standard_normal((8, DIM)))

    def embeddings(n):
        windows = [1 + (number % 5 == 0) for number in range(n)]
        doclens = rng.integers(1, 6, sum(windows)).astype(np.int32)
        vectors = unit(topics[rng.integers(8, size=doclens.sum())] + 0.3 * rng.standard_normal((doclens.sum(), DIM)))
        owners = np.repeat(np.arange(n, dtype=np.int32), windows)
        spans = np.array([(0, 4) for _ in owners], np.int32)
        return TokenEmbeddings(vectors, np.zeros((len(vectors), 2), np.int32), doclens, spans, owners)

    codec = None
    if nbits != 32:
        codec = ResidualCodec.fit(unit(topics[rng.integers(8, size=300)] + 0.3 * rng.standard_normal((300, DIM))), 8, nbits)
        codec = codec.extended(unit(rng.standard_normal((100, DIM))), 4)
    with Index.create(folder, dim=DIM, words="words", nbits=nbits, codec=codec) as index:
        for first, n in ((0, 20), (20, 6), (26, 2)):
            passages = [
                Passage(f"p{i}", f"text {i}", {"n": i, "tags": ["a", "B"]} if i % 2 else {}) for i in range(first, first + n)
            ]
            index.add(passages, embeddings=embeddings(n), refit=False)
        index.delete(["p3", "p21"])
    if codec is not None:  # large arrays lie in files of their own
        connection = sqlite3.connect(folder / "index.sqlite", isolation_level=None)
        for name, data in connection.execute("SELECT name, data FROM files WHERE kind = 'codec' OR position < 5").fetchall():
            (folder / "files" / name).write_bytes(data)
            connection.execute("UPDATE files SET data = NULL WHERE name = ?", (name,))
        connection.close()


QUERIES = [unit(np.random.default_rng(9).standard_normal((n, DIM))) for n in (3, 40)]
SEARCHES = [
    {"exact": True},
    {"config": SearchConfig(2, None, 3)},
    {"config": SearchConfig(70, 6, 3)},
    {"where": {"n": {"$gt": 4}}, "config": SearchConfig(1, 4, 2)},
]


def check_hits(hits, query, ids, k):
    assert len(hits) <= k
    assert len({hit.passage.id for hit in hits}) == len(hits)
    assert {hit.passage.id for hit in hits} <= ids
    scores = [hit.score for hit in hits]
    assert all(np.isfinite(scores)), scores
    assert all(abs(score) <= len(query) * 1.05 for score in scores), scores
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= hit.relevance <= 1 and isinstance(hit.text, str) for hit in hits)


def use_index(folder, work):
    """Open, search, verify, get, save, add, delete and compact, each of which may refuse by itself."""
    refused = None
    with Index.open(folder, timeout=1) as index:

        def attempt(call):
            nonlocal refused
            try:
                return call()
            except (StorageError, ValueError) as error:
                from faults.fuzz import is_named

                if not is_named(error):
                    raise
                refused = refused or error
                return None

        ids = attempt(index.ids) or []
        for query in QUERIES:
            for options in SEARCHES:
                hits = attempt(lambda query=query, options=options: index.search_many([query], 4, **options))
                if hits is not None and ids:
                    check_hits(hits[0], query, set(ids), 4)
        attempt(lambda: index.verify(n_queries=2))
        attempt(lambda: index.get([*ids[:3], "p1", "p1", "gone"]))
        attempt(lambda: index.embeddings(ids[:2]))
        attempt(lambda: index.search_diverse(QUERIES[0], 2))
        attempt(index.stats)
        attempt(lambda: index.ids({"tags": {"$contains": "b"}}))
        attempt(lambda: index.save(work / "copy"))
        vectors = [QUERIES[0], QUERIES[1][:2]]
        added = attempt(lambda: index.add([Passage("new", "new"), Passage("p1", "again")], embeddings=vectors))
        if added:
            hit = attempt(lambda: index.search(QUERIES[0], 1, exact=True))
            assert hit is None or hit[0].passage.id == "new" or index.stats().nbits, hit
        attempt(lambda: index.delete(["p2", "new"]))
        attempt(index.compact)
        attempt(lambda: index.search(QUERIES[0], 2))
    if refused is not None:
        raise refused


def change_arrays_of_index(dice, folder):
    """Change an array, and give its file the name that goes with it: every checksum is right."""
    connection = sqlite3.connect(folder / "index.sqlite", isolation_level=None)
    connection.set_progress_handler(lambda: 1, 10**7)
    try:
        rows = connection.execute("SELECT name, data FROM files ORDER BY kind, position").fetchall()
        name, data = dice.choice(rows)
        content = (folder / "files" / name).read_bytes() if data is None else data
        if dice.random() < 0.15:
            length = int.from_bytes(content[:8], "little")
            header = change_json_text(dice, content[8 : 8 + length])
            changed = len(header).to_bytes(8, "little") + header + content[8 + length :]
        else:
            arrays = {key: np.array(array) for key, array in load_arrays(np.frombuffer(content, np.uint8)).items()}
            for _ in range(dice.choice([1, 1, 2])):
                key = dice.choice(sorted(arrays))
                arrays[key] = change_array(dice, arrays[key])
            changed = b"".join(bytes(piece) for piece in dump_arrays({key: [array] for key, array in arrays.items()}))
        digest = hashlib.sha256(changed).hexdigest()
        if data is None:
            (folder / "files" / digest).write_bytes(changed)
        row = (digest, len(changed), digest, None if data is None else changed, name)
        connection.execute("UPDATE files SET name = ?, size = ?, sha256 = ?, data = ? WHERE name = ?", row)
    finally:
        connection.close()


def on_database(change):
    return lambda dice, folder: change(dice, folder / "index.sqlite")


def index_kinds(work):
    changes = [
        *[change_arrays_of_index] * 8,
        *[on_database(change_cell)] * 6,
        *[some_bytes("index.sqlite", "files/*")] * 3,
        on_database(change_schema),
    ]
    for nbits in (32, 4, 2):
        folder = work / f"index-{nbits}"
        make_index(folder, nbits)
        yield Kind(f"index of {nbits} bits", folder, use_index, changes)


# Foreign indexes


def use_foreign(folder, work):
    from colbert_core import read_foreign_index

    foreign = read_foreign_index(folder)
    index = Index.convert(foreign)
    query = unit(np.random.default_rng(1).standard_normal((5, index.dim)))
    for options in ({"exact": True}, {"config": SearchConfig(2, None, 2)}):
        check_hits(index.search(query, 3, **options), query, set(index.ids()), 3)
    index.get(index.ids()[:2])


def some_npy(dice, folder):
    """Change an array of a file of NumPy's, or what its header says."""
    files = files_in(folder, "*.npy")
    path = dice.choice(files)
    try:
        array = np.load(path)
    except (ValueError, EOFError):
        return
    if max(array.shape, default=0) > 10**6:  # an empty array of many rows, which an earlier change made
        return
    if dice.random() < 0.5:
        np.save(path, change_array(dice, array))
        return
    shape = list(array.shape)
    if shape and dice.random() < 0.7:
        shape[dice.randrange(len(shape))] = dice.choice([0, 1, -1, 10**6, 10**12, 2**62, 2**63])
    else:
        shape = dice.choice([(), (10**12,), (2**31, 2**31), (-1, -1), (3,) * 40])
    types = [array.dtype.str, "<f4", "<f8", "<i8", ">i4", "|O", "|V0", "|V9", "<M8[s]", "<U5", "|S3", "|b1", [("a", "<i4")]]
    header = {"descr": dice.choice(types), "fortran_order": dice.random() < 0.2, "shape": tuple(shape)}
    text = f"{header!r}\n".encode()
    path.write_bytes(b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text + array.tobytes())


def some_pt(dice, folder):
    """Change a tensor of a file of torch's, how it lies in memory, or what the file holds."""
    import torch

    path = dice.choice(files_in(folder, "*.pt"))
    content = torch.load(path, weights_only=True) if path.is_file() else torch.zeros(1)
    tensor = content[-1] if isinstance(content, tuple) else content
    way = dice.randrange(4)
    if way == 0:
        made = dice.choice(
            [None, {}, [], tensor.tolist(), {"a": tensor}, (tensor, tensor), "x", tensor.to_sparse(), tensor[:0], tensor.bool()]
        )
    elif way == 1:
        sizes = dice.choice([(10**9, 16), (2**40,), (10**6, 10**6), (0, 2**40), (5, 5, 5)])
        made = torch.zeros(1, dtype=tensor.dtype).expand(sizes)
    else:
        made = torch.from_numpy(np.array(change_array(dice, tensor.numpy())))
    torch.save((content[0], made) if isinstance(content, tuple) and dice.random() < 0.8 else made, path)


def foreign_kinds(work):
    writers = {
        "Stanford": (foreign_indexes.write_stanford_index, {}, some_pt),
        "RAGatouille": (foreign_indexes.write_ragatouille_index, {"nbits": 2}, some_pt),
        "fast-plaid": (foreign_indexes.write_fast_plaid_index, {}, some_npy),
        "fast-plaid merged": (foreign_indexes.write_fast_plaid_index, {"merged": True, "nbits": 1}, some_npy),
    }
    for name, (write, options, change) in writers.items():
        folder = work / name
        write(folder, dim=DIM, **options)
        arrays = [some_bytes("*.pt", "*.npy"), change, change]
        yield Kind(
            f"foreign index, {name}",
            folder,
            use_foreign,
            [*arrays, some_json("*.json"), some_json("*.json"), some_bytes("*.json")],
        )


# Encoded collections and IVFPQ indexes


def use_encoded(folder, work):
    from colbert_core.colbertv1.encoded import EncodedCollection

    encoded = EncodedCollection.open(folder)
    query = unit(np.random.default_rng(1).standard_normal((4, encoded.dim)))
    rows = np.arange(len(encoded))
    scores = encoded.score(query, rows)
    assert scores.shape == (len(encoded),)
    assert np.isfinite(scores).all()
    assert len(encoded.ids_of(rows.tolist())) == len(encoded)
    encoded.verify()


def use_ivfpq(folder, work):
    from colbert_core.colbertv1.ivfpq import IVFPQ

    index = IVFPQ.open(folder / "ivfpq")
    query = unit(np.random.default_rng(1).standard_normal((4, index.encoded.dim)))
    for found in index.search_many([query, query[:1]], 5, nprobe=2, n_neighbours=20):
        assert all(np.isfinite(score) for _, score in found)


def sealed(change, *patterns):
    """Make a change, and then give the manifests of all folders the sizes and checksums of the files as they are now."""

    def change_and_seal(dice, folder):
        change(dice, folder)
        for path in sorted(folder.rglob("manifest.json")):
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
                manifest = json.loads(path.read_bytes())
                for shard in manifest.get("shards", []):
                    for name, written in shard["files"].items():
                        written |= about_file(path.parent / name)
                for name, about in manifest.get("arrays", {}).items():
                    about["sha256"] = about_file(path.parent / name)["sha256"]
                    if dice.random() < 0.5:
                        about["length"] = about_file(path.parent / name)["size"] // np.dtype(about["dtype"]).itemsize
                if "size" in manifest:
                    manifest |= about_file(path.parent / "index.faiss")
                    embeddings = (path.parent / manifest["embeddings"] / "manifest.json").read_bytes()
                    manifest["embeddings_sha256"] = hashlib.sha256(embeddings).hexdigest()
                path.write_text(json.dumps(manifest))

    return change_and_seal


def about_file(path):
    content = path.read_bytes()
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def encoded_kinds(work):
    from builders.colbertv1 import passages_of
    from builders.encoders import WordEncoder

    from colbert_core.colbertv1.encoded import encode_collection
    from colbert_core.colbertv1.ivfpq import IVFPQ

    folder = work / "both"
    encode_collection(passages_of(24), WordEncoder(DIM), folder / "encoded", shard_passages=10, progress=False)
    IVFPQ.build(folder / "encoded", folder / "ivfpq", nlist=3, m=4, nbits=4, progress=False)
    changes = [
        *[sealed(some_npy)] * 3,
        sealed(some_json("manifest.json")),
        some_json("manifest.json"),
        some_bytes("*.npy"),
        some_bytes("*.json"),
    ]
    yield Kind("encoded collection", folder / "encoded", use_encoded, changes)
    faiss = [*[sealed(some_bytes("*.faiss"))] * 4, some_bytes("*.faiss")]
    yield Kind(
        "IVFPQ index",
        folder,
        use_ivfpq,
        [*faiss, sealed(some_npy), some_json("ivfpq/manifest.json"), sealed(some_json("*.json"))],
    )


# Training data


def use_examples(folder, work):
    from colbert_core.train.data import Examples

    examples = Examples.open(folder)
    assert examples.digest
    numbers = np.arange(min(len(examples), 4))
    examples.queries.padded(examples.query_numbers[numbers], 0)
    for number in numbers:
        passages = examples.passage_numbers[examples.offsets[number] : examples.offsets[number + 1]]
        examples.passages.padded(passages, 0)


def some_raw(dice, folder):
    """Change numbers of an array of the training data, which lie in their file as they are."""
    types = {
        "ids": np.uint16,
        "kept": np.bool_,
        "attended": np.int32,
        "offsets": np.int64,
        "queries": np.int32,
        "passages": np.int32,
        "scores": np.float32,
    }
    files = [path for path in files_in(folder, "*_*") if path.suffix == ""]
    path = dice.choice(files)
    array = np.frombuffer(path.read_bytes(), types[path.name.rpartition("_")[2]])
    path.write_bytes(
        np.asarray(change_array(dice, array)).astype(array.dtype).tobytes()
        if array.dtype != bool
        else change_bytes(dice, array.tobytes())
    )


def training_kinds(work):
    from builders.encoders import write_untrained
    from builders.training import EXAMPLES

    from colbert_core.train import TrainConfig, read_examples, write_examples
    from colbert_core.train.data import prepare
    from colbert_core.train.model import ColBERT

    config = TrainConfig(query_length=10, passage_length=12, dim=16)
    model = ColBERT.from_pretrained(str(write_untrained(work / "base")), config)
    prepare(EXAMPLES[:8], model, work / "training", progress=False)
    changes = [*[sealed(some_raw)] * 3, some_json("manifest.json"), sealed(some_json("manifest.json")), some_bytes("*")]
    yield Kind("training data", work / "training", use_examples, changes)
    folder = work / "examples"
    folder.mkdir()
    write_examples(EXAMPLES[:8], folder / "x.jsonl")
    write_examples(EXAMPLES[:8], folder / "x.jsonl.gz")
    write_examples(EXAMPLES[:8], folder / "x.jsonl.xz")
    (folder / "x.tsv").write_text("".join(f"{e.query}\t{e.positive}\t{e.negatives[0]}\n" for e in EXAMPLES[:8]))

    def use(folder, work):
        for path in files_in(folder, "*"):
            list(read_examples(path))

    yield Kind("training examples", folder, use, [some_lines("*.jsonl", "*.tsv"), some_bytes("*")])


# Collections


def use_beir(folder, work):
    from colbert_core.evaluation import open_dataset

    dataset = open_dataset(folder)
    dataset.check()
    for split in dataset.splits:
        dataset.qrels(split)
        dataset.queries(split)
    list(dataset.passages())


def use_documents(folder, work):
    from colbert_core.cli.reading import read_passages
    from colbert_core.documents.files import find_files
    from colbert_core.documents.pieces import Whole, read_file
    from colbert_core.documents.records import read_collection
    from colbert_core.evaluation.trec import read_qrels, read_run

    for file in find_files(folder / "files"):
        for passage in read_file(file, file.name, Whole()):
            json.dumps(passage.metadata).encode()
    read_collection(folder / "collection.tsv")
    read_run(folder / "x.run")
    read_qrels(folder / "x.qrels")
    list(read_passages((folder / "lines.jsonl").read_text(errors="replace").split("\n"), "lines"))


def collection_kinds(work):
    beir, ms_marco, documents = work / "beir", work / "ms marco", work / "documents"
    for folder in (beir / "qrels", ms_marco, documents / "files"):
        folder.mkdir(parents=True)
    records = [{"_id": f"d{n}", "text": f"text {n}", "title": "title" if n % 2 else ""} for n in range(6)]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (beir / "corpus.jsonl").write_text(lines)
    (beir / "queries.jsonl").write_text("".join(json.dumps({"_id": f"q{n}", "text": f"query {n}"}) + "\n" for n in range(3)))
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td1\t1\nq1\td2\t2\nq2\td0\t0\nq2\td4\t1\n")
    text_changes = [some_lines("*"), some_lines("*"), some_bytes("*")]
    yield Kind("BEIR folder", beir, use_beir, text_changes)
    (ms_marco / "collection.tsv").write_text("".join(f"{n}\ttext {n}\n" for n in range(6)))
    (ms_marco / "queries.dev.tsv").write_text("".join(f"{n}\tquery {n}\n" for n in range(3)))
    (ms_marco / "qrels.dev.tsv").write_text("0\t0\t1\t1\n1\t0\t2\t1\n2\t0\t3\t1\n")
    yield Kind("MS MARCO folder", ms_marco, use_beir, text_changes)
    (documents / "files" / "a.txt").write_text("One sentence. Another sentence.")
    (documents / "files" / "b.md").write_text("# Title\n\nText of it.")
    (documents / "files" / "c.jsonl").write_text(lines.replace("_id", "id"))
    (documents / "files" / "d.tsv").write_text("id\ttext\ttitle\n1\ta text\ta title\n2\tanother\t\n")
    (documents / "collection.tsv").write_text("0\ta text\n1\tanother\ttitle\n")
    (documents / "lines.jsonl").write_text('{"id": "a", "text": "x", "metadata": {"n": 1}}\nplain\n')
    (documents / "x.run").write_text("q1 Q0 d1 1 2.5 tag\nq1 Q0 d2 2 1.5 tag\nq2 Q0 d1 1 .5 tag\n")
    (documents / "x.qrels").write_text("q1 0 d1 1\nq2 0 d2 0\n")
    with contextlib.suppress(ImportError):
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.table({"id": ["a", "b"], "text": ["one", "two"], "n": [1, 2]})
        parquet.write_table(table, documents / "files" / "e.parquet")
    yield Kind("documents and runs", documents, use_documents, text_changes)


# Models


def use_model(folder, work):
    from colbert_core import Encoder

    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32", local_files_only=True)
    (query,) = encoder.encode_queries(["a happy cat"])
    embeddings = encoder.encode_passages(["the cat sat on a mat, and dogs bark"], progress=False)
    assert query.shape[1] == encoder.dim == embeddings.vectors.shape[1]
    assert np.isfinite(query).all()
    assert np.isfinite(embeddings.vectors).all()


def some_safetensors(dice, folder):
    """Change the header of a file of weights, or its numbers."""
    from safetensors.numpy import load_file, save_file

    path = dice.choice(files_in(folder, "*.safetensors") or [folder / "none"])
    if not path.is_file():
        return
    if dice.random() < 0.5:
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = change_json_text(dice, content[8 : 8 + length])
        path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
        return
    with contextlib.suppress(Exception):
        tensors = load_file(path)
        name = dice.choice(sorted(tensors))
        if dice.random() < 0.2:
            del tensors[name]
        else:
            tensors[name] = np.ascontiguousarray(change_array(dice, tensors[name]))
        save_file(tensors, path, metadata={"format": "pt"})


def model_kinds(work):
    from builders import checkpoints

    changes = [
        *[some_json("*.json", "artifact.metadata")] * 5,
        *[some_safetensors] * 2,
        some_bytes("*.json", "*.safetensors", "*.metadata"),
    ]
    makers = {
        "Stanford": checkpoints.stanford,
        "PyLate": checkpoints.pylate,
        "nanoColBERT": checkpoints.nanocolbert,
        "ModernBERT": lambda folder: checkpoints.stanford(folder, "modernbert"),
    }
    for name, make in makers.items():
        yield Kind(f"model, {name}", make(work / f"model {name}"), use_model, changes)
    folder = work / "model dnn"
    checkpoints.dnn(folder / "x.dnn", base=folder)
    yield Kind(
        "model, dnn", folder, use_model, [some_bytes("*.dnn"), some_json("config.json"), some_bytes("*.dnn", "config.json")]
    )


MAKERS = {
    "index": index_kinds,
    "foreign": foreign_kinds,
    "encoded": encoded_kinds,
    "training": training_kinds,
    "collection": collection_kinds,
    "model": model_kinds,
}


def make_kinds(work: Path, groups=tuple(MAKERS)):
    """Make the files of these groups of kinds below a folder.

    Each is used once as it is: that shows that it is whole, and compiles and imports what is needed before children are made.
    """
    kinds = []
    for group in groups:
        (work / group).mkdir()
        for kind in MAKERS[group](work / group):
            with tempfile.TemporaryDirectory(dir=work) as there:
                kind.write(Path(there) / "it")
                kind.use(Path(there) / "it", Path(there))
            kinds.append(kind)
    return kinds
