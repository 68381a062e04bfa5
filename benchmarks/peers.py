"""Measure one other retrieval engine on ready-made token vectors, in an environment of its own.

    INTERPRETER benchmarks/peers.py ENGINE VECTORS.npz [--threads 1] [--k 100] [--nbits N]

INTERPRETER is the Python of the environment in which the engine is installed; it needs nothing else. VECTORS.npz holds
``vectors`` (n_tokens, dim) as float16, ``doclens`` (n_windows,) and ``queries`` (n, n_q, dim). The engine builds its index in a
temporary folder and searches the queries one by one, by its default settings; one search before them is not timed. One line of
JSON comes out: engine, version, settings, build_cpu_s, build_wall_s, cpu_ms, wall_ms, ids (numbers of windows, best first) and
bytes (on disk), or engine and error. Other scripts call `run_peer`.

ENGINE is one of
    fast-plaid   from its package.
    pylate       the PLAID index of its package, which is fast-plaid's once more, of the version that it asks for.
    colbert-ai   its own indexer, given ready vectors in place of a checkpoint's, its IndexScorer and its Searcher's settings.
    faiss-ivfpq  as ColBERTv1 does it: the nearest tokens of each query vector name the candidates, which float vectors score.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "MAX_JOBS")


def run_peer(interpreter, engine, vectors, threads=1, timeout=None, k=100, nbits=None):
    """What the engine's line of JSON says, as a dict; also where the process crashes or takes more than ``timeout`` seconds."""
    interpreter = Path(interpreter).absolute()  # not resolved: an environment's is a link
    command = [str(interpreter), str(Path(__file__).resolve()), engine, str(Path(vectors).resolve())]
    command += ["--threads", str(threads), "--k", str(k)] + (["--nbits", str(nbits)] if nbits else [])
    environment = os.environ | dict.fromkeys(LIMITS, str(threads)) | {"CUDA_VISIBLE_DEVICES": ""}
    environment["PATH"] = os.pathsep.join([str(interpreter.parent), environment.get("PATH", "")])  # ninja
    with tempfile.TemporaryDirectory() as folder:  # its own: a name in the working folder must not hide a package
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment | {"TMPDIR": folder},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        except OSError as error:
            return {"engine": engine, "error": f"{type(error).__name__}: {error}"}
        try:
            printed, told = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            return {"engine": engine, "error": f"not finished after {timeout} s"}
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # its compilers too
                process.communicate()
    lines = printed.strip().splitlines()
    if lines:
        return json.loads(lines[-1])
    code = process.returncode
    ended = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    return {"engine": engine, "error": f"{ended}; {told.strip()[-500:]}"}


def size_on_disk(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def torch_documents(arrays, threads):
    """One tensor of float16 per window, each a view, and the queries."""
    import torch

    torch.set_num_threads(threads)
    documents = list(torch.from_numpy(arrays["vectors"]).split(arrays["doclens"].tolist()))
    return documents, torch.from_numpy(arrays["queries"]).float()


class FastPlaid:
    package, nbits = "fast-plaid", 4

    def __init__(self, arrays, folder, threads, nbits):
        import torch
        from fast_plaid import search

        self.documents, self.queries = torch_documents(arrays, threads)
        self.folder, self.bits, self.make = folder, nbits, search.FastPlaid
        self.settings = {"nbits": nbits, "n_ivf_probe": 8, "n_full_scores": 4096, "torch": torch.__version__}

    def build(self):
        self.index = self.make(index=str(self.folder), device="cpu")
        self.index.create(documents_embeddings=self.documents, nbits=self.bits)

    def search(self, number, k):
        found = self.index.search(self.queries[number : number + 1], top_k=k, show_progress=False)
        return [int(window) for window, _ in found[0]]


class PyLate:
    package, nbits = "pylate", 4

    def __init__(self, arrays, folder, threads, nbits):
        import torch
        from pylate import indexes

        self.documents, self.queries = torch_documents(arrays, threads)
        self.index = indexes.PLAID(str(folder), "index", override=True, nbits=nbits, device="cpu", show_progress=False)
        self.settings = {"nbits": nbits, "n_ivf_probe": 8, "n_full_scores": 8192}
        self.settings |= {"fast-plaid": version("fast-plaid"), "torch": torch.__version__}

    def build(self):
        names = [str(number) for number in range(len(self.documents))]
        self.index.add_documents(documents_ids=names, documents_embeddings=self.documents)

    def search(self, number, k):
        return [int(result["id"]) for result in self.index(self.queries[number : number + 1], k=k)[0]]


class ColBERTAI:
    package, nbits = "colbert-ai", 2  # its README's; the default of the setting alone would be 1

    def __init__(self, arrays, folder, threads, nbits):
        import torch
        from colbert.infra import ColBERTConfig
        from colbert.modeling.colbert import ColBERT
        from colbert.search.index_storage import IndexScorer
        from colbert.search.strided_tensor import StridedTensor

        self.documents, self.queries = torch_documents(arrays, threads)
        dim = self.queries.shape[-1]
        self.config = ColBERTConfig(index_path=str(folder), dim=dim, nbits=nbits, query_maxlen=self.queries.shape[1])
        self.settings = {"nbits": nbits, "torch": torch.__version__}
        # Compiled at first use, by other processes: not a part of the build.
        for kind in (StridedTensor, IndexScorer, ColBERT):
            kind.try_load_torch_extensions(use_gpu=False)

    def encode_passages(self, numbers):
        """In place of the checkpoint's encoder: passages are numbers."""
        import torch

        chosen = [self.documents[number] for number in numbers]
        return torch.cat(chosen).float(), [len(document) for document in chosen]

    def build(self):
        import torch
        from colbert.data import Collection
        from colbert.indexing.collection_indexer import CollectionIndexer
        from colbert.indexing.index_saver import IndexSaver
        from colbert.search.index_storage import IndexScorer
        from colbert.searcher import Searcher

        indexer = object.__new__(CollectionIndexer)  # what its __init__ does, short of the checkpoint
        indexer.verbose, indexer.config, indexer.rank, indexer.nranks, indexer.use_gpu = 0, self.config, 0, 1, False
        indexer.collection = Collection(data=list(range(len(self.documents))))
        indexer.encoder, indexer.saver = self, IndexSaver(self.config)
        with torch.inference_mode():
            indexer.setup()
            sample = torch.load(Path(self.config.index_path_) / "sample.0.pt")
            indexer.num_sample_embs = len(sample)  # which it sets on a GPU or under torch.distributed only
            indexer.train([])
            indexer.index()
            indexer.finalize()
        self.searcher = object.__new__(Searcher)
        self.searcher.config = self.config
        self.searcher.ranker = IndexScorer(self.config.index_path_, use_gpu=False)

    def search(self, number, k):
        pids, _, _ = self.searcher.dense_search(self.queries[number : number + 1], k)
        self.settings |= {name: getattr(self.config, name) for name in ("ncells", "centroid_score_threshold", "ndocs")}
        return pids


class FaissIVFPQ:
    package, nbits = "faiss-cpu", 8  # bits of one code
    codes, nprobe, nearest = 16, 16, 300

    def __init__(self, arrays, folder, threads, nbits):
        import faiss
        import numpy as np

        faiss.omp_set_num_threads(threads)
        self.folder, self.bits, self.doclens = folder, nbits, arrays["doclens"].astype(np.int64)
        self.half, self.queries = arrays["vectors"], arrays["queries"].astype(np.float32)
        self.vectors = self.half.astype(np.float32)
        self.window = np.repeat(np.arange(len(self.doclens)), self.doclens)  # of each token
        self.starts = np.cumsum(self.doclens) - self.doclens
        self.cells = 2 ** int(math.log2(8 * math.sqrt(len(self.vectors))))
        self.settings = {"partitions": self.cells, "codes": self.codes, "nbits": nbits, "nprobe": self.nprobe}
        self.settings |= {"nearest": self.nearest, "points_per_centroid": 40, "iterations": 4, "numpy": np.__version__}

    def build(self):
        import faiss
        import numpy as np

        dim = self.vectors.shape[1]
        self.index = faiss.IndexIVFPQ(faiss.IndexFlatL2(dim), dim, self.cells, self.codes, self.bits)
        self.index.cp.max_points_per_centroid = self.settings["points_per_centroid"]
        self.index.cp.niter = self.settings["iterations"]
        self.index.train(self.vectors)
        self.index.add(self.vectors)
        self.index.nprobe = self.nprobe
        faiss.write_index(self.index, str(self.folder / "tokens.faiss"))
        np.save(self.folder / "vectors.npy", self.half)  # for the exact scores

    def search(self, number, k):
        import numpy as np

        query = self.queries[number]
        _, tokens = self.index.search(query, self.nearest)
        windows = np.unique(self.window[tokens[tokens >= 0]])
        lens = self.doclens[windows]
        ends = np.cumsum(lens)
        rows = np.arange(ends[-1]) + np.repeat(self.starts[windows] - (ends - lens), lens)
        scores = np.maximum.reduceat(self.vectors[rows] @ query.T, ends - lens, axis=0).sum(1)
        return windows[np.argsort(-scores, kind="stable")[:k]].tolist()


ENGINES = {"fast-plaid": FastPlaid, "pylate": PyLate, "colbert-ai": ColBERTAI, "faiss-ivfpq": FaissIVFPQ}


def timed(function, *arguments):
    """CPU and wall seconds of a call, and what it gives."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = function(*arguments)
    return time.process_time() - cpu, time.perf_counter() - wall, result


def measure(name, path, threads, k, nbits):
    """Build and search in this process: what the line of JSON says."""
    import numpy as np

    engine = ENGINES[name]
    with tempfile.TemporaryDirectory() as temporary, np.load(path) as arrays:
        folder = Path(temporary) / "index"
        folder.mkdir()
        peer = engine({key: arrays[key] for key in ("vectors", "doclens", "queries")}, folder, threads, nbits or engine.nbits)
        build_cpu, build_wall, _ = timed(peer.build)
        on_disk = size_on_disk(folder)
        peer.search(0, k)
        cpu_ms, wall_ms, ids = [], [], []
        for number in range(len(peer.queries)):
            cpu, wall, found = timed(peer.search, number, k)
            cpu_ms.append(round(1000 * cpu, 3))
            wall_ms.append(round(1000 * wall, 3))
            ids.append([int(window) for window in found])
    result = {"engine": name, "version": version(peer.package), "settings": peer.settings | {"threads": threads, "k": k}}
    result |= {"build_cpu_s": round(build_cpu, 3), "build_wall_s": round(build_wall, 3)}
    return result | {"cpu_ms": cpu_ms, "wall_ms": wall_ms, "ids": ids, "bytes": on_disk}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--nbits", type=int, help="bits per dimension, for faiss-ivfpq per code; default: the engine's")
    options = parser.parse_args()
    os.environ.update(dict.fromkeys(LIMITS, str(options.threads)), CUDA_VISIBLE_DEVICES="")  # read when packages are imported
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != here]  # a script here must not hide a package
    out = os.dup(1)
    os.dup2(2, 1)  # what the engine prints goes to stderr
    try:
        result = measure(options.engine, options.vectors, options.threads, options.k, options.nbits)
    except Exception as error:
        result = {"engine": options.engine, "error": f"{type(error).__name__}: {error}"}
    with os.fdopen(out, "w") as line:
        line.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
