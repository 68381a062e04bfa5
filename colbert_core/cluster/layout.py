"""What lies where in the folder of a sharded index, and which shard a passage belongs to.

::

    DIR/
      cluster.json           how many shards, of what, by which model; written first and last
      codec.safetensors      the codec of all shards; none where vectors are kept as they are
      refit.safetensors      one with more centroids, until all shards have taken it
      shard-0000 ...         ordinary index folders; each is there once it is whole
      staged/                while it is being built:
        000000 ...           the passages of each file, by shard
        plan.json            how they are cut into batches, once all files are read
        shard-0000 ...       the batches of a shard that are encoded
        log.jsonl            what has happened so far, for who asks how far the build is

Every machine has to see the folder under the same path.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from colbert_core.errors import ClusterError, DamagedIndexError, IndexNotFoundError, UnsupportedIndexError
from colbert_core.storage.durable import write_json
from colbert_core.storage.incoming import read_json_file
from colbert_core.vectors.pooling import check_factor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# 1 does not say how words are cut, 2 not how many vectors are kept (all of them), 3 not to how many the codec was fitted.
FORMAT = 4
NAME = "cluster.json"


@dataclass(frozen=True)
class Settings:
    """What ``cluster.json`` says.

    Attributes:
        shards: number of shards.
        nbits: bits per component, 32 for vectors that are kept as they are.
        model: name of the model that encodes.
        files: names of the files that are read, with their sizes in bytes.
        passages: number of passages; None until all are built in.
        words: how texts are cut into words; False for no words.
        pool_factor: about 1 / pool_factor of the vectors of a passage are kept.
        codec_tokens: number of vectors that the codec was fitted to; None for those of the passages that were built in.
    """

    shards: int
    nbits: int
    model: str
    files: Mapping[str, int] = field(default_factory=dict)
    passages: int | None = None
    words: str | bool = "english"
    pool_factor: float = 1.0
    codec_tokens: int | None = None

    def fitted_on(self, n_tokens: int, n_passages: int) -> int:
        """Number of vectors that the codec was fitted to; where nobody has noted it, by what passages have in the mean.

        Args:
            n_tokens: vectors of the collection now.
            n_passages: passages of the collection now.
        """
        if self.codec_tokens is not None:
            return self.codec_tokens
        return round(n_tokens * (self.passages or n_passages) / max(n_passages, 1))


@dataclass(frozen=True)
class Layout:
    """The names in the folder of a sharded index."""

    folder: Path
    read_only = False  # unlike an index that is published

    @property
    def place(self) -> str:
        """What ``ShardedIndex.open`` opens."""
        return str(self.folder)

    @property
    def codec(self) -> Path:
        """The codec's file."""
        return self.folder / "codec.safetensors"

    @property
    def refit(self) -> Path:
        """The codec that shards are to take in the place of theirs; there while a refit is not done."""
        return self.folder / "refit.safetensors"

    @property
    def refit_lock(self) -> Path:
        """Locked by who refits."""
        return self.folder / ".refit.lock"

    @property
    def staged(self) -> Path:
        """Where passages wait for their shards to be built."""
        return self.folder / "staged"

    @property
    def plan(self) -> Path:
        """How the passages of the shards are cut into batches."""
        return self.staged / "plan.json"

    @property
    def log(self) -> Path:
        """What has happened to the build so far."""
        return self.staged / "log.jsonl"

    def of_file(self, number: int) -> Path:
        """The folder with the passages of a file, once it is read."""
        return self.staged / f"{number:06}"

    def encoded(self, shard: int) -> Path:
        """The folder of those batches of a shard that are encoded."""
        return self.staged / f"shard-{shard:04}"

    def batch(self, shard: int, number: int) -> Path:
        """The file of a batch, once it is encoded."""
        return self.encoded(shard) / f"{number:06}.safetensors"

    def shard(self, number: int) -> Path:
        """The folder of a shard."""
        return self.folder / f"shard-{number:04}"

    def missing(self, n_shards: int) -> list[int]:
        """The shards that are not there yet."""
        return [number for number in range(n_shards) if not self.shard(number).is_dir()]

    def read(self) -> Settings:
        """Read ``cluster.json``.

        Raises:
            IndexNotFoundError: there is none.
            UnsupportedIndexError: a newer version wrote it.
            DamagedIndexError: it cannot be understood.
        """
        path = self.folder / NAME
        if not path.is_file():
            raise IndexNotFoundError(f"{self.folder} holds no sharded index: there is no {NAME} in it.")
        try:
            return load_settings(read_json_file(path), str(path))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedIndexError(f"{path} is damaged ({error!r:.200}); restore it from a copy.") from None

    def check_refit(self) -> None:
        """Make sure that all shards have one codec, before they are copied.

        Raises:
            ClusterError: a refit is not done.
        """
        if self.refit.is_file():
            raise ClusterError(
                f"{self.folder} is being refit, or that was interrupted, so its shards may have two codecs; "
                "`colbert cluster refit` with this folder finishes it. Do this again then."
            )

    def read_finished(self) -> Settings:
        """Read ``cluster.json`` of an index that is whole.

        Raises:
            IndexNotFoundError, UnsupportedIndexError, DamagedIndexError: as ``read``.
            DamagedIndexError: its building was not finished.
            ClusterError: a refit of it was not finished.
        """
        self.check_refit()
        settings = self.read()
        missing = self.missing(settings.shards)
        if missing or settings.passages is None:
            which = f" ({', '.join(map(str, missing[:10]))}{', …' if len(missing) > 10 else ''})" if missing else ""
            raise DamagedIndexError(
                f"{self.folder} lacks {len(missing)} of its {settings.shards} shards{which}, or its building was not finished; "
                "build it again with the same arguments, which makes what is missing."
            )
        return settings

    def write(self, settings: Settings) -> None:
        """Replace ``cluster.json``; a reader sees the old one or the new one, whole."""
        write_json(self.folder / NAME, dump_settings(settings), shared=True)


def dump_settings(settings: Settings) -> dict[str, Any]:
    """Settings as JSON, with the format."""
    return {"format": FORMAT, **asdict(settings)}


def load_settings(content: dict[str, Any], name: str) -> Settings:
    """Make settings of what ``dump_settings`` returned.

    Args:
        content: of JSON.
        name: where it is from, for messages.

    Raises:
        UnsupportedIndexError: a newer version wrote it.
        ValueError, KeyError, TypeError, AttributeError: it cannot be understood.
    """
    content = dict(content)
    version = content.pop("format")
    if isinstance(version, int) and version > FORMAT:
        raise UnsupportedIndexError(f"{name} has format {version}, and this version reads up to {FORMAT}; update it.")
    settings = Settings(**content)
    check_factor(settings.pool_factor)
    if (tokens := settings.codec_tokens) is not None and (not isinstance(tokens, int) or tokens < 0):
        raise ValueError(f"its codec is fitted to {tokens!r:.80} vectors")
    if isinstance(settings.shards, bool) or not isinstance(settings.shards, int) or settings.shards < 1:
        raise ValueError(f"it names {settings.shards!r} shards")
    return settings


def is_cluster(folder: Path) -> bool:
    """Whether this is the folder of a sharded index, finished or not."""
    return (folder / NAME).is_file()


def linked_folder(folder: Path) -> Path:
    """The folder that a link stands for now, so that a process started later reads the same; a folder itself if it is none."""
    while folder.is_symlink() and folder.exists():  # links that lead in a circle lead nowhere
        folder = folder.parent / folder.readlink()
    return folder


def hash_id(passage_id: str) -> int:
    """Hash an id to 64 bits, the same on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b(passage_id.encode(), digest_size=8).digest(), "big")


def shard_of(passage_id: str, n_shards: int) -> int:
    """The shard that a passage belongs to."""
    return hash_id(passage_id) % n_shards
