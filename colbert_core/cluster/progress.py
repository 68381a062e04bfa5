"""How far a build is: what builds it notes what happens in a file, and whoever asks reads that. Ray is not needed for it."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from colbert_core.cluster.layout import Layout
from colbert_core.paths import as_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike
    from pathlib import Path
    from typing import Literal

    from colbert_core.cluster.layout import Settings

    Stage = Literal["reading", "fitting", "encoding", "writing", "done"]
    Event = dict[str, Any]

# Rates are those of the last five minutes, or since the stage began.
_WINDOW = 300.0
# Work is a straggler from so many times the median of what is done on, and not before so many seconds.
_LATE, _LEAST_LATE = 3.0, 30.0


@dataclass(frozen=True)
class Task:
    """What a worker is at.

    Attributes:
        shard: number of the shard.
        batch: number of the batch in it that is being encoded; None where the shard is being written.
        where: address of the node, and number of the process.
        seconds: since it was begun.
    """

    shard: int
    batch: int | None
    where: str
    seconds: float


@dataclass(frozen=True)
class Progress:
    """How far a sharded index has been built.

    Attributes:
        stage: "reading", "fitting" (the codec), "encoding", "writing" (shards, once all is encoded) or "done".
        files: how many there are to read.
        files_done: how many are read.
        passages: how many there are; None until all files are read.
        passages_done: how many are encoded, or before that read.
        batches: how many there are; None until all files are read.
        batches_done: how many are encoded.
        shards: how many there are.
        shards_done: how many are written.
        passages_per_second: read or encoded in the last five minutes; None in the other stages.
        tokens_per_second: encoded in the last five minutes; None in the other stages.
        seconds_left: of this stage, at the rate of the last five minutes; None where that cannot be told.
        at_work: what workers are at, the longest first.
        stragglers: those of ``at_work`` that take three times as long as the median of what is done, and half a minute.
        quiet_seconds: since anything happened; None where nothing has, or all is done.
    """

    stage: Stage
    files: int
    files_done: int
    passages: int | None
    passages_done: int
    batches: int | None
    batches_done: int
    shards: int
    shards_done: int
    passages_per_second: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    at_work: tuple[Task, ...] = ()
    stragglers: tuple[Task, ...] = ()
    quiet_seconds: float | None = None


class Log:
    """Notes what happens to a build, a line of JSON each. Only the process that builds writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists():
            with path.open("a", encoding="utf-8") as lines:
                lines.write("\n")  # behind a line that a process was killed at

    def note(self, event: str, **about: object) -> None:
        """Note an event, with the time."""
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(f"{json.dumps({'event': event, 'time': time.time(), **about})}\n")


def read_progress(folder: str | PathLike[str]) -> Progress:
    """Say how far the build of a sharded index is, by its files alone: on any machine that sees them, also after it has died.

    Args:
        folder: that ``build`` makes.

    Raises:
        IndexNotFoundError: it holds no sharded index.
        UnsupportedIndexError: a newer version wrote it.
        DamagedIndexError: ``cluster.json`` cannot be understood.
    """
    layout = Layout(as_path(folder))
    events = _read_log(layout.log)  # before the settings: it goes once they say that all is done
    settings = layout.read()
    return progress_of(events, settings, settings.shards - len(layout.missing(settings.shards)), time.time())


def _read_log(path: Path) -> list[Event]:
    events = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # it is empty, or a process was killed while it wrote it
                events.append(json.loads(line))
    return events


@dataclass
class _State:
    """What the events so far come to."""

    stage: Stage = "reading"
    since: float = 0.0
    files: set[int] = field(default_factory=set)
    passages_read: int = 0
    totals: Event = field(default_factory=dict)
    passages: int = 0
    batches: int = 0
    begun: dict[tuple[int, int | None], Event] = field(default_factory=dict)
    durations: dict[str, list[float]] = field(default_factory=lambda: {"encoding": [], "writing": []})

    def take(self, event: Event) -> None:
        match event["event"]:
            case "run":  # another process goes on: nobody is at what the last one had given away
                self.stage, self.since, self.files, self.begun = "reading", event["time"], set(event["read"]), {}
            case "read":
                self.files.add(event["file"])
                self.passages_read += event["passages"]
            case "fitting":
                self.stage, self.since = "fitting", event["time"]
            case "encoding":
                self.stage, self.since, self.totals = "encoding", event["time"], event
                self.passages, self.batches = event["passages_done"], event["batches_done"]
                self._end_encoding(event)
            case "begun":
                self.begun[event["shard"], event["batch"]] = event
            case "done":
                self._finish(event)

    def _finish(self, event: Event) -> None:
        before = self.begun.pop((event["shard"], event["batch"]), None)
        stage = "writing" if event["batch"] is None else "encoding"
        if before is not None:
            self.durations[stage].append(event["time"] - before["time"])
        if stage == "encoding":
            self.passages += event["passages"]
            self.batches += 1
        self._end_encoding(event)

    def _end_encoding(self, event: Event) -> None:
        if self.batches == self.totals["batches"] and self.stage == "encoding":
            self.stage, self.since = "writing", event["time"]

    def late(self, task: Task) -> float:
        """From how many seconds on a task is a straggler; infinitely many while nothing like it is done."""
        durations = self.durations["writing" if task.batch is None else "encoding"]
        return max(_LATE * statistics.median(durations), _LEAST_LATE) if durations else math.inf


def progress_of(events: Iterable[Event], settings: Settings, shards_done: int, now: float) -> Progress:
    """Say what the events of a build come to.

    Args:
        events: as ``Log`` noted them.
        settings: of the folder.
        shards_done: shards that are in place.
        now: seconds since the epoch.
    """
    files = len(settings.files)
    if settings.passages is not None and shards_done == settings.shards:
        n = settings.passages
        return Progress("done", files, files, n, n, None, 0, settings.shards, shards_done)
    events, state = list(events), _State()
    for event in events:
        state.take(event)
    start = max(now - _WINDOW, state.since)
    recent = [event for event in events if event["time"] >= start]
    read, encoded, written = _split(recent)
    passages: int | None = state.totals.get("passages")
    passages_done, passages_rate, tokens_rate, left, rate = state.passages, None, None, 0.0, 0.0
    if state.stage == "reading":
        sizes = list(settings.files.values())
        passages_done, passages_rate = state.passages_read, _per_second(read, "passages", now - start)
        left = sum(size for number, size in enumerate(sizes) if number not in state.files)
        rate = sum(sizes[event["file"]] for event in read) / max(now - start, 1e-3)
    elif state.stage == "encoding":
        passages_rate = rate = _per_second(encoded, "passages", now - start)
        tokens_rate = _per_second(encoded, "tokens", now - start)
        left = (passages or 0) - passages_done
    elif state.stage == "writing":
        left, rate = settings.shards - shards_done, len(written) / max(now - start, 1e-3)
    at_work = sorted(
        (Task(shard, batch, event["where"], now - event["time"]) for (shard, batch), event in state.begun.items()),
        key=lambda task: -task.seconds,
    )
    return Progress(
        state.stage,
        files,
        len(state.files),
        passages,
        passages_done,
        state.totals.get("batches"),
        state.batches,
        settings.shards,
        shards_done,
        passages_per_second=passages_rate,
        tokens_per_second=tokens_rate,
        seconds_left=left / rate if rate else None,
        at_work=tuple(at_work),
        stragglers=tuple(task for task in at_work if task.seconds >= state.late(task)),
        quiet_seconds=now - events[-1]["time"] if events else None,
    )


def _split(events: list[Event]) -> tuple[list[Event], list[Event], list[Event]]:
    """Those that say that a file was read, a batch encoded and a shard written."""
    done = [event for event in events if event["event"] == "done"]
    return (
        [event for event in events if event["event"] == "read"],
        [event for event in done if event["batch"] is not None],
        [event for event in done if event["batch"] is None],
    )


def _per_second(events: list[Event], name: str, seconds: float) -> float:
    return float(sum(event[name] for event in events) / max(seconds, 1e-3))
