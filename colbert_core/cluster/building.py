"""Build a sharded index: files are read and encoded by the machines of a Ray cluster.

A shard is the unit of work, of failure and of resumption: one worker encodes its passages, in the order of the files, and puts
the finished index folder in place. So what a shard holds depends neither on the number of workers nor on what went wrong.
"""

from __future__ import annotations

import builtins
import contextlib
import heapq
import json
import logging
import math
import shutil
import tempfile
import uuid
from collections import Counter
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from colbert_core import errors
from colbert_core.checks import check_count
from colbert_core.cluster.layout import Layout, Settings, hash_id, is_cluster, shard_of
from colbert_core.cluster.nodes import check_version, connect, load_ray, share, version
from colbert_core.documents.files import STREAMED, find_files
from colbert_core.documents.pieces import Whole, read_file
from colbert_core.errors import (
    ClusterError,
    ClusterUnreachableError,
    ColBERTError,
    DamagedIndexError,
    IndexExistsError,
    PartialAddError,
)
from colbert_core.index.index import Index
from colbert_core.index.settings import check_words
from colbert_core.metadata import plain_metadata
from colbert_core.model.fingerprint import loaded_encoder
from colbert_core.paths import as_path
from colbert_core.progress import progress_bar
from colbert_core.storage.arrays import dump_arrays, load_arrays
from colbert_core.storage.aside import is_free
from colbert_core.storage.durable import write_bytes
from colbert_core.storage.incoming import check_regular
from colbert_core.storage.store import made_aside
from colbert_core.threads import set_num_threads
from colbert_core.types import Passage
from colbert_core.vectors.codec import NBITS, ResidualCodec, count_centroids, sample_size
from colbert_core.vectors.pooling import check_factor, pool_embeddings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from colbert_core.documents.pieces import Splitter
    from colbert_core.types import TokenEncoder

    Model = str | PathLike[str] | TokenEncoder | None
    Words = str | Literal[False] | None

# Each shard has a file open while its passages are staged.
_MOST_SHARDS = 512
# Most passages sampled for the codec; at 16 tokens each they have as many vectors as a fit takes at most.
_MOST_SAMPLED = 2**16
# The first of these tell how long passages are.
_FIRST_SAMPLED = 2**10
# Sampled passages that a worker encodes at a time.
_PIECE = 2**8
_SEED = 12345


def build(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    shards: int,
    encoder: Model = None,
    nbits: int | None = None,
    words: Words = None,
    pool_factor: float = 1,
    address: str | None = None,
    workers: int | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    timeout: float = 300.0,
    progress: bool | None = None,
) -> Settings:
    """Make a sharded index of files; called again after an interruption, it goes on with the shards that are missing.

    Ray Data reads the files, each a task, as ``colbert index`` reads them. A passage belongs to a shard by a hash of its id.
    One codec is fitted to a sample that is the same whatever reads it. Then each shard is encoded and written by one worker;
    one that dies, with its node or alone, costs the shard it was at, which another worker begins again.

    Args:
        source: a file or folder, Parquet, JSON lines, tab-separated values, text or Markdown; or its address in an object
            storage, "s3://bucket/folder", as pyarrow takes it.
        out: the folder to make, under a path that every node sees.
        shards: how many parts, from 1 to 512; at least as many as there are workers, or some have nothing to do.
        encoder: a checkpoint's name or folder that every node sees, or a loaded encoder that can be pickled; None for the
            model in the box.
        nbits: bits per component of a compressed vector, 1, 2, 4 or 8, or 32 to keep vectors as they are; None for 4.
        words: how texts are cut into words, for hybrid search, as for ``Index.create``; None is "english".
        pool_factor: keep about 1 / pool_factor of each passage's vectors, also of those that are added later; 1 keeps all.
        address: of the Ray cluster; None for the one at hand, or else this machine alone.
        workers: how many processes encode, each with a model of its own; None for as many as there is room for.
        num_cpus: cores that each worker takes.
        num_gpus: GPUs that each worker takes; two may share one with 0.5.
        timeout: seconds to wait for the cluster to answer, and for a worker to be there.
        progress: show bars; None shows them on a terminal or in a notebook once a second has passed.

    Returns:
        What was built, as ``cluster.json`` keeps it.

    Raises:
        ValueError: an argument is out of range, there is nothing to read, a file is not what its name says, an id stands
            twice, or ``out`` was begun with other arguments.
        IndexExistsError: ``out`` holds something else.
        ClusterUnreachableError: the cluster or the object storage does not answer.
        ClusterError: nodes have different versions, or there is no room for a worker.
        MissingExtraError: Ray is not installed.
    """
    if check_count(shards, "shards", "shards") > _MOST_SHARDS:
        raise ValueError(f"shards must be at most {_MOST_SHARDS}, got {shards}; a shard may well hold a million passages.")
    nbits = 4 if nbits is None else nbits
    if isinstance(nbits, bool) or nbits not in (*NBITS, 32):
        raise ValueError(f"nbits must be 1, 2, 4, 8, or 32 for uncompressed vectors, got {nbits!r}.")
    check_words(words, has_texts=True)
    pool_factor = check_factor(pool_factor)
    if workers is not None:
        check_count(workers, "workers", "workers")
    load_ray("ray.data")
    if isinstance(encoder, str | PathLike) and as_path(encoder).exists():
        encoder = str(as_path(encoder).absolute())  # a worker has another working folder
    layout = Layout(as_path(out).absolute())
    files = find_sources(source)
    wanted = Settings(
        shards,
        nbits,
        _model_name(encoder),
        {name: size for _, name, size in files},
        words="english" if words is None else words,
        pool_factor=pool_factor,
    )
    settings = _begin(layout, wanted)
    missing = layout.missing(shards)
    if not missing and settings.passages is not None:
        return settings
    ray = connect(address, timeout)
    counts = _stage(layout, files, shards, encoder, progress)
    n_passages = sum(counts)
    if not n_passages:
        raise ValueError(f"{source} holds no passages; there is nothing to index.")
    if missing:
        n_workers = min(workers or _count_workers(ray, num_cpus, num_gpus), len(missing))
        arguments = (layout.folder, nbits, words, pool_factor, encoder, version(), num_cpus)
        with _workers(ray, n_workers, arguments, num_cpus=num_cpus, num_gpus=num_gpus) as pool:
            if nbits != 32 and not layout.codec.is_file():
                codec = _fit_codec(ray, pool, layout, n_passages, nbits, timeout)
                arrays = {name: [array] for name, array in codec.to_arrays().items()}
                write_bytes(layout.codec, b"".join(dump_arrays(arrays)), shared=True)
            with progress_bar("Building shards", sum(counts[shard] for shard in missing), "passage", progress) as bar:
                for place, _ in share(ray, pool, "build", missing, timeout=timeout):
                    bar.update(counts[missing[place]])
        _clear_away(layout)
    settings = replace(settings, passages=n_passages)
    layout.write(settings)
    shutil.rmtree(layout.staged, ignore_errors=True)
    return settings


class Worker:
    """Encodes passages with a model of its own; a Ray actor."""

    def __init__(
        self, folder: Path, nbits: int, words: Words, pool_factor: float, encoder: Model, of_driver: str, num_cpus: float
    ) -> None:
        self._layout, self._nbits, self._of_driver, self._num_cpus = Layout(folder), nbits, of_driver, num_cpus
        self._words, self._pool_factor = words, pool_factor
        self._given = encoder
        self._loaded: TokenEncoder | None = None

    @property
    def _encoder(self) -> TokenEncoder:
        """The model. It is not loaded with the actor: an error would come out as the actor's death."""
        if self._loaded is None:
            check_version(self._of_driver, version(), load_ray().util.get_node_ip_address())
            set_num_threads(max(1, int(self._num_cpus)))
            self._loaded = loaded_encoder(self._given)
        return self._loaded

    def about(self) -> str:
        """Load the model, and return its name."""
        return _model_name(self._encoder)

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Encode some texts, and pool their vectors. *Shape:* (n_tokens, dim), float32."""
        encoded = self._encoder.encode_passages(texts, progress=False).check(len(texts), self._encoder.dim)
        return pool_embeddings(encoded, self._pool_factor).vectors

    def build(self, shard: int) -> None:
        """Write the index of a shard; its folder is there once it is whole."""
        layout = self._layout
        codec = None if self._nbits == 32 else _load_codec(layout)
        with (
            contextlib.suppress(IndexExistsError),  # somebody who was taken for dead has finished it
            made_aside(layout.shard(shard)) as aside,
            Index.create(aside, self._encoder, nbits=self._nbits, codec=codec, words=self._words) as index,
        ):
            try:
                index.add(_staged_passages(layout, shard), pool_factor=self._pool_factor, refit=False, progress=False)
            except PartialAddError as error:  # nothing of this index will be left
                raise error.__cause__ or error from None


@contextlib.contextmanager
def _workers(ray: Any, n: int, arguments: tuple[Any, ...], **resources: float) -> Iterator[list[Any]]:
    """Start so many actors, and end them with the block. Ray starts one again that dies; ``share`` hands its work on."""
    remote = ray.remote(Worker).options(max_restarts=-1, max_task_retries=0, scheduling_strategy="SPREAD", **resources)
    pool = [remote.remote(*arguments) for _ in range(n)]
    try:
        yield pool
    finally:
        for worker in pool:
            ray.kill(worker)


def find_sources(source: str | PathLike[str]) -> list[tuple[str, str, int]]:
    """Find the files to read: where each lies, its name, and its size in bytes; in the order of their names.

    Raises:
        ValueError: there is nothing that can be read.
        ClusterUnreachableError: the storage does not answer.
    """
    if "://" not in str(source):
        path = as_path(source).absolute()
        return [
            (str(file), file.name if file == path else file.relative_to(path).as_posix(), file.stat().st_size)
            for file in find_files(path)
        ]
    from pyarrow import fs  # comes with ray[data]

    address = str(source).rstrip("/")
    try:
        storage, inner = fs.FileSystem.from_uri(address)
        about = storage.get_file_info(inner)
        entries = (
            storage.get_file_info(fs.FileSelector(inner, recursive=True)) if about.type == fs.FileType.Directory else [about]
        )
    except OSError as error:
        raise ClusterUnreachableError(
            f"{source} cannot be read ({error!s:.300}); is it there, and may this machine?"
        ) from error
    except ValueError as error:
        raise ValueError(f"{source} is no address that pyarrow knows ({error!s:.300}).") from None
    files = [entry for entry in entries if entry.type == fs.FileType.File and f".{entry.extension.lower()}" in STREAMED]
    if not files:
        raise ValueError(f"{source} holds no {', '.join(STREAMED)} file.")
    root = inner if about.type == fs.FileType.Directory else inner.rpartition("/")[0]
    placed = [(entry, entry.path.removeprefix(root).lstrip("/")) for entry in files]
    return sorted(
        ((address if entry.path == inner else f"{address}/{name}", name, entry.size) for entry, name in placed),
        key=lambda entry: entry[1],
    )


def _begin(layout: Layout, wanted: Settings) -> Settings:
    """Return the settings that the folder was begun with, if they are those wanted now; begin it if it is new.

    Raises:
        ValueError: it was begun with other settings.
        IndexExistsError: it holds something else.
    """
    if is_cluster(layout.folder):
        known = layout.read()
        for name in ("shards", "nbits", "words", "pool_factor", "model", "files"):
            before, now = getattr(known, name), getattr(wanted, name)
            if before != now:
                raise ValueError(
                    f"{layout.folder} was begun with {name}={before!r:.200}, but {now!r:.200} is asked for; "
                    "choose another folder, or remove this one."
                )
        return known
    if not is_free(layout.folder):
        raise IndexExistsError(f"{layout.folder} holds something that is no sharded index; name a folder that is new or empty.")
    layout.folder.mkdir(parents=True, exist_ok=True)
    layout.write(wanted)
    return wanted


def _model_name(encoder: Model) -> str:
    if encoder is None or isinstance(encoder, str):
        return encoder or "default"
    return str(getattr(encoder, "name", encoder))


def _count_workers(ray: Any, num_cpus: float, num_gpus: float) -> int:
    """How many workers the cluster has room for, at least 1."""
    amounts = ray.cluster_resources()
    wanted = {"CPU": num_cpus, "GPU": num_gpus}
    return max(1, min((int(amounts.get(name, 0) / each) for name, each in wanted.items() if each), default=1))


# Reading


def _stage(layout: Layout, files: list[tuple[str, str, int]], shards: int, encoder: Model, progress: bool | None) -> list[int]:
    """Have every file read, and its passages written down by shard; return how many passages each shard gets."""
    data = load_ray("ray.data")
    tasks = [
        {"number": number, "location": location, "name": name}
        for number, (location, name, _) in enumerate(files)
        if not (layout.staged / f"{number:06}").is_dir()
    ]
    layout.staged.mkdir(exist_ok=True)
    if tasks:
        arguments = {"staged": layout.staged, "shards": shards, "encoder": encoder, "of_driver": version()}
        dataset = data.from_items(tasks, override_num_blocks=len(tasks)).map(_stage_file, fn_kwargs=arguments)
        with progress_bar("Reading", len(tasks), "file", progress) as bar, _quietly(data):
            for row in dataset.iter_rows():
                if row["error"]:
                    raise _error(row["kind"], row["error"])
                bar.update()
    counts = Counter[int]()
    for number in range(len(files)):
        about = json.loads((layout.staged / f"{number:06}" / "counts.json").read_text(encoding="utf-8"))
        counts.update({int(shard): count for shard, count in about.items()})
    return [counts[shard] for shard in range(shards)]


@contextlib.contextmanager
def _quietly(data: Any) -> Iterator[None]:
    """Silence Ray Data's own bars, which would stand between ours."""
    context, log = data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, log.level
    context.enable_progress_bars = False
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        context.enable_progress_bars = before[0]
        log.setLevel(before[1])


def _stage_file(task: Mapping[str, Any], *, encoder: Model, of_driver: str, **arguments: Any) -> dict[str, str]:
    """Read one file, in a task of Ray Data; return the name and message of an error, which Ray Data would wrap in its own."""
    try:
        check_version(of_driver, version(), load_ray().util.get_node_ip_address())
        splitter: Any = loaded_encoder(encoder)
        _stage_passages(task, splitter if hasattr(splitter, "split") else Whole(), **arguments)
    except (ColBERTError, ValueError, TypeError, OSError) as error:
        return {"kind": type(error).__name__, "error": str(error)}
    return {"kind": "", "error": ""}


def _error(kind: str, message: str) -> Exception:
    """Make the error of this name, ours or Python's own; a ``ClusterError`` where it takes more than a message."""
    made: Any = getattr(errors, kind, None) or getattr(builtins, kind, ClusterError)
    try:
        error: Exception = made(message)
        return error
    except TypeError:  # such as UnicodeDecodeError
        return ClusterError(f"{kind}: {message}")


def _stage_passages(task: Mapping[str, Any], splitter: Splitter, *, staged: Path, shards: int) -> None:
    """Write down the passages of a file by shard, with a sample and their counts; all or nothing, and the same each time."""
    target = staged / f"{task['number']:06}"
    work = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    counts = Counter[int]()
    work.mkdir()
    try:
        with contextlib.ExitStack() as stack:
            path = stack.enter_context(_fetch(task["location"]))
            outputs: dict[int, Any] = {}

            def write_lines() -> Iterator[tuple[int, str]]:
                for passage in _named_in_errors(read_file(path, task["name"], splitter), path, task["location"]):
                    metadata = plain_metadata(passage.metadata, f"Metadata of passage {passage.id!r}")
                    line = json.dumps([passage.id, passage.text, metadata])
                    shard = shard_of(passage.id, shards)
                    if shard not in outputs:
                        outputs[shard] = stack.enter_context((work / f"{shard:04}.jsonl").open("w", encoding="utf-8"))
                    outputs[shard].write(f"{line}\n")
                    counts[shard] += 1
                    yield hash_id(passage.id), line

            sample = heapq.nsmallest(_MOST_SAMPLED, write_lines())
        (work / "sample.jsonl").write_text("".join(f"{line}\n" for _, line in sample), encoding="utf-8")
        (work / "counts.json").write_text(json.dumps(counts), encoding="utf-8")
        if not target.is_dir():  # or somebody who was taken for dead has left the same
            # Not synced: it may be 512 files for each file read. Should the power fail, remove ``staged`` and build again.
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _named_in_errors(passages: Iterator[Passage], path: Path, location: str) -> Iterator[Passage]:
    """Pass the passages on; an error names the file in the storage instead of its copy here."""
    try:
        yield from passages
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), location)) from None


@contextlib.contextmanager
def _fetch(location: str) -> Iterator[Path]:
    """Bring a file to this machine, for as long as the block takes."""
    if "://" not in location:
        yield Path(location)
        return
    from pyarrow import fs

    with tempfile.TemporaryDirectory(prefix="colbert-") as folder:
        path = Path(folder) / location.rpartition("/")[2]
        try:
            storage, inner = fs.FileSystem.from_uri(location)
            with storage.open_input_stream(inner) as stream, path.open("wb") as copy:
                shutil.copyfileobj(stream, copy, 2**20)
        except OSError as error:
            raise ClusterUnreachableError(f"{location} cannot be read ({error!s:.300}).") from error
        yield path


def _staged_passages(layout: Layout, shard: int) -> Iterator[Passage]:
    """The passages of a shard, in the order of the files."""
    for folder in sorted(layout.staged.glob("[0-9]*")):
        path = folder / f"{shard:04}.jsonl"
        if path.is_file():
            yield from (passage for _, passage in _read_staged(path))


def _read_staged(path: Path) -> Iterator[tuple[int, Passage]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            passage_id, text, metadata = json.loads(line)
            yield hash_id(passage_id), Passage(passage_id, text, metadata)


# The codec


def _fit_codec(ray: Any, pool: list[Any], layout: Layout, n_passages: int, nbits: int, timeout: float) -> ResidualCodec:
    """Fit a codec to the collection, by the passages whose ids have the smallest hashes: a sample without a preference."""
    samples = heapq.merge(
        *(_read_staged(path) for path in sorted(layout.staged.glob("[0-9]*/sample.jsonl"))), key=lambda entry: entry[0]
    )
    texts = [passage.text for _, (_, passage) in zip(range(_MOST_SAMPLED), samples, strict=False)]

    def encode(chosen: list[str]) -> list[NDArray[np.float32]]:
        pieces = [chosen[start : start + _PIECE] for start in range(0, len(chosen), _PIECE)]
        vectors = dict(share(ray, pool, "encode", pieces, timeout=timeout))
        return [vectors[place] for place in range(len(pieces))]

    vectors = encode(texts[:_FIRST_SAMPLED])
    n_tokens = sum(map(len, vectors))
    per_passage = n_tokens / min(len(texts), _FIRST_SAMPLED)
    n_centroids = count_centroids(round(per_passage * n_passages))
    more = math.ceil(sample_size(n_centroids) / per_passage) - _FIRST_SAMPLED
    if more > 0:
        vectors += encode(texts[_FIRST_SAMPLED : _FIRST_SAMPLED + more])
    sample = np.concatenate(vectors)
    wanted = min(sample_size(n_centroids), len(sample))
    chosen = np.sort(np.random.default_rng(_SEED).choice(len(sample), wanted, replace=False))
    return ResidualCodec.fit(sample[chosen], min(n_centroids, len(chosen)), nbits)


def _load_codec(layout: Layout) -> ResidualCodec:
    try:
        check_regular(layout.codec)
        return ResidualCodec.from_arrays(load_arrays(np.frombuffer(layout.codec.read_bytes(), np.uint8)))
    except ValueError as error:
        raise DamagedIndexError(f"{layout.codec} is damaged: {error}; restore it from a copy.") from None


def _clear_away(layout: Layout) -> None:
    """Remove what workers that were killed have left half done."""
    for pattern in (".shard-*", "staged/.*"):
        for path in layout.folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
