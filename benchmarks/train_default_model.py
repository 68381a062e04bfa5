"""Train the model in the box: a student of 128 dimensions learns from three teachers and from labelled pairs.

    python benchmarks/train_default_model.py SOURCE TRAIN OUT [--steps 1000]

SOURCE is a folder with the original all-MiniLM-L6-v2 (its sha256 is checked), TRAIN one of *.jsonl.xz with "query" and
"positive". OUT keeps what each step made, and a second call goes on where the first one ended:

    start/           the untrained student: the source, a seventh layer and a projection by PCA (make_default_model.py)
    start/wide/      the same without the projection, at all 384 dimensions: a teacher
    examples.jsonl   queries with a positive, negatives that BM25 and the source's pooled vectors rank high, teacher scores
    dev.json         pairs that were left out of the examples, to choose by
    run/             ``colbert train --base start examples.jsonl``, with the settings below
    model-SHARE/     checkpoints: that share of the way from the start to the end of the run, as int8

The teachers are the student's own start at all 384 dimensions under MaxSim, the source's pooled vectors, and BM25. Their scores
are standardised over the candidates of a query and added with the weights of ``TEACHERS``: each knows what the others miss,
and a student that learns from their sum does not forget what it started with. A candidate that the teachers rank above the
positive is taken for a false negative.
"""

import argparse
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

# Pairs of each file: questions first, then titles and headings, which are weak but of many subjects.
PAIRS = {
    "squad_v1_dev": 7000,
    "medquad": 4000,
    "arxiv_title_abstract": 3500,
    "scitldr": 3500,
    "stackexchange_small": 3000,
    "enwiki2015_title": 2500,
    "enwiki2021_title": 2500,
    "boolq_train": 2000,
    "expertqa": 1977,
    "policyqa": 1800,
    "multirc": 1665,
    "openstax_glossary": 1600,
    "medical_forum": 1500,
    "jhu_covid_faq": 1444,
    "covidqa": 1402,
    "fairytaleqa": 1200,
    "pubmedqa_l": 1000,
    "openstax_head": 1000,
    "msdocs_cpp": 2500,
    "msdocs_win32": 1500,
    "msdocs_powershell": 1500,
    "awsdocs_ec2": 500,
    "awsdocs_s3": 500,
}
TEACHERS = {"token vectors": 1.0, "pooled vectors": 0.5, "BM25": 0.25}
SETTINGS = {
    "preset": "colbertv2",
    "loss": "distillation+in-batch",
    # The teachers' scores are spread nearly twice as wide as the student's, which must not learn that first: at 1 it forgets.
    "temperature": 0.5,
    "query_length": 48,
    "passage_length": 144,
    "negatives": 3,
    "batch_size": 16,
    "learning_rate": 2e-5,
    "head_learning_rate": 2e-4,
    "warmup_steps": 50,
    "weight_decay": 0.01,
    "precision": "bf16",
    "checkpoint_every": 100,
    "seed": 12345,
}
TEACHER_TOKENS = 144
WINDOW = 160  # tokens of a window of the finished model
# What is left of the seventh layer's mean in the finished model. More of it teaches better than it ranks: LIMIT, where words
# must match, has .973 at 1, .982 at .75 and .988 at .5, and everything else moves by less than .006.
KEPT_MEAN = 0.5
# Candidates of a query from each of BM25 and the pooled vectors.
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


class Source:
    """The start without its projection as two teachers: unit token vectors, and the pooled vectors of the source inside it."""

    def __init__(self, folder, most_tokens):
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self.model = AutoModel.from_pretrained(str(folder)).eval()
        self.most = most_tokens
        self.punctuation = torch.tensor(self.tokenizer.convert_tokens_to_ids(list(string.punctuation)))

    @torch.inference_mode()
    def encode(self, texts, skip_punctuation):
        """Pooled vectors (n, 384) float32, and for each text its token vectors (n_tokens, 384) float16."""
        all_ids = self.tokenizer(texts, truncation=True, max_length=self.most)["input_ids"]
        order = np.argsort([len(ids) for ids in all_ids], kind="stable")
        pooled, tokens = np.empty((len(texts), 384), np.float32), [None] * len(texts)
        for first in tqdm(range(0, len(order), 32), "Teaching vectors", mininterval=10):
            some = order[first : first + 32]
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(all_ids[i]) for i in some], batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(all_ids[i])) for i in some], batch_first=True)
            with torch.autocast("cpu", torch.bfloat16):
                *_, sixth, last = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
            pooled[some] = torch.nn.functional.normalize((sixth.float() * mask[..., None]).sum(1), dim=-1)
            kept = mask.bool() & ~torch.isin(ids, self.punctuation) if skip_punctuation else mask.bool()
            unit = torch.nn.functional.normalize(last.float(), dim=-1).half()
            for row, i in enumerate(some):
                tokens[i] = unit[row][kept[row]].numpy()
        return pooled, tokens


def standardised(scores):
    return (scores - scores.mean()) / (scores.std() + 1e-6)


def make_examples(source, folder, out, dev_out):
    """Mine negatives and score them; hold some pairs back."""
    pairs = list(read_pairs(folder))
    number_of = {}
    for _, _, positive in pairs:
        number_of.setdefault(positive, len(number_of))
    passages = list(number_of)
    known = {}
    for _, query, positive in pairs:
        known.setdefault(query, set()).add(number_of[positive])
    queries = list(known)
    print(f"{len(pairs)} pairs, {len(queries)} queries, {len(passages)} passages", flush=True)

    teacher = Source(source, TEACHER_TOKENS)
    query_pooled, query_tokens = teacher.encode(queries, skip_punctuation=False)
    pooled, tokens = teacher.encode(passages, skip_punctuation=True)
    bm25 = BM25.build((Passage(str(i), text) for i, text in enumerate(passages)), progress=False)

    dev_queries = set(random.Random(0).sample(queries, int(len(queries) * DEV_SHARE)))
    dev = {"queries": [], "passages": {}}
    examples, dropped = [], 0
    rng = np.random.default_rng(SETTINGS["seed"])
    for first in tqdm(range(0, len(queries), 256), "Mining", mininterval=10):
        some = range(first, min(first + 256, len(queries)))
        nearest = np.argpartition(-(query_pooled[some.start : some.stop] @ pooled.T), DEPTH)[:, :DEPTH]
        ranked = bm25.search_many([queries[i] for i in some], DEPTH)
        for i, near, words in zip(some, nearest, ranked, strict=True):
            query, relevant = queries[i], known[queries[i]]
            lexical = {int(name): score for name, score in words}
            candidates = np.array(sorted({*relevant, *near.tolist(), *lexical}))
            vectors = query_tokens[i].astype(np.float32)
            maxsim = np.array([(vectors @ tokens[c].astype(np.float32).T).max(1).sum() for c in candidates])
            cosine = pooled[candidates] @ query_pooled[i]
            words_score = np.array([lexical.get(c, 0.9 * min(lexical.values(), default=0)) for c in candidates.tolist()])
            weights = dict(zip(TEACHERS, (maxsim, cosine, words_score), strict=True))
            score = maxsim.std() * sum(TEACHERS[name] * standardised(some_) for name, some_ in weights.items())
            is_relevant = np.isin(candidates, list(relevant))
            if query in dev_queries:
                dev["queries"].append([query, [str(c) for c in sorted(relevant)]])
                dev["passages"] |= {str(c): passages[c] for c in candidates}
                continue
            for positive in np.flatnonzero(is_relevant):
                above = int((score[~is_relevant] > score[positive]).sum())
                below = np.flatnonzero(~is_relevant & (score < score[positive]))
                if above >= WORST_RANK or len(below) < 3:
                    dropped += 1
                    continue
                below = below[np.argsort(-score[below], kind="stable")]
                hard = rng.choice(below[:5], 2, replace=False) if len(below) > 5 else below[:2]
                rest = np.setdiff1d(below, hard)
                chosen = [positive, *hard, rng.choice(rest)]
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


def between(start, end, share, source, out):
    """A checkpoint with ``share`` of the end's weights and the rest of the start's, as int8, with less of the texts' mean."""
    first, last = weights_of(start), weights_of(end)
    mixed = {name: torch.lerp(first[name].float(), last[name].float(), share).contiguous() for name in first}
    last_layer = max(int(name.split(".")[3]) for name in mixed if name.startswith("bert.encoder.layer."))
    for kind in ("weight", "bias"):
        mixed[f"bert.encoder.layer.{last_layer}.attention.output.dense.{kind}"] *= KEPT_MEAN
    shutil.copytree(start, out, ignore=shutil.ignore_patterns("wide"))
    save_file(quantize_rows(mixed), out / "model.safetensors", metadata={"format": "pt"})
    recipe = json.loads((start / "artifact.metadata").read_text(encoding="utf-8"))
    recipe |= {"doc_maxlen": WINDOW, "trained": True}
    (out / "artifact.metadata").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    dropout = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    theirs, ours = (json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in (source, out))
    ours |= {name: theirs[name] for name in dropout}
    (out / "config.json").write_text(json.dumps(ours, indent=2) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("source", "train", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    start, examples, dev = out / "start", out / "examples.jsonl", out / "dev.json"
    if not start.exists():
        script = Path(__file__).with_name("make_default_model.py")
        unfinished = out / "start-unfinished"  # of an earlier call that was interrupted, too
        shutil.rmtree(unfinished, ignore_errors=True)
        subprocess.run([sys.executable, script, options.source, options.train, unfinished], check=True)
        config = json.loads((unfinished / "config.json").read_text(encoding="utf-8"))
        config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # a student of scores needs no noise
        (unfinished / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        unfinished.rename(start)
    if not dev.exists():
        make_examples(start / "wide", options.train, examples, dev)
    held_back = json.loads(dev.read_text(encoding="utf-8"))
    train(read_examples(examples), start, out=out / "run", steps=options.steps, epochs=100, **SETTINGS)
    for share in (0.0, 0.5, 0.75, 1.0):
        between(start, out / "run" / "model", share, options.source, out / f"model-{share}")
        score = dev_score(held_back, Encoder.from_pretrained(out / f"model-{share}"))
        print(f"{share} of the way: MRR@10 {score:.4f} on pairs held back", flush=True)


if __name__ == "__main__":
    main()
