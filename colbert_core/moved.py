"""Old names of modules, from before the package was divided into folders. Pickles and programs of that time use them.

``colbert_core.encoder`` is the same module as ``colbert_core.model.encoder``, and so on. An old name is imported when
somebody asks for it.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

# All moved modules, but those that are folders of the same name now, and ``maxsim``, which is a function of the package.
_MOVED = {
    "arrays": "storage.arrays",
    "backbone": "model.backbone",
    "bm25": "evaluation.bm25",
    "checkpoint": "model.checkpoint",
    "checkpoint.config": "model.checkpoint.config",
    "cluster.serving": "cluster.sharded",
    "codec": "vectors.codec",
    "collection": "evaluation.datasets",
    "connections": "storage.database",
    "embeddings": "vectors.embeddings",
    "encoder": "model.encoder",
    "excerpts": "search.excerpts",
    "explain": "search.explain",
    "filters": "storage.filters",
    "foreign": "index.foreign",
    "gpu": "search.torch_scorer",
    "highlight": "evidence.highlight",
    "ivf": "vectors.inverted_lists",
    "ivfpq": "colbertv1.ivfpq",
    "mining": "colbertv1.mining",
    "packed": "model.packed",
    "pipeline": "colbertv1.pipeline",
    "pooling": "vectors.pooling",
    "provenance": "model.fingerprint",
    "recipe": "model.inputs",
    "scorer": "search.kernel_scorer",
    "segment": "vectors.segment",
    "splitter": "text.splitter",
    "store": "storage.store",
    "tokenizer": "model.tokenizer",
    "upkeep": "index.compaction",
}


class _Moved:
    """A finder and loader. It has no base, as importlib.abc takes 20 ms."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == __package__ and name in _MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:  # noqa: ARG002
        return None

    def exec_module(self, module: ModuleType) -> None:
        new = _MOVED[module.__name__.partition(".")[2]]
        sys.modules[module.__name__] = importlib.import_module(f"{__package__}.{new}")


def install() -> None:
    """Let the old names be imported, once."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Moved())  # first, or the files beside a moved package would be loaded again under its old name
