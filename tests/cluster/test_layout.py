"""The folder of a sharded index, and its description."""

from __future__ import annotations

import pytest

from colbert_core import DamagedIndexError, StorageError
from colbert_core.cluster import ShardedIndex
from colbert_core.cluster.layout import Layout, Settings

# Ray Data warns of its own settings when it copies them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")


def test_a_newer_or_damaged_description_is_told(built, tmp_path):
    for content, error in (
        ('{"format": 99}', StorageError),
        ("{", DamagedIndexError),
        ('{"format": 1, "shards": 0}', DamagedIndexError),
        ('{"format": 3, "shards": 1, "nbits": 4, "model": "default", "pool_factor": 0.5}', DamagedIndexError),
        ('{"format": 3, "shards": 1, "nbits": 4, "model": "default", "pool_factor": "2"}', DamagedIndexError),
    ):
        (tmp_path / "cluster.json").write_text(content)
        with pytest.raises(error, match="cluster.json"):
            ShardedIndex.open(tmp_path)


def test_a_description_from_before_there_were_words_is_read(tmp_path):
    layout = Layout(tmp_path)
    (tmp_path / "cluster.json").write_text('{"format": 1, "shards": 2, "nbits": 4, "model": "default", "passages": 7}')
    assert layout.read() == Settings(2, 4, "default", {}, 7, words="english")
    assert layout.read().pool_factor == 1
    layout.write(Settings(2, 4, "default", words=False))
    assert layout.read().words is False
