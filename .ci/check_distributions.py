"""Checks that a folder holds one sdist and one wheel, with the files that no import would miss."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

NEEDED = [
    "colbert_core/py.typed",
    "langchain_colbert/py.typed",
    "llama_index_colbert/py.typed",
    "colbert_core/default_model/model.safetensors",
    "colbert_core/default_model/NOTICE",
    "colbert_core/quickstart/passages.jsonl",
    "colbert_core/quickstart/questions.jsonl",
]


def main(folder: str) -> None:
    """Exit with a message if something is missing, or is there that should not be."""
    (wheel,) = Path(folder).glob("*.whl")
    (sdist,) = Path(folder).glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    missing = [
        f"{path.name} lacks {name}"
        for path, names in ((wheel, in_wheel), (sdist, in_sdist))
        for name in sorted(set(NEEDED) - names)
    ]
    strangers = [
        f"{wheel.name} has {name}"
        for name in sorted(in_wheel)
        if name.startswith(("tests/", "benchmarks/", "notebooks/", "docs/"))
    ]
    if problems := missing + strangers:
        sys.exit("\n".join(problems))
    print(f"{wheel.name} has {len(in_wheel)} files, {sdist.name} {len(in_sdist)}; none of {len(NEEDED)} is missing")


if __name__ == "__main__":
    main(*sys.argv[1:])
