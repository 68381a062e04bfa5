"""What words cost and find: planted identifiers, and the time of searches by vectors, by both and by words alone, in turn.

    python benchmarks/words.py passages.jsonl[.xz] [--first 26000] [--identifiers 200] [--queries 200] [--work DIR] [--json OUT]

Passages are JSON lines with title and text. Identifiers of ten kinds are put into sentences that are added to some of them;
each is then asked for by itself, and MRR@10 is of the one passage that has it. Times are CPU times of one thread, in
milliseconds, of a search alone: queries of eight words that stand in a passage are encoded before. ``add`` is timed in turn
with and without words, of the same passages, encoding included. The index is kept in DIR and used again.
"""

import argparse
import json
import random
import string
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
from embed import read_jsonl

from colbert_core import Encoder, Index, Passage, set_num_threads
from colbert_core.search.lexical import ByWords
from colbert_core.search.modes import MODES

SENTENCES = ("See also {}.", "This was reported as {} at the time.", "The reference is {}, as noted in the archive.")


def kinds(draw):
    """One identifier of each kind."""
    letters, digits = string.ascii_lowercase, string.digits
    word = lambda n: "".join(draw.choices(letters, k=n))  # noqa: E731
    number = lambda n: "".join(draw.choices(digits, k=n))  # noqa: E731
    return {
        "error code": "E" + word(8).upper(),
        "vulnerability": f"CVE-20{number(2)}-{number(5)}",
        "function": f"{word(5)}.{word(6)}_{word(4)}",
        "part number": f"{word(1).upper()}-{number(3)}/{word(2)}",
        "UUID": str(uuid.UUID(int=draw.getrandbits(128))),
        "version": f"v{number(1)}.{number(2)}.{number(3)}",
        "address": f"{word(6)}@{word(7)}.org",
        "hash": f"{draw.getrandbits(40):010x}",
        "camel case": f"{word(5)}{word(6).title()}{word(4).title()}",
        "rare name": word(9).title(),
    }


def plant(passages, n):
    """Add identifiers to passages; returns for each its kind, itself and the passage."""
    draw, planted = random.Random(0), []
    for number in draw.sample(range(len(passages)), n):
        kind, identifier = list(kinds(draw).items())[len(planted) % 10]
        passage = passages[number]
        passages[number] = Passage(passage.id, f"{passage.text} {draw.choice(SENTENCES).format(identifier)}")
        planted.append((kind, identifier, passage.id))
    return planted


def measure_found(index, planted):
    """MRR@10 of each kind and of all, by mode."""
    found = {}
    for mode in MODES:
        ranks = {}
        for (kind, _, wanted), hits in zip(
            planted, index.search_many([name for _, name, _ in planted], mode=mode), strict=True
        ):
            ranks.setdefault(kind, []).append(next((1 / hit.rank for hit in hits if hit.passage.id == wanted), 0.0))
        found[mode] = {kind: float(np.mean(values)) for kind, values in ranks.items()}
        found[mode]["all"] = float(np.mean([value for values in ranks.values() for value in values]))
        print(f"MRR@10 {mode:8}" + "".join(f"  {kind} {value:.3f}" for kind, value in found[mode].items()), flush=True)
    return found


def measure_times(index, encoder, passages, n):
    """Milliseconds of searches by each mode, in turn for each query; a second round finds its terms read already."""
    draw, texts = random.Random(1), []
    while len(texts) < n:
        words = draw.choice(passages).text.split()
        if len(words) > 20:
            at = draw.randrange(len(words) - 8)
            texts.append(" ".join(words[at : at + 8]))
    matrices = encoder.encode_queries(texts)
    index.search_vectors(matrices[:3], words=ByWords(tuple(texts[:3])))
    times = {}
    for turn in ("first", "again"):
        for text, matrix in zip(texts, matrices, strict=True):
            ways = {
                "maxsim": ([matrix], None),
                "hybrid": ([matrix], ByWords((text,))),
                "words": ([], ByWords((text,), alone=True)),
            }
            order = list(ways.items())
            draw.shuffle(order)
            for way, (vectors, words) in order:
                start = time.thread_time()
                index.search_vectors(vectors, words=words)
                times.setdefault(f"{way}, {turn}", []).append(1000 * (time.thread_time() - start))
    for way, values in sorted(times.items()):
        print(f"{way:16} p50 {np.median(values):6.2f} ms  p95 {np.percentile(values, 95):6.2f} ms", flush=True)
    return {way: [float(np.median(values)), float(np.percentile(values, 95))] for way, values in times.items()}


def measure_adds(encoder, passages, rounds=5):
    """CPU time of adding the same passages with words, as a ratio to that without; the median of some rounds."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            seconds = {}
            for words in ("english", False) if number % 2 else (False, "english"):
                with Index.create(Path(folder) / f"{number}{words}", encoder, words=words) as index:
                    start = time.process_time()
                    index.add(passages, refit=False, progress=False)
                    seconds[words] = time.process_time() - start
            ratios.append(seconds["english"] / seconds[False])
    print(f"add with words: {np.median(ratios):.3f} x ({', '.join(f'{ratio:.3f}' for ratio in ratios)})", flush=True)
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("passages", type=Path)
    parser.add_argument("--first", type=int, default=26_000)
    parser.add_argument("--identifiers", type=int, default=200)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--added", type=int, default=300, help="passages that are added with and without words")
    parser.add_argument("--work", type=Path, help="keep the index there")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    encoder = Encoder.from_pretrained()
    lines = read_jsonl(options.passages, options.first)
    passages = [Passage(str(number), f"{line['title']} {line['text']}") for number, line in enumerate(lines)]
    added = passages[: options.added]
    planted = plant(passages, options.identifiers)
    with tempfile.TemporaryDirectory() as temporary:
        path = (options.work or Path(temporary)) / f"words-{len(passages)}.idx"
        if not path.exists():
            Index.create(path, encoder, nbits=4).close()
        with Index.open(path, encoder) as index:
            known = {*index.ids()}
            if missing := [passage for passage in passages if passage.id not in known]:
                index.add(missing)
                index.compact()
            set_num_threads(1)
            stats = index.stats()
            share = stats.word_bytes / (stats.vector_bytes + sum(len(passage.text.encode()) for passage in passages))
            print(f"{stats.passages} passages, words take {share:.4f} of vectors and texts")
            figures = {
                "bytes": share,
                "found": measure_found(index, planted),
                "times": measure_times(index, encoder, passages, options.queries),
                "add": measure_adds(encoder, added),
            }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
