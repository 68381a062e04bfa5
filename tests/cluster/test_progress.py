"""How far a build is: what its events come to, and how that is printed."""

from __future__ import annotations

import json

import pytest

from colbert_core import IndexNotFoundError
from colbert_core.cluster import read_progress
from colbert_core.cluster.layout import Layout, Settings
from colbert_core.cluster.progress import Log, Task, progress_of

SETTINGS = Settings(2, 4, "default", {"a.jsonl": 300, "b.jsonl": 100, "c.jsonl": 600})


def event(name, time, **about):
    return {"event": name, "time": time, **about}


def began(time, shard, batch, where="10.0.0.1, process 7"):
    return event("begun", time, shard=shard, batch=batch, where=where)


def done(time, shard, batch, passages=100, tokens=1000):
    return event("done", time, shard=shard, batch=batch, **({} if batch is None else {"passages": passages, "tokens": tokens}))


RUN = [event("run", 0, read=[]), event("read", 10, file=0, passages=30), event("read", 20, file=1, passages=10)]
READ = [*RUN, event("read", 50, file=2, passages=560)]
ENCODING = [
    *READ,
    event("fitting", 60),
    event("encoding", 100, passages=600, passages_done=0, batches=6, batches_done=0),
    *(began(100, 0, 0), began(100, 0, 1, "10.0.0.2, process 8")),
]


def test_files_that_are_read_are_weighed_by_their_bytes():
    progress = progress_of(RUN, SETTINGS, 0, now=40)
    assert (progress.stage, progress.files_done, progress.files) == ("reading", 2, 3)
    assert (progress.passages, progress.passages_done, progress.batches) == (None, 40, None)
    assert progress.passages_per_second == 1.0  # 40 in 40 s
    assert progress.seconds_left == 60  # 600 bytes at 400 in 40 s
    assert progress.quiet_seconds == 20


def test_the_time_of_a_fit_cannot_be_told():
    progress = progress_of([*READ, event("fitting", 60)], SETTINGS, 0, now=70)
    assert (progress.stage, progress.files_done, progress.seconds_left) == ("fitting", 3, None)


def test_rates_are_those_of_the_last_five_minutes():
    events = [*ENCODING, done(110, 0, 0, passages=90, tokens=900), began(110, 0, 2), done(400, 0, 2), began(400, 1, 0)]
    progress = progress_of(events, SETTINGS, 0, now=500)
    assert (progress.stage, progress.batches_done, progress.batches) == ("encoding", 2, 6)
    assert (progress.passages_done, progress.passages) == (190, 600)
    assert progress.passages_per_second == pytest.approx(100 / 300)  # the first batch was done before
    assert progress.tokens_per_second == pytest.approx(1000 / 300)
    assert progress.seconds_left == pytest.approx(410 / (100 / 300))
    early = progress_of(events[:-3], SETTINGS, 0, now=150)
    assert early.passages_per_second == pytest.approx(90 / 50)  # since the stage began
    silent = progress_of(events, SETTINGS, 0, now=9000)
    assert (silent.passages_per_second, silent.seconds_left, silent.quiet_seconds) == (0, None, 8600)


def test_a_straggler_takes_three_times_the_median_and_half_a_minute():
    events = [*ENCODING, done(115, 0, 0), began(115, 0, 2)]
    slow, other = Task(0, 1, "10.0.0.2, process 8", 46), Task(0, 2, "10.0.0.1, process 7", 31)
    progress = progress_of(events, SETTINGS, 0, now=146)  # the one that is done took 15 s
    assert progress.at_work == (slow, other)
    assert progress.stragglers == (slow,)
    quick = [*ENCODING, done(102, 0, 0), began(102, 0, 2)]
    assert progress_of(quick, SETTINGS, 0, now=129).stragglers == ()  # 29 s of a median of 2
    assert progress_of(ENCODING, SETTINGS, 0, now=900).stragglers == ()  # nothing is done to compare with


def test_shards_are_written_when_all_is_encoded():
    events = [*ENCODING, *(done(100 + 10 * n, n // 3, n % 3) for n in range(1, 6)), done(160, 0, 0)]
    events += [began(160, 0, None), began(160, 1, None), done(170, 0, None)]
    progress = progress_of(events, SETTINGS, 1, now=180)
    assert (progress.stage, progress.batches_done, progress.shards_done, progress.shards) == ("writing", 6, 1, 2)
    assert progress.at_work == (Task(1, None, "10.0.0.1, process 7", 20),)
    assert progress.seconds_left == 20  # one in 20 s
    assert progress.passages_per_second is progress.tokens_per_second is None


def test_a_build_that_goes_on_when_all_is_encoded_is_writing():
    events = [*READ, event("encoding", 100, passages=600, passages_done=600, batches=6, batches_done=6), began(100, 1, None)]
    progress = progress_of(events, SETTINGS, 1, now=110)
    assert (progress.stage, progress.passages_done, progress.seconds_left) == ("writing", 600, None)


def test_what_an_earlier_process_had_begun_is_nobodys_work():
    events = [*ENCODING, done(110, 0, 0), event("run", 1000, read=[0, 1, 2])]
    progress = progress_of(events, SETTINGS, 0, now=1001)
    assert (progress.stage, progress.files_done, progress.at_work) == ("reading", 3, ())
    events.append(event("encoding", 1010, passages=600, passages_done=100, batches=6, batches_done=1))
    progress = progress_of([*events, began(1010, 0, 1)], SETTINGS, 0, now=1020)
    assert (progress.stage, progress.passages_done, progress.passages_per_second) == ("encoding", 100, 0)
    assert [task.seconds for task in progress.at_work] == [10]


def test_a_worker_that_was_lost_is_not_at_work_any_more():
    events = [*ENCODING, began(130, 0, 1, "10.0.0.1, process 9")]  # another one has got its batch
    assert [task.where for task in progress_of(events, SETTINGS, 0, now=140).at_work] == [
        "10.0.0.1, process 7",
        "10.0.0.1, process 9",
    ]


@pytest.fixture
def begun(tmp_path):
    """A folder whose build has just begun, and its log."""
    layout = Layout(tmp_path / "out")
    layout.staged.mkdir(parents=True)
    layout.write(SETTINGS)
    return layout, Log(layout.log)


def test_the_log_is_read_back_without_the_line_that_was_cut_short(begun):
    layout, log = begun
    assert (read_progress(layout.folder).stage, read_progress(layout.folder).quiet_seconds) == ("reading", None)
    log.note("run", read=[])
    log.note("read", file=1, passages=10)
    with layout.log.open("a") as lines:
        lines.write('{"event": "re')
    Log(layout.log).note("run", read=[1, 2])  # what goes on begins a line of its own
    progress = read_progress(layout.folder)
    assert (progress.files_done, progress.passages_done, progress.files) == (2, 10, 3)
    assert 0 <= progress.quiet_seconds < 60


def test_a_folder_that_is_no_sharded_index_is_told(tmp_path, run):
    with pytest.raises(IndexNotFoundError, match=r"holds no sharded index: there is no cluster\.json"):
        read_progress(tmp_path)
    code, printed, error = run("cluster", "status", str(tmp_path / "nothing"))
    assert (code, printed) == (1, "")
    assert "holds no sharded index" in error


def test_the_command_prints_what_is_done_how_fast_and_what_is_late(begun, run, monkeypatch):
    layout, _ = begun
    events = [*ENCODING, done(115, 0, 0), began(115, 0, 2)]
    layout.log.write_text("".join(f"{json.dumps(each)}\n" for each in events))
    layout.shard(1).mkdir()
    monkeypatch.setattr("time.time", lambda: 146.0)
    code, printed, _ = run("cluster", "status", str(layout.folder))
    assert code == 0
    assert printed.splitlines() == [
        "encoding: 3 of 3 files, 100 of 600 passages, 1 of 6 batches, 1 of 2 shards",
        "2 passages and 22 tokens a second in the last minutes",
        "about 4 minutes of encoding left",
        "2 workers are busy, 1 of them for long",
        "  batch 1 of shard 0, since 46 seconds, at 10.0.0.2, process 8",
    ]
    code, printed, _ = run("cluster", "status", str(layout.folder), "--json")
    content = json.loads(printed)
    assert (content["stage"], content["batches_done"], content["passages"]) == ("encoding", 1, 600)
    assert content["stragglers"] == [{"shard": 0, "batch": 1, "where": "10.0.0.2, process 8", "seconds": 46.0}]
    monkeypatch.setattr("time.time", lambda: 8000.0)
    _, printed, _ = run("cluster", "status", str(layout.folder))
    assert printed.splitlines()[-1] == "Nothing has happened for 2 hours. If the build has ended, call it again: it goes on."


def test_a_build_that_is_done_says_so(begun, run):
    layout, _ = begun
    layout.write(Settings(2, 4, "default", SETTINGS.files, 600))
    layout.shard(0).mkdir()
    assert read_progress(layout.folder).stage == "reading"  # a shard was lost, and is to be built again
    layout.shard(1).mkdir()
    code, printed, _ = run("cluster", "status", str(layout.folder))
    assert (code, printed) == (0, "done: 3 of 3 files, 600 of 600 passages, 2 of 2 shards\n")
