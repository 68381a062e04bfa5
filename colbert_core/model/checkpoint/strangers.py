"""Files beside a backbone that this package does not read: named in errors, never passed over.

A head that is left out makes plausible and wrong rankings, and weights for another runtime cannot be read at all.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from colbert_core.errors import CheckpointError, UnsupportedCheckpointError
from colbert_core.model.checkpoint.files import Fields
from colbert_core.model.checkpoint.flagembedding import HEADS, LEXICAL_HEADS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# Endings of files with tensors of torch's, and the names of those that hold no head: weights of the backbone itself, in
# shards or in other precisions, and what trainers keep.
_TENSORS = (".pt", ".pth", ".bin", ".safetensors", ".ckpt", ".dnn")
_NO_HEADS = re.compile(
    r"(model|pytorch_model|consolidated|training_args|optimizer|scheduler|scaler|rng_state|random_states|openvino|ggml|flax)"
    r"([-_.](?!.*(linear|head|proj|colbert)).*)?\.(pt|pth|bin|safetensors|ckpt)"
)

# Weights of torch's, which are not those of a head in a folder of its own.
_OURS = re.compile(r"(?!\d+_Dense/)(.*/)?((model|pytorch_model)[^/]*\.(safetensors|bin)|[^/]*\.dnn)")

# Tensors beside those of the backbone that belong to a head for late interaction, not to one that transformers' models have.
_HEAD_TENSORS = re.compile(
    r"(.*(colbert|multi_?vector|late_interaction|custom_text_proj).*|(?!logits_)(\w+_)?(linear|proj|projection))\.weight"
)

# Weights that other runtimes read, by their endings.
_RUNTIMES = {
    ".onnx": "ONNX",
    ".gguf": "GGUF (llama.cpp)",
    ".ggml": "GGML (llama.cpp)",
    ".npz": "MLX",
    ".mlmodel": "Core ML",
    ".mlpackage": "Core ML",
    ".tflite": "TensorFlow Lite",
    ".h5": "TensorFlow",
    ".msgpack": "Flax",
    ".ot": "Rust",
    ".xml": "OpenVINO",
}


def check_heads(folder: Path, backbone: Path) -> None:
    """Make sure that no head lies beside a backbone that would be read without one.

    Raises:
        UnsupportedCheckpointError: there is one, or something that may be one; the message names the file.
    """
    for file in sorted(path for place in {folder, backbone} for path in place.iterdir()):
        if file.suffix == ".dnn":
            raise UnsupportedCheckpointError(
                f"{folder} holds {file.name}, a ColBERT model of its own, beside other weights; pass that file, or remove it "
                "if the plain encoder is meant."
            )
        is_tensors = (
            file.suffix in _TENSORS and not _NO_HEADS.fullmatch(file.name) and file.name not in (*HEADS, *LEXICAL_HEADS)
        )
        if is_tensors or file.name.startswith("head."):
            raise UnsupportedCheckpointError(
                f"{folder} holds {file.name} beside its backbone, which may be a head and is not read; without it the vectors "
                "would not be what its authors meant. Remove it if the hidden states of the backbone are meant."
            )


def check_tensors(names: Iterable[str], folder: Path) -> None:
    """Make sure that tensors that the backbone does not take are no head for late interaction.

    Args:
        names: of the tensors.
        folder: for messages.

    Raises:
        UnsupportedCheckpointError: one is.
    """
    head = next((name for name in names if _HEAD_TENSORS.fullmatch(name)), None)
    if head is not None:
        raise UnsupportedCheckpointError(
            f"{folder} has {head} among its weights, a head that is not read, since no file says how it is used; without it "
            "the vectors would not be what its authors meant. Add the file that holds its recipe."
        )


def has_weights(names: Iterable[str]) -> bool:
    """Tell whether one of these files, named with their folders, holds weights of a backbone for torch."""
    return any(_OURS.fullmatch(name) for name in names)


def check_runtime(names: Iterable[str], folder: Path, source: str | None = None) -> None:
    """Make sure that there are weights of torch's, if there are any.

    Args:
        names: of the files in a folder or repository, with their folders.
        folder: holds the files that say where they come from: README.md and config.json.
        source: name of the repository, for messages; None for the folder.

    Raises:
        UnsupportedCheckpointError: there are only those of another runtime.
    """
    names = sorted(names)
    by_runtime = {runtime: name for ending, runtime in _RUNTIMES.items() for name in names if name.endswith(ending)}
    if "quantization" in Fields.of(folder / "config.json"):  # MLX's word; transformers' is quantization_config
        by_runtime = {"MLX": "model.safetensors"}
    elif has_weights(names):
        return
    if not by_runtime:
        return
    made_of = source_of(folder)
    found = ", ".join(f"{runtime} ({name})" for runtime, name in by_runtime.items())
    fetch = f"They were made of {made_of}: pass that name" if made_of else "Pass the name of the model that they were made of"
    raise UnsupportedCheckpointError(
        f"{source or folder} holds weights for {found} only; read are model.safetensors and pytorch_model.bin. {fetch}, which "
        f"fetches its files, or run `hf download {made_of or 'NAME'}` and pass the folder it prints."
    )


def source_of(folder: Path) -> str | None:
    """Find which model a converted one was made of: ``base_model`` of its README.md, or ``_name_or_path`` of config.json."""
    readme = folder / "README.md"
    stated: list[Any] = []
    if readme.is_file():
        text = readme.read_text(encoding="utf-8", errors="replace")
        head = re.match(r"\ufeff?---\s*\n(.*?)\n---", text, flags=re.DOTALL)
        found = re.search(r"^base_model:[ \t]*(?:\r?\n[ \t]*-[ \t]*)?([^\n#]+)", head[1], flags=re.MULTILINE) if head else None
        stated += [found[1].strip().strip("[]").split(",")[0].strip().strip("'\"")] if found else []
    with suppress(CheckpointError):  # whoever reads it says so
        stated.append(Fields.of(folder / "config.json").content.get("_name_or_path"))
    return next((name for name in stated if isinstance(name, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)), None)
