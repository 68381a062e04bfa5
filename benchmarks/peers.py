"""Measure one other retrieval engine on ready-made token vectors, in an environment of its own.

    INTERPRETER benchmarks/peers.py ENGINE VECTORS.npz [--threads 1] [--k 100] [--nbits N] [--search '{"nprobe": 16}']
        [--index FOLDER]

INTERPRETER is the Python of the environment in which the engine is installed; it needs nothing else. VECTORS.npz holds
``vectors`` (n_tokens, dim) as float16, ``doclens`` (n_windows,) and ``queries`` (n, n_q, dim); where queries differ in length,
``query_lens`` (n,) as well; for tachiom ``token_ids`` (n_tokens,), too. The engine builds its index in a temporary folder and
searches the queries one by one, by its default settings or those of --search; one search before them is not timed. With --index
it keeps the index there, and searches it the next time in place of building: xtr-warp, tachiom and fast-plaid can. One line of
JSON comes out: engine, version, settings, build_cpu_s, build_wall_s, cpu_ms, wall_ms, ids (numbers of windows, best first) and
bytes (on disk), or engine and error. Other scripts call `run_peer`.

ENGINE is one of
    xtr-warp     the WARP engine of xtr-warp-rs, in float32; its settings depend on k and on the index unless --search has them.
    tachiom      from its package. Its clusters are those of equal tokens.
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


def run_peer(interpreter, engine, vectors, threads=1, timeout=None, k=100, nbits=None, search=None, index=None):
    """What the engine's line of JSON says, as a dict; also where the process crashes or takes more than ``timeout`` seconds."""
    interpreter = Path(interpreter).absolute()  # not resolved: an environment's is a link
    command = [str(interpreter), str(Path(__file__).resolve()), engine, str(Path(vectors).resolve())]
    command += ["--threads", str(threads), "--k", str(k)] + (["--nbits", str(nbits)] if nbits else [])
    command += ["--search", json.dumps(search or {})] + (["--index", str(Path(index).resolve())] if index else [])
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


def separate_queries(arrays):
    """One matrix of float32 per query, each of its own length."""
    queries = arrays["queries"].astype("float32")
    lens = arrays["query_lens"] if "query_lens" in arrays else [queries.shape[1]] * len(queries)
    return [query[:length] for query, length in zip(queries, lens, strict=True)]


def torch_documents(arrays, threads):
    """One tensor of float16 per window, each a view, and one of float32 per query, with a first axis of 1."""
    import torch

    torch.set_num_threads(threads)
    documents = list(torch.from_numpy(arrays["vectors"]).split(arrays["doclens"].tolist()))
    return documents, [torch.from_numpy(query)[None] for query in separate_queries(arrays)]


class XTRWarp:
    package, nbits = "xtr-warp-rs", 4

    def __init__(self, arrays, folder, threads, nbits, search):
        import torch
        from xtr_warp import XTRWarp as Index

        self.documents, self.queries = torch_documents(arrays, threads)
        self.index, self.bits, self.threads, self.how = Index(str(folder)), nbits, threads, search
        self.settings = {"nbits": nbits, "torch": torch.__version__}

    def build(self):
        self.index.create(self.documents, device="cpu", nbits=self.bits, show_progress=False)

    def open(self):
        import torch

        self.index.load(device="cpu", dtype=torch.float32)

    def search(self, number, k):
        query = self.queries[number]
        if "nprobe" not in self.settings:
            names = ("bound", "nprobe", "centroid_score_threshold", "max_candidates", "t_prime")
            self.settings |= dict(zip(names, self.index.optimize_hyperparams(k, query), strict=True)) | self.how
        found = self.index.search(query, top_k=k, num_threads=self.threads, show_progress=False, **self.how)
        return [window for window, _ in found[0]]


class TACHIOM:
    package, nbits = "tachiom", None

    def __init__(self, arrays, folder, threads, nbits, search):
        self.arrays, self.path, self.how = arrays, str(folder / "index.bin"), search
        self.queries = separate_queries(arrays)
        self.settings = {"k_centroids": 20, "k_docs_to_score": 500, "ef_search": 30, "alpha": 0.45} | search

    def build(self):
        import numpy as np
        from tachiom import Tachiom

        vectors, doclens = self.arrays["vectors"].view(np.uint16), self.arrays["doclens"].astype(np.int32)
        Tachiom.build_from_arrays(vectors, self.arrays["token_ids"].astype(np.uint32), doclens).save(self.path)

    def open(self):
        from tachiom import Tachiom

        self.index = Tachiom.load(self.path)
        self.settings |= {"centroids": self.index.n_centroids}

    def search(self, number, k):
        _, windows = self.index.search(self.queries[number], k, **self.how)
        return [window for window in windows.tolist() if window < 2**32 - 1]  # which stands for none


class FastPlaid:
    package, nbits = "fast-plaid", 4

    def __init__(self, arrays, folder, threads, nbits, search):
        import torch
        from fast_plaid.search import FastPlaid as Index

        self.documents, self.queries = torch_documents(arrays, threads)
        self.folder, self.bits, self.how, self.make = folder, nbits, search, Index
        self.settings = {"nbits": nbits, "n_ivf_probe": 8, "n_full_scores": 4096} | search | {"torch": torch.__version__}

    def build(self):
        self.make(index=str(self.folder), device="cpu").create(documents_embeddings=self.documents, nbits=self.bits)

    def open(self):
        self.index = self.make(index=str(self.folder), device="cpu")

    def search(self, number, k):
        found = self.index.search(self.queries[number], top_k=k, show_progress=False, **self.how)
        return [int(window) for window, _ in found[0]]


class PyLate:
    package, nbits = "pylate", 4

    def __init__(self, arrays, folder, threads, nbits, search):
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
        return [int(result["id"]) for result in self.index(self.queries[number], k=k)[0]]


class ColBERTAI:
    package, nbits = "colbert-ai", 2  # its README's; the default of the setting alone would be 1

    def __init__(self, arrays, folder, threads, nbits, search):
        import torch
        from colbert.infra import ColBERTConfig
        from colbert.modeling.colbert import ColBERT
        from colbert.search.index_storage import IndexScorer
        from colbert.search.strided_tensor import StridedTensor

        self.documents, self.queries = torch_documents(arrays, threads)
        n_q, dim = arrays["queries"].shape[1:]
        self.config = ColBERTConfig(index_path=str(folder), dim=dim, nbits=nbits, query_maxlen=n_q)
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
        pids, _, _ = self.searcher.dense_search(self.queries[number], k)
        self.settings |= {name: getattr(self.config, name) for name in ("ncells", "centroid_score_threshold", "ndocs")}
        return pids


class FaissIVFPQ:
    package, nbits = "faiss-cpu", 8  # bits of one code
    codes, nprobe, nearest = 16, 16, 300

    def __init__(self, arrays, folder, threads, nbits, search):
        import faiss
        import numpy as np

        faiss.omp_set_num_threads(threads)
        self.folder, self.bits, self.doclens = folder, nbits, arrays["doclens"].astype(np.int64)
        self.half, self.queries = arrays["vectors"], separate_queries(arrays)
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


ENGINES = {"xtr-warp": XTRWarp, "tachiom": TACHIOM, "fast-plaid": FastPlaid}
ENGINES |= {"pylate": PyLate, "colbert-ai": ColBERTAI, "faiss-ivfpq": FaissIVFPQ}


def timed(function, *arguments):
    """CPU and wall seconds of a call, and what it gives."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = function(*arguments)
    return time.process_time() - cpu, time.perf_counter() - wall, result


def built(peer, folder):
    """Build the index, or find what an earlier call has told of it; open it, and say what building it took."""
    note = folder.with_name(folder.name + ".json")  # beside the index: it is no part of it
    if note.exists():
        told = json.loads(note.read_text(encoding="utf-8"))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        cpu, wall, _ = timed(peer.build)
        told = {"build_cpu_s": round(cpu, 3), "build_wall_s": round(wall, 3), "bytes": size_on_disk(folder)}
        note.write_text(json.dumps(told), encoding="utf-8")
    if hasattr(peer, "open"):  # the others have it open once it is built
        peer.open()
    return told


def measure(name, path, threads, k, nbits, search, index):
    """Build and search in this process: what the line of JSON says."""
    import numpy as np

    engine = ENGINES[name]
    if (search or index) and not hasattr(engine, "open"):
        raise ValueError(f"{name} takes neither --search nor --index here")
    with tempfile.TemporaryDirectory() as temporary, np.load(path) as arrays:
        folder = index or Path(temporary) / "index"
        names = ("vectors", "doclens", "queries", "query_lens", "token_ids")
        given = {key: arrays[key] for key in names if key in arrays}
        peer = engine(given, folder, threads, nbits or engine.nbits, search)
        told = built(peer, folder)
        peer.search(0, k)
        cpu_ms, wall_ms, ids = [], [], []
        for number in range(len(peer.queries)):
            cpu, wall, found = timed(peer.search, number, k)
            cpu_ms.append(round(1000 * cpu, 3))
            wall_ms.append(round(1000 * wall, 3))
            ids.append([int(window) for window in found])
    result = {"engine": name, "version": version(peer.package), "settings": peer.settings | {"threads": threads, "k": k}}
    return result | told | {"cpu_ms": cpu_ms, "wall_ms": wall_ms, "ids": ids}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--nbits", type=int, help="bits per dimension, for faiss-ivfpq per code; default: the engine's")
    parser.add_argument("--search", type=json.loads, default={}, help="settings of the engine's searches, as JSON")
    parser.add_argument("--index", type=Path, help="a folder to keep the index in, or that has it")
    options = parser.parse_args()
    os.environ.update(dict.fromkeys(LIMITS, str(options.threads)), CUDA_VISIBLE_DEVICES="")  # read when packages are imported
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != here]  # a script here must not hide a package
    out = os.dup(1)
    os.dup2(2, 1)  # what the engine prints goes to stderr
    try:
        result = measure(
            options.engine, options.vectors, options.threads, options.k, options.nbits, options.search, options.index
        )
    except Exception as error:
        result = {"engine": options.engine, "error": f"{type(error).__name__}: {error}"}
    with os.fdopen(out, "w") as line:
        line.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
