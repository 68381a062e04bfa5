"""This package beside other retrieval engines, on the same vectors: the tables of docs/peers.md, as Markdown.

    python benchmarks/beside_peers.py VECTORS.npz [more.npz ...] --results FOLDER [--peer ENGINE PYTHON ...]

VECTORS.npz is what benchmarks/peer_vectors.py wrote. Each window is a document, for every engine; where there are judgements,
those windows become passages again, each at its best window. ENGINE is one of benchmarks/peers.py, and PYTHON the interpreter
of an environment that has it. It is measured as PEERS says, and what it gave stays in FOLDER as JSON, its indexes beside that:
a later call searches them again if it names the engine, and takes what is there if it does not. This package is measured in
turn with each of them, or --rounds times. Times are CPU times of one thread, of all queries.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import ir_measures
import numpy as np
import torch
from peers import run_peer
from search import rows, share, snapshot_of

from colbert_core import Index, Passage, TokenEmbeddings, set_num_threads

KS = (10, 100)

# Names of rows; the engine, and the settings of its searches, which are its own where nothing is said.
PEERS = {
    "xtr-warp-rs": ("xtr-warp", {}),
    "xtr-warp-rs, tuned": (
        "xtr-warp",
        {"nprobe": 64, "bound": 1024, "centroid_score_threshold": 0.0, "max_candidates": 100000},
    ),
    "TACHIOM": ("tachiom", {}),
    "TACHIOM, tuned": ("tachiom", {"ef_search": 60, "k_centroids": 40, "k_docs_to_score": 500, "alpha": 0.35}),
    "fast-plaid": ("fast-plaid", {}),
}
OWN = {"this package, 4 bits": 4, "this package, 2 bits": 2}


def cpu_seconds(work, *arguments):
    start = time.process_time()
    result = work(*arguments)
    return time.process_time() - start, result


def build(folder, embeddings, nbits):
    index = Index.create(folder, dim=embeddings.vectors.shape[1], nbits=nbits)
    index.add([Passage(str(number), "text") for number in range(len(embeddings.doclens))], embeddings=embeddings)
    index.compact()
    return index


def windows_as_passages(arrays, first=None):
    """The first windows, or all, each as a passage of its own."""
    doclens = arrays["doclens"][:first]
    vectors = arrays["vectors"][: int(doclens.sum())].astype(np.float32)
    spans = np.zeros((len(vectors), 2), np.int32)
    owners = np.arange(len(doclens), dtype=np.int32)
    return TokenEmbeddings(vectors, spans, doclens.astype(np.int32), np.tile(np.int32([0, 4]), (len(doclens), 1)), owners)


class Own:
    """This package's index of one collection, and what its searches have given so far."""

    def __init__(self, folder, embeddings, nbits):
        seconds, self.index = cpu_seconds(build, folder, embeddings, nbits)
        self.snapshot = snapshot_of(self.index)
        self.first = int(self.snapshot.parts[0].segment.pids[0])
        size = self.index.stats().bytes_per_token * len(embeddings.vectors)
        self.results = {k: {"build_cpu_s": seconds, "bytes": size, "cpu_ms": []} for k in KS}

    def search(self, queries, k):
        rows(self.snapshot, queries[0], k)
        found = [cpu_seconds(rows, self.snapshot, query, k) for query in queries]
        result = self.results[k]
        result["cpu_ms"] += [1000 * seconds for seconds, _ in found]
        result["ids"] = [[int(pid) - self.first for pid in pids] for _, pids in found]


def ndcg(ids, arrays):
    """nDCG@10 of windows, best first, as passages at their best windows."""
    names, owners = arrays["passages"], arrays["owners"]
    run = {}
    for query, windows in zip(arrays["query_names"], ids, strict=True):
        passages = dict.fromkeys(str(names[owners[window]]) for window in windows)  # each once, in order
        run[str(query)] = {passage: -float(place) for place, passage in enumerate(passages)}
    qrels = json.loads(str(arrays["qrels"]))
    return ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10]


def measured_row(name, results, arrays):
    """One line of the table."""
    ten, hundred = (results[k] for k in KS)
    cells = [f"{ten['build_cpu_s']:.0f}", f"{ten['bytes'] / len(arrays['token_ids']):.1f}"]
    for k, result in zip(KS, (ten, hundred), strict=True):
        p50, p95 = np.percentile(result["cpu_ms"], (50, 95))
        recall = np.mean([share(found, best, k) for found, best in zip(result["ids"], arrays["exact"].tolist(), strict=True)])
        cells += [f"{p50:.1f}", f"{p95:.1f}", f"{recall:.3f}".lstrip("0")]
    if "qrels" in arrays:
        cells.append(f"{ndcg(hundred['ids'], arrays):.3f}".lstrip("0"))
    return f"| {name} | {' | '.join(cells)} |"


def table(title, arrays, all_results):
    judged = "qrels" in arrays
    count = f"{arrays['owners'][-1] + 1:,} passages in {len(arrays['doclens']):,} windows, {len(arrays['token_ids']):,} tokens"
    print(f"\n{title}: {count}, {len(arrays['queries'])} queries\n")
    print("| engine | build, CPU s | bytes a token |", end="")
    print("".join(f" k = {k}: p50 ms | p95 ms | recall@{k} |" for k in KS), end=" nDCG@10 |\n" if judged else "\n")
    print("|---" * (3 + 3 * len(KS) + judged) + "|")
    for name, results in all_results.items():
        print(measured_row(name, results, arrays))
    if judged:
        print(f"| exact MaxSim |{' |' * (2 + 3 * len(KS))} {ndcg(arrays['exact'].tolist(), arrays):.3f} |".replace(" 0.", " ."))


def told_settings(all_results):
    for name, results in all_results.items():
        for k, result in results.items():
            if "settings" in result:
                print(f"{name}, k = {k}: {result['engine']} {result['version']}, {json.dumps(result['settings'])}")


def stored(folder, path, name, k):
    """Where the result of one row lies."""
    return folder / f"{path.stem}.{name.replace(', ', '-')}.{k}.json"


def beside(path, options, interpreters):
    """Measure one collection; print its table."""
    with np.load(path) as opened:
        arrays = dict(opened)
    queries = [query[:length] for query, length in zip(arrays["queries"], arrays["query_lens"], strict=True)]
    peers = {}
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder) / "first", windows_as_passages(arrays, 400), 4).close()  # loads what is compiled
        embeddings = windows_as_passages(arrays)
        own = {name: Own(Path(folder) / str(nbits), embeddings, nbits) for name, nbits in OWN.items()}
        for name, (engine, search) in PEERS.items():
            for k in KS:
                kept = stored(options.results, path, name, k)
                if engine in interpreters:
                    index = options.results / f"{path.stem}.{engine}.index"
                    result = run_peer(interpreters[engine], engine, path, k=k, search=search, index=index)
                    if "error" in result:
                        print(f"{path.stem}, {name}: {result['error']}", file=sys.stderr)
                        continue
                    kept.write_text(json.dumps(result), encoding="utf-8")
                    for one in own.values():
                        one.search(queries, k)
                if kept.exists():
                    peers.setdefault(name, {})[k] = json.loads(kept.read_text(encoding="utf-8"))
        for one in own.values():
            for k in KS * (0 if interpreters else options.rounds):
                one.search(queries, k)
            one.index.close()
    whole = {name: results for name, results in peers.items() if len(results) == len(KS)}
    table(path.stem, arrays, {name: one.results for name, one in own.items()} | whole)
    return whole


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path, nargs="+")
    parser.add_argument("--results", type=Path, required=True, help="of the other engines; their indexes lie there as well")
    parser.add_argument("--peer", nargs=2, action="append", default=[], metavar=("ENGINE", "PYTHON"))
    parser.add_argument("--rounds", type=int, default=3, help="of this package where no peer is measured")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    set_num_threads(1)
    settings = {path: beside(path, options, dict(options.peer)) for path in options.vectors}
    for path, results in settings.items():
        print(f"\n{path.stem}")
        told_settings(results)


if __name__ == "__main__":
    main()
