"""One collection on several machines: built and searched by Ray in shards, each an ordinary index folder.

``plan`` says when that is worth while, ``build`` makes the shards and ``read_progress`` says how far it is, ``ShardedIndex``
searches them like one ``Index``, and fits its codec when it has grown, ``publish`` and ``restore`` take them to an object
storage and back, ``split`` makes more shards of them. Ray is imported by what needs it; planning and ``read_progress`` do not.
"""

from typing import TYPE_CHECKING

from colbert_core.lazy import lazy_names

if TYPE_CHECKING:
    from colbert_core.cluster.building import build
    from colbert_core.cluster.calls import ReplicaHealth, ShardHealth
    from colbert_core.cluster.fetching import restore
    from colbert_core.cluster.layout import is_cluster
    from colbert_core.cluster.manifests import Manifest, ShardFiles
    from colbert_core.cluster.planning import Plan, Rates, measured_rates, plan
    from colbert_core.cluster.progress import Progress, Task, read_progress
    from colbert_core.cluster.publishing import publish, snapshots
    from colbert_core.cluster.refitting import Refit
    from colbert_core.cluster.sharded import PartialHits, ShardedIndex
    from colbert_core.cluster.splitting import split

__all__ = [
    "Manifest",
    "PartialHits",
    "Plan",
    "Progress",
    "Rates",
    "Refit",
    "ReplicaHealth",
    "ShardFiles",
    "ShardHealth",
    "ShardedIndex",
    "Task",
    "build",
    "is_cluster",
    "measured_rates",
    "plan",
    "publish",
    "read_progress",
    "restore",
    "snapshots",
    "split",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_names(
        __name__,
        {
            "Manifest": "colbert_core.cluster.manifests",
            "PartialHits": "colbert_core.cluster.sharded",
            "Plan": "colbert_core.cluster.planning",
            "Progress": "colbert_core.cluster.progress",
            "Rates": "colbert_core.cluster.planning",
            "Refit": "colbert_core.cluster.refitting",
            "ReplicaHealth": "colbert_core.cluster.calls",
            "ShardHealth": "colbert_core.cluster.calls",
            "ShardFiles": "colbert_core.cluster.manifests",
            "ShardedIndex": "colbert_core.cluster.sharded",
            "Task": "colbert_core.cluster.progress",
            "build": "colbert_core.cluster.building",
            "is_cluster": "colbert_core.cluster.layout",
            "measured_rates": "colbert_core.cluster.planning",
            "plan": "colbert_core.cluster.planning",
            "publish": "colbert_core.cluster.publishing",
            "restore": "colbert_core.cluster.fetching",
            "snapshots": "colbert_core.cluster.publishing",
            "split": "colbert_core.cluster.splitting",
            "read_progress": "colbert_core.cluster.progress",
        },
    )
