"""Make the picture of the README: what `colbert explain --html` shows, photographed by headless Chromium.

python benchmarks/picture.py notebooks/evidence.png [--chromium /usr/bin/chromium]
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

from colbert_core import Index, Passage
from colbert_core.evidence.evidence import as_page

QUESTIONS = ("What animation studio did Miyazaki found?", "Why does my phone battery die so fast in winter?")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    options = parser.parse_args()

    lines = files("colbert_core").joinpath("quickstart", "passages.jsonl").read_text(encoding="utf-8").splitlines()
    index = Index.create(None)
    index.add([Passage(line["id"], line["text"]) for line in map(json.loads, lines)])
    found = [index.search(question, 1, evidence=True)[0].evidence for question in QUESTIONS]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        page.write_text(as_page(found, "Evidence"), encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        size = ["--hide-scrollbars", "--force-device-scale-factor=2", "--window-size=900,330"]
        output = [f"--user-data-dir={folder}/profile", f"--screenshot={options.out.absolute()}", page.as_uri()]
        subprocess.run([options.chromium, *flags, *size, *output], check=True, capture_output=True, timeout=120)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
