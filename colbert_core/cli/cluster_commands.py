"""Commands for several machines: ``colbert plan``, and those of ``colbert cluster``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import colbert_core
from colbert_core import cluster
from colbert_core.cli.options import (
    add_pool_factor,
    add_quiet,
    add_words,
    json_option,
    quiet_option,
    read_words,
    wants_progress,
)
from colbert_core.cli.reading import demo_passages
from colbert_core.documents.files import STREAMED
from colbert_core.paths import as_path

if TYPE_CHECKING:
    import argparse

    from colbert_core.cli.options import Command, Group
    from colbert_core.cluster import Manifest, Plan, Progress

# Seconds without an event after which a build may well have died: a batch takes a minute, and a large codec some more.
_LONG = 600.0

_BUILD = f"""\
Make a sharded index of files with the machines of a Ray cluster: {", ".join(STREAMED)}, in a folder or an object storage such
as s3://bucket/folder. Called again after an interruption it goes on with what is missing; `colbert cluster status` says how far
it is. `colbert search`, `sync`, `add`, `delete`, `verify` and the others take the folder like any other index.
"""

_STATUS = """\
Say how far the build of a sharded index is: what is done, how fast, how long it will take, and which workers are slow. Only
files are read, so any machine that sees the folder will do, and Ray is not needed.
"""

_PLAN = """\
Print what a collection needs on one machine and on several: bytes on disk and in memory, hours to build, milliseconds of a
search; and what there is the least of: memory, a day to build, or 200 ms for a search. The rates are those of one machine that
was measured; --measure measures this one first, in some ten seconds.
"""

_PUBLISH = """\
Put a snapshot of a sharded index into an object storage such as s3://bucket/folder, or into a folder as a backup. Each shard is
taken at one moment, while others search and write. Later snapshots upload only what has changed. `colbert search` takes the
address like a folder, and `colbert cluster restore` makes a folder of it again.
"""

_RESTORE = """\
Make a sharded index of a snapshot that `colbert cluster publish` made; every file is checked by its SHA-256. Called again after
an interruption it goes on with the files that are missing.
"""

_SPLIT = """\
Put the passages of a sharded index into another number of shards, in a new folder. Nothing is encoded again; searches that
score every passage find the same. Searches of the old one go on meanwhile, and who writes to it waits. Called again after an
interruption it goes on.
"""

_REFIT = """\
Give the codec of a sharded index more centroids, if the collection has grown fourfold since it was fitted. What is there stays
as it is and scores what it scored; what is added from then on is compressed with less error. Searches and writers go on
meanwhile. Called again after an interruption it goes on.
"""


def add_cluster_commands(command: Command, group: Group) -> None:
    """Add the commands."""
    members = group("cluster", "work on several machines")
    _add_build(members)
    _add_storage_commands(members)

    plan_ = command("plan", _plan, "say what a collection will need", json_option(), about=_PLAN)
    plan_.add_argument("--passages", required=True, type=float, metavar="N", help="such as 8.8e6")
    plan_.add_argument("--tokens-per-passage", required=True, type=float, metavar="N", help="vectors of one, such as 68")
    plan_.add_argument("--nbits", type=int, default=4, help="bits per component (default: 4)")
    plan_.add_argument("--dim", type=int, default=128, help="components of a vector (default: 128)")
    add_pool_factor(plan_)
    plan_.add_argument(
        "--nodes", type=int, action="append", metavar="N", help="machines (may be repeated; default: 1, 2, 4, 8)"
    )
    plan_.add_argument("--cores", type=int, default=8, metavar="N", help="of each machine (default: 8)")
    plan_.add_argument("--memory", type=float, default=64, metavar="GB", help="of each machine (default: 64)")
    plan_.add_argument("--measure", action="store_true", help="measure the rates of this machine first")


def _add_build(members: Command) -> None:
    build_ = members("build", _build, "make a sharded index of files", about=_BUILD)
    build_.add_argument("source", metavar="SOURCE", help="a file or folder, or its address in an object storage")
    build_.add_argument("--out", required=True, type=as_path, metavar="DIR", help="the folder to make, which every node sees")
    build_.add_argument("--shards", required=True, type=int, metavar="N", help="parts of the index")
    build_.add_argument("--model", help="checkpoint folder that every node sees, or hub name (default: the model in the box)")
    build_.add_argument("--nbits", type=int, help="bits per component: 1, 2, 4, 8, or 32 for uncompressed (default: 4)")
    add_pool_factor(build_)
    add_words(build_)
    build_.add_argument("--address", help="of the Ray cluster, host:port (default: the one at hand, or this machine)")
    build_.add_argument("--workers", type=int, metavar="N", help="that encode (default: as many as there is room for)")
    build_.add_argument("--cpus", type=float, default=1, metavar="N", help="cores of each worker (default: 1)")
    build_.add_argument(
        "--gpus", type=float, default=0, metavar="N", help="GPUs of each worker; 0.5 for two on each (default: 0)"
    )
    build_.add_argument("--json", action="store_true", help="print JSON for programs")
    add_quiet(build_)

    status_ = members("status", _status, "say how far a build is", json_option(), about=_STATUS)
    status_.add_argument("folder", type=as_path, metavar="DIR", help="the folder that is being made")


def _add_storage_commands(members: Command) -> None:
    publish_ = members(
        "publish", _publish, "put a snapshot into an object storage or a folder", json_option(), quiet_option(), about=_PUBLISH
    )
    publish_.add_argument("index", type=as_path, metavar="FOLDER", help="a sharded index")
    publish_.add_argument("address", metavar="ADDRESS", help="such as s3://bucket/folder, or a folder")
    publish_.add_argument(
        "--keep", type=int, default=2, metavar="N", help="snapshots that stay, this one included (default: 2)"
    )

    restore_ = members("restore", _restore, "make a sharded index of a snapshot", json_option(), quiet_option(), about=_RESTORE)
    restore_.add_argument("address", metavar="ADDRESS", help="where it was published")
    restore_.add_argument("--out", required=True, type=as_path, metavar="DIR", help="the folder to make")
    restore_.add_argument("--snapshot", metavar="NAME", help="one of `colbert cluster snapshots` (default: the newest)")

    snapshots_ = members("snapshots", _snapshots, "list what is published at an address, oldest first", json_option())
    snapshots_.add_argument("address", metavar="ADDRESS", help="where it was published")

    split_ = members("split", _split, "put an index into another number of shards", json_option(), quiet_option(), about=_SPLIT)
    split_.add_argument("index", type=as_path, metavar="FOLDER", help="a sharded index")
    split_.add_argument("--out", required=True, type=as_path, metavar="DIR", help="the folder to make, which every node sees")
    split_.add_argument("--shards", required=True, type=int, metavar="N", help="parts; more than now or fewer")

    refit_ = members("refit", _refit, "fit the codec of an index that has grown", json_option(), quiet_option(), about=_REFIT)
    refit_.add_argument("index", type=as_path, metavar="FOLDER", help="a sharded index")


def _build(options: argparse.Namespace) -> int:
    settings = cluster.build(
        options.source,
        options.out,
        shards=options.shards,
        encoder=options.model,
        nbits=options.nbits,
        words=read_words(options),
        pool_factor=options.pool_factor,
        address=options.address,
        workers=options.workers,
        num_cpus=options.cpus,
        num_gpus=options.gpus,
        progress=wants_progress(options),
    )
    if options.json:
        print(json.dumps({"passages": settings.passages, "shards": settings.shards, "out": str(options.out)}))
    else:
        print(f"{settings.passages} passages in {_shards(settings.shards)} in {options.out}.")
    return 0


def _publish(options: argparse.Namespace) -> int:
    manifest = cluster.publish(options.index, options.address, keep=options.keep, progress=wants_progress(options))
    _print_snapshot(manifest, options)
    return 0


def _restore(options: argparse.Namespace) -> int:
    manifest = cluster.restore(options.address, options.out, snapshot=options.snapshot, progress=wants_progress(options))
    _print_snapshot(manifest, options)
    return 0


def _snapshots(options: argparse.Namespace) -> int:
    for manifest in cluster.snapshots(options.address):
        _print_snapshot(manifest, options)
    return 0


def _print_snapshot(manifest: Manifest, options: argparse.Namespace) -> None:
    name, passages, n_shards, size = manifest.snapshot, manifest.passages, len(manifest.shards), manifest.size
    if options.json:
        generations = [shard.generation for shard in manifest.shards]
        about = {"snapshot": name, "passages": passages, "shards": n_shards, "bytes": size, "generations": generations}
        print(json.dumps(about))
    else:
        print(f"{name}: {passages} passages in {_shards(n_shards)}, {size / 1e6:,.1f} MB.")


def _split(options: argparse.Namespace) -> int:
    settings = cluster.split(options.index, options.out, shards=options.shards, progress=wants_progress(options))
    if options.json:
        print(json.dumps({"passages": settings.passages, "shards": settings.shards, "out": str(options.out)}))
    else:
        print(f"{settings.passages} passages in {_shards(settings.shards)} in {options.out}.")
    return 0


def _refit(options: argparse.Namespace) -> int:
    with cluster.ShardedIndex.open(options.index) as index:
        done = index.refit(progress=wants_progress(options))
    if options.json:
        print(json.dumps(asdict(done)))
    elif done.fitted_on is None:
        print("Nothing to do: the vectors are kept as they are, so there is no codec.")
    elif done.added:
        print(f"{done.added:,} centroids more, {done.centroids:,} in all, fitted to {done.fitted_on:,} vectors.")
    else:
        print(
            f"Nothing to do: the codec has {done.centroids:,} centroids, fitted to {done.fitted_on:,} vectors. There are "
            f"{done.tokens:,} now; it gets more at four times as many, up to 65,536 in all."
        )
    return 0


def _shards(n: int) -> str:
    return "1 shard" if n == 1 else f"{n} shards"


def _status(options: argparse.Namespace) -> int:
    progress = cluster.read_progress(options.folder)
    if options.json:
        print(json.dumps(asdict(progress)))
        return 0
    print(f"{progress.stage}: {', '.join(_counts(progress))}")
    rates = [
        f"{rate:,.0f} {unit}"
        for rate, unit in ((progress.passages_per_second, "passages"), (progress.tokens_per_second, "tokens"))
        if rate
    ]
    if rates:
        print(f"{' and '.join(rates)} a second in the last minutes")
    if progress.seconds_left is not None:
        print(f"about {_spell(progress.seconds_left)} of {progress.stage} left")
    if progress.at_work:
        print(f"{len(progress.at_work)} workers are busy, {len(progress.stragglers)} of them for long")
    for task in progress.stragglers:
        what = f"shard {task.shard} is being written" if task.batch is None else f"batch {task.batch} of shard {task.shard}"
        print(f"  {what}, since {_spell(task.seconds)}, at {task.where}")
    if progress.quiet_seconds is not None and progress.quiet_seconds > _LONG:
        print(f"Nothing has happened for {_spell(progress.quiet_seconds)}. If the build has ended, call it again: it goes on.")
    return 0


def _counts(progress: Progress) -> list[str]:
    """How much is done of how much, by what there is."""
    counts = (
        ("files", progress.files_done, progress.files),
        ("passages", progress.passages_done, progress.passages),
        ("batches", progress.batches_done, progress.batches),
        ("shards", progress.shards_done, progress.shards),
    )
    return [f"{done:,} of {total:,} {unit}" for unit, done, total in counts if total is not None]


def _spell(seconds: float) -> str:
    """Write a duration in the largest unit of which it has one and a half."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _plan(options: argparse.Namespace) -> int:
    rates = cluster.Rates()
    if options.measure:
        rates = cluster.measured_rates(colbert_core.Encoder.from_pretrained(), [passage.text for passage in demo_passages()])
    plans = [
        cluster.plan(
            options.passages,
            options.tokens_per_passage,
            dim=options.dim,
            nbits=options.nbits,
            pool_factor=options.pool_factor,
            nodes=nodes,
            cores=options.cores,
            rates=rates,
        )
        for nodes in options.nodes or (1, 2, 4, 8)
    ]
    if options.json:
        shown = [{**asdict(each), "shares": each.shares(1e9 * options.memory)} for each in plans]
        print(json.dumps({"rates": asdict(rates), "plans": shown}))
        return 0
    first, rows = plans[0], [_cells(each, options.memory) for each in plans]
    print(
        f"{first.passages:,} passages, {first.tokens:,} tokens, dim {options.dim}, {first.nbits} bits, "
        f"{first.centroids:,} centroids: {first.vector_bytes / first.tokens:.1f} bytes a token."
    )
    print()
    head = ("nodes", "shards", "disk GB", "memory GB", "of each node", "build h", "search ms", "tightest")
    for cells in (head, *rows):
        print("  ".join(f"{cell:>12}" for cell in cells))
    print()
    print(
        f"Nodes of {first.cores} cores and {options.memory:g} GB; a core encodes {rates.encode:,.0f} tokens a second. Rates "
        f"{'measured here' if options.measure else 'of the machine in the docs; --measure takes those of this one'}."
    )
    return 0


def _cells(plan: Plan, memory_gb: float) -> tuple[str, ...]:
    """Format a plan as a row of the table."""
    name, share = next(iter(plan.shares(1e9 * memory_gb).items()))
    disk, memory = plan.disk_bytes / 1e9, plan.memory_bytes / 1e9
    return (
        f"{plan.nodes}",
        f"{plan.shards}",
        f"{disk:,.1f}",
        f"{memory:,.1f}",
        f"{memory / plan.nodes:,.1f}",
        f"{plan.build_hours:,.1f}",
        f"{plan.latency_ms:,.0f}",
        f"{name} {share:,.0%}",
    )
