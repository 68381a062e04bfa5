"""Build a sharded index: files are read and encoded by the machines of a Ray cluster.

A batch of passages is the unit of work, of failure and of resumption, and whichever worker is free encodes the next. What a
shard holds depends neither on the number of workers nor on what went wrong: its batches are cut by the files alone, and it is
written from them in their order, and put in place whole.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter, deque
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from colbert_core.checks import check_count
from colbert_core.cluster.encoding import fit_codec, use_workers, write_codec
from colbert_core.cluster.layout import Layout, Settings, is_cluster
from colbert_core.cluster.nodes import Work, connect, load_ray, version
from colbert_core.cluster.progress import Log
from colbert_core.cluster.staging import find_sources, plan_batches, read_plan, stage, write_plan
from colbert_core.errors import IndexExistsError
from colbert_core.index.settings import check_words
from colbert_core.paths import as_path
from colbert_core.progress import progress_bar
from colbert_core.storage.aside import is_free
from colbert_core.vectors.codec import NBITS
from colbert_core.vectors.pooling import check_factor

if TYPE_CHECKING:
    from colbert_core.cluster.encoding import Give, Words
    from colbert_core.cluster.staging import Batch, Model

# Each shard has a file open while its passages are staged.
_MOST_SHARDS = 512


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
    """Make a sharded index of files; called again after an interruption, it goes on with what is missing.

    Ray Data reads the files, each a task, as ``colbert index`` reads them. A passage belongs to a shard by a hash of its id.
    One codec is fitted to a sample that is the same whatever reads it. Workers encode batches of at most some thousand
    passages, of whichever shard; one that dies, with its node or alone, costs the batch it was at, which another worker begins
    again. A shard is written once all of its batches are encoded. ``read_progress`` says how far all this is.

    Args:
        source: a file or folder, Parquet, JSON lines, tab-separated values, text or Markdown; or its address in an object
            storage, "s3://bucket/folder", as pyarrow takes it.
        out: the folder to make, under a path that every node sees.
        shards: how many parts, from 1 to 512; a build is as quick with few as with many, up to the writing of the shards.
        encoder: a checkpoint's name or folder that every node sees, or a loaded encoder that can be pickled; None for the
            model in the box.
        nbits: bits per component of a compressed vector, 1, 2, 4 or 8, or 32 to keep vectors as they are; None for 4.
        words: how texts are cut into words, for hybrid search, as for ``Index.create``; None is "english".
        pool_factor: keep about 1 / pool_factor of each passage's vectors, also of those that are added later; 1 keeps all.
        address: of the Ray cluster; None for the one at hand, or else this machine alone.
        workers: how many processes encode, each with a model of its own; None for as many as there is room for.
        num_cpus: cores that each worker takes.
        num_gpus: GPUs that each worker takes: a part of one, such as 0.5 for two workers on each, or a whole number.
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
    nbits = 4 if nbits is None else nbits
    _check(shards, nbits, words, workers, num_gpus)
    pool_factor = check_factor(pool_factor)
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
    layout.staged.mkdir(exist_ok=True)
    log = Log(layout.log)
    stage(layout, files, shards, encoder, of_driver=version(), log=log, progress=progress)
    is_new = not layout.plan.is_file()
    batches = plan_batches(layout, len(files), shards) if is_new else read_plan(layout)
    n_passages = sum(batch.passages for batch in batches)
    if not n_passages:
        raise ValueError(f"{source} holds no passages; there is nothing to index.")
    if missing:
        by_shard = {shard: [batch for batch in batches if batch.shard == shard] for shard in missing}
        n_workers = min(workers or _count_workers(ray, num_cpus, num_gpus), max(len(missing), len(batches)))
        arguments = (layout.folder, nbits, words, pool_factor, encoder, version(), num_cpus)
        with use_workers(ray, n_workers, arguments, timeout=timeout, num_cpus=num_cpus, num_gpus=num_gpus) as give:
            if is_new:
                for _ in give(deque(Work("check", (of_shard,)) for of_shard in by_shard.values())):
                    pass
                write_plan(layout, batches)
            if nbits != 32 and not layout.codec.is_file():
                log.note("fitting")
                for shard in missing:  # what another codec has compressed is of no use
                    shutil.rmtree(layout.encoded(shard), ignore_errors=True)
                write_codec(layout, fit_codec(give, layout, n_passages, nbits))
            _build_shards(give, layout, batches, by_shard, log, progress)
        _clear_away(layout)
    settings = replace(settings, passages=n_passages)
    layout.write(settings)
    shutil.rmtree(layout.staged, ignore_errors=True)
    return settings


def _check(shards: int, nbits: int, words: Words, workers: int | None, num_gpus: float) -> None:
    if check_count(shards, "shards", "shards") > _MOST_SHARDS:
        raise ValueError(f"shards must be at most {_MOST_SHARDS}, got {shards}; a shard may well hold a million passages.")
    if isinstance(nbits, bool) or nbits not in (*NBITS, 32):
        raise ValueError(f"nbits must be 1, 2, 4, 8, or 32 for uncompressed vectors, got {nbits!r}.")
    check_words(words, has_texts=True)
    if workers is not None:
        check_count(workers, "workers", "workers")
    if not 0 <= num_gpus < math.inf or (num_gpus > 1 and num_gpus != int(num_gpus)):
        raise ValueError(f"num_gpus must be a part of one GPU, such as 0.5, or a whole number of them, got {num_gpus!r}.")


def _build_shards(
    give: Give, layout: Layout, batches: list[Batch], by_shard: dict[int, list[Batch]], log: Log, progress: bool | None
) -> None:
    """Have the batches encoded that are not yet, and each shard written as soon as all of its batches are.

    Args:
        give: shares work among the workers.
        layout: of the folder.
        batches: of all shards.
        by_shard: those of the shards that are missing.
        log: of the build.
        progress: show a bar.
    """
    done = {batch for batch in batches if batch.shard not in by_shard or layout.batch(batch.shard, batch.number).is_file()}
    todo = [batch for batch in batches if batch not in done]
    left = Counter(batch.shard for batch in todo)
    n_passages, n_done = (sum(batch.passages for batch in some) for some in (batches, done))
    written = 0

    def write(shard: int) -> Work:
        return Work("write", (shard, by_shard[shard]))

    waiting = deque(write(shard) for shard in by_shard if not left[shard])
    waiting += (Work("encode_batch", (batch,)) for batch in todo)
    log.note("encoding", passages=n_passages, passages_done=n_done, batches=len(batches), batches_done=len(done))
    with progress_bar("Encoding", n_passages, "passage", progress, n_done) as bar:
        for work, result in give(waiting, begun=lambda work, where: log.note("begun", **_place(work), where=where)):
            if work.method == "write":
                (shard, _) = work.arguments
                log.note("done", **_place(work))
                shutil.rmtree(layout.encoded(shard), ignore_errors=True)
                written += 1
                bar.set_postfix(refresh=True, shards=f"{written}/{len(by_shard)}")
                continue
            (batch,) = work.arguments
            log.note("done", **_place(work), passages=batch.passages, tokens=result)
            bar.update(batch.passages)
            left[batch.shard] -= 1
            if not left[batch.shard]:
                waiting.appendleft(write(batch.shard))  # before others are encoded: its batches take room until then


def _place(work: Work) -> dict[str, int | None]:
    """The shard and the number of the batch that a piece of work is about; no number where the shard is written."""
    if work.method == "write":
        return {"shard": work.arguments[0], "batch": None}
    (batch,) = work.arguments
    return {"shard": batch.shard, "batch": batch.number}


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
    """How many workers the cluster has room for, node by node, and at least 1."""
    wanted = {name: each for name, each in (("CPU", num_cpus), ("GPU", num_gpus)) if each}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = [min((int(node.get(name, 0) / each + 1e-9) for name, each in wanted.items()), default=1) for node in nodes]
    return max(1, sum(room))


def _clear_away(layout: Layout) -> None:
    """Remove what workers that were killed have left half done."""
    for pattern in (".shard-*", "staged/.*"):
        for path in layout.folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
