"""Passages, an encoder that dies, and builds of sharded indexes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
import uuid
from pathlib import Path

import psutil
import ray

from builders.encoders import WORDS, WordEncoder
from colbert_core import Index, Passage
from colbert_core.cluster import build, encoding, staging
from colbert_core.cluster.layout import Layout, Settings, shard_of
from colbert_core.documents.pieces import Whole, read_file
from colbert_core.storage.arrays import dump_arrays
from colbert_core.storage.durable import write_bytes
from colbert_core.vectors.codec import ResidualCodec

QUERIES = ["the cat sat on a mat", "happy pets purr", "what sound does rust make", "dogs bark or"]


class Fatal(WordEncoder):
    """Ends its own process, or fails, at some of its calls, counted over all processes by the files in ``folder``.

    What an index keeps of its encoder, the vectors of a known text, does not count.
    """

    def __init__(self, folder, *, at, fail=False, seconds=0.0):
        super().__init__()
        self.folder, self.at, self.fail, self.seconds = Path(folder), at, fail, seconds

    def encode_passages(self, texts, *, progress=None):
        time.sleep(self.seconds)
        if not (len(texts) == 1 and texts[0].startswith("The same words")):
            number = len(list(self.folder.iterdir()))
            (self.folder / f"{number}").touch()
            if number in self.at:
                if self.fail:
                    raise RuntimeError("the model is on fire")
                os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_passages(texts, progress=progress)


class Noting(WordEncoder):
    """Notes each call in a file of ``folder``, by what it is for and by its process, and then takes its time.

    It reads texts as they are, and notes that of ".txt" as well. The file holds the GPUs that the process may use.
    """

    piece_tokens = Whole.piece_tokens

    def __init__(self, folder, *, seconds=0.0):
        super().__init__()
        self.folder, self.seconds = Path(folder), seconds

    def note(self, what):
        note = self.folder / f"{what}-{os.getpid()}-{uuid.uuid4().hex}"
        note.write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        time.sleep(self.seconds)

    def count_tokens(self, text):
        return Whole().count_tokens(text)

    def split(self, text, document_id, *, size=None):
        if document_id.endswith(".txt"):  # not each record of a file of records
            self.note("reading")
        return Whole().split(text, document_id, size=size)

    def encode_passages(self, texts, *, progress=None):
        is_probe = len(texts) == 1 and texts[0].startswith("The same words")
        self.note("probing" if is_probe else "encoding")
        return super().encode_passages(texts, progress=progress)


def notes(folder, what):
    """The processes that ``Noting`` noted, with the GPUs of each, a pair for each call."""
    return [(int(path.name.split("-")[1]), path.read_text()) for path in Path(folder).glob(f"{what}-*")]


def passages_of(n, seed=0):
    chosen = random.Random(seed)
    return [
        Passage(f"id{i}", " ".join(chosen.choice(WORDS) for _ in range(chosen.randint(3, 14))), {"year": 2000 + i % 7})
        for i in range(n)
    ]


PASSAGES = passages_of(240)


def as_record(passage):
    return {"id": passage.id, "text": passage.text, "metadata": passage.metadata}


def build_here(source, out, *, encoder=None, progress=False, **options):
    return out, build(source, out, encoder=encoder or WordEncoder(), progress=progress, **options)


def sharded_here(folder, passages=PASSAGES, *, shards=2, nbits=4, seed_passages=PASSAGES, **options):
    """A sharded index such as ``build`` makes, without Ray; the codec is of ``seed_passages``, whatever the number of shards."""
    encoder, layout, codec = WordEncoder(), Layout(Path(folder)), None
    layout.folder.mkdir(parents=True)
    if nbits != 32:
        vectors = encoder.encode_passages([passage.text for passage in seed_passages], progress=False).vectors
        codec = ResidualCodec.fit(vectors, 16, nbits)
        arrays = {name: [array] for name, array in codec.to_arrays().items()}
        write_bytes(layout.codec, b"".join(dump_arrays(arrays)))
    for shard in range(shards):
        with Index.create(layout.shard(shard), encoder, nbits=nbits, codec=codec, **options) as index:
            index.add([passage for passage in passages if shard_of(passage.id, shards) == shard], refit=False, progress=False)
    words = options.get("words", "english")
    layout.write(Settings(shards, nbits, encoder.name, {}, len(passages), words=words, pool_factor=1.0))
    return layout.folder


def contents_of(folder):
    """The passages of each shard with their vectors as they are kept."""
    found = []
    for shard in range(Layout(Path(folder)).read().shards):
        with Index.open(Layout(Path(folder)).shard(shard), WordEncoder()) as index:
            assert index.verify().ok
            passages = sorted(index.passages(), key=lambda passage: passage.id)
            hits = index.search_many(QUERIES, 300, exact=True)
            found.append((passages, [[(hit.passage.id, hit.score) for hit in each] for each in hits]))
    return found


def one_index(path, source, cluster_folder, **options):
    """One index of the same passages with the same codec."""
    index = Index.create(path, WordEncoder(), codec=encoding.load_codec(Layout(cluster_folder)), **options)
    for location, name, _ in staging.find_sources(source):
        index.add(read_file(Path(location), name, Whole()), refit=False)
    return index


def one_here(path, cluster_folder, passages=PASSAGES):
    """One index of what ``sharded_here`` put into shards, with the same codec."""
    index = Index.create(path, WordEncoder(), codec=encoding.load_codec(Layout(Path(cluster_folder))))
    index.add(passages, refit=False, progress=False)
    return index


def begin_shards(folder, shards, encoder, codec, pool_factor=1.0):
    """An index in shards without passages, made without Ray; ``codec`` None keeps vectors as they are."""
    layout = Layout(folder)
    nbits = 32 if codec is None else codec.nbits
    folder.mkdir()
    layout.write(Settings(shards, nbits, str(encoder.name), passages=0, pool_factor=pool_factor))
    for shard in range(shards):
        Index.create(layout.shard(shard), encoder, nbits=nbits, codec=codec, words="english").close()
    return folder


def checksums(folder):
    """What the segments and codecs of all shards are made of."""
    files = {}
    for shard in sorted(Path(folder).glob("shard-*")):
        with contextlib.closing(sqlite3.connect(shard / "index.sqlite")) as connection:
            files[shard.name] = connection.execute("SELECT kind, position, sha256 FROM files ORDER BY name").fetchall()
    return files


def node_killed(cluster, node=None):
    """SIGKILL of everything that a node is: a machine that loses its power. The last one by default."""
    node = node or [node for node in cluster.list_all_nodes() if node is not cluster.head_node][-1]
    (raylet,) = node.all_processes["raylet"]
    os.kill(raylet.process.pid, signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


def count_alive():
    """How many nodes the cluster takes to be alive."""
    return sum(node["Alive"] for node in ray.nodes())


def node_of(cluster, pids):
    """A node that one of these processes is on, but not that of the driver; None if there is none."""
    for node in cluster.list_all_nodes():
        (raylet,) = node.all_processes["raylet"]
        with contextlib.suppress(psutil.NoSuchProcess):
            own = {process.pid for process in psutil.Process(raylet.process.pid).children(recursive=True)}
            if node is not cluster.head_node and own & set(pids):
                return node
    return None
