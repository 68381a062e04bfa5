"""Train the model in the box: a student of 128 dimensions learns from five teachers; averaged with version 2.

    python benchmarks/train_default_model.py SOURCE TEACHER TRAIN BEFORE OUT [--steps 500]

SOURCE is a folder with the original all-MiniLM-L6-v2, TEACHER one with all-mpnet-base-v2, TRAIN one of *.jsonl.xz with "query"
and "positive", BEFORE one with version 2 of the model, which began at the same start (sha256 of all three models are checked).
OUT keeps what each step made, and a second call goes on where the first one ended:

    start/           the untrained student: the source, a seventh layer and a projection by PCA (make_default_model.py)
    start/wide/      the same without the projection, at all 384 dimensions: two of the teachers
    pairs.json       queries, their relevant passages, all passages, and what BM25 ranks highest for each query
    taught.npz       candidates for each query and what each teacher says of them
    examples.jsonl   queries with a positive, negatives and the teachers' scores
    dev.json         pairs that were left out of the examples, to look at
    run/             ``colbert train --base start examples.jsonl``, with the settings below
    student/         the end of the run, as int8
    model/           the finished checkpoint: the mean of student and BEFORE, as int8

The teachers are the student's own start at all 384 dimensions and all-mpnet-base-v2, each under MaxSim and by its pooled
vectors, and BM25. Their scores are standardised over the candidates of a query and added with the weights of ``TEACHERS``: each
knows what the others miss, and a student that learns from their sum does not forget what it started with. A candidate that the
teachers rank above the positive is taken for a false negative.

A GPU is used where there is one: the teachers read and score every candidate, which took a minute on an H200 (all-mpnet-base-v2
alone reads for 40 minutes on two CPU cores), and a step of the training took 0.075 s. Their token vectors take 18 GB of memory.
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
from colbert_core.bm25 import BM25
from colbert_core.checkpoint import quantize_rows
from colbert_core.train import ColBERT, Example, configured, read_examples, train, write_examples

TEACHER_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
BEFORE_SHA256 = "307e4d98334f46ddd80408b8020afd3dbe119a6a5c2a01161765580cf712b93f"  # as at commit 18fa08d
# Pairs of each file: questions first, then titles and headings, which are weak but of many subjects.
PAIRS = {
    "squad_v1_dev": 8116,
    "medquad": 7000,
    "stackexchange_small": 4651,
    "scitldr": 4000,
    "fairytaleqa": 3000,
    "boolq_train": 2000,
    "expertqa": 1977,
    "policyqa": 1800,
    "openstax_glossary": 1858,
    "multirc": 1665,
    "medical_forum": 2500,
    "jhu_covid_faq": 1444,
    "covidqa": 1402,
    "pubmedqa_l": 1000,
    "arxiv_title_abstract": 6000,
    "enwiki2015_title": 5000,
    "enwiki2021_title": 5000,
    "openstax_head": 2500,
    "msdocs_cpp": 5000,
    "msdocs_win32": 3000,
    "msdocs_powershell": 3500,
    "awsdocs_ec2": 1000,
    "awsdocs_s3": 1000,
}
# The two models in the order of the arguments: 0 the student's start at all its dimensions, 1 all-mpnet-base-v2.
TEACHERS = {"tokens 0": 0.5, "pooled 0": 0.25, "tokens 1": 1.0, "pooled 1": 0.5, "words": 0.25}
NEGATIVES = 7  # of an example
SETTINGS = {
    "preset": "colbertv2",
    "loss": "distillation",
    # The teachers' scores are spread twice as wide as the student's, which must not learn that first: at 1 it forgets.
    "temperature": 0.5,
    "query_length": 48,
    "passage_length": 160,
    "negatives": NEGATIVES,
    "batch_size": 64,
    # Higher rates learn more of the pairs held back and lose what no pair is like; the card has the figures.
    "learning_rate": 1e-5,
    "head_learning_rate": 2e-4,
    "warmup_steps": 100,
    "weight_decay": 0.01,
    "precision": "bf16",
    "checkpoint_every": 100,
    "seed": 12345,
}
SPREAD = 2.0  # of the teachers' scores against those of the student's start
TEACHER_TOKENS = 160
WINDOW = 160  # tokens of a window of the finished model
# What is left of the seventh layer's mean in the finished model. More of it teaches better than it ranks: LIMIT, where words
# must match, has .985 at .6 and .987 at .5, version 2 .973 at 1. Everything else moves by less than .006.
KEPT_MEAN = 0.5
# Candidates of a query from each of BM25 and the two models' pooled vectors.
DEPTH = 20
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
        offsets = torch.tensor([0, *itertools.accumulate(counts)])
        hidden = self.model.config.hidden_size
        pooled = torch.empty(len(texts), hidden, device=self.device)
        tokens = torch.empty(int(offsets[-1]), hidden, dtype=torch.float16, device=self.device)
        order = np.argsort([len(ids) for ids in all_ids], kind="stable")[::-1]
        size = 32 if self.device == "cpu" else 512
        for first in tqdm(range(0, len(order), size), "Teaching vectors", mininterval=10):
            some = order[first : first + size]
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(all_ids[i]) for i in some], True, pad)
            lengths = torch.tensor([len(all_ids[i]) for i in some])
            mask = torch.arange(ids.shape[1]) < lengths[:, None]
            kept = mask & ~torch.isin(ids, self.punctuation) if skip_punctuation else mask
            rows = torch.cat([torch.arange(offsets[i], offsets[i + 1]) for i in some.tolist()])
            ids, mask, kept, rows = (tensor.to(self.device) for tensor in (ids, mask, kept, rows))
            with torch.autocast(self.device, torch.bfloat16):
                states = self.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
            means = (states[self.pooled_layer].float() * mask[..., None]).sum(1)
            pooled[torch.from_numpy(some.copy()).to(self.device)] = torch.nn.functional.normalize(means, dim=-1)
            tokens[rows] = torch.nn.functional.normalize(states[-1].float(), dim=-1)[kept].half()
        return pooled, tokens, offsets.to(self.device)

    @torch.inference_mode()
    def scores(self, queries, passages, numbers, candidates):
        """MaxSim and cosine, (n, most) float32 each, of some queries with their candidates, (n, most) int64, -1 for none."""
        candidates = candidates.to(self.device)
        there = candidates >= 0
        candidates = candidates.clamp(min=0)
        query_pooled, query_tokens, query_offsets = queries
        pooled, tokens, offsets = passages
        numbers = numbers.to(self.device)
        cosine = (pooled[candidates] @ query_pooled[numbers][..., None])[..., 0]

        def padded(all_tokens, starts, ends):
            places = torch.arange(int((ends - starts).max()), device=self.device)
            is_token = places < (ends - starts)[..., None]
            rows = torch.where(is_token, starts[..., None] + places, 0)
            return all_tokens[rows], is_token

        vectors, is_query = padded(query_tokens, query_offsets[numbers], query_offsets[numbers + 1])  # (n, length, hidden)
        others, is_passage = padded(tokens, offsets[candidates], offsets[candidates + 1])  # (n, most, length, hidden)
        dtype = torch.float32 if self.device == "cpu" else torch.float16
        similarities = vectors.to(dtype) @ others.to(dtype).flatten(1, 2).mT  # (n, query length, most * length)
        similarities = similarities.masked_fill(~is_passage.flatten(1)[:, None], -torch.inf)
        best = similarities.unflatten(2, is_passage.shape[1:]).amax(-1).float().masked_fill(~is_query[..., None], 0)
        return best.sum(1).masked_fill(~there, 0).cpu().numpy(), cosine.cpu().numpy()


def teach(pairs, teachers, device, out):
    """Candidates of every query and what each teacher says of them, as arrays."""
    queries, passages = pairs["queries"], pairs["passages"]
    nearest, encoded = [], []
    for folder in teachers:
        teacher = Teacher(folder, device)
        vectors = teacher.encode(queries, skip_punctuation=False), teacher.encode(passages, skip_punctuation=True)
        near = [(vectors[0][0][i : i + 1024] @ vectors[1][0].T).topk(DEPTH).indices.cpu() for i in range(0, len(queries), 1024)]
        nearest.append(torch.cat(near).tolist())
        encoded.append((teacher, *vectors))
    both = zip(pairs["relevant"], pairs["words"], *nearest, strict=True)
    names = [sorted({*relevant, *(name for name, _ in words), *itertools.chain(*near)}) for relevant, words, *near in both]
    candidates = torch.full((len(queries), max(map(len, names))), -1)
    for row, some in enumerate(names):
        candidates[row, : len(some)] = torch.tensor(some)
    found = {"candidates": candidates.numpy().astype(np.int32)}
    size = 4 if device == "cpu" else 32
    for number, (teacher, query_vectors, passage_vectors) in enumerate(encoded):
        scores = [
            teacher.scores(
                query_vectors, passage_vectors, torch.arange(i, min(i + size, len(queries))), candidates[i : i + size]
            )
            for i in tqdm(range(0, len(queries), size), "Teaching scores", mininterval=10)
        ]
        found |= {f"tokens {number}": np.concatenate([maxsim for maxsim, _ in scores]).astype(np.float32)}
        found |= {f"pooled {number}": np.concatenate([cosine for _, cosine in scores]).astype(np.float32)}
    lexical = np.zeros(candidates.shape, np.float32)
    for row, (some, words) in enumerate(zip(names, pairs["words"], strict=True)):
        score_of = dict(words)
        least = 0.9 * min(score_of.values(), default=0)
        lexical[row, : len(some)] = [score_of.get(name, least) for name in some]
    unfinished = out.with_name(f"unfinished-{out.name}")
    np.savez(unfinished, words=lexical, **found)
    unfinished.rename(out)


def standardised(scores):
    return (scores - scores.mean()) / (scores.std() + 1e-6)


def mixed(taught, row):
    """What the teachers say together of a query's candidates: their numbers, and scores."""
    candidates = taught["candidates"][row]
    n = int((candidates >= 0).sum())
    total = sum(weight * standardised(taught[name][row, :n]) for name, weight in TEACHERS.items())
    return candidates[:n], SPREAD * taught["tokens 0"][row, :n].std() * standardised(total)


def make_examples(pairs, taught, out, dev_out):
    """Examples with a positive, negatives and the teachers' scores of them; some queries are held back."""
    queries, passages = pairs["queries"], pairs["passages"]
    dev_queries = set(random.Random(0).sample(range(len(queries)), int(len(queries) * DEV_SHARE)))
    dev = {"queries": [], "passages": {}}
    examples, dropped = [], 0
    rng = np.random.default_rng(SETTINGS["seed"])
    for number, (query, relevant) in enumerate(zip(queries, pairs["relevant"], strict=True)):
        candidates, score = mixed(taught, number)
        is_relevant = np.isin(candidates, relevant)
        if number in dev_queries:
            dev["queries"].append([query, [str(c) for c in relevant]])
            dev["passages"] |= {str(c): passages[c] for c in candidates}
            continue
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
    print(f"{len(examples)} examples, {dropped} pairs dropped, {len(dev['queries'])} queries held back", flush=True)
    random.Random(1).shuffle(examples)
    write_examples(examples, out)
    dev_out.write_text(json.dumps(dev), encoding="utf-8")


def dev_score(dev, encoder):
    """Mean reciprocal rank at 10 of some queries held back, over what is relevant to them and a quarter of the candidates."""
    queries = dev["queries"][:400]
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


def finished(start, end, source, out):
    """The checkpoint of the run's end as int8, with less of the texts' mean."""
    weights = {name: tensor.float().contiguous() for name, tensor in weights_of(end).items()}
    last_layer = max(int(name.split(".")[3]) for name in weights if name.startswith("bert.encoder.layer."))
    for kind in ("weight", "bias"):
        weights[f"bert.encoder.layer.{last_layer}.attention.output.dense.{kind}"] *= KEPT_MEAN
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(start, out, ignore=shutil.ignore_patterns("wide"))
    save_file(quantize_rows(weights), out / "model.safetensors", metadata={"format": "pt"})
    recipe = json.loads((start / "artifact.metadata").read_text(encoding="utf-8"))
    recipe |= {"doc_maxlen": WINDOW, "trained": True}
    (out / "artifact.metadata").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    dropout = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    theirs, ours = (json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in (source, out))
    ours |= {name: theirs[name] for name in dropout}
    (out / "config.json").write_text(json.dumps(ours, indent=2) + "\n", encoding="utf-8")


def averaged(student, before, out):
    """The mean of two checkpoints that began at the same start, as int8."""
    first, second = weights_of(student), weights_of(before)
    mean = {name: ((first[name] + second[name]) / 2).contiguous() for name in first}
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(student, out)
    save_file(quantize_rows(mean), out / "model.safetensors", metadata={"format": "pt"})


def checked(folder, expected):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != expected:
        raise SystemExit(f"{folder}/model.safetensors has the sha256 {digest}, expected {expected}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("source", "teacher", "train", "before", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    checked(options.teacher, TEACHER_SHA256)
    checked(options.before, BEFORE_SHA256)
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
        config = json.loads((unfinished / "config.json").read_text(encoding="utf-8"))
        config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # a student of scores needs no noise
        (unfinished / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        unfinished.rename(start)
    if not pairs.exists():
        gather_pairs(options.train, pairs)
    if not dev.exists():
        everything = json.loads(pairs.read_text(encoding="utf-8"))
        if not taught.exists():
            teach(everything, [start / "wide", options.teacher], device, taught)
        with np.load(taught) as arrays:
            make_examples(everything, dict(arrays), examples, dev)
    held_back = json.loads(dev.read_text(encoding="utf-8"))
    train(read_examples(examples), start, out=out / "run", steps=options.steps, epochs=100, **SETTINGS)
    finished(start, out / "run" / "model", options.source, out / "student")
    averaged(out / "student", options.before, out / "model")
    score = dev_score(held_back, Encoder.from_pretrained(out / "model"))
    print(f"MRR@10 {score:.4f} on pairs held back", flush=True)


if __name__ == "__main__":
    main()
