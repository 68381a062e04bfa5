"""The recipe of an encoder in plain values, and as text for a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colbert_core.model.backbone import hidden_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from colbert_core.model.backbone import Head
    from colbert_core.model.inputs import InputBuilder


def about(name: str, backbone: Any, head: Head | None, inputs: InputBuilder, scripts: Iterable[str]) -> dict[str, Any]:
    """Tell of an encoder what ``Encoder.describe`` returns."""
    config, tokens_of, suffix = inputs.config, inputs.tokenizer.tokens_of, inputs.tokenizer.suffix_ids
    mask = None if inputs.augmentation_id is None else tokens_of([inputs.augmentation_id])[0]
    parameter = next(backbone.parameters())
    return {
        "name": name,
        "format": config.format,
        "trained": config.trained,
        "backbone": backbone.config.model_type,
        "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "hidden": hidden_size(backbone),
        "head": [] if head is None else [layer.describe() for layer in head.weights()],
        "dim": hidden_size(backbone) if head is None else head.dim,
        "nested_dims": [*config.nested_dims],
        "device": str(parameter.device),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "query_length": config.query_length,
        "passage_length": config.passage_length,
        "query_prefix": dict(zip(tokens_of(inputs.query_prefix), inputs.query_prefix, strict=True)),
        "passage_prefix": dict(zip(tokens_of(inputs.passage_prefix), inputs.passage_prefix, strict=True)),
        "suffix": dict(zip(tokens_of(suffix), suffix, strict=True)),
        "marker_is_second": inputs.marker_is_second,
        "query_prompt": config.query_prompt,
        "passage_prompt": config.passage_prompt,
        "augmentation": mask
        and {
            "token": mask,
            "id": inputs.augmentation_id,
            "up_to": config.augmentation_length or config.query_length,
            "attended": config.attend_to_augmentation,
        },
        "skipped": tokens_of(inputs.skipped.tolist()),
        "skips_first": config.skip_first,
        "scripts": list(scripts),
        **({"language": language} if (language := getattr(backbone.config, "default_language", None)) else {}),
        "similarity": config.similarity,
        "pool_factor": config.pool_factor,
        "example": inputs.example(),
    }


def as_text(about: dict[str, Any]) -> str:
    """Write what ``Encoder.describe`` returns as text, one line for each part."""

    def sequence(side: str) -> str:
        before, after = (
            [f"{token!r}={number}" for token, number in about[part].items()] for part in (f"{side}_prefix", "suffix")
        )
        prompt = [repr(about[f"{side}_prompt"])] if about[f"{side}_prompt"] else []
        place = ", the marker behind the first token" if about["marker_is_second"] and before else ""
        return f"at most {about[f'{side}_length']} tokens: {' '.join([*before, *prompt, side, *after])}{place}"

    mask, example = about["augmentation"], about["example"]
    filled = "not filled up"
    if mask:
        attended = "attended to" if mask["attended"] else "not attended to"
        filled = f"filled up to {mask['up_to']} with {mask['token']!r}={mask['id']}, {attended}"
    shorter = [str(dim) for dim in about["nested_dims"] if dim < about["dim"]]
    cuts = f" (may be cut to {', '.join(shorter)})" if shorter else ""
    lines = {
        "backbone": f"{about['backbone']}, {about['parameters'] / 1e6:.1f} million parameters, hidden size {about['hidden']}",
        "head": "; ".join(about["head"]) or "none, the hidden states are the vectors",
        "vectors": f"{about['dim']} dimensions{cuts}, {about['dtype']} on {about['device']}, "
        f"trained with {about['similarity']}",
        "scripts": ", ".join(about["scripts"]) or "none whole",
        **({"language": about["language"]} if "language" in about else {}),
        "query": f"{sequence('query')}; {filled}",
        "passage": sequence("passage"),
        "skipped": " ".join([*(["the first token"] if about["skips_first"] else []), *about["skipped"]]) or "nothing",
        **({"pooling": f"about 1 vector of {about['pool_factor']:g} stays"} if about["pool_factor"] != 1 else {}),
        "example": example["query"],
        "  tokens": " ".join(example["tokens"]),
        "  ids": " ".join(map(str, example["ids"])),
        "  attention": " ".join(map(str, example["attention"])),
    }
    kind = about["format"] if about["trained"] else f"{about['format']}, untrained"
    return f"Encoder({about['name']!r}, {kind})\n" + "\n".join(f"  {name:<11} {value}" for name, value in lines.items())
