"""Every format and backbone of the table in docs/checkpoints.md: read as its authors do, written where that is said."""

from __future__ import annotations

import importlib.util

import pytest
from builders.look_alikes import FORMATS, LOOK_ALIKES, table
from builders.markdown import ROOT
from builders.parity import assert_parity, assert_same, load, rows_of

from colbert_core import UnsupportedCheckpointError
from colbert_core.cli.main import main


@pytest.mark.parametrize("look_alike", LOOK_ALIKES, ids=str)
def test_it_is_read_as_its_authors_do_and_written_in_the_formats_that_hold_it(tmp_path, look_alike, capsys):
    path = look_alike.write(tmp_path / "model")
    encoder = load(path, **look_alike.options)
    assert_parity(rows_of(encoder), look_alike.expected(path))
    for format in FORMATS:
        if format in look_alike.written:
            encoder.save(tmp_path / format, format=format)
            assert_same(encoder, load(tmp_path / format))
        else:
            with pytest.raises(UnsupportedCheckpointError, match=f"The {format} format cannot hold"):
                encoder.save(tmp_path / format, format=format)

    capsys.readouterr()
    options = [word for name, value in look_alike.options.items() for word in (f"--{name}", value)]
    assert main(["inspect", str(path), *options]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"Encoder('{path}', {encoder.config.format}")
    assert f"backbone    {encoder.describe()['backbone']}, " in printed


def test_the_page_holds_the_table():
    spec = importlib.util.spec_from_file_location("checkpoint_table", ROOT / "docs" / "checkpoint_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.PAGE.read_text(encoding="utf-8")
    assert module.with_table(page, table()) == page, "run: python docs/checkpoint_table.py"
