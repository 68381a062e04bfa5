"""What evidence is worth and what it costs, over a collection in BEIR layout with answers.jsonl.

python benchmarks/evidence.py DATA/squad-answers [--pairs 300] [--queries 100] [-k 10]

1. Stop words: their share of the weight of all marks, on questions with their passages. No mark should be on them.
2. Deletion: how much the score falls when the five most marked words are taken out of a passage, by how much it falls without
   five random words that are no stop words. The marks should be on what the score is made of.
3. Pairs: how many of 60 pairs of words, written by hand (evidence_pairs.jsonl), are found in the passages of the quickstart.
4. Crossed out: the share of the questions' words, other than stop words, that are crossed out beside their passage and beside
   another one.
5. Time: searches by text with and without evidence, in turns, with one thread.
"""

import argparse
import json
import random
import re
import statistics
import time
from importlib.resources import files
from pathlib import Path

from colbert_core import Encoder, Index, Passage, set_num_threads
from colbert_core.vectors.maxsim import maxsim

PAIRS = Path(__file__).with_name("evidence_pairs.jsonl")
REMOVED, DRAWS = 5, 5

# NLTK's English stop words, in pieces where they have an apostrophe.
_LISTED = """
a about above after again against ain all am an and any are aren as at be because been before being below
between both but by can couldn d did didn do does doesn doing don down during each few for from further had
hadn has hasn have haven having he her here hers herself him himself his how i if in into is isn it its itself
just ll m ma me mightn more most mustn my myself needn no nor not now o of off on once only or other our ours
ourselves out over own re s same shan she should shouldn so some such t than that the their theirs them
themselves then there these they this those through to too under until up ve very was wasn we were weren what
when where which while who whom why will with won wouldn y you your yours yourself yourselves
"""
STOP_WORDS = frozenset(_LISTED.split())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=300, help="questions with their passages (default: 300)")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("-k", type=int, default=10)
    options = parser.parse_args()
    set_num_threads(1)
    encoder = Encoder.from_pretrained()

    quickstart = Index.create(None, encoder)
    quickstart.add(
        [Passage(line["id"], line["text"]) for line in lines_of(files("colbert_core") / "quickstart/passages.jsonl")]
    )
    by_hand = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    report("quickstart", quickstart, sorted({(pair["question"], pair["id"]) for pair in by_hand}))
    missed = [f"{pair['word']} → {pair['answer']}" for pair in by_hand if not is_found(quickstart, pair)]
    print(f"pairs found: {len(by_hand) - len(missed)} of {len(by_hand)}; not found: {', '.join(missed) or 'none'}", flush=True)

    passages = [
        Passage(line["_id"], f"{line.get('title', '')} {line['text']}".strip())
        for line in lines_of(options.folder / "corpus.jsonl")
    ]
    queries = {line["_id"]: line["text"] for line in lines_of(options.folder / "queries.jsonl")}
    index = Index.create(None, encoder, nbits=4)
    index.add(passages)
    index.compact()
    answers = lines_of(options.folder / "answers.jsonl")
    random.Random(0).shuffle(answers)
    asked = [(queries[line["_id"]], line["passage_id"]) for line in answers[: options.pairs]]
    report(str(options.folder.name), index, asked)
    marked, drawn = deletion(index, encoder, asked)
    print(
        f"deletion: the score falls by {marked:.3f} without the {REMOVED} most marked words, by {drawn:.3f} without "
        f"{REMOVED} random ones: {marked / drawn:.2f} times",
        flush=True,
    )
    measure_time(index, list(queries.values())[: options.queries], len(passages), options.k)


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def words_of(text):
    """Each word of a text with its characters."""
    return [(match[0].lower(), match.start(), match.end()) for match in re.finditer(r"\w+", text)]


def weights_of(evidence):
    """Words of the passage with the weight of their mark, 0 where there is none."""
    marks = evidence.highlights
    return [
        (word, max((mark.weight for mark in marks if mark.start < end and start < mark.end), default=0.0))
        for word, start, end in words_of(evidence.text)
    ]


def report(name, index, asked):
    """Print the share of stop words, how many words are marked, and how many of a question are crossed out."""
    shares, marked, crossed_out = [], [], {"their": [], "another": []}
    for place, (question, passage_id) in enumerate(asked):
        weights = weights_of(index.explain(question, passage_id))
        whole = sum(weight for _, weight in weights)
        shares.append(sum(weight for word, weight in weights if word in STOP_WORDS) / whole if whole else 0.0)
        marked.append(sum(weight > 0 for _, weight in weights) / len(weights))
        for which, other in (("their", passage_id), ("another", asked[(place + len(asked) // 2) % len(asked)][1])):
            missing = index.explain(question, other).unmatched
            crossed_out[which] += [word in missing for word in re.findall(r"\w+", question) if word.lower() not in STOP_WORDS]
    beside = {which: statistics.mean(flags) for which, flags in crossed_out.items()}
    print(
        f"{name}: {len(asked)} questions with a passage; stop words have {statistics.mean(shares):.3f} of the weight, "
        f"{statistics.mean(marked):.2f} of all words are marked; of the questions' words {beside['their']:.2f} are crossed out "
        f"beside their passage, {beside['another']:.2f} beside another",
        flush=True,
    )


def is_found(index, pair):
    """Whether a mark on the word of the passage says that it answers the word of the question."""
    evidence = index.explain(pair["question"], pair["id"])
    return any(
        pair["answer"] in evidence.text[mark.start : mark.end] and any(term.startswith(pair["word"]) for term in mark.terms)
        for mark in evidence.highlights
    )


def deletion(index, encoder, asked):
    """By how much scores fall on average without the most marked words, and without random ones that are no stop words."""
    rng = random.Random(1)
    falls = {"marked": [], "random": []}
    for question, passage_id in asked:
        evidence = index.explain(question, passage_id)
        weights = dict(sorted(weights_of(evidence), key=lambda pair: pair[1]))  # of a word that is there twice the greatest
        most = sorted(weights, key=weights.__getitem__, reverse=True)[:REMOVED]
        content = sorted(set(weights) - STOP_WORDS)
        draws = [rng.sample(content, min(REMOVED, len(content))) for _ in range(DRAWS)]
        texts = [evidence.text, *(without(evidence.text, set(removed)) for removed in (most, *draws))]
        (query,) = encoder.encode_queries([question])
        whole, fewer, *random_ones = (
            float(maxsim(query, embeddings.vectors, embeddings.doclens).max())
            for embeddings in (encoder.encode_passages([text], progress=False) for text in texts)
        )
        falls["marked"].append(whole - fewer)
        falls["random"].append(whole - statistics.mean(random_ones))
    return statistics.mean(falls["marked"]), statistics.mean(falls["random"])


def without(text, removed):
    """A text without some words, wherever they stand."""
    return re.sub(r"\w+", lambda match: "" if match[0].lower() in removed else match[0], text)


def measure_time(index, queries, n_passages, k):
    """Print how long searches take with and without evidence, and with its words worked out."""
    for query in queries[:3]:
        index.search(query, k, evidence=True)
    times = {"without": [], "with": [], "told": []}
    for query in queries:
        for way, evidence in (("without", False), ("with", True), ("told", True)):
            begun = time.perf_counter()
            hits = index.search(query, k, evidence=evidence)
            if way == "told":
                _ = [hit.evidence.to_dict() for hit in hits]
            times[way].append(time.perf_counter() - begun)
    plain, explained, told = (1000 * statistics.median(times[way]) for way in times)
    ratio = statistics.median(b / a for a, b in zip(times["without"], times["with"], strict=True))
    print(
        f"{n_passages} passages, {len(queries)} queries by text, k = {k}, one thread: {plain:.1f} ms without evidence, "
        f"{explained:.1f} with it, {told:.1f} as JSON; in pairs {ratio:.2f} times"
    )


if __name__ == "__main__":
    main()
