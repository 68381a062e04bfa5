"""Reranking passages by their texts: through the service and Cohere's client, and by ``Reranker`` in the process itself.

    python benchmarks/serve_rerank.py [--passages 100] [--rounds 30] [--json OUT]

The passages are those of `colbert quickstart`, again and again until there are enough. The service is a process of its own
without an index. Both run on one core with one thread, in turns. Medians of CPU time, of client and service together, which
other processes change least; beside them the time on the clock. Linux only.
"""

import argparse
import json
import os
import socket
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
import numpy as np  # noqa: E402

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


def cpu(process):
    """Nanoseconds of CPU time of this process and the service."""
    tasks = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return time.process_time_ns() + sum(int(task.read_text().split()[0]) for task in tasks)


def measure(ways, queries, rounds, process):
    times = {name: [] for name in ways}
    for query in islice(cycle(queries), rounds + 2):
        results = []
        for name, rank in ways.items():
            spent, start = cpu(process), time.perf_counter_ns()
            results.append(rank(query))
            times[name].append(((cpu(process) - spent) / 1e6, (time.perf_counter_ns() - start) / 1e6))
        assert results[0] == results[1]
    return {name: np.array(some[2:]) for name, some in times.items()}  # the first two warm up


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    texts = list(islice(cycle(each["text"] for each in lines("passages.jsonl")), options.passages))
    queries = [each["question"] for each in lines("questions.jsonl")]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "colbert_core.cli", "serve", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait(url, process)
        with cohere.ClientV2("no-key", base_url=url) as client:
            reranker = Reranker()
            passages = [Passage(str(place), text) for place, text in enumerate(texts)]

            def in_process(query):
                return [(int(hit.passage.id), hit.relevance) for hit in reranker.rank(query, passages, progress=False)]

            def by_service(query):
                response = client.rerank(model="any", query=query, documents=texts)
                return [(each.index, each.relevance_score) for each in response.results]

            times = measure({"in process": in_process, "service": by_service}, queries, options.rounds, process)
    finally:
        process.terminate()
        process.wait()
    print(f"{len(texts)} passages of {np.mean([len(text) for text in texts]):.0f} characters, {options.rounds} rounds")
    medians = {name: dict(zip(("cpu_ms", "ms"), np.median(some, axis=0).tolist(), strict=True)) for name, some in times.items()}
    for name, row in medians.items():
        print(f"{name:10} {row['cpu_ms']:8.1f} ms of CPU time {row['ms']:8.1f} ms on the clock")
    more = float(np.median(times["service"][:, 0] - times["in process"][:, 0]))
    print(f"the service takes {more:.1f} ms of CPU time more, {100 * more / medians['in process']['cpu_ms']:.1f} %")
    if options.json:
        options.json.write_text(json.dumps(medians, indent=1))


if __name__ == "__main__":
    main()
