"""What scatter and gather cost: queries over 1, 2 and 4 shards, here and in actors, beside one index with the same codec.

    python benchmarks/cluster.py [FOLDER] [--first 26000] [--shards 1 2 4] [--queries 50] [--address HOST:PORT] [--json OUT]

FOLDER is what benchmarks/embed.py wrote; without it random vectors are searched, which are quick to make and unlike text. The
shards and the index are built from the vectors, and queries are vectors, so that no model runs. In turn, medians, of single
queries and of batches of 64: the index, by one thread; the shards in this process, by as many threads as there are cores; the
shards in Ray's actors. Give the machine nothing else to do.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import ray

from colbert_core import Index, Passage, TokenEmbeddings, get_num_threads, set_num_threads
from colbert_core.cluster import ShardedIndex
from colbert_core.cluster.layout import Layout, Settings, shard_of
from colbert_core.vectors.embeddings import embeddings_of


def random_collection(n_passages, n_queries, *, dim=128, per_passage=64):
    """Passages of vectors about a few thousand directions, and queries of some of them."""
    random = np.random.default_rng(0)
    topics = random.standard_normal((4096, dim), np.float32)
    vectors = topics[random.integers(0, len(topics), n_passages * per_passage)]
    vectors += 0.7 * random.standard_normal(vectors.shape, np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    doclens = np.full(n_passages, per_passage, np.int32)
    spans = np.zeros((n_passages, 2), np.int32)
    owners = np.arange(n_passages, dtype=np.int32)
    embeddings = TokenEmbeddings(vectors, np.zeros((len(vectors), 2), np.int32), doclens, spans, owners)
    chosen = random.choice(n_passages, n_queries, replace=False)
    queries = vectors.reshape(n_passages, per_passage, dim)[chosen, :32]
    queries = queries + 0.3 * random.standard_normal(queries.shape, np.float32)
    return embeddings, queries / np.linalg.norm(queries, axis=2, keepdims=True)


def build(folder, embeddings, codec, shards):
    """A sharded index of ready vectors."""
    layout = Layout(folder)
    n = int(embeddings.owners[-1]) + 1
    homes = np.array([shard_of(str(number), shards) for number in range(n)])
    folder.mkdir()
    for shard in range(shards):
        mine = np.flatnonzero(homes == shard).tolist()
        with Index.create(layout.shard(shard), dim=codec.dim, codec=codec) as index:
            index.add(
                [Passage(str(i), f"passage {i}") for i in mine], embeddings=embeddings_of(embeddings, mine), progress=False
            )
            index.compact(progress=False)
    layout.write(Settings(shards, codec.nbits, "vectors", {}, n))


def milliseconds(search, query):
    start = time.perf_counter()
    search(query)
    return 1000 * (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--first", type=int, default=26000, help="passages")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--address", help="of a Ray cluster (default: this machine)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.folder:
        from embed import as_float32, load

        embeddings, queries = load(options.folder, options.first)
        embeddings, queries = as_float32(embeddings), queries[: options.queries]
    else:
        embeddings, queries = random_collection(options.first, options.queries)
    results, cores = [], get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n = int(embeddings.owners[-1]) + 1
        one = Index.create(folder / "one", dim=queries.shape[2])
        one.add([Passage(str(i), f"passage {i}") for i in range(n)], embeddings=embeddings, progress=False)
        one.compact(progress=False)
        codec = one._versions.read(lambda view: view.state).snapshot.codec
        assert codec is not None, "too few passages to compress"
        for shards in options.shards:
            build(folder / str(shards), embeddings, codec, shards)
        ray.init(address=options.address or "local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        for shards in options.shards:
            with (
                ShardedIndex.open(folder / str(shards), address="local") as here,
                ShardedIndex.open(folder / str(shards)) as actors,
            ):
                for query in queries[:5]:
                    assert actors.search(query, exact=True) == here.search(query, exact=True) == one.search(query, exact=True)
                batches = [queries[start : start + 64] for start in range(0, len(queries) // 64 * 64, 64)]
                result = {"shards": shards}
                for name, work, method in (("query", queries, "search"), ("batch", batches, "search_many")):
                    kinds = {"one": (one, 1), "here": (here, cores), "actors": (actors, cores)}
                    times = {kind: [] for kind in kinds}
                    for asked in [*work[:2], *work]:  # the first map and compile what they need
                        for kind, (index, threads) in kinds.items():
                            set_num_threads(threads)
                            times[kind].append(milliseconds(getattr(index, method), asked))
                    result[name] = {kind: float(np.median(of_kind[2:])) for kind, of_kind in times.items()}
                    shown = ", ".join(f"{kind} {of_kind:.2f} ms" for kind, of_kind in result[name].items())
                    print(f"{shards} shards, {name}: {shown}", flush=True)
                results.append(result)
        one.close()
    ray.shutdown()
    if options.json:
        options.json.write_text(json.dumps({"passages": n, "tokens": len(embeddings.vectors), "results": results}, indent=1))


if __name__ == "__main__":
    main()
