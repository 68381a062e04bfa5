"""How long a sharded index takes to build, by the number of workers.

    python benchmarks/cluster_build.py [--passages 4000] [--shards 1] [--workers 1 2] [--rounds 3] [--wait 1.0 | --model NAME]
        [--nbits 4] [--json OUT]

The passages are random words of a few lengths, in four files. Without ``--model`` vectors are random and waited for, so many
milliseconds for each passage, as for a GPU: so the time is that of the build's order of work, whatever else the machine does.
With it they are encoded. In turn, medians; Ray is started once, and every build starts its workers.
"""

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import ray

from colbert_core import TokenEmbeddings
from colbert_core.cluster import build


class Waiting:
    """Gives each text a random vector for every word, and takes ``wait`` milliseconds for each text."""

    name = "waiting"
    dim = 128

    def __init__(self, wait):
        self.wait = wait

    def encode_queries(self, texts):
        return [self.encode_passages([text]).vectors for text in texts]

    def encode_passages(self, texts, *, progress=None):  # noqa: ARG002
        time.sleep(self.wait / 1000 * len(texts))
        vectors = [self._vectors(text) for text in texts]
        doclens = np.array([len(each) for each in vectors], np.int32)
        windows = np.array([(0, len(text)) for text in texts], np.int32)
        tokens = np.repeat(windows, doclens, axis=0)
        return TokenEmbeddings(np.concatenate(vectors), tokens, doclens, windows, np.arange(len(texts), dtype=np.int32))

    def _vectors(self, text):
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        vectors = np.random.default_rng(seed).standard_normal((len(text.split()), self.dim), np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_passages(folder, n):
    """Write so many passages of 20 to 80 words to four files."""
    random = np.random.default_rng(0)
    words = np.array(
        ["".join(chr(97 + letter) for letter in random.integers(0, 26, size)) for size in range(3, 10) for _ in range(300)]
    )
    for file in range(4):
        with (folder / f"{file}.jsonl").open("w") as lines:
            for number in range(file, n, 4):
                text = " ".join(random.choice(words, random.integers(20, 80)))
                lines.write(f"{json.dumps({'id': str(number), 'text': text})}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=4000)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wait", type=float, default=1.0, help="milliseconds for each passage")
    parser.add_argument("--model", help="encode with this one, or with the model in the box (default) instead of waiting")
    parser.add_argument("--nbits", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    encoder = Waiting(options.wait) if options.model is None else None if options.model == "default" else options.model
    ray.init(num_cpus=max(4, *options.workers), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    seconds = {workers: [] for workers in options.workers}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source").mkdir()
        write_passages(folder / "source", options.passages)
        for turn in range(options.rounds):
            for workers in options.workers:
                start = time.perf_counter()
                build(
                    folder / "source",
                    folder / f"{turn}-{workers}",
                    shards=options.shards,
                    encoder=encoder,
                    nbits=options.nbits,
                    workers=workers,
                    progress=False,
                )
                seconds[workers].append(time.perf_counter() - start)
                print(f"{workers} workers: {seconds[workers][-1]:.2f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    medians = {workers: statistics.median(each) for workers, each in seconds.items()}
    for workers, median in medians.items():
        print(f"{options.passages} passages, {options.shards} shards, {workers} workers: {median:.2f} s")
    ray.shutdown()
    if options.json:
        options.json.write_text(
            json.dumps({"passages": options.passages, "shards": options.shards, "seconds": seconds}, indent=1)
        )


if __name__ == "__main__":
    main()
