"""The recipe of an encoder as text for a reader."""

from __future__ import annotations

from typing import Any


def as_text(about: dict[str, Any]) -> str:
    """Write what ``Encoder.describe`` returns as text, one line for each part."""

    def sequence(side: str) -> str:
        before, after = (
            [f"{token!r}={number}" for token, number in about[part].items()] for part in (f"{side}_prefix", "suffix")
        )
        prompt = [repr(about[f"{side}_prompt"])] if about[f"{side}_prompt"] else []
        return f"at most {about[f'{side}_length']} tokens: {' '.join([*before, *prompt, side, *after])}"

    mask, example = about["augmentation"], about["example"]
    filled = "not filled up"
    if mask:
        attended = "attended to" if mask["attended"] else "not attended to"
        filled = f"filled up to {mask['up_to']} with {mask['token']!r}={mask['id']}, {attended}"
    lines = {
        "backbone": f"{about['backbone']}, {about['parameters'] / 1e6:.1f} million parameters, hidden size {about['hidden']}",
        "head": "; ".join(about["head"]) or "none, the hidden states are the vectors",
        "vectors": f"{about['dim']} dimensions, {about['dtype']} on {about['device']}, trained with {about['similarity']}",
        "scripts": ", ".join(about["scripts"]) or "none whole",
        "query": f"{sequence('query')}; {filled}",
        "passage": sequence("passage"),
        "skipped": " ".join(about["skipped"]) or "nothing",
        **({"pooling": f"about 1 vector of {about['pool_factor']:g} stays"} if about["pool_factor"] != 1 else {}),
        "example": example["query"],
        "  tokens": " ".join(example["tokens"]),
        "  ids": " ".join(map(str, example["ids"])),
        "  attention": " ".join(map(str, example["attention"])),
    }
    kind = about["format"] if about["trained"] else f"{about['format']}, untrained"
    return f"Encoder({about['name']!r}, {kind})\n" + "\n".join(f"  {name:<11} {value}" for name, value in lines.items())
