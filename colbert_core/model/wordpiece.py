"""Read BERT's tokenizer without transformers, whose import takes 2.5 s and 150 MB, where the latter would make the same one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# With the first two transformers makes the tokenizer from its vocabulary and settings, with the others it takes what is stored.
_OF_BERT = ("BertTokenizer", "BertTokenizerFast")
_AS_STORED = ("PreTrainedTokenizerFast", "TokenizersBackend")

_ROLES = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# Further settings that may stand in tokenizer_config.json: these change no token, and those below are what they say here.
_HARMLESS = {
    *("backend", "clean_up_tokenization_spaces", "is_local", "local_files_only", "max_length", "model_max_length"),
    *("name_or_path", "pad_to_multiple_of", "pad_token_type_id", "padding_side", "special_tokens_map_file", "stride"),
    *("tokenizer_class", "tokenizer_file", "truncation_side", "truncation_strategy", "tokenize_chinese_chars"),
    *("do_lower_case", "strip_accents", "added_tokens_decoder"),
}
_ONLY: dict[str, Any] = {
    "do_basic_tokenize": True,
    "never_split": None,
    "extra_special_tokens": [],
    "additional_special_tokens": [],
}


@dataclass(frozen=True)
class WordPiece:
    """What ``Tokenizer`` asks a fast tokenizer of transformers for; the folder holds the rest."""

    folder: Path
    backend_tokenizer: Any
    unk_token_id: int
    sep_token_id: int
    pad_token_id: int
    cls_token_id: int
    mask_token_id: int
    eos_token_id: None = None
    is_fast: bool = True


def read_wordpiece(folder: Path, files: dict[str, dict[str, Any]]) -> WordPiece | None:
    """Read BERT's tokenizer; None if its files are not of the form below, or do not agree.

    Args:
        folder: where they are.
        files: the objects in tokenizer.json, tokenizer_config.json, added_tokens.json and special_tokens_map.json, by name;
            empty for a file that is not there.
    """
    stored, config = files["tokenizer.json"], files["tokenizer_config.json"]
    tokens = {role: config.get(role) for role in _ROLES}
    vocabulary: Any = (stored.get("model") or {}).get("vocab")
    if not isinstance(vocabulary, dict) or not all(isinstance(token, str) for token in tokens.values()):
        return None
    ids: dict[str, Any] = {role: vocabulary.get(token) for role, token in tokens.items()}
    plain = (
        len({*ids.values()} - {None}) == len(_ROLES)
        and not files["added_tokens.json"]
        and _agree(files["special_tokens_map.json"], tokens)
        and all(name in _HARMLESS or name in _ROLES or config[name] == _ONLY.get(name, ...) for name in config)
        and _is_bert(stored, config, tokens, ids)
    )
    if not plain:
        return None
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(json.dumps(stored))
    return WordPiece(folder.absolute(), backend, *(ids[role] for role in _ROLES))


def _agree(special: dict[str, Any], tokens: dict[str, Any]) -> bool:
    """Tell if special_tokens_map.json, where it is present, says what tokenizer_config.json says."""
    contents = {role: value.get("content") if isinstance(value, dict) else value for role, value in special.items()}
    return all(tokens.get(role) == content for role, content in contents.items())


def _is_bert(stored: dict[str, Any], config: dict[str, Any], tokens: dict[str, Any], ids: dict[str, Any]) -> bool:
    """Tell if tokenizer.json is BERT's tokenizer with these special tokens and no others, by the settings of its class."""
    kind, found = config.get("tokenizer_class"), stored.get("normalizer") or {}
    if kind not in _OF_BERT + _AS_STORED:
        return False
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = {ids[role]: {"content": tokens[role], **plain} for role in _ROLES}
    decoder = config.get("added_tokens_decoder")
    if decoder and {int(number): entry for number, entry in decoder.items()} != added:
        return False
    template = stored.get("post_processor") or {}
    around = [{"SpecialToken": {"id": tokens[role], "type_id": 0}} for role in ("cls_token", "sep_token")]
    wanted: list[tuple[Any, Any]] = [
        (stored.get("added_tokens"), [{"id": number, **added[number]} for number in sorted(added)]),
        (found.get("type"), "BertNormalizer"),
        (stored.get("pre_tokenizer"), {"type": "BertPreTokenizer"}),
        (template.get("type"), "TemplateProcessing"),
        (template.get("single"), [around[0], {"Sequence": {"id": "A", "type_id": 0}}, around[1]]),
        ({key: value for key, value in stored["model"].items() if key != "vocab"}, _model(tokens["unk_token"])),
    ]
    if kind in _OF_BERT:
        settings = (config.get("tokenize_chinese_chars", True), config.get("strip_accents"), config.get("do_lower_case", True))
        names = ("handle_chinese_chars", "strip_accents", "lowercase", "clean_text")
        wanted += [(tuple(found.get(name) for name in names), (*settings, True))]
        wanted += [(stored.get("decoder"), {"type": "WordPiece", "prefix": "##", "cleanup": True})]
    return all(is_there == expected for is_there, expected in wanted)


def _model(unknown: str) -> dict[str, Any]:
    return {
        "type": "WordPiece",
        "unk_token": unknown,
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    }
