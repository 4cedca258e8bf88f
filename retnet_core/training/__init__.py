"""Training a RetNet, or a plain Transformer beside it, on files of tokens: `python -m retnet_core.training` (docs/training.md).

`configuration` holds every knob, `data` the tokens, `transformer` the baseline, `objective` the loss, `optimiser` AdamW and its schedule,
`checkpoints` what makes a run go on exactly, `loop` the loop itself, `comparison` the paper's comparison in the small, `recall` what a
model remembers of its context.
"""

from retnet_core.training.checkpoints import ResumeError
from retnet_core.training.configuration import ConfigurationError, TrainingConfig
from retnet_core.training.data import DataError, TokenFile
from retnet_core.training.loop import Diverged, Trainer
from retnet_core.training.transformer import Transformer, TransformerConfig

__all__ = [
    "ConfigurationError",
    "DataError",
    "Diverged",
    "ResumeError",
    "TokenFile",
    "Trainer",
    "TrainingConfig",
    "Transformer",
    "TransformerConfig",
]
