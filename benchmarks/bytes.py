"""Bytes a token of the text, and what they cost in nDCG@10, recall@10 of exact search and time.

    python benchmarks/bytes.py DATA/scifact DATA/cranfield --kept FOLDER [--first 300] [--passages 700] [--codes]

A collection is a folder with corpus.jsonl (_id, title, text), queries.jsonl (_id, text) and qrels/test.tsv. FOLDER keeps the
vectors, so that a collection is encoded once.

Indexes are measured by their default search, centroids and lists counted. --codes measures ways to code residuals that
no index has, by decompressing every vector: beside the levels of the index itself, residuals divided by their lengths, and
product codes (Jégou et al., "Product Quantization for Nearest Neighbor Search", 2011), whose tables are not counted.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import faiss
import ir_measures
import numpy as np
from embed import FIELDS, as_float32, load_shard
from evaluate import read_jsonl, read_qrels

from colbert_core import Encoder, Index, Passage, set_num_threads
from colbert_core.vectors.centroids import NearestCentroids
from colbert_core.vectors.codec import ResidualCodec, count_centroids, lloyd_max, sample_size
from colbert_core.vectors.pooling import pool_embeddings

INDEXES = "1:32 1:4 1:2 1:1 1.5:2 1.5:1 2:32 2:4 2:2 2:1 3:4 3:2"
FITTED_ON = 2**15


class Collection:
    """Passages with their vectors, and queries with what is relevant to them and what an exact search finds."""

    def __init__(self, folder, kept, encoder, first, n_passages):
        self.name = folder.name if n_passages is None else f"{folder.name}-{n_passages}"
        qrels = read_qrels(folder / "qrels" / "test.tsv")
        queries = [line for line in read_jsonl(folder / "queries.jsonl") if any(qrels.get(line["_id"], {}).values())][:first]
        self.names = [line["_id"] for line in queries]
        self.judged = {name: qrels[name] for name in self.names}
        corpus = read_jsonl(folder / "corpus.jsonl")
        if n_passages is not None:
            wanted = {name for grades in self.judged.values() for name in grades}
            corpus = sorted(corpus, key=lambda line: line["_id"] not in wanted)[:n_passages]
        self.passages = [Passage(line["_id"], f"{line.get('title', '')} {line['text']}".strip()) for line in corpus]
        path = kept / f"{self.name}.npz"
        if not path.exists():
            kept.mkdir(parents=True, exist_ok=True)
            embeddings = encoder.encode_passages([passage.text for passage in self.passages], progress=True)
            arrays = {name: getattr(embeddings, name) for name in FIELDS}
            np.savez(path, **{**arrays, "vectors": arrays["vectors"].astype(np.float16)})
        self.embeddings = as_float32(load_shard(path))
        self.matrices = encoder.encode_queries([line["text"] for line in queries])
        self.exact = None

    def measure(self, index, title):
        """Search an index of these passages, and print a row."""
        index.search_vectors(self.matrices[:1], 10)  # compiles and maps what it needs
        start = time.thread_time()
        found = [[(hit.passage.id, hit.score) for hit in index.search_vectors([each], 10)[0]] for each in self.matrices]
        searched = time.thread_time() - start
        sets = [{name for name, _ in hits} for hits in found]
        self.exact = self.exact or sets
        recall = np.mean([len(some & best) / len(best) for some, best in zip(sets, self.exact, strict=True)])
        run = dict(zip(self.names, map(dict, found), strict=True))
        ndcg = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], self.judged, run)[ir_measures.nDCG @ 10]
        bytes_ = index.stats().vector_bytes / len(self.embeddings.vectors)
        print(
            f"{self.name:12} {title:32} {bytes_:6.1f} bytes a token  nDCG@10 {ndcg:.4f}  recall@10 {recall:.3f}  "
            f"{1000 * searched / len(found):6.2f} ms",
            flush=True,
        )

    def index(self, embeddings, nbits, pool_factor=1):
        """An index in memory, compressed whatever its size."""
        index = Index.create(None, dim=embeddings.vectors.shape[1], nbits=nbits, pool_factor=pool_factor)
        index.add(self.passages, embeddings=embeddings, progress=False)
        index.compact(progress=False)
        return index


def levels(sample, residuals, nbits):
    """Each component rounded, as an index does it."""
    return rounded(residuals, lloyd_max(sample[: 2**14].ravel(), 2**nbits))


def levels_of_directions(sample, residuals, nbits):
    """Residuals divided by their lengths and rounded, times the factor that comes nearest to the residual."""
    return scaled(residuals, rounded(unit(residuals), lloyd_max(unit(sample)[: 2**14].ravel(), 2**nbits)))


def products(sample, residuals, nbits):
    """Each ``8 / nbits`` components by the nearest of 256 vectors."""
    dim = sample.shape[1]
    quantizer = faiss.ProductQuantizer(dim, dim * nbits // 8, 8)
    quantizer.train(sample)
    return quantizer.decode(quantizer.compute_codes(residuals))


def products_of_directions(sample, residuals, nbits):
    """The same of residuals divided by their lengths, times the factor that comes nearest to the residual."""
    return scaled(residuals, products(unit(sample), unit(residuals), nbits))


def unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def rounded(values, levels):
    return levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, values)]


def scaled(residuals, directions):
    factors = np.einsum("nd,nd->n", residuals, directions) / np.einsum("nd,nd->n", directions, directions)
    return directions * factors[:, None]


def measure_codes(collection, pool_factor):
    """Measure what vectors find that were coded and decompressed, whatever the code."""
    embeddings = pool_embeddings(collection.embeddings, pool_factor)
    vectors, random = embeddings.vectors, np.random.default_rng(0)
    n = count_centroids(len(vectors))
    codec = ResidualCodec.fit(vectors[np.sort(random.choice(len(vectors), sample_size(n), replace=False))], n, 1)
    near = codec.centroids[NearestCentroids(codec.centroids).find(vectors)]
    residuals = vectors - near
    sample = residuals[np.sort(random.choice(len(vectors), FITTED_ON, replace=False))]
    for nbits in (2, 1):
        for code in (levels, levels_of_directions, products, products_of_directions):
            coded = unit(near + code(sample, residuals, nbits)).astype(np.float32)
            error = 1 - np.einsum("nd,nd->n", coded, vectors).mean()
            title = f"pool {pool_factor:g}, {nbits} bits, {code.__name__.replace('_', ' ')}"
            index = collection.index(replace(embeddings, vectors=coded), 32)
            collection.measure(index, f"{title}, 1 - cosine {error:.4f}, kept as they are:")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--kept", type=Path, required=True, help="folder for vectors")
    parser.add_argument("--first", type=int, help="only so many queries of each collection")
    parser.add_argument("--passages", type=int, help="only so many passages of each collection, those that are judged first")
    parser.add_argument("--model", help="default: the model in the box")
    parser.add_argument(
        "--indexes",
        nargs="+",
        default=INDEXES.split(),
        help=f"FACTOR:NBITS of each; the first is what recall is of (default: {INDEXES})",
    )
    parser.add_argument("--codes", action="store_true", help="measure codes that no index has as well")
    options = parser.parse_args()
    set_num_threads(1)
    encoder = Encoder.from_pretrained(options.model)
    for folder in options.folders:
        collection = Collection(folder, options.kept, encoder, options.first, options.passages)
        print(
            f"{collection.name}: {len(collection.passages)} passages, {len(collection.embeddings.vectors)} tokens", flush=True
        )
        for each in options.indexes:
            pool_factor, nbits = map(float, each.split(":"))
            index = collection.index(collection.embeddings, int(nbits), pool_factor)
            collection.measure(index, f"pool factor {pool_factor:g}, {nbits:g} bits")
        if options.codes:
            for pool_factor in (1, 2):
                measure_codes(collection, pool_factor)


if __name__ == "__main__":
    main()
