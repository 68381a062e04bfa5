"""The formats that list their parts in modules.json: PyLate, sentence-transformers multi-vector, and plain encoders.

Both trained formats are a Transformer and one or several Dense layers over its token vectors. They differ in where the
recipe stands:

- *PyLate*: all of it in ``config_sentence_transformers.json``. Its prefixes are tokens, put in by their id; "[Q] " with the
  blank is one token. Words to skip that are no token of the vocabulary are ignored, as in sentence-transformers; PyLate
  itself then skips every unknown token.
- *sentence-transformers* (from version 6): lengths and query expansion in the Transformer's own file, skipped tokens in a
  MultiVectorMask module, prefixes as text in ``prompts``.

A plain folder, whether sentence-transformers or a bare encoder, is read as *untrained* late interaction over its hidden
states: no ColBERT, but a strong start.
"""

from __future__ import annotations

import json
import string
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from colbert_core.checkpoint.config import Checkpoint, Dense, EncoderConfig
from colbert_core.checkpoint.files import number_of, parse_json, read_json, read_json_if_there, read_weights
from colbert_core.errors import CheckpointError, UnsupportedCheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

SETTINGS = "config_sentence_transformers.json"
MODULES = "modules.json"
_TRANSFORMER = "sentence_bert_config.json"

# A length that stands in no file: whatever the backbone reads.
_NO_LIMIT = 1_000_000

# What transformers wants to find in a safetensors file of torch's.
_PT = {"format": "pt"}


def listed_modules(folder: Path) -> list[dict[str, Any]]:
    """The entries of modules.json, none where there is no such file.

    Raises:
        CheckpointError: it holds something else.
    """
    file = folder / MODULES
    entries = parse_json(file) if file.is_file() else []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "type" in entry for entry in entries):
        raise CheckpointError(f"{file} must hold a JSON list of modules, each with a type; copy it again.")
    return entries


def recognises(folder: Path) -> bool:
    """Whether a folder is late interaction in one of the two trained formats."""
    types = [str(entry["type"]) for entry in listed_modules(folder)]
    settings = read_json_if_there(folder / SETTINGS)
    return (
        any(name.startswith("pylate.") or "MultiVector" in name for name in types)
        or settings.get("model_type") in ("ColBERT", "MultiVectorEncoder")
        or "query_prefix" in settings
    )


def backbone_folder(folder: Path) -> Path:
    """Where the Transformer module has its files: the folder itself, in old versions 0_Transformer."""
    for entry in listed_modules(folder):
        if _class_of(entry) == "Transformer":
            return folder / str(entry.get("path") or "")
    return folder


def read(folder: Path) -> Checkpoint:
    """Read a folder in one of the two trained formats.

    Raises:
        CheckpointError: a part is missing or does not fit the others.
        UnsupportedCheckpointError: it has a part that is not read here, such as one for images.
    """
    entries = listed_modules(folder)
    settings = read_json_if_there(folder / SETTINGS)
    if not any(_class_of(entry) == "Transformer" for entry in entries):
        raise CheckpointError(f"{folder / MODULES} lists no Transformer among {[entry['type'] for entry in entries]}.")
    is_pylate = (
        settings.get("model_type") == "ColBERT"
        or "query_prefix" in settings
        or any(str(entry["type"]).startswith("pylate.") for entry in entries)
    )
    transformer = backbone_folder(folder)
    recipe = _pylate_recipe(folder, settings) if is_pylate else _multi_vector_recipe(folder, settings, entries)
    if read_json_if_there(transformer / _TRANSFORMER).get("do_lower_case"):
        recipe = replace(recipe, lowercase=True)
    head = tuple(_read_dense(folder / str(entry.get("path") or "")) for entry in entries if _class_of(entry) == "Dense")
    hidden = read_json(transformer / "config.json").get("hidden_size")
    for number, layer in enumerate(head, 1):
        if layer.weight.shape[1] != hidden:
            raise CheckpointError(
                f"{folder}: Dense layer {number} takes {layer.weight.shape[1]} components but is given {hidden}; "
                "the modules belong to different checkpoints."
            )
        hidden = layer.weight.shape[0]
    weights = read_weights(transformer)
    inline = weights.pop("linear.weight", None)
    if inline is not None and not (len(head) == 1 and head[0].is_plain and inline.equal(head[0].weight)):
        raise CheckpointError(
            f"{folder} has two projections that differ: linear.weight {tuple(inline.shape)} among the weights, and "
            f"{len(head)} Dense layers in {MODULES}; remove the one that is not meant."
        )
    return Checkpoint(transformer, recipe, weights, head)


def read_untrained(folder: Path) -> Checkpoint:
    """Late interaction for a model that never learned it: its own tokens, up to the length it was trained with."""
    transformer = backbone_folder(folder)
    settings = read_json_if_there(transformer / _TRANSFORMER)
    length = number_of(settings.get("max_seq_length") or None, "max_seq_length", transformer / _TRANSFORMER, 256)
    weights = read_weights(transformer)
    if "linear.weight" in weights:
        raise UnsupportedCheckpointError(
            f"{folder} has the projection linear.weight but neither artifact.metadata nor the architecture HF_ColBERT "
            f"nor {MODULES} (its config.json says {read_json(transformer / 'config.json').get('architectures')}); "
            "add the file that holds its recipe."
        )
    recipe = EncoderConfig(
        format="untrained",
        query_length=length,
        passage_length=length,
        skip_punctuation=True,
        lowercase=bool(settings.get("do_lower_case")),
        trained=False,
    )
    return Checkpoint(transformer, recipe, weights)


def stated_recipe(folder: Path) -> dict[str, Any]:
    """What a trained folder states itself, by the names of EncoderConfig, to hold against another file's statement."""
    settings = read_json_if_there(folder / SETTINGS)
    transformer = read_json_if_there(backbone_folder(folder) / _TRANSFORMER)
    expansion = transformer.get("query_expansion") or {}
    prompts = settings.get("prompts") or {}
    stated = {
        "query_length": settings.get("query_length") or expansion.get("length") or transformer.get("query_length"),
        "passage_length": settings.get("document_length") or transformer.get("document_length"),
        "query_marker": settings.get("query_prefix") or prompts.get("query"),
        "passage_marker": settings.get("document_prefix") or prompts.get("document"),
        "attend_to_augmentation": settings.get("attend_to_expansion_tokens", expansion.get("attend")),
    }
    return {name: value for name, value in stated.items() if value is not None}


def reasons_against(recipe: EncoderConfig, format: str) -> list[str]:
    """What the other library could not read as it is meant; empty where its format can hold the model."""
    is_pylate = format == "pylate"
    checks = {
        "it skips punctuation by a rule, not by tokens": recipe.skip_punctuation,
        "it skips tokens in queries": is_pylate and recipe.skip_in_queries,
        "it fills queries with a token of its own": is_pylate and recipe.augmentation_token is not None,
        "it fills queries up to another length than query_length": is_pylate and recipe.augmentation_length is not None,
        "it pools tokens": is_pylate and recipe.pool_factor != 1,
        "it has markers that are no text": not is_pylate and bool(recipe.query_marker or recipe.passage_marker),
    }
    return [reason for reason, holds in checks.items() if holds]


def write(folder: Path, recipe: EncoderConfig, head: tuple[Dense, ...], weights: dict[str, torch.Tensor], dim: int) -> None:
    """Write recipe and weights beside the config.json and tokenizer that are there, in the format that the recipe names.

    Args:
        folder: where config.json is already.
        recipe: one that ``reasons_against`` has nothing against.
        head: any layers.
        weights: the backbone's, by their names in it.
        dim: components of the vectors; PyLate adds a random layer where it finds none, so it gets an identity.
    """
    import torch
    from safetensors.torch import save_file

    is_pylate = recipe.format == "pylate"
    if is_pylate and not head:
        head = (Dense(torch.eye(dim)),)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", _PT)
    base = "sentence_transformers.models" if is_pylate else "sentence_transformers.base.modules"
    types = [("", f"{base}.Transformer" if is_pylate else f"{base}.transformer.Transformer")]
    for number, layer in enumerate(head, 1):
        types.append((f"{number}_Dense", "pylate.models.Dense.Dense" if is_pylate else f"{base}.dense.Dense"))
        _write_dense(folder / types[-1][0], layer, names_its_input=not is_pylate)
    if is_pylate:
        transformer: dict[str, Any] = {"max_seq_length": recipe.passage_length, "do_lower_case": recipe.lowercase}
        _write_json(folder / SETTINGS, _pylate_settings(recipe))
    else:
        transformer = _transformer_settings(recipe)
        _write_json(folder / SETTINGS, _multi_vector_settings(recipe))
        tasks = ["query", "document"] if recipe.skip_in_queries else ["document"]
        parts = [
            ("MultiVectorMask", "multi_vector_mask", {"skiplist_words": list(recipe.skip_tokens), "skiplist_tasks": tasks}),
            ("Normalize", "normalize", {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}),
        ]
        if recipe.pool_factor != 1:
            pooling = {"pool_factor": recipe.pool_factor, "num_protected_tokens": recipe.pool_protected}
            parts.append(("HierarchicalTokenPooling", "token_pooling", pooling | {"normalize_embeddings": True}))
        for name, file, settings in parts:
            package = base if name == "Normalize" else "sentence_transformers.multi_vector_encoder.modules"
            types.append((f"{len(types)}_{name}", f"{package}.{file}.{name}"))
            _write_json(folder / types[-1][0] / "config.json", settings)
    _write_json(folder / _TRANSFORMER, transformer)
    entries = [{"idx": i, "name": str(i), "path": path, "type": type_} for i, (path, type_) in enumerate(types)]
    _write_json(folder / MODULES, entries)


def _write_dense(folder: Path, layer: Dense, *, names_its_input: bool) -> None:
    """A Dense module; PyLate's takes no names of inputs and outputs, they are its token embeddings."""
    from safetensors.torch import save_file

    tensors = {"linear.weight": layer.weight, "linear.bias": layer.bias, "residual.weight": layer.residual_weight}
    settings = {
        "in_features": layer.weight.shape[1],
        "out_features": layer.weight.shape[0],
        "bias": layer.bias is not None,
        "activation_function": f"{_activation_package(layer.activation)}.{layer.activation}",
        "use_residual": layer.residual,
    }
    if names_its_input:
        settings |= {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    _write_json(folder / "config.json", settings)
    save_file({k: v.contiguous() for k, v in tensors.items() if v is not None}, folder / "model.safetensors", _PT)


def _pylate_settings(recipe: EncoderConfig) -> dict[str, Any]:
    return {
        "model_type": "ColBERT",
        "prompts": {"query": recipe.query_prompt, "document": recipe.passage_prompt},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": recipe.query_marker or "",
        "document_prefix": recipe.passage_marker or "",
        "query_length": recipe.query_length,
        "document_length": recipe.passage_length,
        "attend_to_expansion_tokens": recipe.attend_to_augmentation,
        "skiplist_words": list(recipe.skip_tokens),
        "do_query_expansion": recipe.augment_queries,
        **({} if recipe.trained else {"trained": False}),
    }


def _multi_vector_settings(recipe: EncoderConfig) -> dict[str, Any]:
    return {
        "model_type": "MultiVectorEncoder",
        "prompts": {"query": recipe.query_prompt, "document": recipe.passage_prompt},
        "default_prompt_name": None,
        "similarity_fn_name": recipe.similarity if recipe.similarity == "meanmaxsim" else "maxsim",
        **({} if recipe.trained else {"trained": False}),
    }


def _transformer_settings(recipe: EncoderConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
        "do_lower_case": recipe.lowercase,
        "query_length": recipe.query_length,
        "document_length": recipe.passage_length,
    }
    if recipe.augment_queries:
        settings["query_expansion"] = {
            "strategy": "fixed" if recipe.augmentation_length is None else "min",
            "attend": recipe.attend_to_augmentation,
            "token": recipe.augmentation_token,
            "length": recipe.augmentation_length or recipe.query_length,
        }
    return settings


def _write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _activation_package(name: str) -> str:
    import torch

    return str(getattr(torch.nn, name).__module__)


def _pylate_recipe(folder: Path, settings: dict[str, Any]) -> EncoderConfig:
    """PyLate's own defaults where the file states nothing; prompts named query and document go with the prefixes."""
    file = folder / SETTINGS
    expands = settings.get("do_query_expansion")
    skipped = settings.get("skiplist_words")
    prompts = _prompts(settings)
    prefixes = {
        "query": "[Q] " if settings.get("query_prefix") is None else settings["query_prefix"],
        "document": "[D] " if settings.get("document_prefix") is None else settings["document_prefix"],
    }
    return EncoderConfig(
        format="pylate",
        query_length=number_of(settings.get("query_length"), "query_length", file, 32),
        passage_length=number_of(settings.get("document_length"), "document_length", file, 180),
        query_marker=prefixes["query"] or None,
        passage_marker=prefixes["document"] or None,
        query_prompt=prompts["query"].removeprefix(prefixes["query"]),
        passage_prompt=prompts["document"].removeprefix(prefixes["document"]),
        augment_queries=expands is None or bool(expands),
        attend_to_augmentation=(expands is None or bool(expands)) and bool(settings.get("attend_to_expansion_tokens")),
        skip_tokens=tuple(string.punctuation if skipped is None else skipped),
        similarity=_similarity(settings),
        trained=bool(settings.get("trained", True)),
    )


def _multi_vector_recipe(folder: Path, settings: dict[str, Any], entries: list[dict[str, Any]]) -> EncoderConfig:
    file = backbone_folder(folder) / _TRANSFORMER
    transformer = read_json_if_there(file)
    output = ((transformer.get("modality_config") or {}).get("text") or {}).get("method_output_name", "last_hidden_state")
    if output != "last_hidden_state" or transformer.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise UnsupportedCheckpointError(
            f"{file} takes {output!r} of a {transformer.get('transformer_task')!r} model; this version reads text encoders "
            "by their last_hidden_state."
        )
    longest = number_of(transformer.get("max_seq_length"), "max_seq_length", file, _tokenizer_limit(backbone_folder(folder)))
    query_length = number_of(transformer.get("query_length"), "query_length", file, longest)
    expansion = transformer.get("query_expansion") or {}
    if expansion.get("strategy", "fixed") not in ("fixed", "min") or (expansion and "length" not in expansion):
        raise CheckpointError(f"{file} has a query_expansion that is neither fixed nor min with a length: {expansion}.")
    floor = number_of(expansion.get("length"), "query_expansion length", file, 0)
    is_fixed = expansion.get("strategy") == "fixed"
    mask = _settings_of(folder, entries, "MultiVectorMask")
    pooling = _settings_of(folder, entries, "HierarchicalTokenPooling")
    if mask.get("keep_only_token_ids"):
        raise UnsupportedCheckpointError(
            f"{folder} keeps only the tokens {mask['keep_only_token_ids']} of a document, as models of images do; "
            "this version reads models of text."
        )
    tasks = mask.get("skiplist_tasks", ["document"])
    words = tuple(mask.get("skiplist_words") or ())
    if words and "document" not in tasks:
        raise UnsupportedCheckpointError(f"{folder} skips tokens in {tasks} only; this version skips them in documents.")
    prompts = _prompts(settings)
    return EncoderConfig(
        format="sentence-transformers",
        query_length=floor if is_fixed else max(query_length, floor),
        passage_length=number_of(transformer.get("document_length"), "document_length", file, longest),
        query_prompt=prompts["query"],
        passage_prompt=prompts["document"],
        augment_queries=bool(expansion),
        augmentation_token=expansion.get("token"),
        augmentation_length=floor if expansion and not is_fixed else None,
        attend_to_augmentation=bool(expansion.get("attend")),
        skip_tokens=words,
        skip_in_queries="query" in tasks and bool(words),
        similarity=_similarity(settings),
        pool_factor=float(pooling.get("pool_factor", 1.0)) if "document" in pooling.get("tasks", ["document"]) else 1.0,
        pool_protected=int(pooling.get("num_protected_tokens", 1)),
        trained=bool(settings.get("trained", True)),
    )


def _read_dense(folder: Path) -> Dense:
    """One Dense module.

    Raises:
        CheckpointError: its weights do not fit its config.json.
        UnsupportedCheckpointError: an activation that is not torch's own, or one over whole sentences.
    """
    file = folder / "config.json"
    config = read_json(file)
    source = config.get("module_input_name", "token_embeddings")
    if {source, config.get("module_output_name") or source} != {"token_embeddings"}:
        raise UnsupportedCheckpointError(
            f"{file} is a layer over {source!r}; a late-interaction head is over token_embeddings."
        )
    # sentence-transformers' own default is Tanh; every version of both libraries writes the name.
    package, _, activation = str(config.get("activation_function") or "torch.nn.modules.activation.Tanh").rpartition(".")
    if not package.startswith("torch.nn") or not _is_activation(activation):
        raise UnsupportedCheckpointError(f"{file} has the activation {package}.{activation}; only torch.nn's own are read.")
    weights = read_weights(folder)
    has_bias, has_residual = bool(config.get("bias", True)), bool(config.get("use_residual", False))
    shape = (config.get("out_features"), config.get("in_features"))
    expected: dict[str, tuple[Any, ...]] = {"linear.weight": shape}
    if has_bias:
        expected["linear.bias"] = shape[:1]
    if has_residual and shape[0] != shape[1]:
        expected["residual.weight"] = shape
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != expected:
        raise CheckpointError(f"{folder}: by config.json the weights are {expected}, but they are {found}.")
    return Dense(weights["linear.weight"], weights.get("linear.bias"), activation, has_residual, weights.get("residual.weight"))


def _is_activation(name: str) -> bool:
    """Whether ``torch.nn`` has a module of this name that can be made without arguments and holds no weights."""
    import torch

    module = getattr(torch.nn, name, None)
    if not (isinstance(module, type) and issubclass(module, torch.nn.Module)):
        return False
    try:
        return not list(module().parameters())
    except TypeError:
        return False


def _class_of(entry: dict[str, Any]) -> str:
    return str(entry["type"]).rpartition(".")[2]


def _settings_of(folder: Path, entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """config.json of a module, empty where the list has none; a module that is not known is an error."""
    known = {"Transformer", "Dense", "MultiVectorMask", "Normalize", "HierarchicalTokenPooling", "Dropout"}
    unknown = [entry["type"] for entry in entries if _class_of(entry) not in known]
    if unknown:
        raise UnsupportedCheckpointError(
            f"{folder / MODULES} has the module {unknown[0]}; read are {', '.join(sorted(known))}."
        )
    for entry in entries:
        if _class_of(entry) == name:
            return read_json(folder / str(entry.get("path") or "") / "config.json")
    return {}


def _prompts(settings: dict[str, Any]) -> dict[str, str]:
    """The texts put before queries and documents."""
    prompts = settings.get("prompts") or {}
    return {side: str(prompts.get(side) or "") for side in ("query", "document")}


def _similarity(settings: dict[str, Any]) -> str:
    return str(settings.get("similarity_fn_name") or "maxsim").lower()


def _tokenizer_limit(folder: Path) -> int:
    limit = read_json_if_there(folder / "tokenizer_config.json").get("model_max_length")
    return int(limit) if isinstance(limit, int | float) and limit < _NO_LIMIT else _NO_LIMIT
