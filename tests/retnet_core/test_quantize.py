"""Matrix products at each precision: near the exact one, and the same for a row in any company."""

from __future__ import annotations

import pytest
import torch

from retnet_core.quantize import _ROWS, PRECISIONS, available_precisions, fastest_precision, pack
from tests.retnet_core.tiny import assert_close

# Of the largest output: 8 bits a weight and 8 an input for int8, 8 bits of mantissa for bfloat16.
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.01, "int8": 0.02}


def draw(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("precision", available_precisions())
def test_a_product_is_near_the_exact_one_for_small_and_large_rows_alike(precision: str) -> None:
    weight = draw(_ROWS + 37, 64, 1) * torch.logspace(-3, 1, _ROWS + 37)[:, None]
    x = draw(5, 64, 2) * torch.tensor([1e-4, 1.0, 30.0, 1e4, 0.0])[:, None]
    exact = x @ weight.T
    product = pack(weight, precision)(x)
    for row, expected in zip(product, exact, strict=True):
        # Each output on its own scale: neither a loud row of weights nor a loud input may drown the others.
        scale = weight.norm(dim=1)
        largest = (expected / scale).abs().max().clamp_min(1e-12)
        assert (((row - expected) / scale).abs().max() / largest) < TOLERANCE[precision]


def test_an_int8_row_is_the_same_in_any_company() -> None:
    """Otherwise an answer would depend on who else asks."""
    if "int8" not in available_precisions():
        pytest.skip("this build of torch has no int8 kernel")
    linear = pack(draw(48, 64, 3), "int8")
    x = draw(9, 64, 4) * torch.logspace(-2, 2, 9)[:, None]
    together = linear(x)
    for row in range(9):
        assert torch.equal(linear(x[row : row + 1])[0], together[row])


def test_the_fastest_precision_is_one_of_those_that_exist() -> None:
    assert fastest_precision(rows=64, columns=32, matrices=4, rounds=1) in available_precisions()
    assert set(available_precisions()) <= set(PRECISIONS)


def test_an_unknown_precision_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="int4"):
        pack(torch.zeros(2, 2), "int4")
    assert_close(pack(torch.zeros(2, 2), "float32")(torch.ones(1, 2)), torch.zeros(1, 2), 0.0)
