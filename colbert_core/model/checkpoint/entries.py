"""What the files of PyLate and sentence-transformers may say: an entry that is not known here may change vectors.

Each file has entries that are read, and entries that change no vector. Any other one that is set is refused by name: a recipe
that is read in part ranks plausibly and wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from colbert_core.errors import UnsupportedCheckpointError
from colbert_core.model.checkpoint.files import Fields

if TYPE_CHECKING:
    from pathlib import Path

_BOTH = ("model_type", "prompts", "default_prompt_name", "similarity_fn_name", "trained", "matryoshka_dims")
# Of those of PyLate the lengths are in the file of the Transformer in the other library.
_SETTINGS = {
    "pylate": (
        *(*_BOTH, "matryoshka_dimensions", "query_prefix", "document_prefix", "query_length", "document_length"),
        *("attend_to_expansion_tokens", "skiplist_words", "do_query_expansion"),
    ),
    "sentence-transformers": (*_BOTH, "matryoshka_dimensions"),
}
# What sentence-transformers finds of PyLate's it puts before a prompt that does not begin with it.
_PREFIXES = {"query_prefix": "query", "document_prefix": "document"}
_SETTINGS_WITHOUT_EFFECT = ("__version__",)

_TRANSFORMER = {
    # PyLate cuts by its own lengths, whatever max_seq_length is.
    "pylate": ("max_seq_length", "do_lower_case", "transformer_task", "modality_config"),
    "sentence-transformers": (
        *("max_seq_length", "do_lower_case", "transformer_task", "modality_config"),
        *("query_length", "document_length", "query_expansion"),
    ),
}
# Names of an output within the library, and how texts are batched.
_TRANSFORMER_WITHOUT_EFFECT = ("module_output_name", "unpad_inputs", "track_media_counts", "backend")

# Arguments for transformers that change how a model is loaded and run, and not what it computes.
_LOADING = ("model_args", "config_args", "model_kwargs", "config_kwargs", "tokenizer_args", "processor_kwargs")
_LOADING_WITHOUT_EFFECT = {
    *("add_pooling_layer", "attn_implementation", "device_map", "dtype", "low_cpu_mem_usage", "torch_dtype"),
    *("trust_remote_code", "use_cache", "use_fast", "use_safetensors"),
}
# sentence-transformers cuts by these only where it has no lengths of its own.
_CUTS = {"pylate": {"model_max_length"}, "sentence-transformers": set()}

_MODULES = {
    "Dense": (
        *("in_features", "out_features", "bias", "activation_function", "use_residual"),
        *("module_input_name", "module_output_name"),
    ),
    "MultiVectorMask": ("skiplist_words", "skiplist_tasks", "keep_only_token_ids"),
    "Normalize": ("module_input_name", "module_output_name"),
    "HierarchicalTokenPooling": ("pool_factor", "num_protected_tokens", "normalize_embeddings", "tasks"),
}

_EXPANSION = ("strategy", "attend", "token", "length")


def check_entries(settings: Fields, transformer: Fields, modules: list[tuple[str, Path]], format: str) -> None:
    """Make sure that every entry of a model folder is read, or changes no vector.

    Args:
        settings: config_sentence_transformers.json.
        transformer: the Transformer module's own file.
        modules: class and folder of each module.
        format: "pylate" or "sentence-transformers".

    Raises:
        UnsupportedCheckpointError: one is neither; the message names the file, the entry and what it says.
    """
    prompts = settings.section("prompts")
    kept = {name for name, side in _PREFIXES.items() if prompts.text(side, "").startswith(settings.text(name, ""))}
    _check(settings, {*_SETTINGS[format], *_SETTINGS_WITHOUT_EFFECT, *kept})
    _check(transformer, {*_TRANSFORMER[format], *_TRANSFORMER_WITHOUT_EFFECT, "processing_kwargs", *_LOADING})
    _check(transformer.section("query_expansion"), {*_EXPANSION}, "query_expansion.")
    for name, entries in transformer.section("processing_kwargs").content.items():
        if entries:
            raise _refusal(transformer, f"processing_kwargs.{name}", entries)
    for name in _LOADING:
        _check(transformer.section(name), _LOADING_WITHOUT_EFFECT | _CUTS[format], f"{name}.")
    for name, folder in modules:
        if name in _MODULES:
            _check(Fields.of(folder / "config.json"), {*_MODULES[name]})


def check_tokenizer_sides(folder: Path) -> None:
    """Make sure that a tokenizer cuts and fills texts behind their end, as all recipes here do.

    Raises:
        UnsupportedCheckpointError: it does not, so that masks would stand before a query, or its beginning would be cut.
    """
    config = Fields.of(folder / "tokenizer_config.json")
    for name in ("padding_side", "truncation_side"):
        if config.text(name, "right") != "right":
            raise _refusal(config, name, config.content[name], "queries are cut and filled up at their end here")


def _check(fields: Fields, known: set[str], where: str = "") -> None:
    for name, value in fields.content.items():
        if name not in known and value is not None:
            raise _refusal(fields, where + name, value)


def _refusal(fields: Fields, name: str, value: object, why: str = "") -> UnsupportedCheckpointError:
    return UnsupportedCheckpointError(
        f"{fields.file} says {name}={value!r:.80}, {why or 'which this version does not know and which may change vectors'}; "
        "remove it if it does not matter for this model."
    )
