"""Read and write the model folders of all ColBERT libraries. Only this package knows the names that their files use.

==========================  =====================================================  =====  =======
format                      how it is known                                        read   written
==========================  =====================================================  =====  =======
Stanford ColBERT            architecture ``HF_ColBERT`` or ``artifact.metadata``    yes    yes
Stanford ColBERT, legacy    a ``.dnn`` file                                         yes
PyLate                      ``modules.json`` with ``pylate`` modules                yes    yes
sentence-transformers 6     ``modules.json`` with a ``MultiVectorMask``             yes    yes
nanoColBERT                 architecture ``ColBERT``                                yes
XTR                         a T5 with a Dense layer that makes vectors narrower      yes
FlagEmbedding (BGE-M3)      ``colbert_linear.pt`` beside a backbone                 yes
untrained                   any other encoder                                       yes
==========================  =====================================================  =====  =======

Weights may be stored as int8 with a float32 ``<name>.scale`` for each 32 columns of a row, in 28 % of their size.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbert_core.errors import CheckpointError, CheckpointNotFoundError, UnsupportedCheckpointError
from colbert_core.model.checkpoint import flagembedding, modules, nanocolbert, stanford, strangers, xtr
from colbert_core.model.checkpoint.config import Checkpoint, Dense, EncoderConfig
from colbert_core.model.checkpoint.files import Fields, check_folder, quantize_weights, read_json
from colbert_core.paths import as_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = [
    "DEFAULT_MODEL",
    "WRITABLE",
    "Checkpoint",
    "Dense",
    "EncoderConfig",
    "download_named",
    "find_checkpoint",
    "quantize_weights",
    "read_checkpoint",
    "write_checkpoint",
]

DEFAULT_MODEL = Path(__file__).parents[2] / "default_model"

WRITABLE = ("stanford", "pylate", "sentence-transformers")

# jina-colbert-v2 (Jha et al., 2024, arXiv 2408.16672, section 3.3) is known by the code that it names.
_JINA_DIMS, _JINA_CODE = (64, 96, 128), "jinaai/xlm-roberta-flash-implementation"

# The files of a hub repository that an encoder reads. Copies for ONNX, OpenVINO or TensorFlow can be ten times as much.
_HUB_FILES = [
    *("*.json", "*.metadata", "*.txt", "*.model", "*.py", "*.dnn", "README.md"),
    *("model*.safetensors", "pytorch_model*.bin", "[0-9]*_*/*.safetensors", "[0-9]*_*/*.bin"),
    # Heads beside the backbone: to be read, or to be refused by name.
    *(f"*{word}*.{ending}" for word in ("linear", "head", "proj", "colbert") for ending in ("pt", "pth", "bin", "safetensors")),
]


def find_checkpoint(name: str, *, local_files_only: bool = False) -> Path:
    """Find a checkpoint: a folder or .dnn file on disk, or a name on the hub, whose files are downloaded or cached.

    Raises:
        CheckpointNotFoundError: there is no such folder, or the hub's files are not cached and cannot be fetched.
    """
    path = as_path(name)
    if name and (path.is_dir() or (path.suffix == ".dnn" and path.is_file())):
        return path
    if path.is_file():
        raise CheckpointNotFoundError(f"{path.absolute()} is a file; pass the folder that holds it.")
    if not name or name.count("/") > 1 or name.startswith((".", "~", "/", "\\")) or path.is_absolute():
        raise CheckpointNotFoundError(f"There is no checkpoint folder at {path.absolute()}; check the path.")

    import huggingface_hub

    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=_HUB_FILES, local_files_only=local_files_only))
    # Without a network the hub client raises its own errors, the HTTP library's or OSError, depending on where it fails.
    except Exception as error:
        cache = huggingface_hub.constants.HF_HUB_CACHE
        raise CheckpointNotFoundError(
            f"Checkpoint {name!r} is no folder here, is not complete in the hub cache {cache}, and could not be fetched "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no detail'}). With a network, run "
            f"`hf download {name}`; without one, run that where there is, copy the folder it prints, and pass its path. "
            "Encoder.from_pretrained() without a name needs neither."
        ) from error
    if not local_files_only and not strangers.has_weights(_names(folder)):
        names: list[str] = []
        with suppress(Exception):  # of the same kinds; whoever reads the folder says that its weights are missing
            names = huggingface_hub.list_repo_files(name)
        strangers.check_runtime(names, folder, source=name)
    return folder


@contextmanager
def download_named(path: Path) -> Iterator[None]:
    """Tell how to finish the download, in case a file is missing from a folder of the hub's cache."""
    try:
        yield
    except CheckpointNotFoundError as error:
        cached = re.search(r"models--([^/\\]+?)--([^/\\]+)[/\\]snapshots", str(path))
        if cached is None:
            raise
        name = "/".join(cached.groups())
        raise CheckpointNotFoundError(f"{error} It is a download of {name}: run `hf download {name}` to finish it.") from error


def read_checkpoint(path: Path, *, chosen: Collection[str] = (), local_files_only: bool = False) -> Checkpoint:
    """Read a folder or .dnn file in any of the formats above.

    Args:
        path: folder or file that ``find_checkpoint`` returned.
        chosen: lengths that the caller sets, "query_length" or "passage_length"; the files may disagree about these.
        local_files_only: use no network for the backbone that a .dnn file names, if that does not lie beside it.

    Raises:
        CheckpointNotFoundError: a file is missing; the message says which.
        UnsupportedCheckpointError: the folder is in a format that this version does not read.
        CheckpointError: a file is damaged, or the parts do not fit each other.
    """
    check_folder(path if path.is_dir() else path.parent)
    dnn = path if path.is_file() else _lone_dnn(path)
    if dnn is not None:
        return _read_dnn(dnn, local_files_only=local_files_only)
    strangers.check_runtime(_names(path), path)
    checkpoint = _read_folder(path, chosen)
    return replace(checkpoint, config=replace(checkpoint.config, nested_dims=_nested_dims(path, checkpoint)))


def write_checkpoint(folder: Path, checkpoint: Checkpoint, *, prefix: str, dim: int) -> None:
    """Write a checkpoint in the format that its recipe names, into a folder that has config.json and the tokenizer already.

    Args:
        folder: folder to write into.
        checkpoint: recipe, head and weights; its own folder does not matter.
        prefix: prefix of the backbone's names in a Stanford checkpoint, "bert" for BERT.
        dim: components of the vectors.

    Raises:
        ValueError: the recipe names a format that cannot be written.
        UnsupportedCheckpointError: the format cannot hold this model so that its own library reads it as it is meant.
    """
    config, head = checkpoint.config, checkpoint.head
    if config.format not in WRITABLE:
        raise ValueError(f"format must be one of {', '.join(WRITABLE)}, got {config.format!r}.")
    is_stanford = config.format == "stanford"
    reasons = stanford.reasons_against(config, head) if is_stanford else modules.reasons_against(config, config.format)
    if reasons:
        raise UnsupportedCheckpointError(
            f"The {config.format} format cannot hold this model: {'; '.join(reasons)}. The sentence-transformers format can."
        )
    if is_stanford:
        stanford.write(folder, config, head, checkpoint.weights, prefix)
    else:
        modules.write(folder, config, head, checkpoint.weights, dim)


def _nested_dims(folder: Path, checkpoint: Checkpoint) -> tuple[int, ...]:
    """Read to which dimensions a model was trained to be cut; jina-colbert-v2 was, and its files do not say so."""
    config = Fields.of(checkpoint.folder / "config.json", needed=True)
    stated = {*config.counts("matryoshka_dims"), *config.counts("matryoshka_dimensions")}
    for fields in (Fields.of(folder / modules.SETTINGS), stanford.read_metadata(folder)):
        stated |= {*fields.counts("matryoshka_dims"), *fields.counts("matryoshka_dimensions")}
    full = checkpoint.head[-1].weight.shape[0] if checkpoint.head else None
    if not stated and full == max(_JINA_DIMS) and _JINA_CODE in str(config.content.get("auto_map")):
        stated = {*_JINA_DIMS}
    return tuple(sorted(dim for dim in stated if full is None or dim <= full))


def _names(folder: Path) -> list[str]:
    """List what is in a folder and in those of it."""
    return [path.relative_to(folder).as_posix() for path in (*folder.glob("*"), *folder.glob("*/*"))]


def _lone_dnn(folder: Path) -> Path | None:
    """Find the .dnn file of a folder that has no other weights."""
    files = sorted(folder.glob("*.dnn"))
    others = [*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin")]
    return files[0] if len(files) == 1 and not others else None


def _read_dnn(file: Path, *, local_files_only: bool) -> Checkpoint:
    weights, arguments = stanford.read_dnn(file)
    if (file.parent / "config.json").is_file():
        folder = file.parent
    else:
        base = arguments.text("model", "bert-base-uncased")
        try:
            folder = find_checkpoint(base, local_files_only=local_files_only)
        except CheckpointNotFoundError as error:
            raise CheckpointNotFoundError(
                f"{file} is of the backbone {base!r}, whose config.json and tokenizer are needed: put them beside it. {error}"
            ) from error
    return stanford.from_dnn(folder, weights, arguments)


def _read_folder(folder: Path, chosen: Collection[str]) -> Checkpoint:
    backbone = modules.backbone_folder(folder)
    if not (backbone / "config.json").is_file():
        names = sorted(entry.name for entry in folder.iterdir())
        if len(list(folder.glob("*.dnn"))) > 1:
            raise CheckpointNotFoundError(f"{folder} holds several .dnn files, {', '.join(names)}; pass one of them.")
        raise CheckpointNotFoundError(
            f"{folder} is no checkpoint: looked for config.json, {modules.MODULES}, {stanford.METADATA} and *.dnn, and "
            f"{'it holds only ' + ', '.join(names) if names else 'it is empty'}; pass the folder that holds config.json and "
            "the weights."
        )
    config = read_json(backbone / "config.json")
    checkpoint = _read_known(folder, backbone, config, chosen)
    if config.get("model_type") in xtr.T5:
        checkpoint = replace(checkpoint, weights=xtr.with_shared_embeddings(checkpoint.weights))
    return checkpoint


def _read_known(folder: Path, backbone: Path, config: dict[str, Any], chosen: Collection[str]) -> Checkpoint:
    is_stanford = stanford.recognises(folder, config)
    head_file = flagembedding.head_file(backbone)
    other = modules.format_of(folder)
    if other and not (is_stanford and not modules.has_head(folder)):  # whose head is among the weights, as Stanford's is
        checkpoint = modules.read(folder)
    elif is_stanford:
        checkpoint = stanford.read(folder)
    elif xtr.recognises(folder, config):
        checkpoint = xtr.read(folder)
    elif nanocolbert.recognises(config):
        checkpoint = nanocolbert.read(folder, config)
    else:
        strangers.check_heads(folder, backbone)
        if head_file is None:
            return modules.read_untrained(folder)
        return flagembedding.read(head_file, modules.read_untrained(folder, length=modules.NO_LIMIT))
    if other and is_stanford:
        _check_agreement(folder, checkpoint, chosen)
    if head_file is not None:
        flagembedding.check_same(head_file, checkpoint)
    return checkpoint


def _check_agreement(folder: Path, checkpoint: Checkpoint, chosen: Collection[str]) -> None:
    """Make sure that a folder with two recipes, such as a converted one, says the same in both.

    Raises:
        CheckpointError: it does not.
    """
    metadata = stanford.read_metadata(folder).content
    stated = {
        "query_length": metadata.get("query_maxlen"),
        "passage_length": metadata.get("doc_maxlen"),
        "query_marker": metadata.get("query_token_id"),
        "passage_marker": metadata.get("doc_token_id"),
        "augment_queries": metadata.get("query_augmentation", True) if metadata else None,
        "attend_to_augmentation": metadata.get("attend_to_mask_tokens"),
        "skip_punctuation": metadata.get("mask_punctuation"),
        "dim": metadata.get("dim"),
    }
    others = modules.stated_recipe(folder)
    if checkpoint.head:
        others["dim"] = checkpoint.head[-1].weight.shape[0]
    for name, other in others.items():
        value = stated[name]
        if value is None or name in chosen or str(value).strip() == str(other).strip():
            continue
        fix = f" or pass {name}=..." if name.endswith("_length") else ""
        raise CheckpointError(
            f"{folder} holds two recipes that disagree about the {name}: {stanford.METADATA} says {value!r}, "
            f"{modules.SETTINGS} and the files beside it {other!r}; remove the one that is out of date{fix}."
        )
