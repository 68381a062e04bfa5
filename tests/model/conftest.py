"""Copies of model folders, to be damaged."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def stanford_copy(stanford_folder, tmp_path):
    return shutil.copytree(stanford_folder, tmp_path / "stanford")


@pytest.fixture
def untrained_copy(untrained_folder, tmp_path):
    return shutil.copytree(untrained_folder, tmp_path / "untrained")
