"""How far the three forms of retention are from exact arithmetic in fp32 and bf16: `python -m benchmarks.retention_precision`.

One sequence with normal q, k and v and a fixed decay a head, from γ = 0.9 to 1 − 2⁻¹²; the reference is the recurrent form in fp64 over the
same values before they are rounded. Prints, for outputs, final state and the gradients of q, k, v, log decay and state, the root mean square
error relative to the reference's own, and ends with the same for a state that is itself kept in bf16, which the forms do not do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from retnet_core.retention import CHUNK, retention_chunkwise, retention_parallel, retention_recurrent

Form = Callable[..., tuple[Tensor, Tensor]]
FORMS: dict[str, Form] = {
    "parallel": retention_parallel,
    "recurrent": retention_recurrent,
    f"chunkwise, {CHUNK}": partial(retention_chunkwise, chunk=CHUNK),
}
DISTANCES = (0.1, 2.0**-7, 2.0**-9, 2.0**-12)
"""1 − γ of the heads."""
COLUMNS = ("output", "state", "∂q", "∂k", "∂v", "∂log γ", "∂state")


def bf16_state(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrent form with its state rounded to bf16 after every token."""
    outputs = []
    for n in range(q.shape[2]):
        token = slice(n, n + 1)
        output, state = retention_recurrent(q[:, :, token], k[:, :, token], v[:, :, token], log_decay, state, checked=False)
        state = state.bfloat16()
        outputs.append(output)
    return torch.cat(outputs, 2), state


def differentiated(form: Form, parts: list[Tensor]) -> list[Tensor]:
    """Outputs, final state and the gradients of a fixed weighted sum of both."""
    leaves = [part.clone().requires_grad_() for part in parts]
    results = form(*leaves)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(result.shape, generator=generator, dtype=torch.float64) for result in results]
    total = sum((result.double() * weight).sum() for result, weight in zip(results, weights, strict=True))
    assert isinstance(total, Tensor)
    return [*results, *torch.autograd.grad(total, leaves)]


def measure(length: int, key_dim: int) -> dict[str, list[float]]:
    """Relative root mean square errors, one list in the order of COLUMNS for each form and type."""
    generator = torch.Generator().manual_seed(0)
    heads = len(DISTANCES)
    log_decay = torch.log1p(-torch.tensor(DISTANCES, dtype=torch.float64))
    q, k, v = (torch.randn(1, heads, length, key_dim, generator=generator, dtype=torch.float64) * key_dim**-0.5 for _ in range(3))
    state = torch.randn(1, heads, key_dim, key_dim, generator=generator, dtype=torch.float64)
    expected = differentiated(retention_recurrent, [q, k, v, log_decay, state])
    table = {}
    for dtype in (torch.float32, torch.bfloat16):
        forms = FORMS if dtype == torch.float32 else {**FORMS, "recurrent, state in bf16 too": bf16_state}
        for name, form in forms.items():
            actual = differentiated(form, [q.to(dtype), k.to(dtype), v.to(dtype), log_decay.float(), state.float()])
            table[f"{str(dtype).removeprefix('torch.')}, {name}"] = [
                float((left.detach().double() - right.detach()).norm() / right.detach().norm())
                for left, right in zip(actual, expected, strict=True)
            ]
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=1024, help="tokens (default 1024)")
    parser.add_argument("--key-dim", type=int, default=64, help="size of a head's keys and values (default 64)")
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    table = measure(options.length, options.key_dim)
    print(f"{'':<40}" + "".join(f"{column:>10}" for column in COLUMNS))
    for name, errors in table.items():
        print(f"{name:<40}" + "".join(f"{error:>10.1e}" for error in errors))
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"length": options.length, "key_dim": options.key_dim, "columns": COLUMNS, "errors": table}, file, indent=1)


if __name__ == "__main__":
    main()
