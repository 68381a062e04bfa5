"""The folder of a sharded index, and its description."""

from __future__ import annotations

import pytest

from colbert_core import DamagedIndexError, StorageError
from colbert_core.cluster import ShardedIndex


def test_a_newer_or_damaged_description_is_told(built, tmp_path):
    for content, error in (
        ('{"format": 99}', StorageError),
        ("{", DamagedIndexError),
        ('{"format": 1, "shards": 0}', DamagedIndexError),
    ):
        (tmp_path / "cluster.json").write_text(content)
        with pytest.raises(error, match="cluster.json"):
            ShardedIndex.open(tmp_path)
