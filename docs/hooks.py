"""What MkDocs does besides: it takes the README's picture into the site."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_PICTURE = Path(__file__).parents[1] / "notebooks" / "evidence.png"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the picture, which is in ``notebooks`` and not in ``docs``, as ``evidence.png``."""
    files.append(File.generated(config, "evidence.png", abs_src_path=str(_PICTURE)))
    return files
