"""One collection on several machines: built and searched by Ray in shards, each an ordinary index folder.

``plan`` says when that is worth while, ``build`` makes the shards and ``read_progress`` says how far it is, ``ShardedIndex``
searches them like one ``Index``. Ray is imported by what needs it; planning and ``read_progress`` do not.
"""

from typing import TYPE_CHECKING

from colbert_core.lazy import lazy_names

if TYPE_CHECKING:
    from colbert_core.cluster.building import build
    from colbert_core.cluster.layout import is_cluster
    from colbert_core.cluster.planning import Plan, Rates, measured_rates, plan
    from colbert_core.cluster.progress import Progress, Task, read_progress
    from colbert_core.cluster.sharded import PartialHits, ShardedIndex

__all__ = [
    "PartialHits",
    "Plan",
    "Progress",
    "Rates",
    "ShardedIndex",
    "Task",
    "build",
    "is_cluster",
    "measured_rates",
    "plan",
    "read_progress",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_names(
        __name__,
        {
            "PartialHits": "colbert_core.cluster.sharded",
            "Plan": "colbert_core.cluster.planning",
            "Progress": "colbert_core.cluster.progress",
            "Rates": "colbert_core.cluster.planning",
            "ShardedIndex": "colbert_core.cluster.sharded",
            "Task": "colbert_core.cluster.progress",
            "build": "colbert_core.cluster.building",
            "is_cluster": "colbert_core.cluster.layout",
            "measured_rates": "colbert_core.cluster.planning",
            "plan": "colbert_core.cluster.planning",
            "read_progress": "colbert_core.cluster.progress",
        },
    )
