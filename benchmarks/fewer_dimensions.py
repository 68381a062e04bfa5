"""Models of fewer dimensions from one that is trained, by PCA of its own token vectors, to see what its dimensions are worth.

    python benchmarks/fewer_dimensions.py TRAIN OUT [--model FOLDER] [--dims 96 64 48] [--passages 4000]
    python benchmarks/evaluate.py DATA/cranfield DATA/cosqa-dev --model OUT/96 --first 300 --nbits 4 2
    python benchmarks/encode.py PASSAGES --model OUT/96

TRAIN is a folder with *.jsonl.xz with "positive" (or "text"), of which it samples passages. The first command writes OUT/96 and
so on; the others measure one. The PCA is that of make_default_model.py, of the model's vectors in place of its source's.
"""

import argparse
import json
import shutil
from pathlib import Path

from make_default_model import fitted_projection, sample_texts, second_moment
from safetensors.torch import save_file

from colbert_core import Encoder
from colbert_core.model.checkpoint import DEFAULT_MODEL, quantize_weights
from colbert_core.model.checkpoint.files import read_weights


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--model", type=Path, default=DEFAULT_MODEL, help="in the Stanford ColBERT layout; default: the model in the box"
    )
    parser.add_argument("--dims", type=int, nargs="+", default=[96, 64, 48])
    parser.add_argument("--passages", type=int, default=4000)
    options = parser.parse_args()

    model = options.model
    encoder = Encoder.from_pretrained(str(model), dtype="float32")
    too_many = [dim for dim in options.dims if not 0 < dim < encoder.dim]
    if too_many:
        parser.error(f"--dims {too_many[0]}: {model} has {encoder.dim} dimensions; name fewer, and at least 1")
    if options.out.exists():
        parser.error(f"{options.out} exists; name a new folder")
    weights = read_weights(model)
    recipe = json.loads((model / "artifact.metadata").read_text(encoding="utf-8"))
    moment = second_moment(encoder, list(sample_texts(options.train, options.passages)))
    for dim in options.dims:
        out = options.out / str(dim)
        shutil.copytree(model, out)
        fewer = weights | {"linear.weight": fitted_projection(moment, dim) @ weights["linear.weight"]}
        save_file(quantize_weights(fewer), out / "model.safetensors", metadata={"format": "pt"})
        (out / "artifact.metadata").write_text(json.dumps(recipe | {"dim": dim}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
