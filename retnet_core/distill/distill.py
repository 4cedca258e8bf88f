"""`python -m retnet_core.distill distill`: the student's logits to the teacher's, on all tokens, in growing length.

The loop and the losses are tune's; distill.toml gives KL a weight everywhere and cross-entropy none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from retnet_core.distill import tune

CONFIGURATION = Path(__file__).with_name("distill.toml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tune.add_arguments(parser, CONFIGURATION)


def run(given: argparse.Namespace) -> None:
    tune.run(given)
