"""Indexes of other libraries, written by their published layout."""

from __future__ import annotations

import json

import numpy as np
import torch

from builders.vectors import clustered

DOCLENS = [[4, 9, 1, 6], [3, 0, 8]]  # two chunks; a passage without tokens is how they delete one
TEXTS = [f"text number {n}" for n in range(7)]


def their_codec(dim, nbits, seed=0):
    """Centroids, cutoffs and weights as they fit them: quantiles of residuals."""
    rng = np.random.default_rng(seed)
    vectors = clustered(rng, 31, dim)
    centroids = clustered(rng, 8, dim).astype(np.float16).astype(np.float32)
    codes = (vectors @ centroids.T).argmax(axis=1)
    residuals = vectors - centroids[codes]
    cutoffs = np.quantile(residuals, np.arange(1, 2**nbits) / 2**nbits).astype(np.float32)
    weights = np.quantile(residuals, (np.arange(2**nbits) + 0.5) / 2**nbits).astype(np.float32)
    numbers = np.searchsorted(cutoffs, residuals)
    return vectors, centroids, cutoffs, weights, codes, numbers


def their_packing(numbers, nbits):
    """Each number's bits, lowest first, one after the other into bytes from the top bit down."""
    rows = []
    for row in numbers:
        bits = [(int(number) >> bit) & 1 for number in row for bit in range(nbits)]
        bits += [0] * (-len(bits) % 8)
        rows.append([int("".join(map(str, bits[i : i + 8])), 2) for i in range(0, len(bits), 8)])
    return np.array(rows, np.uint8)


def their_decoding(centroids, weights, codes, numbers):
    vectors = centroids[codes] + weights[numbers]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def chunks_of(array):
    ends = np.cumsum([sum(doclens) for doclens in DOCLENS])
    return np.split(array, ends[:-1])


def write_json(folder, name, value):
    (folder / name).write_text(json.dumps(value))


def write_stanford_index(folder, dim=32, nbits=4, checkpoint="someone/colbert"):
    folder.mkdir()
    _, centroids, cutoffs, weights, codes, numbers = their_codec(dim, nbits)
    torch.save(torch.from_numpy(centroids).half(), folder / "centroids.pt")
    torch.save((torch.from_numpy(cutoffs), torch.from_numpy(weights)), folder / "buckets.pt")
    torch.save(torch.tensor([0.1]), folder / "avg_residual.pt")
    residuals = their_packing(numbers, nbits)
    for number, doclens in enumerate(DOCLENS):
        torch.save(torch.from_numpy(chunks_of(codes)[number].astype(np.int32)), folder / f"{number}.codes.pt")
        torch.save(torch.from_numpy(chunks_of(residuals)[number]), folder / f"{number}.residuals.pt")
        write_json(folder, f"doclens.{number}.json", doclens)
    write_json(folder, "metadata.json", {"config": {"dim": dim, "nbits": nbits, "checkpoint": checkpoint}, "num_chunks": 2})
    return their_decoding(centroids, weights, codes, numbers)


def write_fast_plaid_index(folder, dim=32, nbits=4, merged=False):
    folder.mkdir()
    _, centroids, cutoffs, weights, codes, numbers = their_codec(dim, nbits)
    for name, array in (("centroids", centroids.astype(np.float16)), ("bucket_cutoffs", cutoffs), ("bucket_weights", weights)):
        np.save(folder / f"{name}.npy", array)
    residuals = their_packing(numbers, nbits)
    if merged:
        np.save(folder / "merged_codes.npy", np.concatenate([codes, np.zeros(5, np.int64)]))
        np.save(folder / "merged_residuals.npy", np.concatenate([residuals, residuals[:5]]))
    for number, doclens in enumerate(DOCLENS):
        if not merged:
            np.save(folder / f"{number}.codes.npy", chunks_of(codes)[number].astype(np.int64))
            np.save(folder / f"{number}.residuals.npy", chunks_of(residuals)[number])
        write_json(folder, f"doclens.{number}.json", doclens)
    write_json(folder, "metadata.json", {"nbits": nbits, "num_chunks": 2, "num_embeddings": 31})
    return their_decoding(centroids, weights, codes, numbers)


def write_ragatouille_index(folder, **options):
    decoded = write_stanford_index(folder, **options)
    write_json(folder, "collection.json", TEXTS)
    documents = ["cats", "cats", "dogs", "birds", "fish", "gone", "ants"]
    write_json(folder, "pid_docid_map.json", {str(number): name for number, name in enumerate(documents)})
    write_json(folder, "docid_metadata_map.json", {"cats": {"legs": 4}, "birds": {"legs": 2}})
    return decoded
