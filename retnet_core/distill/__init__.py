"""How the shipped weights are made from installable packages, step by step: `python -m retnet_core.distill`."""

from __future__ import annotations


class DistillError(Exception):
    """Something a person has to mend before the step can go on; the message is one line that says what to do."""
