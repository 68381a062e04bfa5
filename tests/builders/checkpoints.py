"""Tiny random checkpoints of every backbone in every format, written by the tests; none holds anyone else's weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from builders.encoders import write_tokenizer

HIDDEN = 32
TEXT = [
    "What animation studio did Miyazaki found? Cats purr when they are content, dogs bark.",
    "The cat sat on a mat; rust is a language of systems: happy pets (and others) purr, bark!",
]

BACKBONES = ["bert", "electra", "roberta", "xlm-roberta", "deberta-v2", "modernbert"]

# Settings that only this kind of backbone has, or that it calls otherwise.
_OWN = {
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "distilbert": {"hidden_dim": 48},
    "flaubert": {"emb_dim": HIDDEN},
    "gpt2": {"n_positions": 130},
    "mobilebert": {"intra_bottleneck_size": 16},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 16},
    "lfm2": {"layer_types": ["conv", "full_attention"], "num_key_value_heads": 2},
    "xmod": {"languages": ["en_XX", "fr_XX"]},
}


def write_backbone(folder: Path, kind: str, *, added: list[str] = ()) -> torch.nn.Module:
    """config.json and a tokenizer with the added tokens in the folder; returns a random model of them."""
    folder.mkdir(parents=True, exist_ok=True)
    n_tokens = _TOKENIZERS.get(kind, _wordpiece)(folder, added)
    config = transformers.AutoConfig.for_model(
        kind,
        vocab_size=n_tokens,
        hidden_size=HIDDEN,
        embedding_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=130,
        initializer_range=0.2,
        pad_token_id=0,
        type_vocab_size=0 if kind == "deberta-v2" else 2,
        **_OWN.get(kind, {}),
    )
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).eval()
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    model.config.save_pretrained(folder)
    return model


def tensors_of(model: torch.nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def matrix(*shape: int, seed: int = 1) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(*shape) / 4


def save(tensors: dict[str, torch.Tensor], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, metadata={"format": "pt"})


def write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def stanford(folder: Path, kind: str = "bert", *, dim: int = 16, **metadata: object) -> Path:
    model = write_backbone(folder, kind)
    save(
        tensors_of(model, model.base_model_prefix + ".") | {"linear.weight": matrix(dim, HIDDEN)}, folder / "model.safetensors"
    )
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"architectures": ["HF_ColBERT"]})
    markers = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]"}
    recipe = {"dim": dim, "query_maxlen": 24, "doc_maxlen": 60, "mask_punctuation": True, "attend_to_mask_tokens": False}
    write_json(folder / "artifact.metadata", markers | recipe | metadata)
    return folder


def dense(folder: Path, n_in: int, n_out: int, *, seed: int = 1, **settings) -> dict:
    settings = {"bias": False, "activation_function": "torch.nn.modules.linear.Identity", "use_residual": False} | settings
    tensors = {"linear.weight": matrix(n_out, n_in, seed=seed)}
    if settings["bias"]:
        tensors["linear.bias"] = matrix(n_out, seed=seed + 1)
    if settings["use_residual"] and n_in != n_out:
        tensors["residual.weight"] = matrix(n_out, n_in, seed=seed + 2)
    save(tensors, folder / "model.safetensors")
    write_json(folder / "config.json", {"in_features": n_in, "out_features": n_out, **settings})
    return {"path": folder.name, "type": "pylate.models.Dense.Dense"}


def pylate(folder: Path, kind: str = "bert", *, layers: list[dict] | None = None, added=("[Q] ", "[D] "), **settings) -> Path:
    """As PyLate saves; layers are (n_in, n_out, settings) of its Dense modules."""
    model = write_backbone(folder, kind, added=added)
    save(tensors_of(model), folder / "model.safetensors")
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, layer in enumerate(layers or [{"n_in": HIDDEN, "n_out": 16}], 1):
        modules.append(dense(folder / f"{number}_Dense", seed=10 * number, **layer))
    write_json(folder / "modules.json", [{"idx": i, "name": str(i), **module} for i, module in enumerate(modules)])
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 59, "do_lower_case": False})
    recipe = {
        "model_type": "ColBERT",
        "prompts": {"query": "", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 24,
        "document_length": 60,
        "attend_to_expansion_tokens": False,
        "skiplist_words": list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
        "do_query_expansion": True,
    }
    write_json(folder / "config_sentence_transformers.json", recipe | settings)
    return folder


def nanocolbert(folder: Path, *, similarity: str = "l2") -> Path:
    model = write_backbone(folder, "bert", added=["[Q]", "[D]"])
    tensors = tensors_of(model, "bert.") | {"linear.weight": matrix(16, HIDDEN), "mask_buffer": torch.arange(33)}
    save(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    own = {"architectures": ["ColBERT"], "dim": 16, "mask_punctuation": True, "similarity_metric": similarity}
    write_json(folder / "config.json", config | own)
    return folder


def flagembedding(folder: Path, kind: str = "xlm-roberta", *, dim: int = HIDDEN, head: str = "colbert_linear.pt") -> Path:
    """As BGE-M3 lies on the hub: a plain sentence-transformers folder with two heads beside it."""
    model = write_backbone(folder, kind)
    save(tensors_of(model), folder / "model.safetensors")
    types = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [{"path": path, "type": f"sentence_transformers.models.{t}"} for path, t in zip(paths, types, strict=True)]
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": True})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 100, "do_lower_case": False})
    for name, n_out in ((head, dim), ("sparse_linear.pt", 1)):
        layer = {"weight": matrix(n_out, HIDDEN), "bias": matrix(n_out, seed=2)}
        save(layer, folder / name) if name.endswith(".safetensors") else torch.save(layer, folder / name)
    return folder


def dnn(file: Path, *, base: Path, **arguments: object) -> Path:
    """A legacy file; its backbone's config.json and tokenizer are in the folder ``base``."""
    model = write_backbone(base, "bert")
    weights = tensors_of(model, "bert.") | {"linear.weight": matrix(16, HIDDEN)}
    stated = {"model": str(base), "dim": 16, "query_maxlen": 24, "doc_maxlen": 60, "mask_punctuation": True, "similarity": "l2"}
    content = {"epoch": 0, "batch": 400, "model_state_dict": weights, "arguments": stated | arguments}
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)
    return file


def multi_vector(folder: Path, *, source: Path, **changes: object) -> Path:
    """As sentence-transformers 6 itself saves what it read from ``source``; changes are of its Transformer's settings."""
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(str(source), device="cpu")
    for name, value in changes.items():
        setattr(model[0], name, value)
    model.save(str(folder), create_model_card=False)
    return folder


OWN_CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel

class TinyConfig(PretrainedConfig):
    model_type = "tiny-own-code"
    def __init__(self, vocab_size=200, hidden_size=32, **others):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        super().__init__(**others)

class TinyModel(PreTrainedModel):
    config_class = TinyConfig
    base_model_prefix = "tiny"
    def __init__(self, config):
        super().__init__(config)
        self.words = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()
    def forward(self, input_ids=None, attention_mask=None, **_):
        from transformers.modeling_outputs import BaseModelOutput
        return BaseModelOutput(last_hidden_state=self.words(input_ids))
"""


def own_code(folder: Path) -> Path:
    """Stanford's format, of a backbone whose code lies in the folder."""
    stanford(folder)
    n_tokens = json.loads((folder / "config.json").read_text())["vocab_size"]
    (folder / "modeling_tiny.py").write_text(OWN_CODE)
    auto_map = {"AutoConfig": "modeling_tiny.TinyConfig", "AutoModel": "modeling_tiny.TinyModel"}
    config = {"model_type": "tiny-own-code", "auto_map": auto_map, "architectures": ["HF_ColBERT"], "vocab_size": n_tokens}
    write_json(folder / "config.json", config | {"hidden_size": HIDDEN})
    weights = {"tiny.words.weight": matrix(n_tokens, HIDDEN), "linear.weight": matrix(16, HIDDEN)}
    save(weights, folder / "model.safetensors")
    return folder


def _wordpiece(folder: Path, added: list[str]) -> int:
    write_tokenizer(folder)
    return _with_added(PreTrainedTokenizerFast.from_pretrained(folder), folder, added)


def _byte_level(folder: Path, added: list[str]) -> int:
    """As RoBERTa and ModernBERT have it: the blank before a word belongs to the word."""
    backend = Tokenizer(models.BPE(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    return _finished(backend, trainer, folder, added)


def _decoder(folder: Path, added: list[str]) -> int:
    """As LFM2 has it: a token before the text, none behind it, and no mask."""
    _byte_level(folder, added)
    with_template(folder, "[CLS] $A")
    edit_json(
        folder / "tokenizer_config.json", mask_token=..., cls_token=..., sep_token=..., bos_token="[CLS]", eos_token="[SEP]"
    )
    return len(PreTrainedTokenizerFast.from_pretrained(folder))


def with_template(folder: Path, single: str | None) -> Path:
    """Change what the tokenizer puts around a text; nothing for None."""
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    numbers = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    template = processors.TemplateProcessing(single=single or "$A", special_tokens=numbers)
    backend.post_processor = template
    backend.save(str(folder / "tokenizer.json"))
    return folder


def xtr(folder: Path, *, n_out: int = 16) -> Path:
    """As google/xtr-base-en is laid out: T5's encoder, a Pooling that nobody uses, and a projection in 2_Dense."""
    folder.mkdir(parents=True, exist_ok=True)
    n_tokens = _unigram(folder, ["a"])
    with_template(folder, "$A [SEP]")
    edit_json(folder / "tokenizer_config.json", mask_token=..., cls_token=..., sep_token=..., eos_token="[SEP]")
    config = transformers.T5Config(
        vocab_size=n_tokens, d_model=HIDDEN, d_kv=8, d_ff=48, num_layers=2, num_heads=4, pad_token_id=0, dropout_rate=0.0
    )
    torch.manual_seed(0)
    model = transformers.T5EncoderModel(config).eval()
    config.architectures = ["T5ForConditionalGeneration"]
    config.save_pretrained(folder)
    tensors = tensors_of(model)
    tensors.pop("encoder.embed_tokens.weight", None)
    save(tensors, folder / "model.safetensors")
    projection = dense(folder / "2_Dense", HIDDEN, n_out) | {"type": "sentence_transformers.models.Dense"}
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules += [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}, projection]
    write_json(folder / "modules.json", [{"idx": i, "name": str(i), **module} for i, module in enumerate(modules)])
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 60, "do_lower_case": False})
    return folder


def japanese(folder: Path, **settings: object) -> Path:
    """Stanford's format with BertJapaneseTokenizer, which has no tokenizer.json."""
    stanford(folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)), encoding="utf-8")
    usual = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "basic", "do_lower_case": True}
    write_json(folder / "tokenizer_config.json", usual | settings)
    return folder


def _unigram(folder: Path, added: list[str]) -> int:
    """As XLM-R and DeBERTa have it: SentencePiece, whose words begin with a mark for the blank."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="[UNK]", show_progress=False)
    return _finished(backend, trainer, folder, added)


# Others have BERT's.
_TOKENIZERS = {
    "lfm2": _decoder,
    **dict.fromkeys(("roberta", "modernbert"), _byte_level),
    **dict.fromkeys(("albert", "deberta-v2", "xlm-roberta", "xmod"), _unigram),
}


def _finished(backend: Tokenizer, trainer, folder: Path, added: list[str]) -> int:
    backend.train_from_iterator(TEXT, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    )
    names = {f"{name.lower()}_token": f"[{name}]" for name in ("UNK", "PAD", "CLS", "SEP", "MASK")}
    return _with_added(PreTrainedTokenizerFast(tokenizer_object=backend, **names), folder, added)


def _with_added(tokenizer, folder: Path, added: list[str]) -> int:
    tokenizer.add_tokens(list(added))
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def edit_json(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


# Heads of several layers, as sentence-transformers' Dense modules are set.
LAYERS = {
    "bias": [{"n_in": HIDDEN, "n_out": 16, "bias": True}],
    "two layers": [
        {"n_in": HIDDEN, "n_out": 48, "bias": True, "activation_function": "torch.nn.modules.activation.GELU"},
        {"n_in": 48, "n_out": 8},
    ],
    "residual of the same size": [{"n_in": HIDDEN, "n_out": HIDDEN, "use_residual": True}],
    "residual that is projected": [
        {"n_in": HIDDEN, "n_out": 24, "use_residual": True, "activation_function": "torch.nn.modules.activation.SiLU"},
        {"n_in": 24, "n_out": 12, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"},
    ],
}
