"""What evidence costs: searches by text with and without it in turns, over a collection in BEIR layout.

python benchmarks/evidence.py DATA/squad-answers [--queries 100] [-k 10]
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from colbert_core import Encoder, Index, Passage, set_num_threads


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("-k", type=int, default=10)
    options = parser.parse_args()
    set_num_threads(1)
    encoder = Encoder.from_pretrained()
    with (options.folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        passages = [Passage(line["_id"], f"{line.get('title', '')} {line['text']}".strip()) for line in map(json.loads, lines)]
    with (options.folder / "queries.jsonl").open(encoding="utf-8") as lines:
        queries = [line["text"] for line in map(json.loads, lines)][: options.queries]
    index = Index.create(None, encoder, nbits=4)
    index.add(passages)
    index.compact()
    for query in queries[:3]:
        index.search(query, options.k, evidence=True)
    times = {False: [], True: []}
    for query in queries:
        for evidence in (False, True):
            begun = time.perf_counter()
            index.search(query, options.k, evidence=evidence)
            times[evidence].append(time.perf_counter() - begun)
    plain, explained = (1000 * statistics.median(times[evidence]) for evidence in (False, True))
    ratio = statistics.median(b / a for a, b in zip(times[False], times[True], strict=True))
    print(
        f"{len(passages)} passages, {len(queries)} queries by text, k = {options.k}, one thread: {plain:.1f} ms without "
        f"evidence, {explained:.1f} with it; in pairs {ratio:.2f} times"
    )


if __name__ == "__main__":
    main()
