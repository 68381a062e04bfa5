"""From raw files to a table of scores: mine, train, encode, index, retrieve, score, each step into a folder of one run.

::

    run.json            what the run is: data, preset, base, settings; and of each finished step its seconds and figures
    examples.jsonl      triples mined with BM25, unless the data have their own
    training/           the training run: log, checkpoints, model
    embeddings/         the passages' vectors, float16
    ivfpq/              their FAISS index
    runs/NAME.trec      what was retrieved for the held-out queries
    report.md           the scores, and how long everything took

A run that was killed goes on when it is called again: what is finished is skipped, encoding and training go on inside.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.checks import check_count
from colbert_core.colbertv1.encoded import EncodedCollection, encode_collection
from colbert_core.colbertv1.ivfpq import IVFPQ, is_built
from colbert_core.colbertv1.mining import mine
from colbert_core.evaluation.bm25 import BM25
from colbert_core.evaluation.datasets import Dataset, open_dataset, split_by_hash
from colbert_core.evaluation.measures import check_measures, evaluate, nanocolbert_table, run_of, search_engine
from colbert_core.evaluation.trec import read_run, write_run
from colbert_core.extras import import_extra
from colbert_core.storage.durable import checksum_files, write_json, write_text
from colbert_core.train import ColBERT, Example, configured, read_examples, read_id_triples, train, write_examples
from colbert_core.train.folder import locked
from colbert_core.train.presets import chosen_loss
from colbert_core.vectors.embeddings import encode_queries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from os import PathLike

    from colbert_core.evaluation.trec import Qrels, Run
    from colbert_core.train import TrainConfig
    from colbert_core.types import TokenEncoder

MEASURES = ("nDCG@10", "MRR@10", "Recall@50", "Recall@200", "Recall@1000", "Success@5")
# The split to score on, the first that is there.
_HELD_OUT = ("test", "dev", "dev.small", "validation")
TRIPLES = "triples.train.small.tsv"
# Of MS MARCO's tables the deepest, and the depth at which nanoColBERT scores.
_DEPTH = 1000
# Every passage is scored beside IVFPQ, to show what that loses, up to so many vectors: a quarter of a second for each query.
_EXACT_UP_TO = 5_000_000
# Scores of that in memory: 128 MB.
_SCORES_AT_A_TIME = 2**25
# Bytes of a vector in IVFPQ, as nanoColBERT has them, or as many fewer as it takes to divide dim; and bits of a code.
_MOST_PARTS, _MOST_BITS = 16, 8


@dataclass(frozen=True)
class PipelineResult:
    """What a run came to.

    Attributes:
        model: the trained checkpoint, for ``Encoder.from_pretrained`` and ``model=`` of the adapters.
        scores: for each system ("IVFPQ", "BM25", and "exact" where every passage was scored) the mean of each measure.
        seconds: of each step, when it ran.
        report: the file with the tables.
    """

    model: Path
    scores: dict[str, dict[str, float]]
    seconds: dict[str, float]
    report: Path


def run_pipeline(
    data: str | PathLike[str],
    out: str | PathLike[str],
    *,
    preset: str = "colbertv1",
    base: str | PathLike[str] | None = None,
    split: str | None = None,
    n_negatives: int = 4,
    trust_remote_code: bool = False,
    say: Callable[[str], object] = lambda _: None,
    progress: bool | None = None,
    **settings: Any,
) -> PipelineResult:
    """Train a model on a collection and score ColBERTv1's end-to-end retrieval with it (Khattab and Zaharia, SIGIR 2020).

    Called again with the same arguments it skips what is finished and goes on with the rest.

    Args:
        data: a collection, as for ``open_dataset``. Judged queries of its split "train" are trained on; without such a
            split the queries are divided 80 to 20 by a hash of their ids, and scored on the 20.
        out: the run's folder.
        preset: of the training, "colbertv1" or "colbertv2".
        base: what to begin with; None for the model in the box.
        split: to score on; None for the first of test, dev, dev.small and validation.
        n_negatives: mined for each judged pair: as many triples with "colbertv1", as many in one example with "colbertv2".
        trust_remote_code: run code that comes with the base.
        say: is told, in a line, what each step came to.
        progress: show bars; None shows them on a terminal once a second has passed.
        settings: of the training, in place of the preset's: the attributes of ``TrainConfig``, such as ``steps``.

    Raises:
        ValueError: an argument is out of range, the collection lacks something or its files disagree, or ``out`` holds a run
            of other arguments or data, which has got further than to check them.
        TypeError: there is no such setting.
        FileExistsError: ``out`` holds something else.
        BlockingIOError: another run is at work in ``out``.
        CheckpointError: the base cannot be loaded.
        MissingExtraError: a library for training or evaluation is not installed.
    """
    collection, out, triples = open_dataset(data), Path(out), Path(data) / TRIPLES
    held_out = split or held_out_split(collection)
    own = triples if triples.is_file() else None
    config = configured(preset, settings)
    chosen_loss(config, scored=False)  # of what is mined, and of MS MARCO's triples
    check_count(n_negatives, "n_negatives")
    judged = {held_out} if own or "train" not in collection.splits else {held_out, "train"}
    train_qrels, qrels = _divided(collection, held_out, are_mined=own is None)
    queries = {name: text for name, text in collection.queries(held_out).items() if name in qrels}
    if not (out / "training" / "model").exists():
        _check_parts(base, config, trust_remote_code=trust_remote_code)
    about = {
        "data": _checksums(collection, own),
        "preset": preset,
        "base": None if base is None else str(base),
        "split": held_out,
        "n_negatives": n_negatives,
        "settings": settings,
    }
    with locked(out):
        steps = _Steps(out, json.loads(json.dumps(about)), say)
        with steps.step("check") as step:
            if step is not None:
                collection.check(*judged)
                step["passages"] = collection.n_passages
        if own is None:
            with steps.step("mine") as step:
                if step is not None:
                    mined = mine_with_bm25(
                        collection, train_qrels, n_negatives, triples=preset == "colbertv1", progress=progress
                    )
                    step["examples"] = write_examples(mined, out / "examples.jsonl")
        with steps.step("train") as step:
            if step is not None:
                examples = read_examples(out / "examples.jsonl") if own is None else own_triples(collection, own)
                result = train(
                    examples,
                    base,
                    out=out / "training",
                    preset=preset,
                    trust_remote_code=trust_remote_code,
                    progress=progress,
                    **settings,
                )
                step |= {"steps": result.last_step, "loss": round(result.loss, 4)}
        _retrieve(collection, queries, out, steps, trust_remote_code=trust_remote_code, progress=progress)
        runs = sorted((out / "runs").glob("*.trec"))
        scores = {file.stem: evaluate(read_run(file), qrels, MEASURES).means for file in runs}
        report = _report(collection, steps, scores, len(qrels))
        write_text(out / "report.md", report)
    say(report)
    return PipelineResult(out / "training" / "model", scores, steps.seconds, out / "report.md")


def _retrieve(
    collection: Dataset,
    queries: Mapping[str, str],
    out: Path,
    steps: _Steps,
    *,
    trust_remote_code: bool,
    progress: bool | None,
) -> None:
    """From the trained model to a run of each system."""

    def loaded() -> TokenEncoder:
        from colbert_core.model.encoder import Encoder  # here, so that importing this does not import torch

        return Encoder.from_pretrained(out / "training" / "model", trust_remote_code=trust_remote_code)

    encoder: TokenEncoder | None = None
    with steps.step("encode") as step:
        if step is not None:
            encoder = loaded()
            encoded = encode_collection(
                collection.passages(), encoder, out / "embeddings", n_passages=collection.n_passages, progress=progress
            )
            step["vectors"] = encoded.n_tokens
    with steps.step("index") as step:
        if step is not None:
            _index(out / "embeddings", out / "ivfpq", progress)
    with steps.step("retrieve") as step:
        if step is not None:
            encoder = encoder or loaded()
            searched = run_of(search_engine(IVFPQ.open(out / "ivfpq", encoder), _DEPTH), queries, progress=progress)
            _keep(out, "IVFPQ", searched.run)
            step |= {"queries": len(queries), "median_ms": round(searched.median_ms, 1)}
    with steps.step("compare") as step:
        if step is not None:
            bm25 = BM25.build(collection.passages(), progress=progress)
            _keep(out, "BM25", run_of(lambda texts: bm25.search_many(texts, _DEPTH), queries, progress=progress).run)
            encoded = EncodedCollection.open(out / "embeddings")
            if encoded.n_tokens <= _EXACT_UP_TO:
                _keep(out, "exact", _exact_run(encoded, encoder or loaded(), queries))


def _index(embeddings: Path, folder: Path, progress: bool | None) -> None:
    """Build the index, unless a run that ended before it could say so has."""
    if is_built(folder, embeddings):
        return
    if folder.exists():
        shutil.rmtree(folder)  # of other vectors, or damaged
    encoded = EncodedCollection.open(embeddings)
    m = max(n for n in range(1, _MOST_PARTS + 1) if encoded.dim % n == 0)
    # As many codes as there are vectors to learn them from, at most.
    IVFPQ.build(embeddings, folder, m=m, nbits=min(_MOST_BITS, encoded.n_tokens.bit_length() - 1), progress=progress)


class _Steps:
    """What is finished of a run, kept in its folder."""

    def __init__(self, out: Path, about: dict[str, Any], say: Callable[[str], object]) -> None:
        self._file, self._say = out / "run.json", say
        if self._file.is_file():
            known = json.loads(self._file.read_text(encoding="utf-8"))
            self.finished: dict[str, dict[str, Any]] = known["steps"]
            if other := _difference(known["run"], about):
                if self.finished.keys() - {"check"} or (out / "training" / "config.json").exists():
                    raise ValueError(f"{out} holds a run with {other} is asked for; choose another folder.")
                self.finished = {}
        else:
            # What a run that was killed at once has left is no hindrance.
            if not all(file.name.startswith(f".{self._file.name}") for file in out.iterdir()):
                raise FileExistsError(f"{out} holds something that is no run; name a folder that is new or empty.")
            self.finished = {}
        self._about = about
        self._write()

    @property
    def seconds(self) -> dict[str, float]:
        return {name: step["seconds"] for name, step in self.finished.items()}

    def step(self, name: str) -> _Step:
        return _Step(self, name)

    def finish(self, name: str, step: dict[str, Any]) -> None:
        self.finished[name] = step
        self._write()
        self.tell(name, "")

    def tell(self, name: str, remark: str) -> None:
        figures = {key: value for key, value in self.finished[name].items() if key != "seconds"}
        told = ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in figures.items())
        self._say(f"{name:<9} {_clock(self.finished[name]['seconds']):>9}  {told}{remark}")

    def _write(self) -> None:
        write_json(self._file, {"run": self._about, "steps": self.finished})


class _Step:
    """``with steps.step(name) as step``: a dict for the step's figures, or None if it is finished already."""

    def __init__(self, steps: _Steps, name: str) -> None:
        self._steps, self._name = steps, name
        self._figures: dict[str, Any] | None = None
        self._begun = 0.0

    def __enter__(self) -> dict[str, Any] | None:
        if self._name in self._steps.finished:
            self._steps.tell(self._name, " (finished before)")
            return None
        self._begun, self._figures = time.perf_counter(), {}
        return self._figures

    def __exit__(self, kind: object, *_: object) -> None:
        if self._figures is not None and kind is None:
            self._steps.finish(self._name, {"seconds": round(time.perf_counter() - self._begun, 1), **self._figures})


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str | None:
    """The first thing in which two runs differ, in words."""
    old, new = (
        {f"{name}/{key}" if key else name: one for name, value in run.items() for key, one in _entries(value)}
        for run in (there, here)
    )
    differing = (name for name in {**old, **new} if old.get(name) != new.get(name))
    return next((f"{name}={old.get(name)!r:.100}, but {new.get(name)!r:.100}" for name in differing), None)


def _entries(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else [("", value)]


def _check_parts(base: str | PathLike[str] | None, config: TrainConfig, *, trust_remote_code: bool) -> None:
    """What training begins with and evaluation ends with is there."""
    import_extra("accelerate", "Training", "'accelerate>=1.0'")
    import_extra("bm25s", "BM25", "bm25s PyStemmer")
    check_measures(MEASURES)
    ColBERT.from_pretrained(base, config, trust_remote_code=trust_remote_code)


def _checksums(collection: Dataset, triples: Path | None) -> dict[str, list[Any]]:
    """Size and SHA-256 of all files that the run reads.

    Of the triples as well, although MS MARCO's are 27 GB: they are read in a minute or two and trained on for days, and unlike
    their content the time they were written changes with every copy.
    """
    checksums = collection.checksums() | ({} if triples is None else {TRIPLES: checksum_files([triples])[str(triples)]})
    return {name: list(checksum) for name, checksum in checksums.items()}


def held_out_split(collection: Dataset) -> str:
    """The split to score on: the first of test, dev, dev.small and validation, or the only one that is not "train".

    Raises:
        ValueError: there is none, or there are several others.
    """
    found = [split for split in _HELD_OUT if split in collection.splits]
    others = [split for split in collection.splits if split != "train"]
    if not found and len(others) != 1:
        raise ValueError(f"{collection.name} has the splits {', '.join(collection.splits) or 'none'}; name one to score on.")
    return found[0] if found else others[0]


def _answered(collection: Dataset, split: str) -> Qrels:
    """The judged queries that have an answer: the others can have no score but 0.

    Raises:
        ValueError: there are none.
    """
    judged = collection.qrels(split)
    qrels = {query: grades for query, grades in judged.items() if any(grade > 0 for grade in grades.values())}
    if not qrels:
        raise ValueError(f"Split {split!r} of {collection.name} has no query with a positive judgement; choose another split.")
    return qrels


def _divided(collection: Dataset, held_out: str, *, are_mined: bool) -> tuple[Qrels, Qrels]:
    """Judgements to mine from, and to score on."""
    qrels = _answered(collection, held_out)
    if "train" in collection.splits and held_out != "train":
        train_qrels = _answered(collection, "train") if are_mined else {}
        return {query: grades for query, grades in train_qrels.items() if query not in qrels}, qrels
    training, kept = split_by_hash(qrels)
    return {query: qrels[query] for query in training}, {query: qrels[query] for query in kept}


def mine_with_bm25(
    dataset: Dataset,
    qrels: Qrels,
    n_negatives: int,
    *,
    triples: bool,
    ranks: tuple[int, int] = (10, 100),
    margin: float | None = None,
    seed: int = 12345,
    progress: bool | None = None,
) -> Iterator[Example]:
    """Make training examples of the judged pairs of a test set, with negatives that BM25 ranks high.

    Args:
        dataset: passages and queries.
        qrels: judgements to learn from.
        n_negatives: negatives for each judged pair.
        triples: make an example for each negative, as the loss of ColBERTv1 takes them, instead of one with all.
        ranks: see ``mine``.
        margin: see ``mine``.
        seed: see ``mine``.
        progress: show bars; None shows them on a terminal once a second has passed.
    """
    queries = dataset.queries()
    bm25 = BM25.build(dataset.passages(), progress=progress)

    def texts_of(ids: list[str]) -> list[str]:
        passages = dataset.get(ids)
        return [passages[passage_id].text for passage_id in ids]

    examples = mine(
        queries,
        qrels,
        bm25.search_many,
        texts_of,
        n_negatives=n_negatives,
        ranks=ranks,
        margin=margin,
        seed=seed,
        progress=progress,
    )
    for example in examples:
        if triples:
            yield from (Example(example.query, example.positive, (negative,)) for negative in example.negatives)
        else:
            yield example


def own_triples(collection: Dataset, path: Path) -> Iterator[Example]:
    """The triples that come with MS MARCO, of texts or of ids."""
    with path.open(encoding="utf-8-sig") as lines:
        first = next(lines, "").split("\t")
    if all(part.strip().isdecimal() for part in first):
        passages = {passage.id: passage.text for passage in collection.passages()}
        return read_id_triples(path, collection.queries("train"), passages)
    return read_examples(path)


def _keep(out: Path, name: str, run: Run) -> None:
    (out / "runs").mkdir(exist_ok=True)
    write_run(out / "runs" / f"{name}.trec", run, name)


def _exact_run(encoded: EncodedCollection, encoder: TokenEncoder, queries: Mapping[str, str]) -> Run:
    """Every passage scored over its own vectors."""
    rows = np.arange(len(encoded), dtype=np.int64)
    names, matrices = list(queries), encode_queries(encoder, list(queries.values()))
    at_a_time = max(1, _SCORES_AT_A_TIME // len(encoded))
    run = {}
    for first in range(0, len(names), at_a_time):
        some = slice(first, first + at_a_time)
        for query, scores in zip(names[some], encoded.score_many(matrices[some], rows), strict=True):
            best = np.argsort(-scores, kind="stable")[:_DEPTH]
            run[query] = dict(zip(encoded.ids_of(best.tolist()), scores[best].tolist(), strict=True))
    return run


def _report(collection: Dataset, steps: _Steps, scores: Mapping[str, Mapping[str, float]], n_queries: int) -> str:
    """Tables in Markdown."""

    def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
        head = list(head)
        return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]

    systems = [name for name in ("IVFPQ", "exact", "BM25") if name in scores]
    lines = [
        f"# {Path(collection.name).name}: {n_queries} queries",
        "",
        *table(["", *systems], ([name, *(f"{scores[system][name]:.4f}" for system in systems)] for name in MEASURES)),
        "",
        "IVFPQ is ColBERTv1's end-to-end retrieval with the trained model, exact scores every passage with it.",
        "",
        "```",
        nanocolbert_table(scores["IVFPQ"]),
        "```",
        "",
        *table(["step", "time"], ([name, _clock(seconds)] for name, seconds in steps.seconds.items())),
        "",
    ]
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
