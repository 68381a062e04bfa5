"""Read JSON and tensors of a model folder, name what is missing or damaged, and restore int8 matrices."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from colbert_core.errors import CheckpointError, CheckpointNotFoundError
from colbert_core.storage.incoming import check_tensor, load_torch, read_json_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

_SCALE = ".scale"
# Columns that share a scale. BERT has a few columns of large weights: with one scale for whole rows, rounding turned the
# vectors of the model in the box by .25 on average, more than a 2-bit index, and nDCG@10 on DL19 fell from .652 to .641.
# Over 64 columns it turns them by .035, over 32 by .021; bfloat16 by itself by .010.
_GROUP = 32
_MATRIX = 2  # dimensions
_LONGEST_NAME = 255  # bytes that a file system takes
_BEYOND = 2**62  # of any length or size


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises:
        CheckpointNotFoundError: there is no such file.
        CheckpointError: it holds something else.
    """
    content = parse_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(content).__name__}; copy it again.")
    return content


def parse_json(path: Path) -> Any:
    """Read any value from a JSON file."""
    if not path.is_file():
        raise CheckpointNotFoundError(f"{path.parent} has no {path.name}; the download or copy is not complete.")
    try:
        return read_json_file(path, encoding="utf-8-sig")
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); copy it again.") from error


def read_hidden_size(folder: Path) -> int | None:
    """Read how wide the hidden states of a backbone are, from its config.json.

    Models call it hidden_size, dim, n_embd, d_model and more, and models of texts and images keep it under text_config;
    transformers knows all of these names.

    Returns:
        The width; None where only the model itself can tell, such as one with its own code.

    Raises:
        CheckpointError: there is no model_type either.
    """
    config = read_json(folder / "config.json")
    if isinstance(stated := config.get("hidden_size"), int):
        return stated
    if "model_type" not in config:
        raise CheckpointError(
            f"{folder / 'config.json'} has no model_type, and the backbone's hidden size is {stated}; copy it again."
        )
    from transformers import CONFIG_MAPPING

    try:
        known: Any = CONFIG_MAPPING[str(config["model_type"])]
        width = known.from_dict(config).get_text_config().hidden_size
    except Exception:  # of a kind for each thing that can be wrong; whoever builds the model says which
        return None
    return width if isinstance(width, int) else None


class Fields:
    """The entries of a JSON object, each of the kind that is asked for; one that is missing or null has the default.

    Every getter raises CheckpointError, naming the file, the entry and what it holds, if that is of another kind.
    """

    def __init__(self, content: dict[str, Any], file: Path) -> None:
        """Take an object and the file it stands in, for messages."""
        self.content = content
        self.file = file

    @classmethod
    def of(cls, file: Path, *, needed: bool = False) -> Fields:
        """Read the entries of a file; none if there is no such file and it is not needed."""
        return cls(read_json(file) if needed or file.is_file() else {}, file)

    def __contains__(self, name: str) -> bool:
        """Whether an entry is there and not null."""
        return self.content.get(name) is not None

    def text(self, name: str, default: str) -> str:
        """A string."""
        return str(self._checked(name, default, "a string", lambda value: isinstance(value, str)))

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        return bool(self._checked(name, default, "true or false", lambda value: isinstance(value, bool)))

    def number(self, name: str, default: int) -> int:
        """A whole number of at least 1."""
        return int(self._checked(name, default, "a whole number of at least 1", _is_count))

    def count(self, name: str, default: int) -> int:
        """A whole number of at least 0."""
        return int(self._checked(name, default, "a whole number of at least 0", lambda value: value == 0 or _is_count(value)))

    def ratio(self, name: str, default: float) -> float:
        """A finite number of at least 1."""
        return float(self._checked(name, default, "a number of at least 1", _is_ratio))

    def words(self, name: str, default: Sequence[str]) -> tuple[str, ...]:
        """A list of strings; one string counts as a list of it."""
        value = self.content.get(name)
        if isinstance(value, str):
            return (value,)
        kind = "a list of strings"
        return tuple(
            self._checked(name, default, kind, lambda v: isinstance(v, list) and all(isinstance(word, str) for word in v))
        )

    def counts(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers of at least 1; none by default."""
        kind = "a list of whole numbers of at least 1"
        return tuple(
            map(int, self._checked(name, [], kind, lambda value: isinstance(value, list) and all(map(_is_count, value))))
        )

    def section(self, name: str) -> Fields:
        """Another object."""
        return Fields(self._checked(name, {}, "an object", lambda value: isinstance(value, dict)), self.file)

    def _checked(self, name: str, default: Any, kind: str, fits: Callable[[Any], bool]) -> Any:
        value = self.content.get(name)
        if value is None:
            return default
        if not fits(value):
            raise CheckpointError(f"{self.file} has {name}={value!r:.80}, which must be {kind}; correct it or copy it again.")
        return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value < _BEYOND and value % 1 == 0


def _is_ratio(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value < float("inf")


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of model.safetensors, or else pytorch_model.bin, whole or in shards."""
    import torch

    files = [folder / "pytorch_model.bin"]
    for name in ("model.safetensors", "pytorch_model.bin"):
        shards = folder / f"{name}.index.json"
        if (folder / name).is_file():
            files = [folder / name]
            break
        if shards.is_file():
            names = Fields.of(shards).section("weight_map").content.values()
            if not names or not all(isinstance(shard, str) and is_within(shard) for shard in names):
                raise CheckpointError(f"{shards} names no files under weight_map; copy it again.")
            files = [folder / shard for shard in sorted(set(names))]
            break

    stored: dict[str, torch.Tensor] = {}
    for file in files:
        if not file.is_file():
            wanted = "model.safetensors or pytorch_model.bin" if file.name == "pytorch_model.bin" else file.name
            raise CheckpointNotFoundError(f"{folder} has no {wanted}; the download or copy is not complete.")
        stored |= load_tensors(file)
    others = [name for name, value in stored.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise CheckpointError(f"{folder}: {others[0]} among the weights is no tensor; save the model's state_dict by itself.")
    return {_current_name(key): tensor for key, tensor in _dequantized(stored, folder).items()}


def load_tensors(file: Path) -> dict[str, Any]:
    """Read a .safetensors file or one of torch.save. Code in it is not run."""
    from safetensors.torch import load_file

    try:
        content: Any = load_file(file) if file.suffix == ".safetensors" else load_torch(file)
        for tensor in _tensors_in(content):
            check_tensor(tensor)
    except Exception as error:  # SafetensorError, and what torch raises for a type that it does not know
        raise CheckpointError(
            f"{file} ({file.stat().st_size:,} bytes) cannot be read ({type(error).__name__}: {error}); "
            "it is damaged or not completely copied: copy it again."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, but no tensors by name; copy it again.")
    return content


def _tensors_in(content: Any) -> list[torch.Tensor]:
    """The tensors of a dict, or of a dict in it, as .dnn files have."""
    import torch

    values = list(content.values()) if isinstance(content, dict) else []
    values += [inner for value in values if isinstance(value, dict) for inner in value.values()]
    return [value for value in values if isinstance(value, torch.Tensor)]


def is_within(name: str) -> bool:
    """Whether a path in a file leads to something in the same folder or below."""
    path = PurePath(name)
    is_name = "\0" not in name and len(name.encode(errors="replace")) <= _LONGEST_NAME
    return is_name and not path.is_absolute() and ".." not in path.parts


def check_folder(folder: Path) -> None:
    """Make sure that a folder and those in it hold files and folders: to open a pipe would wait for ever.

    Raises:
        CheckpointError: one is something else.
    """
    for path in [*folder.iterdir(), *folder.glob("*/*")]:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise CheckpointError(f"{path} is neither a file nor a folder; copy the checkpoint again.")


def quantize_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Store every matrix as int8 with one float32 scale for each 32 columns of a row; vectors stay as they are.

    The largest of 32 components becomes 127, so the error of a component is at most 1/254 of it. A matrix of shape (rows,
    columns) has scales of shape (rows, columns / 32, rounded up).
    """
    import torch

    stored: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if tensor.ndim != 2:
            stored[name] = tensor.float().contiguous()
            continue
        groups = torch.split(tensor.float().abs(), _GROUP, dim=1)
        scale = torch.stack([group.amax(dim=1) for group in groups], dim=1).clamp(min=1e-12) / 127
        stored[name] = (tensor.float() / _by_column(scale, tensor)).round().to(torch.int8).contiguous()
        stored[name + _SCALE] = scale
    return stored


def _by_column(scale: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Repeat the scales, one for each component of ``matrix``, (rows, columns)."""
    return scale.repeat_interleave(_GROUP, dim=1)[:, : matrix.shape[1]]


def _dequantized(stored: dict[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """Undo ``quantize_weights``; tensors that are not int8 pass through."""
    import torch

    weights: dict[str, torch.Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(_SCALE) and name.removesuffix(_SCALE) in stored:
            continue
        if tensor.dtype == torch.int8:
            if tensor.ndim != _MATRIX:
                raise CheckpointError(f"{folder}: int8 tensor {name} has the shape {tuple(tensor.shape)} and is no matrix.")
            scale = stored.get(name + _SCALE)
            expected = (tensor.shape[0], -(-tensor.shape[1] // _GROUP))
            if scale is None or scale.shape != expected:
                raise CheckpointError(
                    f"{folder}: int8 tensor {name} of shape {tuple(tensor.shape)} needs {name}{_SCALE} of shape "
                    f"{expected}, found {None if scale is None else tuple(scale.shape)}."
                )
            tensor = tensor.float() * _by_column(scale, tensor)
        weights[name] = tensor
    return weights


def _current_name(key: str) -> str:
    """Rename gamma and beta: checkpoints from before PyTorch, such as bert-base-uncased, call LayerNorm's parameters so."""
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", key))
