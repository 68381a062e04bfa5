"""Scoring 100 encoded passages against one query: PyTorch with padding, and the kernels in float32 and in bytes.

    python benchmarks/rerank.py FOLDER [--first 4000] [--queries 50] [--passages 100] [--json OUT]

FOLDER is what benchmarks/embed.py wrote. All in turn in one process, CPU time of one thread, medians. "padded" stacks a list of
tensors and scores with one einsum, as rerankers do; "kernel bytes" is over vectors that are kept as bytes.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from embed import load

from colbert_core import maxsim
from colbert_core.kernels import BLOCK, ByteRows, QueryBlocks, float_blocks, instruction_set, scoring


def padded(query, passages):
    stacked = torch.nn.utils.rnn.pad_sequence(passages, batch_first=True)
    lengths = torch.tensor([len(passage) for passage in passages])
    mask = torch.arange(stacked.shape[1])[None] < lengths[:, None]
    products = torch.einsum("qd,bld->bql", query, stacked)
    return products.masked_fill(~mask[:, None], -1e9).amax(-1).sum(-1).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=4000)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--passages", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    embeddings, queries = load(options.folder, options.first)
    vectors = np.ascontiguousarray(embeddings.vectors.astype(np.float32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    offsets = np.concatenate([[0], np.cumsum(embeddings.doclens, dtype=np.int64)])
    rows, isa, random = ByteRows.of(vectors), instruction_set(), np.random.default_rng(0)
    times, errors, n_tokens = {}, {}, []
    for query in queries[: options.queries]:
        windows = np.sort(random.choice(len(embeddings.doclens), options.passages, replace=False)).astype(np.int32)
        tensors = [torch.from_numpy(vectors[offsets[window] : offsets[window + 1]]) for window in windows]
        n_tokens.append(sum(map(len, tensors)))
        exact = maxsim(query, np.concatenate([tensor.numpy() for tensor in tensors]), np.array([len(one) for one in tensors]))

        def floats(query=query, windows=windows):
            scores = np.empty(len(windows), np.float32)
            scoring.score_floats(isa, vectors, offsets, windows, float_blocks(query), scores)
            return scores

        def bytes_(query=query, windows=windows):
            scores, blocks = np.empty(len(windows), np.float32), QueryBlocks.of(query, rows.rows.shape[1])
            of_query, sums = (blocks.bytes, blocks.scales, blocks.starts), np.empty((16, BLOCK), np.int32)
            scoring.score_bytes(isa, rows.rows, rows.scale, offsets, windows, *of_query, sums, scores)
            return scores

        engines = {
            "padded torch einsum": lambda query=query, tensors=tensors: padded(torch.from_numpy(query), tensors),
            "kernel float32": floats,
            "kernel bytes": bytes_,
        }
        for name, work in engines.items():
            work()
            for _ in range(3):
                start = time.thread_time()
                scores = work()
                times.setdefault(name, []).append(1000 * (time.thread_time() - start))
            errors[name] = max(errors.get(name, 0.0), float(np.abs(scores - exact).max()))
    base = float(np.median(times["padded torch einsum"]))
    print(f"{options.passages} passages, {np.mean(n_tokens):.0f} tokens, {queries.shape[1]} query vectors")
    results = []
    for name, some in times.items():
        row = {"engine": name, "ms": float(np.median(some)), "ratio": base / float(np.median(some)), "error": errors[name]}
        results.append(row)
        print(f"{name:20} {row['ms']:7.3f} ms  {row['ratio']:5.1f}x  largest error of a score {row['error']:.4f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
