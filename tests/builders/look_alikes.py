"""One tiny checkpoint of each format and backbone that is read, with the vectors that its authors' rules make of it.

``LOOK_ALIKES`` makes the table of docs/checkpoints.md; a row more is an entry more. tests/model/checkpoint/test_table.py
compares each with the page, and ``python docs/checkpoint_table.py`` writes the page.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from builders import checkpoints
from builders.parity import (
    first_pieces,
    known_tokens,
    published_rule_rows,
    pylate_rows,
    sentence_transformers_rows,
    xtr_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

FORMATS = {"stanford": "Stanford", "pylate": "PyLate", "sentence-transformers": "sentence-transformers"}


@dataclass(frozen=True)
class LookAlike:
    """A checkpoint that the tests make.

    Attributes:
        format: its format, as the page names it.
        backbone: its backbone, as the page names it.
        write: writes it into a folder, and returns what ``Encoder.from_pretrained`` takes.
        expected: the vectors of each of builders.parity.QUERIES and PASSAGES by the rules of its authors.
        rules: whose rules these are.
        written: the formats that can hold it, of FORMATS.
        options: what ``Encoder.from_pretrained`` is given beside it.
    """

    format: str
    backbone: str
    write: Callable[[Path], Path]
    expected: Callable[[Path], list[NDArray[Any]]]
    rules: str
    written: tuple[str, ...] = tuple(FORMATS)
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.format}, {self.backbone}"


def _stanford_rules(folder: Path, language: str | None = None) -> list[NDArray[Any]]:
    weights = load_file(folder / "model.safetensors")
    (prefix,) = {name.partition(".")[0] for name in weights} - {"linear"}
    return published_rule_rows(
        folder,
        weight=weights["linear.weight"],
        markers=("[unused0]", "[unused1]"),
        lengths=(24, 60),
        skipped=first_pieces,
        prefix=f"{prefix}.",
        language=language,
    )


def _pylate_rules(folder: Path, language: str | None = None) -> list[NDArray[Any]]:
    return published_rule_rows(
        folder,
        weight=load_file(folder / "1_Dense" / "model.safetensors")["linear.weight"],
        markers=("[Q] ", "[D] "),
        lengths=(24, 60),
        skipped=known_tokens,
        language=language,
    )


def _nanocolbert_rules(folder: Path) -> list[NDArray[Any]]:
    weight = load_file(folder / "model.safetensors")["linear.weight"]
    return published_rule_rows(
        folder, weight=weight, markers=("[Q]", "[D]"), lengths=(32, 180), skipped=first_pieces, prefix="bert."
    )


def _flagembedding_rules(folder: Path) -> list[NDArray[Any]]:
    head = torch.load(folder / "colbert_linear.pt", weights_only=True)
    return published_rule_rows(
        folder,
        weight=head["weight"],
        bias=head["bias"],
        markers=(None, None),
        lengths=(100, 100),
        skipped=lambda _: (),
        expand=False,
        first=1,
    )


def _untrained_rules(folder: Path) -> list[NDArray[Any]]:
    return published_rule_rows(
        folder,
        weight=torch.eye(checkpoints.HIDDEN),
        markers=(None, None),
        lengths=(128, 128),
        skipped=first_pieces,
        expand=False,
    )


def _dnn(folder: Path) -> Path:
    """Beside its config.json and tokenizer; the weights a second time, for the rules."""
    file = checkpoints.dnn(folder / "colbert.dnn", base=folder)
    (folder / "for-the-rules").mkdir()
    checkpoints.save(torch.load(file, weights_only=True)["model_state_dict"], folder / "for-the-rules" / "model.safetensors")
    return file


def _dnn_rules(file: Path) -> list[NDArray[Any]]:
    folder = file.parent / "for-the-rules"
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(file.parent / name, folder / name)
    return _stanford_rules(folder)


def _multi_vector(folder: Path, kind: str) -> Path:
    source = folder.with_name(f"{folder.name}-source")
    return checkpoints.multi_vector(folder, source=checkpoints.pylate(source, kind))


def _plain(folder: Path, kind: str) -> Path:
    model = checkpoints.write_backbone(folder, kind)
    checkpoints.save(checkpoints.tensors_of(model), folder / "model.safetensors")
    checkpoints.write_json(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
    return folder


BACKBONES = {
    "BERT": "bert",
    "ELECTRA": "electra",
    "RoBERTa": "roberta",
    "XLM-R": "xlm-roberta",
    "DeBERTa v2": "deberta-v2",
    "ModernBERT": "modernbert",
    "DistilBERT": "distilbert",
    "ALBERT": "albert",
    "MPNet": "mpnet",
    "ConvBERT": "convbert",
    "MobileBERT": "mobilebert",
    "SqueezeBERT": "squeezebert",
}


def _family(folder: Path, kind: str = "modernbert", template: str | None = "", **settings: Any) -> Path:
    """A PyLate checkpoint as its authors set it; a template of the tokenizer, None for nothing around a text."""
    checkpoints.pylate(folder, kind, **settings)
    return checkpoints.with_template(folder, template) if template != "" else folder


_EDGE = [
    {"n_in": checkpoints.HIDDEN, "n_out": 64, "use_residual": True},
    {"n_in": 64, "n_out": 64, "use_residual": True, "activation_function": "torch.nn.modules.activation.SiLU"},
    {"n_in": 64, "n_out": 48},
]
_CODE = [{"n_in": checkpoints.HIDDEN, "n_out": 64}, {"n_in": 64, "n_out": 48}]
# Stanford's rule names the pieces of punctuation; in these vocabularies PyLate's names other ones.
SENTENCEPIECE = ("xlm-roberta", "deberta-v2", "albert")
_NOT_STANFORD = ("pylate", "sentence-transformers")
_ZERO = {"query": "search_query: ", "document": "search_document: "}

# What was published with PyLate in 2025 and 2026; each differs from the first checkpoints in what its name is followed by.
FAMILIES = {
    "ModernBERT as GTE-ModernColBERT": (partial(_family), tuple(FORMATS)),
    "ModernBERT as LateOn (no expansion)": (partial(_family, do_query_expansion=False), _NOT_STANFORD),
    "ModernBERT as mLateOn (no expansion, long texts)": (
        partial(_family, do_query_expansion=False, query_length=60, document_length=125),
        _NOT_STANFORD,
    ),
    "ModernBERT as LateOn-Code (no expansion, a head of two layers)": (
        partial(_family, do_query_expansion=False, layers=_CODE),
        _NOT_STANFORD,
    ),
    "ModernBERT as Reason-ModernColBERT (long queries)": (
        partial(_family, do_query_expansion=False, query_length=120, document_length=130),
        _NOT_STANFORD,
    ),
    "ModernBERT as ColBERT-Zero (prompts)": (partial(_family, prompts=_ZERO), _NOT_STANFORD),
    "ModernBERT as mxbai-edge-colbert (a head of three layers)": (partial(_family, layers=_EDGE), _NOT_STANFORD),
    "LFM2 (a decoder, no mask token)": (partial(_family, kind="lfm2"), _NOT_STANFORD),
    "ModernBERT with a token behind texts only": (partial(_family, template="$A [SEP]"), ("stanford", "pylate")),
    "ModernBERT with no token around texts": (partial(_family, template=None), ("pylate",)),
}

LOOK_ALIKES = [
    *(
        LookAlike("Stanford", name, partial(checkpoints.stanford, kind=kind), _stanford_rules, "Stanford's rules")
        for name, kind in BACKBONES.items()
    ),
    LookAlike(
        "Stanford",
        "X-MOD (`language=`)",
        partial(checkpoints.stanford, kind="xmod"),
        partial(_stanford_rules, language="fr_XX"),
        "Stanford's rules",
        options={"language": "fr_XX"},
    ),
    LookAlike("Stanford `.dnn`", "BERT", _dnn, _dnn_rules, "Stanford's rules"),
    *(
        LookAlike("PyLate", name, partial(checkpoints.pylate, kind=kind), _pylate_rules, "PyLate's rules")
        for name, kind in BACKBONES.items()
        if kind not in SENTENCEPIECE
    ),
    *(
        LookAlike(
            "PyLate", name, partial(checkpoints.pylate, kind=kind), _pylate_rules, "PyLate's rules", written=_NOT_STANFORD
        )
        for name, kind in BACKBONES.items()
        if kind in SENTENCEPIECE
    ),
    *(
        LookAlike(
            "sentence-transformers",
            name,
            partial(_multi_vector, kind=BACKBONES[name]),
            sentence_transformers_rows,
            "sentence-transformers 6 itself",
        )
        for name in ("BERT", "ModernBERT", "DistilBERT")
    ),
    *(
        LookAlike("PyLate", name, write, pylate_rows, "PyLate's rules", written=written)
        for name, (write, written) in FAMILIES.items()
    ),
    LookAlike("Stanford", "BERT with `BertJapaneseTokenizer`", checkpoints.japanese, _stanford_rules, "Stanford's rules"),
    LookAlike("XTR", "T5's encoder", checkpoints.xtr, xtr_rows, "XTR's rules", written=_NOT_STANFORD),
    LookAlike("nanoColBERT", "BERT", checkpoints.nanocolbert, _nanocolbert_rules, "nanoColBERT's rules"),
    *(
        LookAlike(
            "FlagEmbedding (BGE-M3)",
            name,
            partial(checkpoints.flagembedding, kind=BACKBONES[name]),
            _flagembedding_rules,
            "FlagEmbedding's rules",
            written=("sentence-transformers",),
        )
        for name in ("XLM-R", "BERT", "DistilBERT")
    ),
    *(
        LookAlike(
            "none, *untrained*",
            name,
            partial(_plain, kind=BACKBONES[name]),
            _untrained_rules,
            "transformers",
            written=_NOT_STANFORD,
        )
        for name in ("BERT", "DistilBERT")
    ),
]


def table() -> str:
    """The table as Markdown: a row for all backbones of a format that are written alike."""
    backbones: dict[tuple[str, str, str], list[str]] = {}
    for each in LOOK_ALIKES:
        written = ", ".join(FORMATS[name] for name in each.written)
        backbones.setdefault((each.format, written, each.rules), []).append(each.backbone)
    lines = ["| format | backbones | written as | the same vectors by |", "|---|---|---|---|"]
    for (format, written, rules), names in backbones.items():
        lines.append(f"| {format} | {', '.join(names)} | {written} | {rules} |")
    return "\n".join(lines) + "\n"
