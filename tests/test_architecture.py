"""The house itself: who may import whom, what is public, and what an import costs."""

from __future__ import annotations

import ast
import gc
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Imports go downwards only, in two levels. Folders and files of one floor do not import each other.
FLOORS = [
    {"cores", "errors", "devices", "lazy", "memory", "paths", "progress"},
    {"threads"},
    {"extras", "kernels"},
    {"evidence"},
    {"types"},
    {"metadata"},
    {"text"},
    {"checks", "storage"},
    {"documents", "vectors"},
    {"model", "search"},
    {"index", "rerank", "train"},
    {"cluster", "evaluation", "folders", "values"},
    {"colbertv1", "serve"},
    {"cli"},
]

# The same for the files of a folder; a folder within is one of its files.
FLOORS_OF_FOLDER = {
    "cli": [
        {"options", "printing", "reading"},
        {
            "cluster_commands",
            "file_commands",
            "index_commands",
            "model_commands",
            "passage_commands",
            "quickstart",
            "serving_commands",
            "training_commands",
            "training_options",
        },
        {"main"},
        {"__main__"},
    ],
    "cluster": [
        {"layout", "locks", "nodes", "planning", "storages"},
        {"manifests", "progress", "splitting"},
        {"fetching", "staging"},
        {"calls", "encoding"},
        {"actors", "building", "here", "publishing", "reading", "refitting", "windows"},
        {"writing"},
        {"sharded"},
    ],
    "client": [
        {"address", "parcels", "reading"},
        {"answers", "calls"},
        {"connection"},
        {"encoder"},
        {"sync"},
        {"asynchronous"},
    ],
    "colbertv1": [{"faiss_file", "mining", "shards"}, {"encoded"}, {"ivfpq"}, {"pipeline"}],
    "documents": [
        {"files", "part", "roff"},
        {"compressed", "encodings", "packages"},
        {"plain", "records"},
        {"code", "html", "man", "notebooks", "pdf", "rest"},
        {"books", "mail", "office"},
        {"formats"},
        {"pieces"},
    ],
    "evaluation": [{"bm25", "trec"}, {"datasets", "measures"}],
    "evidence": [{"highlight", "telling", "words"}, {"evidence"}],
    "folders": [{"reports"}, {"planning"}, {"syncing"}],
    "index": [
        {"advice", "batches", "blank_query", "foreign", "lexicon", "paging", "reports", "settings", "state"},
        {"restriction"},
        {"compaction", "searching", "view"},
        {"verification", "versions", "windows"},
        {"extension", "tuning", "writing"},
        {"base"},
        {"reading"},
        {"index"},
        {"collections", "opening"},
    ],
    "kernels": [{"compiling", "vector"}, {"building"}, {"scoring"}],
    "model": [
        {"checkpoint", "japanese", "packed", "wordpiece"},
        {"backbone", "light", "tokenizer"},
        {"inputs", "scripts", "sharing"},
        {"description", "forward"},
        {"gathering"},
        {"encoder"},
        {"fingerprint"},
    ],
    "checkpoint": [
        {"config", "files"},
        {"dense", "entries"},
        {"flagembedding", "modules", "nanocolbert", "stanford"},
        {"strangers", "xtr"},
    ],
    "packed": [{"layers"}, {"bert", "modernbert"}],
    "search": [
        {
            "config",
            "diversity",
            "excerpts",
            "explain",
            "hits",
            "imputed",
            "kernel_scorer",
            "modes",
            "plain_scorer",
            "surroundings",
        },
        {"lexical"},
        {"hybrid", "mean", "torch_scorer"},
        {"ranking"},
    ],
    "serve": [
        {"limits", "listening", "metrics", "where", "work"},
        {"access", "catalogue", "client", "requests"},
        {"agents", "failures", "rerank_requests", "service"},
        {"opening", "pages", "passages", "reranking", "searching", "status", "streams"},
        {"app"},
        {"running"},
    ],
    "agents": [{"budget", "http", "problems"}, {"results"}, {"tools"}, {"server"}, {"stdio"}, {"running"}],
    "storage": [
        {"dates"},
        {"arrays", "aside", "filters", "incoming", "opened"},
        {"durable", "fields"},
        {"checksums", "connection"},
        {"tables"},
        {"metadata", "sources", "words"},
        {"changes"},
        {"database"},
        {"folder", "schema"},
        {"files"},
        {"transaction"},
        {"store"},
    ],
    "text": [{"blank", "headers", "lines", "metadata", "splitter", "words"}],
    "train": [
        {"alike", "examples", "gradients", "losses"},
        {"presets"},
        {"model"},
        {"data", "folder"},
        {"batches"},
        {"checking"},
        {"loop"},
    ],
    "vectors": [
        {"centroids", "inverted_lists", "maxsim", "pooling"},
        {"codec"},
        {"embeddings", "segment"},
        {"snapshot"},
        {"background"},
    ],
}


def parsed(path):
    """The syntax tree of a file.

    Where a callback of the garbage collector runs meanwhile, and Hypothesis has one, ast.parse of Python 3.11 may raise SystemError
    ("AST constructor recursion depth mismatch", python/cpython#106905), so nothing is collected.
    """
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        gc.enable()


def imported(path: Path) -> set[str]:
    """Every module a file imports anywhere in it, also inside functions and for type checking."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


CORE = sorted(path.relative_to(ROOT / "colbert_core") for path in (ROOT / "colbert_core").rglob("*.py"))
# The package's own __init__ names modules of every floor, and ``moved`` imports modules by name.
WITH_A_FLOOR = [path for path in CORE if path.parts[0] not in ("__init__.py", "moved.py")]


def floor_of(name: str, floors: list[set[str]]) -> int:
    (number,) = (number for number, floor in enumerate(floors) if name in floor)
    return number


def imported_parts(path: Path) -> set[tuple[str, ...]]:
    """The modules of the core that a file of it imports, as parts of their names behind ``colbert_core``."""
    return {tuple(name.split(".")[1:]) for name in imported(ROOT / "colbert_core" / path) if name.startswith("colbert_core.")}


def upward_arrows(path: Path) -> list[str]:
    """What a file imports that is not on a lower floor: folders of folders, and files of its own folder."""
    own = path.with_suffix("").parts
    own = own[:-1] if own[-1] == "__init__" else own
    upward = []
    for target in imported_parts(path):
        depth = 0  # of the first name in which the two differ
        while depth < min(len(own), len(target)) and own[depth] == target[depth]:
            depth += 1
        if depth == len(own) or depth == len(target):
            continue  # a folder's __init__ may import what is in the folder
        floors = FLOORS_OF_FOLDER[own[depth - 1]] if depth else FLOORS
        known = {name for floor in floors for name in floor}
        assert own[depth] in known, f"{path} has no floor"
        if target[depth] in known and floor_of(target[depth], floors) >= floor_of(own[depth], floors):
            upward.append(".".join(target))
    return upward


@pytest.mark.parametrize("path", WITH_A_FLOOR, ids=str)
def test_core_modules_import_only_from_lower_floors(path):
    assert upward_arrows(path) == []


def test_every_file_of_the_core_has_exactly_one_floor():
    top = [name for floor in FLOORS for name in floor]
    assert sorted(top) == sorted({path.parts[0].removesuffix(".py") for path in WITH_A_FLOOR})
    for folder, floors in FLOORS_OF_FOLDER.items():
        (place,) = (path for path in (ROOT / "colbert_core").rglob(folder) if path.is_dir())
        files = {path.stem for path in place.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
        assert sorted(name for floor in floors for name in floor) == sorted(files - {"__init__"}), folder


def test_an_upward_arrow_is_seen(tmp_path, monkeypatch):
    for name, code in {
        "vectors/codec.py": "from colbert_core.model.encoder import Encoder",
        "vectors/maxsim.py": "def f():\n    from colbert_core.vectors import snapshot",
        "vectors/snapshot.py": "import colbert_core.vectors.segment, colbert_core.errors",
        "model/checkpoint/files.py": "from colbert_core.model.checkpoint.stanford import write",
        "model/checkpoint/stanford.py": "from colbert_core.model.backbone import Head",
    }.items():
        (tmp_path / "colbert_core" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "colbert_core" / name).write_text(code)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert "model.encoder" in upward_arrows(Path("vectors/codec.py"))
    assert upward_arrows(Path("vectors/maxsim.py")) == ["vectors.snapshot"]
    assert upward_arrows(Path("vectors/snapshot.py")) == []
    assert "model.checkpoint.stanford" in upward_arrows(Path("model/checkpoint/files.py"))
    assert "model.backbone" in upward_arrows(Path("model/checkpoint/stanford.py"))


LONGEST_FILE, LONGEST_INDEX = 500, 450


@pytest.mark.parametrize("path", [path for path in CORE if path.parts[0] != "kernels"], ids=str)
def test_no_file_of_the_engine_is_too_long_to_read(path):
    assert len((ROOT / "colbert_core" / path).read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


def test_the_index_is_a_class_that_can_be_read():
    tree = parsed(ROOT / "colbert_core" / "index" / "index.py")
    (index,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Index")
    assert index.end_lineno - index.lineno < LONGEST_INDEX


@pytest.mark.parametrize("path", [ROOT / "colbert_core" / path for path in CORE], ids=str)
def test_core_knows_no_framework(path):
    frameworks = {"langchain_core", "llama_index", "langchain_colbert", "llama_index_colbert"}
    used = {name.split(".")[0] for name in imported(path)} & frameworks
    assert used <= ({"langchain_core", "langchain_colbert"} if "cli" in path.parts else set())


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
        "HYBRID_WEIGHT",
        "MODES",
        "CheckpointError",
        "CheckpointNotFoundError",
        "ColBERTError",
        "Collections",
        "DamagedIndexError",
        "Encoder",
        "EncoderConfig",
        "EncoderMismatchError",
        "Evidence",
        "Excerpt",
        "FilterWarning",
        "ForeignIndex",
        "Hit",
        "Index",
        "IndexBase",
        "IndexExistsError",
        "IndexLockedError",
        "IndexNotFoundError",
        "IndexStats",
        "IndexWriteError",
        "MetadataField",
        "MissingExtraError",
        "Page",
        "PartialAddError",
        "Passage",
        "PassageIndex",
        "Problem",
        "ReadOnlyIndexError",
        "Reranker",
        "SearchConfig",
        "ServiceBusyError",
        "ServiceDeniedError",
        "ServiceError",
        "ServiceTimeoutError",
        "ServiceUnreachableError",
        "StorageError",
        "SyncReport",
        "TokenEmbeddings",
        "TokenEncoder",
        "Tuning",
        "UnsupportedCheckpointError",
        "UnsupportedIndexError",
        "Verification",
        "get_num_threads",
        "hits_of_blank_query",
        "maxsim",
        "open_index",
        "open_or_create",
        "plain_metadata",
        "read_foreign_index",
        "set_num_threads",
        "sync",
        "widen",
    ],
    "langchain_colbert": [
        "ColBERTContextCompressor",
        "ColBERTRerank",
        "ColBERTRetriever",
        "ColBERTTranslator",
        "ColBERTVectorStore",
        "without_scores",
    ],
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
    constants_first = sorted(module.__all__, key=lambda name: (not name.isupper(), name))
    assert module.__all__ == PUBLIC[package] == constants_first
    assert all(getattr(module, name).__doc__ for name in module.__all__)


@pytest.mark.parametrize("package", PUBLIC)
def test_packages_are_typed(package):
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("package", ["colbert_core", "colbert_core.cluster", "colbert_core.search", "colbert_core.serve"])
def test_names_that_are_imported_late_are_those_that_type_checkers_see(package):
    """Each name is read from the same module by type checkers and by ``lazy_names``, and is public."""
    path = ROOT.joinpath(*package.split("."), "__init__.py")
    seen, late = {}, {}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            seen = {alias.name: each.module for each in node.body for alias in each.names}
        elif isinstance(node, ast.Dict):
            late = ast.literal_eval(node)
    module = importlib.import_module(package)
    assert late == seen
    assert sorted(late) == sorted(module.__all__)
    for name, place in late.items():
        assert getattr(module, name) is getattr(importlib.import_module(place), name)


def test_the_name_maxsim_is_the_function_whoever_imported_the_module_first():
    code = "import colbert_core.vectors.maxsim, colbert_core; assert callable(colbert_core.maxsim), colbert_core.maxsim"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_all_names_come_with_a_star():
    code = "from colbert_core import *; import colbert_core; assert set(colbert_core.__all__) <= set(globals())"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_the_package_and_asking_for_help_imports_nothing_that_takes_long():
    code = (
        "import sys, colbert_core\n"
        "from colbert_core.cli.main import build_parser\n"
        "build_parser().format_help()\n"
        "assert 'Index' in dir(colbert_core)\n"
        "heavy = {'numpy', 'torch', 'transformers', 'numba', 'tqdm', 'asyncio', 'sqlite3'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_commands_that_need_no_model_import_neither_torch_nor_numba(tmp_path, stanford):
    core = importlib.import_module("colbert_core")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "cats.txt").write_text("the cat sat")
    folder = str(tmp_path / "x.idx")
    with core.Index.create(folder, stanford) as index:
        core.sync(tmp_path / "docs", index)
    commands = [
        ["search", folder, "cat", "--mode", "words"],
        ["list", folder],
        ["show", folder, "docs/cats.txt#1"],
        ["fields", folder],
        ["stats", folder],
        ["sync", str(tmp_path / "docs"), "--index", folder],
    ]
    code = (
        "import sys\n"
        "from colbert_core.cli.main import main\n"
        f"codes = [main(command) for command in {commands!r}]\n"
        "heavy = {'torch', 'transformers', 'numba', 'tqdm', 'scipy', 'langchain_core'} & set(sys.modules)\n"
        "assert not heavy and not any(codes), (heavy, codes)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


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
