"""What lies on disk of an encoded collection or an IVFPQ index: its manifest, and the arrays of a shard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_core.errors import DamagedIndexError, IndexNotFoundError, UnsupportedIndexError
from colbert_core.storage.durable import disk_errors, write_json
from colbert_core.storage.incoming import map_npy, read_json_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT = 1
MANIFEST = "manifest.json"
# The arrays of a shard; each is a plain .npy file.
_TYPES = {"vectors": "<f2", "doclens": "<i4", "owners": "<i4", "ids": "|u1", "id_ends": "<i8"}
PARTS = tuple(_TYPES)
# FAISS's codes have at most so many bits, as ``IVFPQ.build`` makes them.
_MOST_BITS = 8


def name_of(number: int, part: str) -> str:
    """The name of the file of an array of a shard."""
    return f"{number:05d}.{part}.npy"


def find_missing(folder: Path, shard: dict[str, Any]) -> str | None:
    """Describe the first file of a shard that is missing or has another size than was written; None if all are there."""
    for name, written in shard["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != written["size"]:
            return f"{path} is missing or cut short, {written['size']} bytes were written"
    return None


def map_shard(folder: Path, shard: dict[str, Any], dim: int) -> dict[str, NDArray[Any]]:
    """Map the arrays of a shard, and check what leads from one to another; the vectors are not read.

    Raises:
        ValueError: they do not fit together.
    """
    arrays = {part: map_npy(folder / name_of(shard["number"], part)) for part in PARTS}
    for part, array in arrays.items():
        if array.dtype.str != _TYPES[part] or array.ndim != (2 if part == "vectors" else 1):
            raise ValueError(f"its {part} are {array.dtype} {array.shape}")
    vectors, doclens, owners, ids, id_ends = arrays.values()
    arrays = {part: np.asarray(array) if part == "vectors" else np.array(array) for part, array in arrays.items()}
    n = shard["passages"]
    if vectors.shape[1] != dim or not vectors.flags.c_contiguous:
        raise ValueError(f"its vectors have the shape {vectors.shape}, where dim is {dim}")
    if (doclens < 1).any() or int(doclens.sum(dtype=np.int64)) != len(vectors) or len(doclens) != len(owners):
        raise ValueError(f"its windows do not have the {len(vectors)} vectors")
    steps = np.diff(owners.astype(np.int64))
    if not len(owners) or (int(owners[0]), int(owners[-1])) != (0, n - 1) or ((steps != 0) & (steps != 1)).any():
        raise ValueError(f"its windows do not belong to {n} passages in their order")
    if len(id_ends) != n or int(id_ends[-1]) != len(ids) or int(id_ends[0]) < 1 or (id_ends[1:] <= id_ends[:-1]).any():
        raise ValueError(f"its ids are not those of {n} passages")
    return arrays


def _check_manifest(manifest: dict[str, Any], what: str) -> None:
    """Make sure that a manifest has the entries that this package writes.

    Raises:
        ValueError, TypeError, KeyError: it has not.
    """
    if what != "encoded collection":
        settings = manifest["settings"]
        numbers = [manifest["size"], *(settings[name] for name in ("nlist", "m", "nbits"))]
        if not isinstance(manifest["embeddings"], str) or not isinstance(manifest["embeddings_sha256"], str):
            raise TypeError("it does not say of which vectors it is")
        if not all(map(_is_count, numbers)) or settings["nbits"] > _MOST_BITS:
            raise ValueError(f"its settings are {settings!r:.100}")
        return
    if (
        not isinstance(manifest["complete"], bool)
        or not _is_count(manifest["dim"])
        or not _is_count(manifest["shard_passages"])
    ):
        raise ValueError(f"complete is {manifest['complete']!r:.40}, dim {manifest['dim']!r:.40}")
    if not isinstance(manifest["encoder"]["name"], str) or not isinstance(manifest["probe"], str):
        raise TypeError("it does not say which encoder made the vectors")
    for number, shard in enumerate(manifest["shards"]):
        names = {name_of(number, part) for part in PARTS}
        if shard["number"] != number or not _is_count(shard["passages"]) or shard["files"].keys() != names:
            raise ValueError(f"shard {number} is {shard!r:.100}")
        if not all(_is_count(written["size"]) and isinstance(written["sha256"], str) for written in shard["files"].values()):
            raise ValueError(f"shard {number} has files without a size")
    if manifest["complete"] and not manifest["shards"]:
        raise ValueError("it is complete without a shard")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**48


def read_manifest(folder: Path, what: str, maker: str) -> dict[str, Any]:
    """Read the manifest of a folder.

    Args:
        folder: folder of an encoded collection or an IVFPQ index.
        what: "encoded collection" or "IVFPQ index".
        maker: name of the function that makes one, for errors.

    Raises:
        IndexNotFoundError: there is no manifest.
        UnsupportedIndexError: the manifest is of another kind, or of another version of the format.
        DamagedIndexError: the manifest cannot be read.
    """
    path = folder / MANIFEST
    try:
        is_there = path.is_file()
    except OSError:  # a name that is too long, which another manifest gave
        is_there = False
    if not is_there:
        raise IndexNotFoundError(f"There is no {what} in {folder}: {MANIFEST} is missing; make one with {maker}.")
    try:
        manifest: dict[str, Any] = read_json_file(path)
        number = manifest["format"]
        wanted = "shards" if what == "encoded collection" else "embeddings"
        if number != FORMAT or wanted not in manifest:
            raise UnsupportedIndexError(
                f"{path} is of no {what} that this version reads (format {number!r:.40}, not {FORMAT})."
            )
        _check_manifest(manifest, what)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedIndexError(f"{path} is damaged ({error!r:.300}); restore it from a copy.") from None
    return manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a folder, in place of the one before.

    Raises:
        IndexWriteError: the disk is full or failed.
    """
    path = folder / MANIFEST
    with disk_errors(path):
        write_json(path, manifest)
