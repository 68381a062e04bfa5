"""From raw files to a table of scores: mine, train, encode, index, retrieve, score. A run keeps every step in its folder.

::

    run.json            data, preset, base and settings of the run; seconds and figures of each finished step
    examples.jsonl      triples mined with BM25, unless the data have their own
    training/           the training run: log, checkpoints, model
    embeddings/         vectors of the passages, float16
    ivfpq/              FAISS index of the vectors
    runs/NAME.trec      what a system retrieved for the held-out queries
    report.md           scores, and the time of each step

A run that was killed goes on when it is called again: finished steps are skipped, encoding and training go on where they were.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from itertools import islice
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
from colbert_core.paths import as_path
from colbert_core.storage.aside import contents
from colbert_core.storage.durable import checksum_files, write_json, write_text
from colbert_core.storage.incoming import read_json_file
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
# The split to score on is the first of these that the data have.
_HELD_OUT = ("test", "dev", "dev.small", "validation")
TRIPLES = "triples.train.small.tsv"
# Passages retrieved for each query: the deepest rank in the tables for MS MARCO, and nanoColBERT's; and one more for the query
# itself, which is not counted where it is in the corpus.
_DEPTH = 1000 + 1
# Up to so many vectors, every passage is scored as well, to show what IVFPQ loses: a quarter of a second for each query.
_EXACT_UP_TO = 5_000_000
# Scores of every passage in memory at a time: 128 MB.
_SCORES_AT_A_TIME = 2**25
# Parts of a vector in IVFPQ, as in nanoColBERT, or the next smaller number that divides dim; and bits of a part's code.
_MOST_PARTS, _MOST_BITS = 16, 8


@dataclass(frozen=True)
class PipelineResult:
    """The result of a run.

    Attributes:
        model: folder of the trained checkpoint, for ``Encoder.from_pretrained`` and ``model=`` of the adapters.
        scores: mean of each measure for each system: "IVFPQ", "BM25", and "exact" if every passage was scored.
        seconds: time of each step in seconds, when it ran.
        report: file with the tables.
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
    language: str | None = None,
    trust_remote_code: bool = False,
    say: Callable[[str], object] = lambda _: None,
    progress: bool | None = None,
    **settings: Any,
) -> PipelineResult:
    """Train a model on a dataset and score ColBERTv1's end-to-end retrieval with it (Khattab and Zaharia, SIGIR 2020).

    Called again with the same arguments, it skips finished steps and does the rest.

    Args:
        data: a test set, as for ``open_dataset``. The judged queries of its split "train" are trained on. Without such a
            split, the queries are divided 80 to 20 by a hash of their ids, and the 20 are scored on.
        out: folder of the run.
        preset: "colbertv1" or "colbertv2", the preset of the training.
        base: checkpoint to begin with; None for the model in the box.
        split: split to score on; None for the first of test, dev, dev.small and validation.
        n_negatives: number of negatives for each judged pair. "colbertv1" makes a triple of each, "colbertv2" one example of
            all.
        language: the language whose layers are trained, as for ``train``.
        trust_remote_code: run code that comes with the base.
        say: takes a line about each finished step, and the report.
        progress: show bars; None shows them on a terminal or in a notebook once a second has passed.
        settings: settings of the training in place of the preset's: attributes of ``TrainConfig``, such as ``steps``.

    Raises:
        ValueError: an argument is out of range, the dataset lacks something or its files disagree, or ``out`` holds a run
            of other arguments or data that has done more than check them.
        TypeError: there is no such setting.
        FileExistsError: ``out`` holds something else.
        BlockingIOError: another process works on a run in ``out``.
        CheckpointError: the base cannot be loaded.
        MissingExtraError: a library for training or evaluation is not installed.
    """
    dataset, out = open_dataset(data), as_path(out)
    held_out = split or held_out_split(dataset)
    triples = as_path(data) / TRIPLES if (as_path(data) / TRIPLES).is_file() else None
    config = configured(preset, settings)
    chosen_loss(config, scored=False)  # neither mined examples nor MS MARCO's triples have teacher scores
    check_count(n_negatives, "n_negatives")
    used_splits = {held_out} if triples or "train" not in dataset.splits else {held_out, "train"}
    train_qrels, qrels = _divide_qrels(dataset, held_out, are_mined=triples is None)
    queries = {query: text for query, text in dataset.queries(held_out).items() if query in qrels}
    if not (out / "training" / "model").exists():
        _check_needs(base, config, language=language, trust_remote_code=trust_remote_code)
    about = {
        "data": _compute_checksums(dataset, triples),
        "preset": preset,
        "base": None if base is None else str(base),
        "split": held_out,
        "n_negatives": n_negatives,
        **({} if language is None else {"language": language}),
        "settings": settings,
    }
    with locked(out):
        steps = _Steps(out, json.loads(json.dumps(about)), say)
        with steps.step("check") as step:
            if step is not None:
                dataset.check(*used_splits)
                step["passages"] = dataset.n_passages
        if triples is None:
            with steps.step("mine") as step:
                if step is not None:
                    makes_triples = preset == "colbertv1"
                    mined = mine_with_bm25(dataset, train_qrels, n_negatives, triples=makes_triples, progress=progress)
                    step["examples"] = write_examples(mined, out / "examples.jsonl")
        with steps.step("train") as step:
            if step is not None:
                examples = read_examples(out / "examples.jsonl") if triples is None else own_triples(dataset, triples)
                result = train(
                    examples,
                    base,
                    out=out / "training",
                    preset=preset,
                    language=language,
                    trust_remote_code=trust_remote_code,
                    progress=progress,
                    **settings,
                )
                step |= {"steps": result.last_step, "loss": round(result.loss, 4)}
        _retrieve(dataset, queries, out, steps, trust_remote_code=trust_remote_code, progress=progress)
        runs = sorted((out / "runs").glob("*.trec"))
        measured = {file.stem: evaluate(read_run(file), qrels, MEASURES) for file in runs}
        scores = {name: evaluation.means for name, evaluation in measured.items()}
        n_identical = max(evaluation.n_identical for evaluation in measured.values())
        report = _format_report(dataset, steps, scores, len(qrels), n_identical)
        write_text(out / "report.md", report)
    say(report)
    return PipelineResult(out / "training" / "model", scores, steps.seconds, out / "report.md")


def _retrieve(
    dataset: Dataset,
    queries: Mapping[str, str],
    out: Path,
    steps: _Steps,
    *,
    trust_remote_code: bool,
    progress: bool | None,
) -> None:
    """Encode the passages, index them, and make a run of each system."""

    def load() -> TokenEncoder:
        from colbert_core.model.encoder import Encoder  # here, so that importing this does not import torch

        return Encoder.from_pretrained(out / "training" / "model", trust_remote_code=trust_remote_code)

    encoder: TokenEncoder | None = None
    with steps.step("encode") as step:
        if step is not None:
            encoder = load()
            encoded = encode_collection(
                dataset.passages(), encoder, out / "embeddings", n_passages=dataset.n_passages, progress=progress
            )
            step["vectors"] = encoded.n_tokens
    with steps.step("index") as step:
        if step is not None:
            _build_index(out / "embeddings", out / "ivfpq", progress)
    with steps.step("retrieve") as step:
        if step is not None:
            encoder = encoder or load()
            retrieved = run_of(search_engine(IVFPQ.open(out / "ivfpq", encoder), _DEPTH), queries, progress=progress)
            _write_run(out, "IVFPQ", retrieved.run)
            step |= {"queries": len(queries), "median_ms": round(retrieved.median_ms, 1)}
    with steps.step("compare") as step:
        if step is not None:
            bm25 = BM25.build(dataset.passages(), progress=progress)
            _write_run(out, "BM25", run_of(lambda texts: bm25.search_many(texts, _DEPTH), queries, progress=progress).run)
            encoded = EncodedCollection.open(out / "embeddings")
            if encoded.n_tokens <= _EXACT_UP_TO:
                _write_run(out, "exact", _exact_run(encoded, encoder or load(), queries))


def _build_index(embeddings: Path, folder: Path, progress: bool | None) -> None:
    """Build the index, unless an earlier call has built it and was killed before it could write that down."""
    if is_built(folder, embeddings):
        return
    if folder.exists():
        shutil.rmtree(folder)  # of other vectors, or damaged
    encoded = EncodedCollection.open(embeddings)
    m = max(n for n in range(1, _MOST_PARTS + 1) if encoded.dim % n == 0)
    # At most as many codes as there are vectors to learn them from.
    IVFPQ.build(embeddings, folder, m=m, nbits=min(_MOST_BITS, encoded.n_tokens.bit_length() - 1), progress=progress)


class _Steps:
    """The finished steps of a run, kept in its folder."""

    def __init__(self, out: Path, about: dict[str, Any], say: Callable[[str], object]) -> None:
        self._file, self._say = out / "run.json", say
        if self._file.is_file():
            try:
                known = read_json_file(self._file)
                self.finished: dict[str, dict[str, Any]] = dict(known["steps"])
                difference = _find_difference(dict(known["run"]), about)
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{self._file} cannot be read ({error!r:.200}); choose another folder.") from None
            if difference:
                if self.finished.keys() - {"check"} or (out / "training" / "config.json").exists():
                    raise ValueError(f"{out} holds a run with {difference} is asked for; choose another folder.")
                self.finished = {}
        else:
            # What a run that was killed at once has left is no hindrance.
            if not all(name.startswith(f".{self._file.name}") for name in contents(out)):
                raise FileExistsError(f"{out} holds something that is no run; name a folder that is new or empty.")
            self.finished = {}
        self._about = about
        self._write()

    @property
    def seconds(self) -> dict[str, float]:
        """The time of each finished step."""
        return {name: step["seconds"] for name, step in self.finished.items()}

    def step(self, name: str) -> _Step:
        """Return a context in which a step is done, if it is not finished."""
        return _Step(self, name)

    def finish(self, name: str, step: dict[str, Any]) -> None:
        """Write down a finished step with its figures."""
        self.finished[name] = step
        self._write()
        self.tell(name, "")

    def tell(self, name: str, remark: str) -> None:
        """Say how long a step took, and its figures."""
        figures = {key: value for key, value in self.finished[name].items() if key != "seconds"}
        text = ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in figures.items())
        self._say(f"{name:<9} {_format_time(self.finished[name]['seconds']):>9}  {text}{remark}")

    def _write(self) -> None:
        write_json(self._file, {"run": self._about, "steps": self.finished})


class _Step:
    """A step. ``with steps.step(name) as step`` gives a dict for the figures, or None if the step is finished already."""

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


def _find_difference(there: dict[str, Any], here: dict[str, Any]) -> str | None:
    """Describe the first argument in which two runs differ; None if they are the same."""
    old, new = (
        {f"{name}/{key}" if key else name: entry for name, value in run.items() for key, entry in _entries(value)}
        for run in (there, here)
    )
    differing = (name for name in {**old, **new} if old.get(name) != new.get(name))
    return next((f"{name}={old.get(name)!r:.100}, but {new.get(name)!r:.100}" for name in differing), None)


def _entries(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else [("", value)]


def _check_needs(
    base: str | PathLike[str] | None, config: TrainConfig, *, language: str | None, trust_remote_code: bool
) -> None:
    """Check before any work that the packages and the base are there."""
    import_extra("accelerate", "Training", "'accelerate>=1.0'")
    import_extra("bm25s", "BM25", "bm25s PyStemmer")
    check_measures(MEASURES)
    ColBERT.from_pretrained(base, config, language=language, trust_remote_code=trust_remote_code)


def _compute_checksums(dataset: Dataset, triples: Path | None) -> dict[str, list[Any]]:
    """Compute size and SHA-256 of all files that the run reads.

    The triples are read as well, although MS MARCO's are 27 GB: that takes a minute or two before days of training, and a
    file's time, which would be quicker, changes with every copy.
    """
    checksums = dataset.checksums() | ({} if triples is None else {TRIPLES: checksum_files([triples])[str(triples)]})
    return {name: list(checksum) for name, checksum in checksums.items()}


def held_out_split(dataset: Dataset) -> str:
    """Choose the split to score on: the first of test, dev, dev.small and validation, or the only one that is not "train".

    Raises:
        ValueError: there is none, or there are several others.
    """
    usual = [split for split in _HELD_OUT if split in dataset.splits]
    others = [split for split in dataset.splits if split != "train"]
    if not usual and len(others) != 1:
        raise ValueError(f"{dataset.name} has the splits {', '.join(dataset.splits) or 'none'}; name one to score on.")
    return usual[0] if usual else others[0]


def _answered_qrels(dataset: Dataset, split: str) -> Qrels:
    """Read the judgements of queries with a relevant passage. All others could only score 0.

    Raises:
        ValueError: there are none.
    """
    judged = dataset.qrels(split)
    qrels = {query: grades for query, grades in judged.items() if any(grade > 0 for grade in grades.values())}
    if not qrels:
        raise ValueError(f"Split {split!r} of {dataset.name} has no query with a positive judgement; choose another split.")
    return qrels


def _divide_qrels(dataset: Dataset, held_out: str, *, are_mined: bool) -> tuple[Qrels, Qrels]:
    """Return the judgements to mine from, none unless ``are_mined``, and those to score on."""
    qrels = _answered_qrels(dataset, held_out)
    if "train" in dataset.splits and held_out != "train":
        train_qrels = _answered_qrels(dataset, "train") if are_mined else {}
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
        progress: show bars; None shows them on a terminal or in a notebook once a second has passed.
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


def own_triples(dataset: Dataset, path: Path) -> Iterator[Example]:
    """Read the triples that come with MS MARCO, of texts or of ids."""
    with path.open(encoding="utf-8-sig") as lines:
        first = [line.split("\t") for line in islice(lines, 2)]  # of which the first may be names
    if any(all(part.strip().isdecimal() for part in columns) for columns in first):
        passages = {passage.id: passage.text for passage in dataset.passages()}
        return read_id_triples(path, dataset.queries("train"), passages)
    return read_examples(path)


def _write_run(out: Path, name: str, run: Run) -> None:
    (out / "runs").mkdir(exist_ok=True)
    write_run(out / "runs" / f"{name}.trec", run, name)


def _exact_run(encoded: EncodedCollection, encoder: TokenEncoder, queries: Mapping[str, str]) -> Run:
    """Score every passage over its own vectors, and keep the best."""
    rows = np.arange(len(encoded), dtype=np.int64)
    ids, matrices = list(queries), encode_queries(encoder, list(queries.values()))
    at_a_time = max(1, _SCORES_AT_A_TIME // len(encoded))
    run = {}
    for first in range(0, len(ids), at_a_time):
        chunk = slice(first, first + at_a_time)
        for query, scores in zip(ids[chunk], encoded.score_many(matrices[chunk], rows), strict=True):
            best = np.argsort(-scores, kind="stable")[:_DEPTH]
            run[query] = dict(zip(encoded.ids_of(best.tolist()), scores[best].tolist(), strict=True))
    return run


def _format_report(
    dataset: Dataset, steps: _Steps, scores: Mapping[str, Mapping[str, float]], n_queries: int, n_identical: int
) -> str:
    """Format the scores and the time of each step as tables in Markdown."""

    def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
        head = list(head)
        return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]

    systems = [name for name in ("IVFPQ", "exact", "BM25") if name in scores]
    left_out = [f"{n_identical} queries found the passage with an id identical to their own; it is left out, as BEIR does.", ""]
    lines = [
        f"# {Path(dataset.name).name}: {n_queries} queries",
        "",
        *table(["", *systems], ([name, *(f"{scores[system][name]:.4f}" for system in systems)] for name in MEASURES)),
        "",
        "IVFPQ is ColBERTv1's end-to-end retrieval with the trained model, exact scores every passage with it.",
        "",
        *(left_out if n_identical else []),
        "```",
        nanocolbert_table(scores["IVFPQ"]),
        "```",
        "",
        *table(["step", "time"], ([name, _format_time(seconds)] for name, seconds in steps.seconds.items())),
        "",
    ]
    return "\n".join(lines)


def _format_time(seconds: float) -> str:
    """Format a time as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
