"""Write the vectors of one collection as benchmarks/peers.py and beside_peers.py read them, with what an exact search finds.

    python benchmarks/peer_vectors.py OUT.npz --collection DATA/scifact [--split test]
    python benchmarks/peer_vectors.py OUT.npz --embedded FOLDER passages.jsonl.xz [--first 26000] [--queries 200]

A collection is a folder with corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv; the model in the box encodes it. FOLDER is what
benchmarks/embed.py wrote of passages.jsonl.xz, which is read once more for the tokens.

OUT.npz holds ``vectors`` (n_tokens, dim) as float16, ``token_ids`` (n_tokens,) of the vocabulary, ``doclens`` and ``owners``
(n_windows,), ``queries`` (n, n_q, dim), filled up with zeros, ``query_lens`` (n,), and ``exact`` (n, 100): the windows of
highest MaxSim, best first, by float32 products. A collection's also has ``passages`` and ``query_names``, which are its ids,
and ``qrels`` as JSON.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from embed import held_aside, load, read_jsonl
from evaluate import read_qrels

from colbert_core import Encoder, set_num_threads


def text_of(line):
    return f"{line.get('title', '')} {line['text']}".strip()


def token_ids(encoder, texts):
    """The number in the vocabulary of each token that has a vector."""
    inputs = encoder._inputs.passages(texts)
    return np.concatenate([made.ids[window.kept] for made in inputs for window in made.windows]).astype(np.uint32)


def exact_search(vectors, doclens, queries, k=100, at_a_time=16):
    """The k windows of highest MaxSim for each query. *Shape:* (n, k), int64."""
    lengths, all_vectors = torch.from_numpy(doclens.astype(np.int64)), torch.from_numpy(vectors)
    best = []
    for start in range(0, len(queries), at_a_time):
        some = torch.from_numpy(queries[start : start + at_a_time])  # (some, n_q, dim); rows of zeros add nothing
        highest = torch.segment_reduce(all_vectors @ some.flatten(0, 1).T, "max", lengths=lengths, axis=0, unsafe=True)
        scores = highest.view(len(lengths), *some.shape[:2]).sum(2)  # (n_windows, some)
        best.append(scores.topk(k, dim=0).indices.T)
    return torch.cat(best).numpy()


def filled_up(queries):
    """Queries of several lengths as one array, *Shape:* (n, n_q, dim), and their lengths."""
    lens = np.array([len(query) for query in queries], np.int32)
    array = np.zeros((len(queries), int(lens.max()), queries[0].shape[1]), np.float32)
    for row, query in zip(array, queries, strict=True):
        row[: len(query)] = query
    return array, lens


def of_collection(folder, split):
    encoder = Encoder.from_pretrained()
    qrels = {name: grades for name, grades in read_qrels(folder / "qrels" / f"{split}.tsv").items() if any(grades.values())}
    lines = [line for line in read_jsonl(folder / "queries.jsonl") if line["_id"] in qrels]
    corpus = read_jsonl(folder / "corpus.jsonl")
    texts = [text_of(line) for line in corpus]
    embeddings = encoder.encode_passages(texts, progress=True)
    more = {"passages": [line["_id"] for line in corpus], "query_names": [line["_id"] for line in lines]}
    return (
        encoder,
        texts,
        embeddings,
        encoder.encode_queries([line["text"] for line in lines]),
        more | {"qrels": json.dumps(qrels)},
    )


def of_embedded(folder, passages, first, n_queries):
    embeddings, queries = load(Path(folder), first)
    lines = [text_of(line) for line in read_jsonl(Path(passages), 26000)]  # embed.py's --from-first, and its --queries below
    _, texts = held_aside(lines, len(queries))
    return Encoder.from_pretrained(), texts[:first], embeddings, list(queries[:n_queries]), {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--collection", type=Path)
    parser.add_argument("--split", default="test", help="of the collection's qrels")
    parser.add_argument("--embedded", type=Path, nargs=2, metavar=("FOLDER", "PASSAGES"))
    parser.add_argument("--first", type=int, default=26000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if (options.collection is None) == (options.embedded is None):
        parser.error("give either --collection or --embedded")
    set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    if options.collection:
        encoder, texts, embeddings, queries, more = of_collection(options.collection, options.split)
    else:
        encoder, texts, embeddings, queries, more = of_embedded(*options.embedded, options.first, options.queries)
    ids = token_ids(encoder, texts)
    if len(ids) != len(embeddings.vectors):
        raise SystemExit(
            f"The texts have {len(ids)} tokens and {len(embeddings.vectors)} vectors; were they encoded otherwise?"
        )
    vectors = embeddings.vectors.astype(np.float16)
    queries, lens = filled_up(queries)
    exact = exact_search(vectors.astype(np.float32), embeddings.doclens, queries)
    arrays = {"vectors": vectors, "doclens": embeddings.doclens, "owners": embeddings.owners, "token_ids": ids, "exact": exact}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(options.out, **arrays, queries=queries, query_lens=lens, **more)
    print(f"{options.out}: {len(texts)} passages, {len(embeddings.doclens)} windows, {len(ids)} tokens, {len(queries)} queries")


if __name__ == "__main__":
    main()
