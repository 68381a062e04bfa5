"""What a service answers a second, and what HTTP costs.

``python benchmarks/serve.py DATA/scifact [--clients 16] [--questions 2000] [--workers 1]`` indexes the collection (kept in
``--index``), starts ``colbert serve`` as a process of its own, and asks questions as text. DATA is a folder as ``colbert
evaluate`` reads it. Clients are threads of one process with a connection each, which share the cores with the service.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np

from colbert_core import Index, set_num_threads
from colbert_core.evaluation.datasets import open_dataset


@contextlib.contextmanager
def serving(folder: Path, workers: int):
    command = [sys.executable, "-m", "colbert_core.cli", "serve", str(folder), "--port", "0", "--workers", str(workers)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = process.stderr.readline().split()[3].rstrip(";")
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"{url}/ready", timeout=60).status_code == 200:
                        break
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.communicate()


def ask(client: httpx.Client, name: str, question: str, mode: str) -> float:
    started = time.perf_counter()
    answer = client.post(f"/v1/indexes/{name}/search", json={"query": question, "k": 10, "mode": mode})
    assert answer.status_code == 200, answer.text
    return time.perf_counter() - started


def throughput(url: str, name: str, questions: list[str], n_clients: int, mode: str) -> dict:
    waiting, seconds = iter(questions), []
    lock = threading.Lock()

    def run() -> None:
        with httpx.Client(base_url=url, timeout=120) as client:
            while True:
                with lock:
                    question = next(waiting, None)
                if question is None:
                    return
                seconds.append(ask(client, name, question, mode))

    threads = [threading.Thread(target=run) for _ in range(n_clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = time.perf_counter() - started
    p50, p95, p99 = (round(1000 * float(np.quantile(seconds, share)), 1) for share in (0.5, 0.95, 0.99))
    return {
        "mode": mode,
        "clients": n_clients,
        "questions": len(questions),
        "per_second": round(len(questions) / passed, 1),
    } | {
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
    }


def overhead(url: str, name: str, index: Index, questions: list[str], mode: str) -> dict:
    """One question at a time, in turn to the service and to the index in this process; by a client that costs little itself."""
    over_http, direct = [], []
    client = http.client.HTTPConnection(url.removeprefix("http://"))
    for question in questions:
        body = json.dumps({"query": question, "k": 10, "mode": mode})
        started = time.perf_counter()
        client.request("POST", f"/v1/indexes/{name}/search", body, {"Content-Type": "application/json"})
        assert client.getresponse().read()
        over_http.append(time.perf_counter() - started)
        started = time.perf_counter()
        index.search(question, 10, mode=mode)
        direct.append(time.perf_counter() - started)
    client.close()
    served, plain = (1000 * float(np.median(each[20:])) for each in (over_http, direct))
    return {
        "mode": mode,
        "http_p50_ms": round(served, 2),
        "index_p50_ms": round(plain, 2),
        "overhead_ms": round(served - plain, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--index", type=Path, help="where the index is kept (default: beside this run, made anew)")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    dataset = open_dataset(options.data)
    folder = options.index or Path("serve-benchmark.idx")
    if not folder.exists():
        with Index.create(folder) as index:
            index.add(dataset.passages())
    questions = list(itertools.islice(itertools.cycle(dataset.queries().values()), options.questions))
    with serving(folder, options.workers) as url:
        name = httpx.get(f"{url}/v1/indexes", timeout=60).json()["indexes"][0]["name"]
        throughput(url, name, questions[:100], options.clients, "maxsim")  # warm
        for mode in ("maxsim", "hybrid"):
            print(
                json.dumps({"workers": options.workers} | throughput(url, name, questions, options.clients, mode)), flush=True
            )
        if options.workers == 1:
            set_num_threads(2)
            with Index.open(folder) as index:
                index.search(questions[0])
                for mode in ("maxsim", "hybrid", "words"):
                    print(json.dumps(overhead(url, name, index, questions[:300], mode)), flush=True)


if __name__ == "__main__":
    main()
