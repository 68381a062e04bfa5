"""Reranking passages by their texts: through the service and Cohere's client, and by ``Reranker`` in the process itself.

    python benchmarks/serve_rerank.py [--passages 100] [--rounds 30] [--json OUT]

The passages are those of `colbert quickstart`, again and again until there are enough. The service is a process of its own without
an index. Both run on one core with one thread, in turns; medians of the time on the clock.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from itertools import cycle, islice
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch is imported
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # of the service as well, which is started from here

import cohere  # noqa: E402

import colbert_core  # noqa: E402
from colbert_core import Passage, Reranker  # noqa: E402

FOLDER = Path(colbert_core.__file__).parent / "quickstart"


def lines(name):
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def wait(url, process):
    while True:
        try:
            urllib.request.urlopen(f"{url}/ready")
            return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "The service did not start."
            time.sleep(0.2)


def measure(client, reranker, queries, texts, rounds):
    passages = [Passage(str(place), text) for place, text in enumerate(texts)]
    times = {"in process": [], "service": []}
    for query in islice(cycle(queries), rounds + 2):
        start = time.perf_counter()
        hits = reranker.rank(query, passages, progress=False)
        middle = time.perf_counter()
        results = client.rerank(model="any", query=query, documents=texts).results
        times["in process"].append(1000 * (middle - start))
        times["service"].append(1000 * (time.perf_counter() - middle))
        assert [(each.index, each.relevance_score) for each in results] == [
            (int(hit.passage.id), hit.relevance) for hit in hits
        ]
    return {name: statistics.median(some[2:]) for name, some in times.items()}  # the first two warm up


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    texts = list(islice(cycle(each["text"] for each in lines("passages.jsonl")), options.passages))
    queries = [
        next(value for key, value in each.items() if key in ("text", "query", "question")) for each in lines("questions.jsonl")
    ]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "colbert_core.cli", "serve", "--port", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait(url, process)
        with cohere.ClientV2("no-key", base_url=url) as client:
            medians = measure(client, Reranker(), queries, texts, options.rounds)
    finally:
        process.terminate()
        process.wait()
    more = medians["service"] - medians["in process"]
    print(f"{len(texts)} passages of {statistics.mean(map(len, texts)):.0f} characters, {options.rounds} rounds")
    for name, ms in medians.items():
        print(f"{name:12} {ms:8.1f} ms")
    print(f"the service takes {more:.1f} ms more, {100 * more / medians['in process']:.1f} %")
    if options.json:
        options.json.write_text(json.dumps(medians, indent=1))


if __name__ == "__main__":
    main()
