"""What is trained: a network's cross-entropy on the next id."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from retnet_core.config import RetNetConfig
from retnet_core.network import RetNet
from retnet_core.training.configuration import ModelConfig, Training
from retnet_core.training.transformer import Network, Transformer


def build(config: ModelConfig, seed: int) -> Network:
    """The network with weights drawn from the seed, on the CPU, so that every device begins with the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RetNet(config) if isinstance(config, RetNetConfig) else Transformer(config)


def parameters(network: nn.Module) -> int:
    """How many weights it has, a tied one once."""
    return sum(parameter.numel() for parameter in network.parameters())


def allow_tensor_cores(training: Training, device: torch.device) -> None:
    """Let fp32 products, of the states, run on a GPU's tensor cores where the others are bf16: their inputs keep 11 bits, three more than those."""
    if device.type == "cuda" and training.precision == "bfloat16":
        torch.set_float32_matmul_precision("high")


class Objective(nn.Module):
    """Windows in, losses out, in the form and precision that `[training]` asks for."""

    def __init__(self, network: Network, training: Training) -> None:
        super().__init__()
        self.network, self.training_config = network, training
        if training.compile:
            for layer in network.layers:
                layer.compile()

    def forward(self, windows: Tensor) -> Tensor:
        """The mean loss in nats of windows `[batch, context + 1]`."""
        return self.losses(windows).mean()

    def losses(self, windows: Tensor) -> Tensor:
        """The loss of each id after the first, fp32 `[batch, context]`."""
        with self.precision(windows.device):
            hidden = self.hidden(windows[:, :-1])
            pieces = hidden.flatten(0, 1).tensor_split(self.training_config.loss_pieces)
            targets = windows[:, 1:].flatten().tensor_split(self.training_config.loss_pieces)
            again = self.training_config.loss_pieces > 1 and torch.is_grad_enabled()
            losses = [
                cast(Tensor, checkpoint(self._losses, piece, wanted, use_reentrant=False))
                if again
                else self._losses(piece, wanted)
                for piece, wanted in zip(pieces, targets, strict=True)
            ]
        return torch.cat(losses).view(windows.shape[0], -1)

    def hidden(self, ids: Tensor) -> Tensor:
        """The states after the final norm, `[batch, length, width]`."""
        if isinstance(self.network, RetNet):
            return self.network.hidden(ids, form=self.training_config.form, chunk=self.training_config.chunk)[0]
        return self.network.hidden(ids)

    def precision(self, device: torch.device) -> torch.autocast:
        """The autocast that the precision means."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.training_config.precision == "bfloat16")

    def _losses(self, hidden: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(self.network.logits(hidden).float(), wanted, reduction="none")
