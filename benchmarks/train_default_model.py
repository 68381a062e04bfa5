"""Train the model in the box: two students of 128 dimensions learn what five teachers say together, and are averaged.

    python benchmarks/train_default_model.py SOURCE TEACHER TRAIN OUT [--steps 700]

SOURCE is a folder with the original all-MiniLM-L6-v2, TEACHER one with all-mpnet-base-v2 (sha256 of both are checked), TRAIN
one of *.jsonl.xz with "query" and "positive". OUT keeps what each step made, and a second call goes on where the first ended:

    start/           the untrained student: the source, a seventh layer and a projection by PCA (make_default_model.py)
    start/wide/      the same without the projection, at all 384 dimensions: two of the teachers
    start/rounded/   the untrained student with coarser weights
    pairs.json       queries, their relevant passages, all passages, and what BM25 ranks highest for each query
    taught.npz       candidates for each query and what each teacher says of them
    examples.jsonl   queries with a positive, negatives and the teachers' scores
    dev.json         pairs that were left out of the examples, to look at
    run/             ``colbert train --base start examples.jsonl``, with the settings below
    run-rounded/     the same with ``--base start/rounded``
    model/           the finished checkpoint: the mean of both, as int8

The teachers are the student's own start at all 384 dimensions and all-mpnet-base-v2, each under MaxSim and by its pooled
vectors, and BM25. Their scores are standardised over the candidates of a query and added with the weights of ``TEACHERS``: each
knows what the others miss, and a student that learns from their sum does not forget what it started with. A candidate that the
teachers rank above the positive is taken for a false negative.

Two CPU cores need 100 minutes, 35 of them for each student. The teachers' token vectors take 9 GB of memory. A GPU is
used where there is one.
"""

import argparse
import hashlib
import itertools
import json
import lzma
import random
import shutil
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from colbert_core import Encoder, Index, Passage
from colbert_core.evaluation.bm25 import BM25
from colbert_core.model.checkpoint import quantize_weights
from colbert_core.train import ColBERT, Example, configured, read_examples, train, write_examples

TEACHER_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
# Pairs of each file: questions first, then titles and headings, which are weak but of many subjects.
PAIRS = {
    "squad_v1_dev": 5000,
    "medquad": 2500,
    "stackexchange_small": 2500,
    "scitldr": 2500,
    "boolq_train": 2000,
    "expertqa": 1200,
    "policyqa": 1000,
    "openstax_glossary": 1000,
    "multirc": 1000,
    "medical_forum": 1000,
    "fairytaleqa": 800,
    "jhu_covid_faq": 800,
    "covidqa": 800,
    "pubmedqa_l": 800,
    "arxiv_title_abstract": 2500,
    "enwiki2015_title": 1500,
    "enwiki2021_title": 1500,
    "openstax_head": 700,
    "msdocs_cpp": 1500,
    "msdocs_win32": 800,
    "msdocs_powershell": 1000,
    "awsdocs_ec2": 300,
    "awsdocs_s3": 300,
}
# The two models in the order of the arguments: 0 the student's start at all its dimensions, 1 all-mpnet-base-v2.
TEACHERS = {"tokens 0": 0.5, "pooled 0": 0.25, "tokens 1": 1.0, "pooled 1": 0.5, "words": 0.25}
NEGATIVES = 3  # of an example
SETTINGS = {
    "preset": "colbertv2",
    "loss": "distillation",
    # The teachers' scores are spread twice as wide as the student's, which must not learn that first: at 1 it forgets.
    "temperature": 0.5,
    "vector_noise": 0.02,  # as far as 2 bits move a vector; nDCG@10 in such an index gains .008 on CosQA, .015 on DL19
    "query_length": 48,
    "passage_length": 160,
    "negatives": NEGATIVES,
    "batch_size": 16,
    # Higher rates learn more of the pairs held back and lose what no pair is like; the card has the figures.
    "learning_rate": 2e-5,
    "head_learning_rate": 2e-4,
    "warmup_steps": 50,
    "weight_decay": 0.01,
    "precision": "bf16",
    "checkpoint_every": 100,
    "seed": 12345,
}
SPREAD = 2.0  # of the teachers' scores against those of the student's start
TEACHER_TOKENS = 160
WINDOW = 160  # tokens of a window of the finished model
# What is left of the seventh layer's mean in the finished model. More of it teaches better than it ranks: LIMIT, where words
# must match, has .987 at .6 and .988 at .5, version 2 .973 at 1. Everything else moves by less than .006.
KEPT_MEAN = 0.5
# Candidates of a query from each of BM25 and the two models' pooled vectors.
DEPTH = 15
# A positive that the teachers rank behind so many candidates is taken for a wrong label.
WORST_RANK = 8
DEV_SHARE = 0.02


def read_pairs(folder):
    """The pairs of each source, drawn with a fixed seed, each distinct pair once."""
    for name, count in PAIRS.items():
        with lzma.open(folder / f"{name}.jsonl.xz", "rt", encoding="utf-8") as lines:
            records = [json.loads(line) for line in lines]
        pairs = list(dict.fromkeys((record["query"].strip(), record["positive"].strip()) for record in records))
        pairs = [(query, positive) for query, positive in pairs if len(query) > 3 and len(positive) > 40]
        for query, positive in random.Random(name).sample(pairs, min(count, len(pairs))):
            yield name, query, positive


def gather_pairs(folder, out):
    """Write every query with the numbers of its relevant passages, the passages, and what BM25 ranks highest for each query."""
    pairs = list(read_pairs(folder))
    number_of = {}
    for _, _, positive in pairs:
        number_of.setdefault(positive, len(number_of))
    known = {}
    for _, query, positive in pairs:
        known.setdefault(query, set()).add(number_of[positive])
    queries, passages = list(known), list(number_of)
    print(f"{len(pairs)} pairs, {len(queries)} queries, {len(passages)} passages", flush=True)
    bm25 = BM25.build((Passage(str(i), text) for i, text in enumerate(passages)), progress=False)
    words = []
    for first in tqdm(range(0, len(queries), 1024), "BM25", mininterval=10):
        ranked = bm25.search_many(queries[first : first + 1024], DEPTH)
        words += [[[int(name), round(score, 3)] for name, score in some] for some in ranked]
    found = {"queries": queries, "passages": passages, "relevant": [sorted(some) for some in known.values()], "words": words}
    out.write_text(json.dumps(found), encoding="utf-8")


class Teacher:
    """An encoder as two teachers: by MaxSim of its unit token vectors, and by its pooled vectors."""

    def __init__(self, folder, device):
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self.model = AutoModel.from_pretrained(str(folder)).eval().to(device)
        self.device = device
        # The added layer of the student's start changes what its tokens say, not what the source pools.
        self.pooled_layer = -2 if (folder.parent / "artifact.metadata").exists() else -1
        self.punctuation = torch.tensor(self.tokenizer.convert_tokens_to_ids(list(string.punctuation)))

    @torch.inference_mode()
    def encode(self, texts, skip_punctuation):
        """Pooled vectors (n, hidden) float32, token vectors (n_tokens, hidden) float16, where each text's begin (n + 1,)."""
        all_ids = self.tokenizer(texts, truncation=True, max_length=TEACHER_TOKENS)["input_ids"]
        pad = self.tokenizer.pad_token_id
        skipped = set(self.punctuation.tolist()) if skip_punctuation else set()
        counts = [sum(i not in skipped for i in ids) for ids in all_ids]
        offsets = np.array([0, *itertools.accumulate(counts)])
        hidden = self.model.config.hidden_size
        pooled = torch.empty(len(texts), hidden)
        tokens = torch.empty(int(offsets[-1]), hidden, dtype=torch.float16)
        order = np.argsort([len(ids) for ids in all_ids], kind="stable")[::-1].copy()
        size = 32 if self.device == "cpu" else 512
        for first in tqdm(range(0, len(order), size), "Teaching vectors", mininterval=10):
            some = order[first : first + size]
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(all_ids[i]) for i in some], True, pad)
            lengths = torch.tensor([len(all_ids[i]) for i in some])
            mask = torch.arange(ids.shape[1]) < lengths[:, None]
            kept = mask & ~torch.isin(ids, self.punctuation) if skip_punctuation else mask
            ids, mask = ids.to(self.device), mask.to(self.device)
            with torch.autocast(self.device, torch.bfloat16):
                found = self.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
            means = (found[self.pooled_layer].float() * mask[..., None]).sum(1)
            pooled[some] = torch.nn.functional.normalize(means, dim=-1).cpu()
            tokens[rows_of(offsets, some)] = torch.nn.functional.normalize(found[-1].float(), dim=-1).half().cpu()[kept]
        return pooled, tokens, offsets


def rows_of(offsets, some):
    """The rows of some texts' tokens, in their order."""
    return torch.cat([torch.arange(offsets[i], offsets[i + 1]) for i in some])


@torch.inference_mode()
def scores(query, passages, candidates):
    """MaxSim and cosine, (n,) float32 each, of a query's pooled vector and token vectors with its candidates."""
    query_pooled, query_tokens = query
    pooled, tokens, offsets = passages
    lengths = offsets[candidates + 1] - offsets[candidates]
    similarities = (query_tokens.float() @ tokens[rows_of(offsets, candidates)].float().T).numpy()
    best = np.maximum.reduceat(similarities, np.cumsum(lengths) - lengths, axis=1)
    return best.sum(0), (pooled[torch.from_numpy(candidates)] @ query_pooled).numpy()


def teach(pairs, teachers, device, out):
    """Candidates of every query and what each teacher says of them, as arrays."""
    queries, passages = pairs["queries"], pairs["passages"]
    nearest, encoded = [], []
    for folder in teachers:
        teacher = Teacher(folder, device)
        vectors = teacher.encode(queries, skip_punctuation=False), teacher.encode(passages, skip_punctuation=True)
        near = [(vectors[0][0][i : i + 1024] @ vectors[1][0].T).topk(DEPTH).indices for i in range(0, len(queries), 1024)]
        nearest.append(torch.cat(near).tolist())
        encoded.append(vectors)
    both = zip(pairs["relevant"], pairs["words"], *nearest, strict=True)
    names = [np.array(sorted({*own, *(name for name, _ in words), *itertools.chain(*near)})) for own, words, *near in both]
    shape = len(queries), max(map(len, names))
    found = {"candidates": np.full(shape, -1, np.int32), "words": np.zeros(shape, np.float32)}
    for row, (some, words) in enumerate(zip(names, pairs["words"], strict=True)):
        score_of = dict(words)
        least = 0.9 * min(score_of.values(), default=0)
        found["candidates"][row, : len(some)] = some
        found["words"][row, : len(some)] = [score_of.get(name, least) for name in some.tolist()]
    for number, ((query_pooled, query_tokens, offsets), passage_vectors) in enumerate(encoded):
        maxsim, cosine = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for row, some in enumerate(tqdm(names, "Teaching scores", mininterval=10)):
            query = query_pooled[row], query_tokens[offsets[row] : offsets[row + 1]]
            maxsim[row, : len(some)], cosine[row, : len(some)] = scores(query, passage_vectors, some)
        found |= {f"tokens {number}": maxsim, f"pooled {number}": cosine}
    unfinished = out.with_name(f"unfinished-{out.name}")
    np.savez(unfinished, **found)
    unfinished.rename(out)


def standardised(scores):
    return (scores - scores.mean()) / (scores.std() + 1e-6)


def mixed(taught, row):
    """What the teachers say together of a query's candidates: their numbers, and scores."""
    candidates = taught["candidates"][row]
    n = int((candidates >= 0).sum())
    total = sum(weight * standardised(taught[name][row, :n]) for name, weight in TEACHERS.items())
    return candidates[:n], SPREAD * taught["tokens 0"][row, :n].std() * standardised(total)


def held_back(pairs, taught):
    """Some queries with their relevant passages, and all candidates of theirs."""
    numbers = random.Random(0).sample(range(len(pairs["queries"])), int(len(pairs["queries"]) * DEV_SHARE))
    queries = {str(number): [pairs["queries"][number], [str(c) for c in pairs["relevant"][number]]] for number in numbers}
    candidates = sorted({int(c) for number in numbers for c in taught["candidates"][number] if c >= 0})
    return {"queries": queries, "passages": {str(c): pairs["passages"][c] for c in candidates}}


def make_examples(pairs, taught, dev, out):
    """Examples with a positive, negatives and the teachers' scores of them, without the queries held back."""
    passages = pairs["passages"]
    examples, dropped = [], 0
    rng = np.random.default_rng(SETTINGS["seed"])
    for number, (query, relevant) in enumerate(zip(pairs["queries"], pairs["relevant"], strict=True)):
        if str(number) in dev["queries"]:
            continue
        candidates, score = mixed(taught, number)
        is_relevant = np.isin(candidates, relevant)
        for positive in np.flatnonzero(is_relevant):
            above = int((score[~is_relevant] > score[positive]).sum())
            below = np.flatnonzero(~is_relevant & (score < score[positive]))
            if above >= WORST_RANK or len(below) < NEGATIVES:
                dropped += 1
                continue
            below = below[np.argsort(-score[below], kind="stable")]
            n_hard = (NEGATIVES + 1) // 2
            hard = rng.choice(below[: 2 * n_hard], n_hard, replace=False)
            rest = rng.choice(np.setdiff1d(below, hard), NEGATIVES - n_hard, replace=False)
            chosen = [positive, *hard, *rest]
            texts = [passages[candidates[c]] for c in chosen]
            examples.append(Example(query, texts[0], tuple(texts[1:]), tuple(float(score[c]) for c in chosen)))
    print(f"{len(examples)} examples, {dropped} pairs dropped", flush=True)
    random.Random(1).shuffle(examples)
    write_examples(examples, out)


def dev_score(dev, encoder):
    """Mean reciprocal rank at 10 of some queries held back, over what is relevant to them and a quarter of the candidates."""
    queries = list(dev["queries"].values())[:400]
    names = {name for _, relevant in queries for name in relevant} | {*list(dev["passages"])[::4]}
    index = Index.create(None, encoder, nbits=None)
    index.add([Passage(name, text) for name, text in dev["passages"].items() if name in names], progress=False)
    found = index.search_many([query for query, _ in queries], 10)
    ranks = (
        next((hit.rank for hit in hits if hit.passage.id in relevant), 0)
        for (_, relevant), hits in zip(queries, found, strict=True)
    )
    return sum(1 / rank for rank in ranks if rank) / len(queries)


def weights_of(folder):
    """The weights of a checkpoint, in whatever format it was saved, under the names of Stanford's."""
    settings = dict(SETTINGS)
    model = ColBERT.from_pretrained(folder, configured(settings.pop("preset"), settings))
    (projection,) = model.head.parameters()
    return {f"bert.{name}": tensor for name, tensor in model.backbone.state_dict().items()} | {
        "linear.weight": projection.detach()
    }


def finished(start, ends, source, out):
    """The mean of the students' weights as int8, with less of the texts' mean."""
    students = [weights_of(end) for end in ends]
    weights = {name: torch.stack([student[name].float() for student in students]).mean(0) for name in students[0]}
    last_layer = max(int(name.split(".")[3]) for name in weights if name.startswith("bert.encoder.layer."))
    for kind in ("weight", "bias"):
        weights[f"bert.encoder.layer.{last_layer}.attention.output.dense.{kind}"] *= KEPT_MEAN
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(start, out, ignore=shutil.ignore_patterns("wide", "rounded"))
    save_file(quantize_weights(weights), out / "model.safetensors", metadata={"format": "pt"})
    recipe = json.loads((start / "artifact.metadata").read_text(encoding="utf-8"))
    recipe |= {"doc_maxlen": WINDOW, "trained": True}
    (out / "artifact.metadata").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    dropout = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    theirs, ours = (json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in (source, out))
    ours |= {name: theirs[name] for name in dropout}
    (out / "config.json").write_text(json.dumps(ours, indent=2) + "\n", encoding="utf-8")


def checked(folder, expected):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != expected:
        raise SystemExit(f"{folder}/model.safetensors has the sha256 {digest}, expected {expected}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("source", "teacher", "train", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=700, help="of each training (default: %(default)s)")
    options = parser.parse_args()
    checked(options.teacher, TEACHER_SHA256)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    start, pairs, taught, examples, dev = (
        out / name for name in ("start", "pairs.json", "taught.npz", "examples.jsonl", "dev.json")
    )
    if not start.exists():
        script = Path(__file__).with_name("make_default_model.py")
        unfinished = out / "start-unfinished"  # of an earlier call that was interrupted, too
        shutil.rmtree(unfinished, ignore_errors=True)
        subprocess.run([sys.executable, script, options.source, options.train, unfinished], check=True)
        for folder in (unfinished, unfinished / "rounded"):
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # a student of scores needs no dropout
            (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        unfinished.rename(start)
    if not pairs.exists():
        gather_pairs(options.train, pairs)
    everything = json.loads(pairs.read_text(encoding="utf-8"))
    if not taught.exists():
        teach(everything, [start / "wide", options.teacher], device, taught)
    if not examples.exists():
        with np.load(taught) as arrays:
            said = dict(arrays)
        dev.write_text(json.dumps(held_back(everything, said)), encoding="utf-8")
        make_examples(everything, said, json.loads(dev.read_text(encoding="utf-8")), examples)
    # Each of these two alone is weaker on one collection or another; the card has the figures.
    students = {out / "run": start, out / "run-rounded": start / "rounded"}
    for run, base in students.items():
        train(read_examples(examples), base, out=run, steps=options.steps, epochs=100, **SETTINGS)
    finished(start, [run / "model" for run in students], options.source, out / "model")
    score = dev_score(json.loads(dev.read_text(encoding="utf-8")), Encoder.from_pretrained(out / "model"))
    print(f"MRR@10 {score:.4f} on pairs held back", flush=True)


if __name__ == "__main__":
    main()
