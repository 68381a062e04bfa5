"""Make the picture of the page that `colbert serve` has: a question to the collection of the quickstart, by headless Chromium.

python benchmarks/page_picture.py docs/assets/page.png [--scheme dark] [--width 390]
"""

import argparse
import base64
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from builders.browser import chromium
from builders.service import serving

from colbert_core import Index
from colbert_core.cli.reading import demo_passages

QUESTION = "Who writes the music of Miyazaki movies?"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--scheme", default="light", choices=["light", "dark"])
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=775)
    options = parser.parse_args()

    index = Index.create(None)
    index.add(demo_passages(), progress=False)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        serving({"demo": index}) as url,
        chromium(Path(folder, "profile")) as browser,
    ):
        browser.resize(options.width, options.height)
        browser.prefer(options.scheme)
        browser.open(f"{url}/#q={quote(options.question)}")
        browser.wait("document.querySelectorAll('article').length")
        browser.evaluate("document.activeElement.blur(); document.querySelector('.go').click()")  # warm, as any later search is
        browser.wait("/ms/.test(document.getElementById('status').textContent)")
        browser.evaluate("new Promise((done) => setTimeout(done, 300))")
        options.out.write_bytes(base64.b64decode(browser.screenshot()))
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
