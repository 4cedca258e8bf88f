"""all-MiniLM-L6-v2 as plain tensors: six layers of BERT (Devlin et al., 2018), then the mean over a text's word pieces.

Written out here because a library of models takes seconds and 200 MB to import for these sixty lines, and because a layer's
matrices can then be laid out for the processor once instead of in every product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

WIDTH, HEADS, LAYERS = 384, 12, 6
EPSILON = 1e-12  # of the layer norms, from the model's config.json

# (input [rows, inner], apply GELU to the product) -> [rows, outer]
Product = Callable[[Tensor, bool], Tensor]
MakeProduct = Callable[[Tensor, Tensor], Product]  # of a weight [outer, inner] and a bias [outer]


def exact(weight: Tensor, bias: Tensor) -> Product:
    """The product as it is written, in the weight's own precision."""

    def product(rows: Tensor, gelu: bool) -> Tensor:
        out = functional.linear(rows, weight, bias)
        return functional.gelu(out) if gelu else out

    return product


def packed(weight: Tensor, bias: Tensor) -> Product:
    """The product in bfloat16 with the weight laid out in oneDNN's own order, which `linear` would do again for each call.

    Raises AttributeError or RuntimeError where this build of torch or this processor has no such product.
    """
    mkldnn: Any = torch.ops.mkldnn
    laid_out, bias = mkldnn._reorder_linear_weight(weight.bfloat16()), bias.bfloat16()

    def product(rows: Tensor, gelu: bool) -> Tensor:
        if gelu:
            return mkldnn._linear_pointwise(rows, laid_out, bias, "gelu", [], "none")
        return mkldnn._linear_pointwise(rows, laid_out, bias, "none", [], "")

    return product


@dataclass(frozen=True, slots=True)
class Norm:
    weight: Tensor
    bias: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        return functional.layer_norm(rows, (WIDTH,), self.weight, self.bias, EPSILON)


class Layer:
    """Attention among a text's word pieces, then two products with a GELU between, each added to what came in (post-norm)."""

    def __init__(self, weights: Mapping[str, Tensor], make: MakeProduct, dtype: torch.dtype) -> None:
        def product(*names: str) -> Product:
            return make(*(torch.cat([weights[f"{name}.{part}"] for name in names]) for part in ("weight", "bias")))

        self.queries_keys_values = product(*(f"attention.self.{name}" for name in ("query", "key", "value")))
        self.out = product("attention.output.dense")
        self.attention_norm = _norm(weights, "attention.output.LayerNorm", dtype)
        self.widen = product("intermediate.dense")
        self.narrow = product("output.dense")
        self.norm = _norm(weights, "output.LayerNorm", dtype)

    def __call__(self, hidden: Tensor, texts: int, mask: Tensor | None) -> Tensor:
        """`hidden` [texts · width, 384], `mask` [texts, 1, width, width] added to the attention's logits."""
        per_head = self.queries_keys_values(hidden, False).view(texts, -1, 3, HEADS, WIDTH // HEADS)
        queries, keys, values = per_head.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        hidden = self.attention_norm(self.out(attended.transpose(1, 2).reshape(hidden.shape), False).add_(hidden))
        return self.norm(self.narrow(self.widen(hidden, True), False).add_(hidden))


class MiniLM:
    """`network(ids, lengths)` gives float32 [texts, 384], each row of length 1; `network.hidden` what that is the mean of.

    `weights` are named as in the model's file. `make` is `exact` or `packed`; whatever is no product goes to `dtype`.
    """

    def __init__(self, weights: Mapping[str, Tensor], make: MakeProduct = exact, dtype: torch.dtype = torch.float32) -> None:
        self._words = weights["embeddings.word_embeddings.weight"].to(dtype)
        places, types = (weights[f"embeddings.{name}_embeddings.weight"] for name in ("position", "token_type"))
        self._places = (places + types[0]).to(dtype)
        self._second = (types[1] - types[0]).to(dtype)  # what a word piece of the second text has beyond one of the first
        self._norm = _norm(weights, "embeddings.LayerNorm", dtype)
        self._layers = []
        for number in range(LAYERS):
            prefix = f"encoder.layer.{number}."
            own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
            self._layers.append(Layer(own, make, dtype))

    def __call__(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """`ids` int64 [texts, width], of which the first `lengths` [texts] of each row (at least one) are the text's."""
        inside = torch.arange(ids.shape[1]) < lengths[:, None]
        total = (self.hidden(ids, lengths) * inside[..., None]).sum(dim=1)
        return functional.normalize(total, dim=1)  # of the sum as of the mean: the length cancels

    def hidden(self, ids: Tensor, lengths: Tensor, second: Tensor | None = None) -> Tensor:
        """The last layer's float32 [texts, width, 384]. `second` bool [texts, width]: word pieces of the second of two texts."""
        texts, width = ids.shape
        inside = torch.arange(width) < lengths[:, None]
        embedded = self._words[ids] + self._places[:width]
        if second is not None:
            embedded += second[..., None] * self._second
        hidden = self._norm(embedded).view(texts * width, WIDTH)
        mask = None
        if not inside.all():
            mask = torch.zeros(texts, 1, 1, width, dtype=hidden.dtype).masked_fill_(~inside[:, None, None], float("-inf"))
            mask = mask.expand(-1, -1, width, -1)
        for layer in self._layers:
            hidden = layer(hidden, texts, mask)
        return hidden.float().view(texts, width, WIDTH)


def _norm(weights: Mapping[str, Tensor], name: str, dtype: torch.dtype) -> Norm:
    return Norm(weights[f"{name}.weight"].to(dtype), weights[f"{name}.bias"].to(dtype))
