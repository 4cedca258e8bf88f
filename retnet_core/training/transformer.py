"""The Transformer that a RetNet is compared with: pre-norm RMSNorm, rotary positions, causal attention, SwiGLU (as in LLaMA, arXiv 2302.13971).

    x = embedding(ids)
    x = x + attention(norm(x)) and x = x + FFN(norm(x)), layer by layer
    logits = norm(x) W_head

It shares norm, feed-forward, rotation and embedding with `retnet_core.network`, so that attention in the place of retention is all that differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retnet_core.config import RetNetConfig
from retnet_core.network import FeedForward, RetNet, RMSNorm


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Sizes of a Transformer. Raises `ValueError` for a value that does not fit, naming it."""

    layers: int = 12
    width: int = 512
    heads: int = 8
    head_dim: int = 64
    feed_forward: int = 1536
    vocabulary: int = 49152
    rotary_base: float = 1e4
    norm_eps: float = 1e-5
    tied: bool = True
    """Whether the output projection is the embedding's own matrix."""

    def __post_init__(self) -> None:
        self.as_retnet()

    def as_retnet(self) -> RetNetConfig:
        """The RetNet of these sizes, whose norms, feed-forward and rotation this Transformer has. Raises `ValueError` as the class does."""
        return RetNetConfig(
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            head_dim=self.head_dim,
            feed_forward=self.feed_forward,
            vocabulary=self.vocabulary,
            rotary_base=self.rotary_base,
            norm_eps=self.norm_eps,
            rotary_pairs="halves",
            tied=self.tied,
        )


class Attention(nn.Module):
    """`softmax(Q Kᵀ / √head_dim) V W_O` over the past, `[batch, length, width]` to the same; torch picks the kernel (flash on a GPU in bf16)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        inner = config.heads * config.head_dim
        self.projection = nn.Linear(config.width, 3 * inner, bias=False)
        """W_Q, W_K and W_V on top of each other."""
        self.output = nn.Linear(inner, config.width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """`rotation`: cosine and sine `[1, 1, length, head_dim / 2]`."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.projection(x).chunk(3, -1))
        q, k = (_turned(part, rotation) for part in (q, k))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(attended.transpose(1, 2).flatten(-2))


class Layer(nn.Module):
    """Attention and feed-forward, each after a norm and added to what came in."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config.width, config.norm_eps)
        self.feed_forward = FeedForward(config.as_retnet())

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """As `Attention.forward`."""
        x = x + self.attention(self.attention_norm(x), rotation)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Transformer(nn.Module):
    """A Transformer of any `TransformerConfig`, its weights drawn at random."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        bound = (3 / config.width) ** 0.5
        nn.init.uniform_(self.embedding.weight, -bound, bound)  # as the RetNet's: of variance 1/width, tied logits begin near 1
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final_norm = RMSNorm(config.width, config.norm_eps)
        if not config.tied:
            self.head = nn.Linear(config.width, config.vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits after each id: int64 `[batch, length]` to `[batch, length, vocabulary]`."""
        return self.logits(self.hidden(ids))

    def hidden(self, ids: Tensor) -> Tensor:
        """The states after the final norm, `[batch, length, width]`."""
        x = self.embedding(ids)
        rotation = self._rotation(ids.shape[1], x)
        for layer in self.layers:
            x = layer(x, rotation)
        return self.final_norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """`[…, width]` to `[…, vocabulary]`."""
        return F.linear(hidden, self.embedding.weight if self.config.tied else self.head.weight)

    def _rotation(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        pairs = self.config.head_dim // 2
        places = torch.arange(pairs, dtype=torch.float64, device=like.device)
        angle = torch.arange(length, device=like.device)[:, None] * self.config.rotary_base ** (-places / pairs)
        return angle.cos().to(like.dtype)[None, None], angle.sin().to(like.dtype)[None, None]


def _turned(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Channel i of the first half and of the second turned together by the position's angle: `[batch, heads, length, head_dim]` to the same."""
    cosine, sine = rotation
    first, second = heads.chunk(2, -1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1).to(heads.dtype)


Network = RetNet | Transformer
"""What can be trained here."""
