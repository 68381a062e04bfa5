"""Read files and stage their passages: written down by shard, and cut into the batches that workers encode.

Nothing here depends on who reads a file or when, so that what is read again after a fault is the same.
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
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from colbert_core import errors
from colbert_core.cluster.layout import Layout, hash_id, shard_of
from colbert_core.cluster.nodes import check_version, load_ray, version
from colbert_core.cluster.storages import is_address, shown
from colbert_core.documents.files import STREAMED, find_files
from colbert_core.documents.pieces import Whole, read_file
from colbert_core.errors import ClusterError, ClusterUnreachableError, ColBERTError, DamagedIndexError
from colbert_core.metadata import plain_metadata
from colbert_core.model.fingerprint import loaded_encoder
from colbert_core.paths import as_path
from colbert_core.progress import progress_bar
from colbert_core.storage.durable import write_json
from colbert_core.storage.incoming import read_json_file
from colbert_core.types import Passage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from os import PathLike

    from colbert_core.cluster.progress import Log
    from colbert_core.documents.pieces import Splitter
    from colbert_core.types import TokenEncoder

    Model = str | PathLike[str] | TokenEncoder | None

MOST_SAMPLED = 2**16
"""Most passages sampled for the codec; at 16 tokens each they have as many vectors as a fit takes at most."""
# A passage weighs its characters, and no less than this: short ones cost as well.
_LEAST_WEIGHT = 2**8
# Staged passages are divided into blocks of about this weight, batches are made of whole blocks, and a batch weighs at most the
# largest: 4,096 passages or a quarter of a million tokens, a minute of one core. A collection is cut into no fewer than
# ``_BATCHES`` while they are no smaller than the smallest: 256 passages, four seconds of one core.
_BLOCK = 2**15
_SMALLEST, _LARGEST, _BATCHES = 2**16, 2**20, 64


@dataclass(frozen=True)
class Batch:
    """Passages of one shard that are encoded together.

    Attributes:
        shard: number of the shard.
        number: of the batch in its shard; the shard holds its batches in this order.
        passages: how many passages.
        pieces: where they are staged: number of the file, first byte, and how many passages.
    """

    shard: int
    number: int
    passages: int
    pieces: tuple[tuple[int, int, int], ...]


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

    parts = urlsplit(str(source))
    address = parts._replace(path=parts.path.rstrip("/"))
    try:
        storage, inner = fs.FileSystem.from_uri(address.geturl())
        about = storage.get_file_info(inner)
        entries = (
            storage.get_file_info(fs.FileSelector(inner, recursive=True)) if about.type == fs.FileType.Directory else [about]
        )
    except OSError as error:
        raise ClusterUnreachableError(
            f"{shown(str(source))} cannot be read ({error!s:.300}); is it there, and may this machine?"
        ) from error
    except ValueError as error:
        reason = str(error).replace(address.geturl(), shown(str(source)))
        raise ValueError(f"{shown(str(source))} is no address that pyarrow knows ({reason:.300}).") from None
    files = [entry for entry in entries if entry.type == fs.FileType.File and f".{entry.extension.lower()}" in STREAMED]
    if not files:
        raise ValueError(f"{shown(str(source))} holds no {', '.join(STREAMED)} file.")
    root = inner if about.type == fs.FileType.Directory else inner.rpartition("/")[0]
    placed = [(entry, entry.path.removeprefix(root).lstrip("/")) for entry in files]

    def location(entry: Any, name: str) -> str:
        """The address of a file: its name goes before the settings behind "?"."""
        return (address if entry.path == inner else address._replace(path=f"{address.path}/{quote(name)}")).geturl()

    return sorted(((location(entry, name), name, entry.size) for entry, name in placed), key=lambda entry: entry[1])


# Reading


def stage(
    layout: Layout,
    files: Sequence[tuple[str, str, int]],
    shards: int,
    encoder: Model,
    *,
    of_driver: str,
    log: Log,
    progress: bool | None,
) -> None:
    """Have every file read that is not read yet, and its passages written down by shard.

    Raises:
        ValueError: a file is not what its name says.
        ClusterUnreachableError: a file cannot be read.
        ClusterError: a node has another version.
    """
    data = load_ray("ray.data")
    tasks = [
        {"number": number, "location": location, "name": name}
        for number, (location, name, _) in enumerate(files)
        if not layout.of_file(number).is_dir()
    ]
    log.note("run", read=[number for number in range(len(files)) if layout.of_file(number).is_dir()])
    if not tasks:
        return
    arguments = {"layout": layout, "shards": shards, "encoder": encoder, "of_driver": of_driver}
    dataset = data.from_items(tasks, override_num_blocks=len(tasks)).map(_stage_file, fn_kwargs=arguments)
    with progress_bar("Reading", len(tasks), "file", progress) as bar, _quietly(data):
        for row in dataset.iter_rows():
            if row["error"]:
                raise _error(row["kind"], row["error"])
            log.note("read", file=row["number"], passages=row["passages"])
            bar.update()


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


def _stage_file(task: Mapping[str, Any], *, encoder: Model, of_driver: str, **arguments: Any) -> dict[str, Any]:
    """Read one file, in a task of Ray Data.

    Returns:
        How many passages it has; and the name and message of an error, which Ray Data would wrap in its own.
    """
    answer = {"number": task["number"], "passages": 0, "kind": "", "error": ""}
    try:
        check_version(of_driver, version(), load_ray().util.get_node_ip_address())
        splitter: Any = loaded_encoder(encoder)
        passages = _stage_passages(task, splitter if hasattr(splitter, "split") else Whole(), **arguments)
    except (ColBERTError, ValueError, TypeError, OSError) as error:
        return {**answer, "kind": type(error).__name__, "error": str(error)}
    return {**answer, "passages": passages}


def _error(kind: str, message: str) -> Exception:
    """Make the error of this name, ours or Python's own; a ``ClusterError`` where it takes more than a message."""
    made: Any = getattr(errors, kind, None) or getattr(builtins, kind, ClusterError)
    try:
        error: Exception = made(message)
        return error
    except TypeError:  # such as UnicodeDecodeError
        return ClusterError(f"{kind}: {message}")


@dataclass
class _Output:
    """The passages of a file that belong to one shard, written down a line each, in blocks: first byte, passages, weight."""

    lines: IO[bytes]
    blocks: list[list[int]] = field(default_factory=list)
    end: int = 0

    def write(self, line: str, characters: int) -> None:
        if not self.blocks or self.blocks[-1][2] >= _BLOCK:
            self.blocks.append([self.end, 0, 0])
        self.end += self.lines.write(f"{line}\n".encode())
        self.blocks[-1][1] += 1
        self.blocks[-1][2] += max(characters, _LEAST_WEIGHT)


def _stage_passages(task: Mapping[str, Any], splitter: Splitter, *, layout: Layout, shards: int) -> int:
    """Write down the passages of a file by shard, with a sample and their blocks; all or nothing, and the same each time.

    Returns:
        How many they are.
    """
    target = layout.of_file(task["number"])
    work = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    outputs: dict[int, _Output] = {}
    work.mkdir()
    try:
        with contextlib.ExitStack() as stack:
            path = stack.enter_context(_fetch(task["location"]))

            def write_lines() -> Iterator[tuple[int, str]]:
                for passage in _named_in_errors(read_file(path, task["name"], splitter), path, task["location"]):
                    metadata = plain_metadata(passage.metadata, f"Metadata of passage {passage.id!r}")
                    line = json.dumps([passage.id, passage.text, metadata])
                    shard = shard_of(passage.id, shards)
                    if shard not in outputs:
                        outputs[shard] = _Output(stack.enter_context(_lines_of(work, shard).open("wb")))
                    outputs[shard].write(line, len(passage.text))
                    yield hash_id(passage.id), line

            sample = heapq.nsmallest(MOST_SAMPLED, write_lines())
        (work / "sample.jsonl").write_text("".join(f"{line}\n" for _, line in sample), encoding="utf-8")
        blocks = {shard: output.blocks for shard, output in outputs.items()}
        (work / "blocks.json").write_text(json.dumps(blocks), encoding="utf-8")
        if not target.is_dir():  # or somebody who was taken for dead has left the same
            # Not synced: it may be 512 files for each file read. Should the power fail, remove ``staged`` and build again.
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return sum(passages for output in outputs.values() for _, passages, _ in output.blocks)


def _lines_of(folder: Path, shard: int) -> Path:
    return folder / f"{shard:04}.jsonl"


def _named_in_errors(passages: Iterator[Passage], path: Path, location: str) -> Iterator[Passage]:
    """Pass the passages on; an error names the file in the storage instead of its copy here."""
    try:
        yield from passages
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), shown(location) if is_address(location) else location)) from None


@contextlib.contextmanager
def _fetch(location: str) -> Iterator[Path]:
    """Bring a file to this machine, for as long as the block takes."""
    if "://" not in location:
        yield Path(location)
        return
    from pyarrow import fs

    with tempfile.TemporaryDirectory(prefix="colbert-") as folder:
        path = Path(folder) / Path(unquote(shown(location))).name
        try:
            storage, inner = fs.FileSystem.from_uri(location)
            with storage.open_input_stream(inner) as stream, path.open("wb") as copy:
                shutil.copyfileobj(stream, copy, 2**20)
        except OSError as error:
            raise ClusterUnreachableError(f"{shown(location)} cannot be read ({error!s:.300}).") from error
        yield path


# What is staged


def plan_batches(layout: Layout, n_files: int, shards: int) -> list[Batch]:
    """Cut the passages of all shards into batches, in the order of the shards and of the files."""
    blocks: list[list[tuple[int, int, int, int]]] = [[] for _ in range(shards)]
    for number in range(n_files):
        for shard, of_shard in _read_json(layout, layout.of_file(number) / "blocks.json").items():
            blocks[int(shard)] += [(number, *block) for block in of_shard]
    weight = sum(block[3] for of_shard in blocks for block in of_shard)
    largest = min(max(weight // _BATCHES, _SMALLEST), _LARGEST)
    return [batch for shard, of_shard in enumerate(blocks) for batch in cut(shard, of_shard, largest)]


def cut(shard: int, blocks: Iterable[tuple[int, int, int, int]], largest: int) -> list[Batch]:
    """Put the blocks of a shard together to batches.

    Args:
        shard: number of the shard.
        blocks: number of the file, first byte, passages and weight of each, in order.
        largest: weight of a batch of several blocks, at most.
    """
    batches: list[Batch] = []
    pieces: list[tuple[int, int, int]] = []
    weight = 0

    def end_batch() -> None:
        batches.append(Batch(shard, len(batches), sum(passages for _, _, passages in pieces), tuple(pieces)))
        pieces.clear()

    for file, start, passages, of_block in blocks:
        if pieces and weight + of_block > largest:
            end_batch()
            weight = 0
        weight += of_block
        if pieces and pieces[-1][0] == file:  # the blocks of a file follow each other
            pieces[-1] = (*pieces[-1][:2], pieces[-1][2] + passages)
        else:
            pieces.append((file, start, passages))
    if pieces:
        end_batch()
    return batches


def write_plan(layout: Layout, batches: Iterable[Batch]) -> None:
    """Keep the batches: those that are encoded are the same for whoever goes on."""
    rows = [[batch.shard, batch.number, batch.passages, batch.pieces] for batch in batches]
    write_json(layout.plan, {"batches": rows}, shared=True)


def read_plan(layout: Layout) -> list[Batch]:
    """Read what ``write_plan`` kept."""
    rows = _read_json(layout, layout.plan)["batches"]
    return [Batch(shard, number, passages, tuple(map(tuple, pieces))) for shard, number, passages, pieces in rows]


def read_batch(layout: Layout, batch: Batch) -> Iterator[Passage]:
    """Read the passages of a batch.

    Raises:
        DamagedIndexError: what was staged is not there, or is cut short.
    """
    for file, start, passages in batch.pieces:
        path = _lines_of(layout.of_file(file), batch.shard)
        with _damage_named(layout, path), path.open("rb") as lines:
            lines.seek(start)
            found = [json.loads(line) for line in islice(lines, passages)]
            if len(found) != passages:
                raise ValueError(f"it ends after {len(found)} of {passages} passages")
        yield from (Passage(*fields) for fields in found)


def _read_json(layout: Layout, path: Path) -> dict[str, Any]:
    with _damage_named(layout, path):
        content: dict[str, Any] = read_json_file(path, most=math.inf)  # a folder may have a million files
        return content


@contextlib.contextmanager
def _damage_named(layout: Layout, path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise DamagedIndexError(f"{path} is damaged ({error!s:.200}); remove {layout.staged} and build again.") from None


def read_sample(layout: Layout) -> list[str]:
    """Read the texts of the passages whose ids have the smallest hashes: a sample without a preference."""
    paths = sorted(layout.staged.glob("[0-9]*/sample.jsonl"))
    samples = heapq.merge(*map(_read_hashed, paths), key=lambda entry: entry[0])
    return [text for _, text in islice(samples, MOST_SAMPLED)]


def _read_hashed(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            passage_id, text, _ = json.loads(line)
            yield hash_id(passage_id), text
