"""all-MiniLM-L6-v2 (BERT, arXiv 1810.04805, six layers) to be trained: its own weights stay, thin matrices beside them learn (arXiv 2106.09685).

Two heads on the same body. The encoder gives a text one vector, as the product stores it. The reader reads a question and a passage together and
gives a score for the passage and one for each of its sentences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, LAYERS, INNER = 384, 12, 6, 1536
EPSILON = 1e-12
MATRICES = {
    "attention.self.query": (WIDTH, WIDTH),
    "attention.self.key": (WIDTH, WIDTH),
    "attention.self.value": (WIDTH, WIDTH),
    "attention.output.dense": (WIDTH, WIDTH),
    "intermediate.dense": (INNER, WIDTH),
    "output.dense": (WIDTH, INNER),
}
"""Name within a layer, (outer, inner)."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Word pieces `ids` int64 [texts, width], of which the first `lengths` [texts] of a row are the text's, and their token types."""

    ids: Tensor
    lengths: Tensor
    types: Tensor | None = None

    def to(self, device: torch.device) -> Texts:
        moved = (None if part is None else part.to(device, non_blocking=True) for part in (self.ids, self.lengths, self.types))
        return Texts(*moved)  # type: ignore[arg-type]


class Body(nn.Module):
    """The layers, frozen, with adapters of `rank`. `weights` are named as in the model's file."""

    def __init__(self, weights: Mapping[str, Tensor], rank: int, seed: int = 0) -> None:
        super().__init__()
        self.rank = rank
        for name, tensor in weights.items():
            self.register_buffer(_plain(name), tensor.float(), persistent=False)
        generator = torch.Generator().manual_seed(seed)
        self.adapters = nn.ParameterDict()
        self.norms = nn.ParameterDict()
        for layer in range(LAYERS):
            for name, (outer, inner) in MATRICES.items():
                down = torch.randn(rank, inner, generator=generator) / math.sqrt(inner)
                self.adapters[_plain(f"{layer}.{name}.down")] = nn.Parameter(down)
                self.adapters[_plain(f"{layer}.{name}.up")] = nn.Parameter(torch.zeros(outer, rank))
            for name in ("attention.output", "output"):
                for part in ("weight", "bias"):
                    value = weights[f"encoder.layer.{layer}.{name}.LayerNorm.{part}"].float().clone()
                    self.norms[_plain(f"{layer}.{name}.{part}")] = nn.Parameter(value)

    def forward(self, texts: Texts) -> Tensor:
        """Hidden states [texts, width, 384]."""
        ids, width = texts.ids, texts.ids.shape[1]
        types = self._weight("embeddings.token_type_embeddings.weight")
        typed = types[0] if texts.types is None else types[texts.types]
        places = self._weight("embeddings.position_embeddings.weight")[:width]
        hidden = functional.embedding(ids, self._weight("embeddings.word_embeddings.weight")) + places + typed
        hidden = functional.layer_norm(
            hidden, (WIDTH,), self._weight("embeddings.LayerNorm.weight"), self._weight("embeddings.LayerNorm.bias"), EPSILON
        )
        inside = torch.arange(width, device=ids.device) < texts.lengths[:, None]
        mask = torch.zeros(
            inside.shape,
            device=ids.device,
            dtype=torch.get_autocast_dtype(ids.device.type) if torch.is_autocast_enabled(ids.device.type) else hidden.dtype,
        )
        mask = mask.masked_fill(~inside, float("-inf"))[:, None, None, :]
        for layer in range(LAYERS):
            hidden = self._layer(layer, hidden, mask)
        return hidden

    def _layer(self, layer: int, hidden: Tensor, mask: Tensor) -> Tensor:
        parts = (
            self._product(layer, f"attention.self.{name}", hidden).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        attended = functional.scaled_dot_product_attention(*parts, attn_mask=mask).transpose(1, 2).flatten(2)
        hidden = self._norm(layer, "attention.output", hidden + self._product(layer, "attention.output.dense", attended))
        inner = functional.gelu(self._product(layer, "intermediate.dense", hidden))
        return self._norm(layer, "output", hidden + self._product(layer, "output.dense", inner))

    def _product(self, layer: int, name: str, rows: Tensor) -> Tensor:
        base = f"encoder.layer.{layer}.{name}"
        plain = functional.linear(rows, self._weight(f"{base}.weight"), self._weight(f"{base}.bias"))
        down, up = (self.adapters[_plain(f"{layer}.{name}.{part}")] for part in ("down", "up"))
        return plain + functional.linear(functional.linear(rows, down), up)

    def _norm(self, layer: int, name: str, rows: Tensor) -> Tensor:
        weight, bias = (self.norms[_plain(f"{layer}.{name}.{part}")] for part in ("weight", "bias"))
        return functional.layer_norm(rows, (WIDTH,), weight, bias, EPSILON)

    def _weight(self, name: str) -> Tensor:
        return self.get_buffer(_plain(name))


class Encoder(nn.Module):
    """Texts to vectors of length 1 [texts, 384]: the mean over a text's word pieces."""

    def __init__(self, weights: Mapping[str, Tensor], rank: int, seed: int = 0) -> None:
        super().__init__()
        self.body = Body(weights, rank, seed)

    def forward(self, texts: Texts) -> Tensor:
        hidden = self.body(texts).float()
        inside = torch.arange(hidden.shape[1], device=hidden.device) < texts.lengths[:, None]
        return functional.normalize((hidden * inside[..., None]).sum(dim=1), dim=1)


class Reader(nn.Module):
    """A question and a passage, in one text, to scores: of the passage [texts], and of its sentences [texts, sentences].

    The passage's score comes from the first word piece, a sentence's from the mean over its word pieces; both through a hidden layer.
    """

    def __init__(self, weights: Mapping[str, Tensor], rank: int, seed: int = 0) -> None:
        super().__init__()
        self.body = Body(weights, rank, seed)
        torch.manual_seed(seed)
        self.passage = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))
        self.sentence = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))

    def forward(self, texts: Texts, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """`sentences` int64 [texts, width]: the number of the sentence that a word piece belongs to, from 0; -1 for none."""
        hidden = self.body(texts).float()
        count = int(sentences.max()) + 1
        first = hidden[:, 0]
        members = functional.one_hot(sentences.clamp(min=0), max(count, 1)).float() * (sentences >= 0)[..., None]
        sums = members.transpose(1, 2) @ hidden
        means = sums / members.sum(dim=1).clamp(min=1)[..., None]
        both = torch.cat([means, first[:, None].expand_as(means)], dim=-1)
        return self.passage(first)[:, 0], self.sentence(both)[..., 0]


def _plain(name: str) -> str:
    """A name that a module's table takes."""
    return name.replace(".", "-")
