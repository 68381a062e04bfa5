"""What a published snapshot of a sharded index holds: one moment of each shard, and every file with its size and SHA-256.

At an address::

    manifest.json            the newest snapshot: a copy of its file below, made last
    snapshots/<time>.json    each snapshot that is kept
    files/<SHA-256>          what they are made of; a file that several snapshots have is there once
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from colbert_core.cluster.layout import dump_settings, load_settings
from colbert_core.errors import DamagedIndexError, IndexNotFoundError, UnsupportedIndexError
from colbert_core.storage.durable import Checksum
from colbert_core.storage.folder import DATABASE, FILES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from colbert_core.cluster.layout import Settings
    from colbert_core.cluster.storages import Storage

FORMAT = 1
NEWEST = "manifest.json"
SNAPSHOTS = "snapshots"
"""The folder of the manifests of all snapshots."""

_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_FILE = re.compile(rf"{DATABASE}|{FILES}/[0-9a-f]{{64}}")
# Of a manifest. 512 shards of 200 segments take 20 MB.
_LARGEST = 2**26


@dataclass(frozen=True)
class ShardFiles:
    """One moment of a shard.

    Attributes:
        identity: which index the shard is.
        generation: number of its commits before that moment.
        passages: number of its passages.
        files: size and SHA-256 of each file, by its name in the shard's folder.
    """

    identity: str
    generation: int
    passages: int
    files: Mapping[str, Checksum]


@dataclass(frozen=True)
class Manifest:
    """A snapshot of a sharded index.

    Attributes:
        snapshot: its name, the time (UTC) when it was made, such as "20261130T170000Z".
        settings: what ``cluster.json`` said.
        codec: size and SHA-256 of the codec's file; None where vectors are kept as they are.
        shards: each at one moment.
    """

    snapshot: str
    settings: Settings
    codec: Checksum | None
    shards: tuple[ShardFiles, ...]

    @property
    def passages(self) -> int:
        """Number of passages of all shards."""
        return sum(shard.passages for shard in self.shards)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.contents().values())

    def contents(self) -> dict[str, int]:
        """The size in bytes of every file, by its SHA-256."""
        checksums = [checksum for shard in self.shards for checksum in shard.files.values()]
        return {checksum.sha256: checksum.size for checksum in (*checksums, *([self.codec] if self.codec else []))}

    def to_json(self) -> dict[str, Any]:
        """As JSON, with the format."""
        return {
            "format": FORMAT,
            "snapshot": self.snapshot,
            "settings": dump_settings(self.settings),
            "codec": None if self.codec is None else self.codec._asdict(),
            "shards": [
                {
                    "identity": shard.identity,
                    "generation": shard.generation,
                    "passages": shard.passages,
                    "files": {name: checksum._asdict() for name, checksum in shard.files.items()},
                }
                for shard in self.shards
            ],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], name: str) -> Manifest:
        """Make one of what ``to_json`` returned.

        Args:
            content: of JSON that may come from anybody.
            name: where it is from, for messages.

        Raises:
            UnsupportedIndexError: a newer version wrote it.
            ValueError, KeyError, TypeError, AttributeError: it cannot be understood, or names a file that no index has.
        """
        version = content["format"]
        if isinstance(version, int) and version > FORMAT:
            raise UnsupportedIndexError(f"{name} has format {version}, and this version reads up to {FORMAT}; update it.")
        if not _TIME.fullmatch(content["snapshot"]):
            raise ValueError(f"its snapshot is {content['snapshot']!r:.80}, no time")
        settings = load_settings(content["settings"], name)
        shards = tuple(_shard_files(shard) for shard in content["shards"])
        if len(shards) != settings.shards:
            raise ValueError(f"it has files of {len(shards)} shards, not of {settings.shards}")
        codec = None if content["codec"] is None else _checksum(content["codec"])
        return cls(content["snapshot"], settings, codec, shards)


def _shard_files(content: dict[str, Any]) -> ShardFiles:
    files = {name: _checksum(checksum) for name, checksum in content["files"].items()}
    strange = [name for name in files if not _FILE.fullmatch(name)]
    if strange or DATABASE not in files:
        raise ValueError(f"a shard has the files {sorted(files)!r:.200}, which no index has")
    counts = content["generation"], content["passages"]
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError(f"a shard has the generation and passages {counts!r:.80}")
    return ShardFiles(str(content["identity"]), *counts, files)


def _checksum(content: dict[str, Any]) -> Checksum:
    checksum = Checksum(**content)
    if not isinstance(checksum.size, int) or checksum.size < 0 or not re.fullmatch("[0-9a-f]{64}", checksum.sha256):
        raise ValueError(f"a file has the size and SHA-256 {content!r:.200}")
    return checksum


def read_manifest(storage: Storage, name: str = NEWEST) -> Manifest:
    """Read a manifest, by default the newest one.

    Raises:
        IndexNotFoundError: there is none.
        DamagedIndexError: it cannot be understood.
        UnsupportedIndexError: a newer version wrote it.
        ClusterUnreachableError: the storage does not answer.
    """
    place = f"{storage.name}/{name}"
    content = b""
    try:
        for piece in storage.read(name):
            content += piece
            if len(content) > _LARGEST:
                raise DamagedIndexError(f"{place} has more than {_LARGEST} bytes, which no manifest has; publish again.")
        return Manifest.from_json(json.loads(content), place)
    except FileNotFoundError:
        raise IndexNotFoundError(
            f"Nothing is published at {storage.name}: there is no {name} there. "
            "`colbert cluster publish FOLDER ADDRESS` puts an index there."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedIndexError(f"{place} is damaged ({error!r:.200}); remove it and publish again.") from None
