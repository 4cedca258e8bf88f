"""What `retort` does on one machine: checks, starts, supervises and asks. Reaches the workers as processes alone."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


class Problem(RuntimeError):
    """Something stands in the way; the message says in one line what and what to do. `retort` prints it and exits with 1."""
