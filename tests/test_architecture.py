"""The house itself: who may import whom, what is public, and what an import costs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Imports go downwards only. Modules of one layer do not import each other.
LAYERS = [
    {"errors", "highlight"},
    {"evidence"},
    {"types", "progress", "threads", "kernels", "training_options"},
    {
        "arrays",
        "checkpoint",
        "codec",
        "connections",
        "documents",
        "filters",
        "ivf",
        "maxsim",
        "pooling",
        "splitter",
        "tokenizer",
    },
    {"backbone", "embeddings", "packed", "recipe", "segment", "store"},
    {"encoder", "excerpts", "explain", "foreign", "scorer"},
    {"gpu"},
    {"search"},
    {"provenance", "upkeep"},
    {"index", "rerank"},
    {"collection", "train"},
    {"bm25", "cluster", "evaluation", "ivfpq", "mining"},
    {"pipeline"},
    {"training_commands"},
    {"cli"},
]
LAYER_OF = {module: number for number, layer in enumerate(LAYERS) for module in layer}


def imported(path: Path) -> set[str]:
    """Every module a file imports anywhere in it, also inside functions and for type checking."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


CORE = sorted(path.relative_to(ROOT / "colbert_core") for path in (ROOT / "colbert_core").rglob("*.py"))


@pytest.mark.parametrize("path", CORE, ids=str)
def test_core_modules_import_only_from_layers_below_their_own(path):
    own = path.parts[0].removesuffix(".py")  # a folder is one module of the table
    if own == "__init__":
        return
    assert own in LAYER_OF, f"{own} has no place in the layer table"
    below = {module for module, layer in LAYER_OF.items() if layer < LAYER_OF[own]}
    used = {name.split(".")[1] for name in imported(ROOT / "colbert_core" / path) if name.startswith("colbert_core.")}
    assert used & set(LAYER_OF) - {own} <= below, f"{own} imports {used & set(LAYER_OF) - {own} - below}"


@pytest.mark.parametrize("path", [ROOT / "colbert_core" / path for path in CORE], ids=str)
def test_core_knows_no_framework(path):
    frameworks = {"langchain_core", "llama_index", "langchain_colbert", "llama_index_colbert"}
    used = {name.split(".")[0] for name in imported(path)} & frameworks
    assert used <= ({"langchain_core", "langchain_colbert"} if path.stem == "cli" else set())


@pytest.mark.parametrize(
    "path", sorted([*(ROOT / "langchain_colbert").glob("*.py"), *(ROOT / "llama_index_colbert").glob("*.py")]), ids=str
)
def test_adapters_use_public_names_of_the_core_only_and_compute_nothing(path):
    used = imported(path)
    core = {name for name in used if name.split(".")[0] == "colbert_core"}
    public = importlib.import_module("colbert_core").__all__
    assert core <= {"colbert_core", *(f"colbert_core.{name}" for name in public)}
    own, other = ("langchain", "llama_index") if "langchain_colbert" in path.parts else ("llama_index", "langchain")
    assert not {name for name in used if name.split(".")[0] in {"numpy", "torch", f"{other}_colbert", f"{other}_core"}}, own


PUBLIC = {
    "colbert_core": [
        "CheckpointError",
        "CheckpointNotFoundError",
        "ColBERTError",
        "DamagedIndexError",
        "Encoder",
        "EncoderConfig",
        "EncoderMismatchError",
        "Evidence",
        "Excerpt",
        "ForeignIndex",
        "Hit",
        "Index",
        "IndexExistsError",
        "IndexLockedError",
        "IndexNotFoundError",
        "IndexStats",
        "IndexWriteError",
        "MissingExtraError",
        "PartialAddError",
        "Passage",
        "PassageIndex",
        "ReadOnlyIndexError",
        "Reranker",
        "SearchConfig",
        "StorageError",
        "TokenEmbeddings",
        "TokenEncoder",
        "Tuning",
        "UnsupportedCheckpointError",
        "UnsupportedIndexError",
        "Verification",
        "get_num_threads",
        "maxsim",
        "read_foreign_index",
        "set_num_threads",
    ],
    "langchain_colbert": ["ColBERTContextCompressor", "ColBERTRerank", "ColBERTRetriever", "ColBERTVectorStore"],
    "llama_index_colbert": [
        "ColBERTIndex",
        "ColBERTRerank",
        "ColBERTRetriever",
        "ColBERTSentencePostprocessor",
        "ColBERTVectorStore",
        "ColbertIndex",
        "ColbertRerank",
    ],
}


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_are_exactly_these(package):
    module = importlib.import_module(package)
    assert module.__all__ == PUBLIC[package] == sorted(module.__all__)
    assert all(getattr(module, name).__doc__ for name in module.__all__)


@pytest.mark.parametrize("package", PUBLIC)
def test_packages_are_typed(package):
    assert (ROOT / package / "py.typed").is_file()


def test_importing_the_core_imports_neither_torch_nor_a_framework():
    code = (
        "import sys, colbert_core\n"
        "colbert_core.Index, colbert_core.Reranker, colbert_core.Passage, colbert_core.maxsim\n"
        "heavy = {'torch', 'transformers', 'langchain_core', 'llama_index', 'huggingface_hub', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_core_works_with_neither_framework_installed(stanford_folder):
    code = (
        "import sys\n"
        "sys.modules['langchain_core'] = sys.modules['llama_index'] = None\n"
        "from colbert_core import Index, Passage\n"
        f"index = Index.create(None, {str(stanford_folder)!r})\n"
        "index.add([Passage('a', 'the cat sat')])\n"
        "assert index.search('cat')[0].passage.id == 'a'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("adapter", "framework"), [("langchain_colbert", "langchain_core"), ("llama_index_colbert", "llama_index")]
)
def test_an_adapter_without_its_framework_names_the_pip_line(adapter, framework):
    code = (
        "import sys\n"
        f"sys.modules[{framework!r}] = None\n"
        "from colbert_core import MissingExtraError\n"
        f"try:\n    import {adapter}\n"
        "except MissingExtraError as error:\n    assert 'pip install' in str(error), error\n"
        "else:\n    raise AssertionError('it was imported')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    core = importlib.import_module("colbert_core")
    with pytest.raises(AttributeError, match="no attribute 'Colbert'"):
        _ = core.Colbert
    assert "Encoder" in dir(core)
