"""`python -m retnet_core.distill align`: each layer's retention to what the teacher's attention adds, on the teacher's own inputs.

Layer by layer, best for small models by arXiv 2504.14366. Embeddings and feed-forward stay the teacher's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from retnet_core.distill import tune
from retnet_core.distill.running import Batch
from retnet_core.distill.student import Student
from retnet_core.distill.teacher import Teacher

CONFIGURATION = Path(__file__).with_name("align.toml")


class Alignment:
    """The squared error of each layer, relative to the size of what its attention adds; large streams count less."""

    names = ("error",)

    def __init__(self, student: Student, teacher: Teacher, config: tune.StageConfig, *, compiled: bool = False) -> None:
        self.student, self.teacher = student, teacher

    def __call__(self, batch: Batch) -> Tensor:
        """See `running.Objective`. Each row is read as one document."""
        layers = self.teacher.by_layer(batch.ids)
        retained = self.student.retained(batch.ids, [before.to(self.student.dtype) for before, _ in layers])
        errors = [_error(x, own, taught) for (x, taught), own in zip(layers, retained, strict=True)]
        total = torch.stack(errors).sum()
        total.backward()
        one = torch.ones((), device=batch.ids.device)
        return torch.stack((one, total.detach() / len(layers), one))


def _error(x: Tensor, own: Tensor, taught: Tensor) -> Tensor:
    x, own, taught = x.float(), own.float(), taught.float()
    stream = (x + taught).square().sum(-1)
    error = ((own - taught).square().sum(-1) / stream).mean()
    return error / (taught.square().sum(-1) / stream).mean()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tune.add_arguments(parser, CONFIGURATION)


def run(given: argparse.Namespace) -> None:
    tune.run_stage(given, Alignment)
