"""Blocks of GGUF tensors, written byte by byte here, against the weights that ggml's layouts say they hold."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch

from retnet_core.gguf import Gguf, GgufError
from tests.retnet_core.distill.tiny_writer import gguf

Q4_K, Q6_K = 12, 14


def read(folder: Path, kind: int, raw: bytes, shape: tuple[int, ...]) -> torch.Tensor:
    path = folder / "blocks.gguf"
    path.write_bytes(gguf({"general.architecture": "test"}, {"w": (shape, kind, raw)}))
    with Gguf(path) as file:
        return file.tensor("w")


def q4_k(scale: float, minimum: float, scales: list[int], minima: list[int], weights: list[int]) -> bytes:
    """A block of 8 times 32 weights of 4 bits; `scales` and `minima` have 6 bits: the first four of each stand whole in the low bits of
    eight bytes, the others in four bytes, their highest two bits above the first ones'."""
    packed = bytearray(12)
    for place in range(4):
        packed[place] = scales[place] | scales[4 + place] >> 4 << 6
        packed[4 + place] = minima[place] | minima[4 + place] >> 4 << 6
        packed[8 + place] = scales[4 + place] & 15 | (minima[4 + place] & 15) << 4
    nibbles = bytearray()
    for pair in range(4):
        low, high = weights[pair * 64 : pair * 64 + 32], weights[pair * 64 + 32 : pair * 64 + 64]
        nibbles += bytes(one | other << 4 for one, other in zip(low, high, strict=True))
    return struct.pack("<ee", scale, minimum) + bytes(packed) + bytes(nibbles)


def q6_k(scale: float, scales: list[int], weights: list[int]) -> bytes:
    """A block of 16 times 16 weights of 6 bits, from -32: of each 128 weights 64 bytes have the low nibbles of a quarter and the one two
    further, and 32 bytes have the high bits of all four."""
    low, high = bytearray(), bytearray()
    for half in (weights[:128], weights[128:]):
        quarters = [[one + 32 for one in half[at : at + 32]] for at in range(0, 128, 32)]
        for first in (0, 1):
            low += bytes(a & 15 | (b & 15) << 4 for a, b in zip(quarters[first], quarters[first + 2], strict=True))
        high += bytes(a >> 4 | b >> 4 << 2 | c >> 4 << 4 | d >> 4 << 6 for a, b, c, d in zip(*quarters, strict=True))
    return bytes(low) + bytes(high) + struct.pack("<16b", *scales) + struct.pack("<e", scale)


def test_a_q4_k_block_gives_scale_times_nibble_less_minimum(tmp_path):
    scales, minima = [1, 63, 5, 0, 33, 16, 47, 63], [0, 2, 63, 17, 1, 48, 31, 60]
    weights = [(7 * number + number // 32) % 16 for number in range(256)]
    blocks = q4_k(0.5, 0.25, scales, minima, weights) + q4_k(-2.0, 0.125, minima, scales, weights[::-1])
    expected = [0.5 * scales[at // 32] * weights[at] - 0.25 * minima[at // 32] for at in range(256)]
    expected += [-2.0 * minima[at // 32] * weights[255 - at] - 0.125 * scales[at // 32] for at in range(256)]
    assert read(tmp_path, Q4_K, blocks, (2, 256)).tolist() == [expected[:256], expected[256:]]


def test_the_bytes_of_a_q4_k_block_stand_where_ggml_puts_them(tmp_path):
    raw = bytearray(144)
    raw[:4] = b"\x00\x3c\x00\x38"  # 1.0 and 0.5
    raw[4:16] = bytes.fromhex("81 02 03 04 45 06 07 c8 a9 00 00 5f")
    raw[16], raw[16 + 31], raw[16 + 96] = 0x5A, 0xF0, 0x21
    found = read(tmp_path, Q4_K, bytes(raw), (256,))
    # Scales: 1, 2, 3, 4, then 9 + 2·16, 0, 0, 15. Minima: 5, 6, 7, 8, then 10 + 1·16, 0, 0, 5 + 3·16; halved.
    assert found[0] == 10 * 1 - 2.5
    assert found[32] == 5 * 2 - 3.0
    assert found[31] == -2.5 and found[63] == 15 * 2 - 3.0
    assert found[64] == -3.5 and found[96] == -4.0
    assert found[128] == -13.0 and found[160] == 0.0
    assert found[192] == 1 * 0 - 0.0 and found[224] == 2 * 15 - 26.5


def test_a_q6_k_block_gives_scale_times_weight(tmp_path):
    scales = [-128, 127, 0, 1, -1, 3, 64, -64, 5, 9, -17, 33, 100, -100, 2, 7]
    weights = [(11 * number + number // 16) % 64 - 32 for number in range(256)]
    blocks = q6_k(0.5, scales, weights) + q6_k(-0.25, scales[::-1], weights[::-1])
    expected = [0.5 * scales[at // 16] * weights[at] for at in range(256)]
    expected += [-0.25 * scales[15 - at // 16] * weights[255 - at] for at in range(256)]
    assert read(tmp_path, Q6_K, blocks, (2, 256)).tolist() == [expected[:256], expected[256:]]


def test_the_bytes_of_a_q6_k_block_stand_where_ggml_puts_them(tmp_path):
    raw = bytearray(210)
    raw[208:] = b"\x00\x3c"  # 1.0
    raw[192:208] = bytes(range(1, 17))
    raw[0], raw[32], raw[64 + 31], raw[128] = 0x21, 0x43, 0x65, 0b11_10_01_00
    found = read(tmp_path, Q6_K, bytes(raw), (256,))
    assert found[0] == (1 + 0 * 16 - 32) * 1
    assert found[64] == (2 + 2 * 16 - 32) * 5
    assert found[32] == (3 + 1 * 16 - 32) * 3
    assert found[96] == (4 + 3 * 16 - 32) * 7
    assert found[128 + 63] == (0 - 32) * 12 and found[128 + 31] == (5 - 32) * 10 and found[128 + 95] == (6 - 32) * 14


@pytest.mark.parametrize(("kind", "size"), [(Q4_K, 144), (Q6_K, 210)])
def test_rows_that_are_no_whole_blocks_and_files_that_are_cut_are_refused(tmp_path, kind, size):
    with pytest.raises(GgufError, match="no whole blocks"):
        read(tmp_path, kind, bytes(2 * size), (4, 128))
    path = tmp_path / "cut.gguf"
    path.write_bytes(gguf({"general.architecture": "test"}, {"w": ((2, 256), kind, bytes(2 * size))})[:-size])
    with pytest.raises(GgufError, match="cut short: w ends"):
        Gguf(path)
