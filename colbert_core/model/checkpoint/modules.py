"""Read and write formats that list their parts in modules.json: PyLate, sentence-transformers, and plain encoders.

Both trained formats have a Transformer and one or several Dense layers over its token vectors. They keep the recipe in
different places:

- *PyLate*: all of it in ``config_sentence_transformers.json``. Its prefixes are tokens, put in by their id; "[Q] " with the
  blank is one token. Words to skip that are no token of the vocabulary are ignored, as in sentence-transformers; PyLate
  itself then skips every unknown token.
- *sentence-transformers* (from version 6): lengths and query expansion in the Transformer's own file, skipped tokens in a
  MultiVectorMask module, prefixes as text in ``prompts``.

A plain folder, whether sentence-transformers or a bare encoder, is read as *untrained* late interaction over its hidden
states: no ColBERT, but a strong start.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from colbert_core.errors import CheckpointError, UnsupportedCheckpointError
from colbert_core.model.checkpoint.config import Checkpoint, Dense, EncoderConfig
from colbert_core.model.checkpoint.dense import read_dense, write_dense, write_json
from colbert_core.model.checkpoint.entries import check_entries, check_tokenizer_sides
from colbert_core.model.checkpoint.files import Fields, is_within, parse_json, read_hidden_size, read_weights

if TYPE_CHECKING:
    from pathlib import Path

    import torch

SETTINGS = "config_sentence_transformers.json"
MODULES = "modules.json"
_TRANSFORMER = "sentence_bert_config.json"

# A length that no file states: as much as the backbone reads.
NO_LIMIT = 1_000_000

# Metadata that transformers expects in a safetensors file of torch's.
_PT = {"format": "pt"}

_PUNCTUATION = set(string.punctuation)

# The modules that this package reads, in the only order that it accepts.
_KNOWN = ("Transformer", "Dense", "MultiVectorMask", "Normalize", "HierarchicalTokenPooling")


def listed_modules(folder: Path) -> list[dict[str, Any]]:
    """Read the entries of modules.json; none if there is no such file.

    Raises:
        CheckpointError: it holds something else.
    """
    file = folder / MODULES
    entries = parse_json(file) if file.is_file() else []
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict)
        and isinstance(entry.get("type"), str)
        and isinstance(entry.get("path", ""), str)
        and is_within(entry.get("path", ""))
        for entry in entries
    ):
        raise CheckpointError(
            f"{file} must hold a JSON list of modules, each with a type and a path within the folder; copy it again."
        )
    return entries


def format_of(folder: Path) -> str | None:
    """Tell in which of the two trained formats a folder is, "pylate" or "sentence-transformers"; None for neither."""
    types = [entry["type"] for entry in listed_modules(folder)]
    settings = Fields.of(folder / SETTINGS)
    model_type = settings.text("model_type", "")
    if model_type == "MultiVectorEncoder" or any("MultiVector" in name for name in types):
        return "sentence-transformers"
    if model_type == "ColBERT" or "query_prefix" in settings or any(name.startswith("pylate.") for name in types):
        return "pylate"
    return None


def has_head(folder: Path) -> bool:
    """Tell whether modules.json lists a head."""
    return any(_class_of(entry) == "Dense" for entry in listed_modules(folder))


def backbone_folder(folder: Path) -> Path:
    """Find the files of the Transformer module: in the folder itself, in old versions in 0_Transformer."""
    for entry in listed_modules(folder):
        if _class_of(entry) == "Transformer":
            return folder / str(entry.get("path", ""))
    return folder


def read(folder: Path) -> Checkpoint:
    """Read a folder in one of the two trained formats.

    Raises:
        CheckpointError: a part is missing or does not fit the others.
        UnsupportedCheckpointError: it has a part that is not read here, such as one for images, or parts in another order.
    """
    settings = Fields.of(folder / SETTINGS)
    parts = _checked_modules(folder)
    transformer = backbone_folder(folder)
    is_pylate = format_of(folder) == "pylate"
    own = _transformer_settings_of(transformer)
    check_entries(
        settings, own, [(name, folder / path) for name, path in parts], "pylate" if is_pylate else "sentence-transformers"
    )
    check_tokenizer_sides(transformer)
    config = _pylate_recipe(folder, settings) if is_pylate else _multi_vector_recipe(folder, settings, parts)
    head = tuple(read_dense(folder / path, "Identity" if is_pylate else "Tanh") for name, path in parts if name == "Dense")
    hidden = read_hidden_size(transformer)
    for number, layer in enumerate(head, 1):
        if hidden not in (None, layer.weight.shape[1]):
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
    return Checkpoint(transformer, config, weights, head)


def read_untrained(folder: Path, *, length: int = 256) -> Checkpoint:
    """Read a model that never learned late interaction: with its own tokens and prompts, up to the length of its training.

    Args:
        folder: folder to read.
        length: where its files state none.
    """
    transformer = backbone_folder(folder)
    settings = _transformer_settings_of(transformer)
    length = settings.number("max_seq_length", length)
    names = [_class_of(entry) for entry in listed_modules(folder)]
    if "Dense" in names and "Pooling" not in names[: names.index("Dense")]:
        raise UnsupportedCheckpointError(
            f"{folder / MODULES} has a Dense layer over token vectors, a head for late interaction, but no file says how it is "
            f"used: {SETTINGS} of PyLate or sentence-transformers is missing; add it."
        )
    prompts = Fields.of(folder / SETTINGS).section("prompts")
    weights = read_weights(transformer)
    if "linear.weight" in weights:
        stated = Fields.of(transformer / "config.json", needed=True).content.get("architectures")
        raise UnsupportedCheckpointError(
            f"{folder} has the projection linear.weight but neither artifact.metadata nor the architecture HF_ColBERT "
            f"nor {MODULES} (its config.json says {stated}); add the file that holds its recipe."
        )
    config = EncoderConfig(
        format="untrained",
        query_length=length,
        passage_length=length,
        query_prompt=prompts.text("query", ""),
        passage_prompt=prompts.text("document", prompts.text("passage", "")),
        skip_punctuation=True,
        lowercase=settings.flag("do_lower_case", False),
        trained=False,
    )
    return Checkpoint(transformer, config, weights)


def stated_recipe(folder: Path) -> dict[str, Any]:
    """Read what a trained folder states, by the names of EncoderConfig, to compare it with another file."""
    settings = Fields.of(folder / SETTINGS)
    transformer = _transformer_settings_of(backbone_folder(folder))
    expansion, prompts = transformer.section("query_expansion").content, settings.section("prompts").content
    skipped, augments = settings.content.get("skiplist_words"), settings.content.get("do_query_expansion")
    if format_of(folder) == "sentence-transformers":
        masks = [entry for entry in listed_modules(folder) if _class_of(entry) == "MultiVectorMask"]
        skipped = [
            word for mask in masks for word in Fields.of(folder / mask["path"] / "config.json").words("skiplist_words", ())
        ]
        augments = bool(expansion)
    stated = {
        "query_length": settings.content.get("query_length")
        or expansion.get("length")
        or transformer.content.get("query_length"),
        "passage_length": settings.content.get("document_length") or transformer.content.get("document_length"),
        "query_marker": settings.content.get("query_prefix") or prompts.get("query"),
        "passage_marker": settings.content.get("document_prefix") or prompts.get("document"),
        "augment_queries": augments,
        "attend_to_augmentation": settings.content.get("attend_to_expansion_tokens", expansion.get("attend")),
        "skip_punctuation": None if skipped is None else any(str(word).strip(" ▁Ġ") in _PUNCTUATION for word in skipped),
    }
    return {name: value for name, value in stated.items() if value is not None}


def reasons_against(config: EncoderConfig, format: str) -> list[str]:
    """List why the other library could not read the model as it is meant; empty if its format can hold it."""
    is_pylate = format == "pylate"
    checks = {
        "it skips punctuation by a rule, not by tokens": config.skip_punctuation,
        "it skips tokens in queries": is_pylate and config.skip_in_queries,
        "it skips the first token": config.skip_first,
        "it fills queries with a token of its own": is_pylate and config.augmentation_token is not None,
        "it fills queries up to another length than query_length": is_pylate and config.augmentation_length is not None,
        "it pools tokens": is_pylate and config.pool_factor != 1,
        "it has markers that are no text": not is_pylate and bool(config.query_marker or config.passage_marker),
    }
    return [reason for reason, holds in checks.items() if holds]


def write(folder: Path, config: EncoderConfig, head: tuple[Dense, ...], weights: dict[str, torch.Tensor], dim: int) -> None:
    """Write recipe and weights beside the config.json and tokenizer that are there, in the format that the recipe names.

    Args:
        folder: folder that has config.json already.
        config: recipe that ``reasons_against`` has nothing against.
        head: any layers.
        weights: weights of the backbone, by their names in it.
        dim: components of the vectors. PyLate adds a random layer where it finds none, so an identity is written.
    """
    import torch
    from safetensors.torch import save_file

    is_pylate = config.format == "pylate"
    if is_pylate and not head:
        head = (Dense(torch.eye(dim)),)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", _PT)
    base = "sentence_transformers.models" if is_pylate else "sentence_transformers.base.modules"
    types = [("", f"{base}.Transformer" if is_pylate else f"{base}.transformer.Transformer")]
    for number, layer in enumerate(head, 1):
        types.append((f"{number}_Dense", "pylate.models.Dense.Dense" if is_pylate else f"{base}.dense.Dense"))
        write_dense(folder / types[-1][0], layer, names_its_input=not is_pylate)
    if is_pylate:
        transformer: dict[str, Any] = {"max_seq_length": config.passage_length, "do_lower_case": config.lowercase}
        write_json(folder / SETTINGS, _pylate_settings(config))
    else:
        transformer = _transformer_settings(config)
        write_json(folder / SETTINGS, _multi_vector_settings(config))
        tasks = ["query", "document"] if config.skip_in_queries else ["document"]
        parts = [
            ("MultiVectorMask", "multi_vector_mask", {"skiplist_words": list(config.skip_tokens), "skiplist_tasks": tasks}),
            ("Normalize", "normalize", {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}),
        ]
        if config.pool_factor != 1:
            pooling = {"pool_factor": config.pool_factor, "num_protected_tokens": config.pool_protected}
            parts.append(("HierarchicalTokenPooling", "token_pooling", pooling | {"normalize_embeddings": True}))
        for name, file, settings in parts:
            package = base if name == "Normalize" else "sentence_transformers.multi_vector_encoder.modules"
            types.append((f"{len(types)}_{name}", f"{package}.{file}.{name}"))
            write_json(folder / types[-1][0] / "config.json", settings)
    write_json(folder / _TRANSFORMER, transformer)
    entries = [{"idx": i, "name": str(i), "path": path, "type": type_} for i, (path, type_) in enumerate(types)]
    write_json(folder / MODULES, entries)


def _own_settings(config: EncoderConfig) -> dict[str, Any]:
    """What the other libraries have no word for, and pass over."""
    nested = {"matryoshka_dims": [*config.nested_dims]} if config.nested_dims else {}
    return nested if config.trained else {**nested, "trained": False}


def _pylate_settings(config: EncoderConfig) -> dict[str, Any]:
    return {
        "model_type": "ColBERT",
        "prompts": {"query": config.query_prompt, "document": config.passage_prompt},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": config.query_marker or "",
        "document_prefix": config.passage_marker or "",
        "query_length": config.query_length,
        "document_length": config.passage_length,
        "attend_to_expansion_tokens": config.attend_to_augmentation,
        "skiplist_words": list(config.skip_tokens),
        "do_query_expansion": config.augment_queries,
        **_own_settings(config),
    }


def _multi_vector_settings(config: EncoderConfig) -> dict[str, Any]:
    return {
        "model_type": "MultiVectorEncoder",
        "prompts": {"query": config.query_prompt, "document": config.passage_prompt},
        "default_prompt_name": None,
        "similarity_fn_name": config.similarity if config.similarity == "meanmaxsim" else "maxsim",
        **_own_settings(config),
    }


def _transformer_settings(config: EncoderConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
        "do_lower_case": config.lowercase,
        "query_length": config.query_length,
        "document_length": config.passage_length,
    }
    if config.augment_queries:
        settings["query_expansion"] = {
            "strategy": "fixed" if config.augmentation_length is None else "min",
            "attend": config.attend_to_augmentation,
            "token": config.augmentation_token,
            "length": config.augmentation_length or config.query_length,
        }
    return settings


def _pylate_recipe(folder: Path, settings: Fields) -> EncoderConfig:
    """Read PyLate's recipe, with its defaults where the file states nothing; prompts may repeat the prefixes."""
    expands = settings.flag("do_query_expansion", True)
    prefixes = settings.text("query_prefix", "[Q] "), settings.text("document_prefix", "[D] ")
    _check_output(_transformer_settings_of(backbone_folder(folder)))
    prompts = _prompts_of(settings, settings.text("default_prompt_name", ""))
    return EncoderConfig(
        format="pylate",
        query_length=settings.number("query_length", 32),
        passage_length=settings.number("document_length", 180),
        query_marker=prefixes[0] or None,
        passage_marker=prefixes[1] or None,
        query_prompt=prompts[0].removeprefix(prefixes[0]),
        passage_prompt=prompts[1].removeprefix(prefixes[1]),
        augment_queries=expands,
        attend_to_augmentation=expands and settings.flag("attend_to_expansion_tokens", False),
        skip_tokens=settings.words("skiplist_words", tuple(string.punctuation)),
        lowercase=_transformer_settings_of(backbone_folder(folder)).flag("do_lower_case", False),
        similarity=settings.text("similarity_fn_name", "maxsim").lower(),
        trained=settings.flag("trained", True),
    )


def _multi_vector_recipe(folder: Path, settings: Fields, parts: list[tuple[str, str]]) -> EncoderConfig:
    transformer = _transformer_settings_of(backbone_folder(folder))
    file = transformer.file
    _check_output(transformer)
    found = {name: Fields.of(folder / path / "config.json", needed=True) for name, path in parts if name in _KNOWN[2:]}
    expansion = transformer.section("query_expansion")
    strategy, floor = (expansion.text("strategy", ""), expansion.number("length", 1)) if expansion.content else ("", 0)
    if expansion.content and (strategy not in ("fixed", "min") or "length" not in expansion):
        raise CheckpointError(
            f"{file} has a query_expansion that is neither fixed nor min with a length: {expansion.content}; correct it."
        )
    if expansion.content and "MultiVectorMask" not in found:
        raise UnsupportedCheckpointError(
            f"{folder} expands queries but has no MultiVectorMask, so their masks would not score."
        )
    longest = transformer.number("max_seq_length", _tokenizer_limit(backbone_folder(folder)))
    query_length = transformer.number("query_length", max(longest, floor) if strategy != "fixed" else floor)
    if query_length < floor:
        raise CheckpointError(
            f"{file} has query_length={query_length} but expands queries to {floor} tokens; correct the one that is wrong."
        )
    mask = found.get("MultiVectorMask", Fields({}, folder / MODULES))
    if mask.content.get("keep_only_token_ids"):
        raise UnsupportedCheckpointError(
            f"{folder} keeps only the tokens {mask.content['keep_only_token_ids']} of a document, as models of images do; "
            "this version reads models of text."
        )
    words, tasks = mask.words("skiplist_words", ()), mask.words("skiplist_tasks", ("document",))
    if words and "document" not in tasks:
        raise UnsupportedCheckpointError(f"{folder} skips tokens in {list(tasks)} only; this version skips them in documents.")
    pooling = found.get("HierarchicalTokenPooling", Fields({}, folder / MODULES))
    if pooling.words("tasks", ("document",)) != ("document",):
        raise UnsupportedCheckpointError(
            f"{folder} pools the tokens of {list(pooling.words('tasks', ()))}; this version pools those of documents."
        )
    if not pooling.flag("normalize_embeddings", True):
        raise UnsupportedCheckpointError(f"{pooling.file} does not normalize; this version scores the cosine of unit vectors.")
    prompts = _prompts_of(settings, "")
    return EncoderConfig(
        format="sentence-transformers",
        query_length=floor if strategy == "fixed" else query_length,
        passage_length=transformer.number("document_length", longest),
        query_prompt=prompts[0],
        passage_prompt=prompts[1],
        augment_queries=bool(strategy),
        augmentation_token=expansion.text("token", "") or None,
        augmentation_length=floor if strategy == "min" else None,
        attend_to_augmentation=expansion.flag("attend", False),
        skip_tokens=words,
        skip_in_queries="query" in tasks and bool(words),
        lowercase=transformer.flag("do_lower_case", False),
        similarity=settings.text("similarity_fn_name", "maxsim").lower(),
        pool_factor=pooling.ratio("pool_factor", 1.0),
        pool_protected=pooling.count("num_protected_tokens", 1),
        trained=settings.flag("trained", True),
    )


def _prompts_of(settings: Fields, default: str) -> tuple[str, str]:
    """Read the prompts of queries and of passages.

    A default prompt is for texts whose prompt is not named; PyLate does not name any, sentence-transformers names both.

    Raises:
        UnsupportedCheckpointError: there is a default prompt that is not the one of both kinds.
    """
    prompts = settings.section("prompts")
    query = prompts.text("query", "")
    passage = next((prompts.text(name, "") for name in ("document", "passage", "corpus") if name in prompts), "")
    if default and {query, passage} != {prompts.text(default, "")}:
        raise UnsupportedCheckpointError(
            f"{settings.file} says default_prompt_name={default!r}, {prompts.content.get(default)!r:.80}, but the prompts of "
            f"queries and passages are {query!r:.80} and {passage!r:.80}; set it to null if those are meant."
        )
    return query, passage


def _check_output(transformer: Fields) -> None:
    """Make sure that the vectors are made of a text encoder's hidden states."""
    task = transformer.text("transformer_task", "feature-extraction")
    output = transformer.section("modality_config").section("text").text("method_output_name", "last_hidden_state")
    if (task, output) != ("feature-extraction", "last_hidden_state"):
        raise UnsupportedCheckpointError(
            f"{transformer.file} takes {output!r} of a {task!r} model; this version reads text encoders by their "
            "last_hidden_state."
        )


def _checked_modules(folder: Path) -> list[tuple[str, str]]:
    """List class and path of each module, if this package reads all of them in this order.

    PyLate lists a Transformer and Dense layers, and always normalizes; sentence-transformers must say that it does.
    """
    parts = [(_class_of(entry), str(entry.get("path", ""))) for entry in listed_modules(folder)]
    names = [name for name, _ in parts if name != "Dropout"]
    if "Transformer" not in names:
        raise CheckpointError(f"{folder / MODULES} lists no Transformer among {names}.")
    for name in names:
        if name not in _KNOWN:
            raise UnsupportedCheckpointError(
                f"{folder / MODULES} has the module {name}, which is not read; read are {', '.join(_KNOWN)}."
            )
    once = [name for name in names if name != "Dense"]
    if names != sorted(names, key=_KNOWN.index) or len(once) != len(set(once)):
        raise UnsupportedCheckpointError(
            f"{folder / MODULES} has its modules in the order {names}; read is {', '.join(_KNOWN)}."
        )
    if format_of(folder) == "sentence-transformers":
        found = [Fields.of(folder / path / "config.json") for n, path in parts if n == "Normalize"]
        source = [fields.text("module_input_name", "") for fields in found]
        target = [fields.text("module_output_name", name) for fields, name in zip(found, source, strict=True)]
        if [source, target] != [["token_embeddings"]] * 2:
            raise UnsupportedCheckpointError(
                f"{folder / MODULES} has no Normalize over token_embeddings, so its vectors have lengths of their own; this "
                "version scores the cosine of unit vectors."
            )
    return parts


def _class_of(entry: dict[str, Any]) -> str:
    return str(entry["type"]).rpartition(".")[2]


def _transformer_settings_of(folder: Path) -> Fields:
    """Read the Transformer module's own file; old versions named it after the backbone, as sentence_roberta_config.json."""
    old = sorted(folder.glob("sentence_*_config.json"))
    return Fields.of(folder / _TRANSFORMER if (folder / _TRANSFORMER).is_file() or not old else old[0])


def _tokenizer_limit(folder: Path) -> int:
    limit = Fields.of(folder / "tokenizer_config.json").content.get("model_max_length")
    return int(limit) if isinstance(limit, int | float) and 1 <= limit < NO_LIMIT else NO_LIMIT
