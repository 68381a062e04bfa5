"""The options of the commands that train and evaluate: they are the training's own settings, and need no PyTorch."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import fields

from builders.processes import environment

from colbert_core.cli.training_options import add_training_commands
from colbert_core.train import TrainConfig


def training_parser():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()

    def command(name, run, help_, *parents, about=""):
        made = commands.add_parser(name, parents=list(parents))
        made.set_defaults(run=run)
        return made

    def group(name, help_):
        inner = commands.add_parser(name).add_subparsers()
        return lambda name, run, help_, *parents, about="": inner.add_parser(name, parents=list(parents))

    add_training_commands(command, group)
    return parser


def test_the_options_of_a_training_are_settings_of_it():
    options = training_parser().parse_args(["train", "data", "--out", "run", "--max-steps", "7", "--learning-rate", "1e-5"])
    assert set(options.settings) <= {field.name for field in fields(TrainConfig)}
    given = {name: value for name in options.settings if (value := getattr(options, name)) is not None}
    assert given == {"steps": 7, "learning_rate": 1e-5}
    assert options.preset == "colbertv2"
    assert training_parser().parse_args(["pipeline", "data", "--out", "run"]).preset == "colbertv1"


def test_options_are_understood_without_pytorch():
    code = "import sys; from colbert_core.cli.main import build_parser; build_parser(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())
