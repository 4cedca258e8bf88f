"""The comparison: models of one size, the same tokens, and measurements that tell a reader that recalls from one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retnet_core import RetNetConfig
from retnet_core.training import Transformer, TransformerConfig
from retnet_core.training.__main__ import main
from retnet_core.training.comparison import NAMES, config_of, model_of
from retnet_core.training.configuration import ConfigurationError, Training, TrainingConfig
from retnet_core.training.evaluation import by_position, by_repetition
from retnet_core.training.objective import Objective, build, parameters
from retnet_core.training.recall import key_values, repeated_passages
from tests.retnet_core.training_runs import small_config

VOCABULARY = 300
EXACT = Training(steps=1, precision="float32")


class Reader(nn.Module):
    """Knows only what it read: after an id it expects what followed that id last, if that was at most `reach` ids ago, and else anything."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.unused = nn.Parameter(torch.zeros(1))

    def hidden(self, ids: Tensor) -> Tensor:
        expected = torch.zeros(*ids.shape, VOCABULARY)
        for row, line in enumerate(ids.tolist()):
            last: dict[int, int] = {}
            for place, number in enumerate(line):
                if place:
                    last[line[place - 1]] = place
                if number in last and place - last[number] < self.reach:
                    expected[row, place, line[last[number]]] = 20.0
        return expected

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden


def reading(reach: int) -> Objective:
    return Objective(Reader(reach), EXACT)  # type: ignore[arg-type]


def test_key_values_are_found_by_a_reader_that_recalls_and_by_chance_by_one_that_does_not() -> None:
    found = key_values(reading(10_000), range(VOCABULARY), batch=16, rows=32)
    assert [one.pairs for one in found] == [4, 8, 16, 32, 64, 128]
    assert [one.correct for one in found] == [1.0] * 6
    lost = key_values(reading(0), range(VOCABULARY), batch=16, counts=(8,), rows=512)
    assert lost[0].chance == 1 / 8
    assert lost[0].correct == pytest.approx(1 / 8, abs=0.03)


def test_a_passage_read_again_is_known_as_far_back_as_the_reader_recalls() -> None:
    drawn = torch.Generator().manual_seed(0)
    windows = torch.stack([torch.randperm(VOCABULARY, generator=drawn)[:257] for _ in range(8)])
    near, far = repeated_passages(reading(150), windows, batch=3, distances=(128, 192, 1024))
    assert (near.distance, far.distance) == (128, 192)
    assert near.second < 0.01
    assert near.first > 3
    assert far.second == pytest.approx(far.first, rel=0.2)


def test_losses_are_told_apart_by_how_far_back_a_pair_was_seen() -> None:
    windows = torch.tensor([[1, 2, 3, 1, 2, 9, 9, 9, 9, 1, 2, 5]])
    # The ids that end a pair seen before: the second 2 (3 back), the third and fourth 9 (1 back), the last 2 (6 back).
    losses = torch.tensor([[0.0, 0, 0, 30, 0, 0, 10, 12, 0, 60, 0]])
    slices = {one.name: (one.ids, one.loss) for one in by_repetition(windows, losses, (1, 2, 4, 8, 16))}
    assert slices == {
        "no pair seen before": (7, 0.0),
        "pair seen 1–1 back": (2, 11.0),
        "pair seen 2–3 back": (1, 30.0),
        "pair seen 4–7 back": (1, 60.0),
        "pair seen 8–15 back": (0, None),
    }
    assert [(one.name, one.loss) for one in by_position(losses[:, :8], 2)] == [("0–3", 7.5), ("4–7", 5.5)]


@pytest.mark.parametrize(
    "sizes", [RetNetConfig(layers=3, width=128, heads=2, feed_forward=352, vocabulary=500), RetNetConfig(tied=False)]
)
def test_all_models_have_the_same_number_of_parameters(sizes: RetNetConfig) -> None:
    with torch.device("meta"):
        counts = [parameters(build(model_of(name, sizes), 0)) for name in NAMES]
    assert max(counts) < 1.01 * min(counts)
    kinds = [model_of(name, sizes) for name in NAMES]
    assert isinstance(kinds[0], TransformerConfig)
    assert [(kind.decay, kind.conv_width) for kind in kinds if isinstance(kind, RetNetConfig)] == [
        ("paper", 0),
        ("gated", 0),
        ("gated", 4),
    ]


def test_a_comparison_begins_with_a_retnet(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    transformer = TrainingConfig(model_of("transformer", config.model), config.data, config.optimiser, config.training)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="begins with the sizes of a RetNet"):
        config_of("gated", transformer, tmp_path)


def test_the_transformer_looks_back_only_and_at_everything() -> None:
    torch.manual_seed(0)
    network = Transformer(TransformerConfig(layers=2, width=32, heads=2, head_dim=16, feed_forward=48, vocabulary=50))
    ids = torch.randint(50, (2, 20))
    logits = network(ids)
    changed = ids.clone()
    changed[:, 12] = (changed[:, 12] + 1) % 50
    moved = (network(changed) - logits).abs().amax(-1)
    assert moved[:, :12].max() < 1e-5
    assert moved[:, 12:].min() > 1e-5


def test_attention_is_the_softmax_of_turned_queries_and_keys() -> None:
    torch.manual_seed(1)
    attention = (
        Transformer(TransformerConfig(layers=1, width=8, heads=1, head_dim=8, feed_forward=8, vocabulary=9)).layers[0].attention
    )
    x, angles = torch.randn(1, 5, 8), torch.arange(5)[:, None] * 1e4 ** (-torch.arange(4) / 4)
    q, k, v = attention.projection(x)[0].chunk(3, -1)
    turn = torch.polar(torch.ones(5, 4), angles)
    q, k = (torch.complex(part[:, :4], part[:, 4:]) * turn for part in (q, k))
    # Turned by their positions, so that a product depends on the distance alone.
    scores = (q @ k.conj().T).real / 8**0.5
    expected = F.softmax(scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf), -1) @ v @ attention.output.weight.T
    actual = attention(x, (angles.cos()[None, None], angles.sin()[None, None]))
    assert torch.allclose(actual[0], expected, atol=1e-6)


def test_models_trained_apart_are_reported_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_config(tmp_path)
    run = [
        "compare",
        "--config",
        str(tmp_path / "run.toml"),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--set",
        "model.feed_forward=240",
    ]
    for name in NAMES:
        assert main([*run, "--only", name]) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert all(said.count(name) >= 6 for name in ("transformer", "fixed", "gated-conv"))
    collected = json.loads(
        (tmp_path / "out" / "comparison.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON")
    )
    models = collected["models"]
    assert list(models) == list(NAMES)
    assert len({tuple(tokens for tokens, _ in model["loss"]) for model in models.values()}) == 1
    assert len({model["evaluation"]["held_out_tokens"] for model in models.values()}) == 1
    sizes = [model["parameters"] for model in models.values()]
    assert max(sizes) < 1.01 * min(sizes)
    for model in models.values():
        assert model["evaluation"]["held_out_loss"] == pytest.approx(
            sum(one["loss"] * one["ids"] for one in model["evaluation"]["by_position"]) / model["evaluation"]["held_out_tokens"],
            rel=1e-6,
        )
        assert model["held_out"][-1][1] == pytest.approx(model["evaluation"]["held_out_loss"], rel=1e-5)


def test_a_comparison_can_be_fitted_to_a_time_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_config(tmp_path)
    run = [
        "compare",
        "--config",
        str(tmp_path / "run.toml"),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--only",
        "fixed",
    ]
    assert main([*run, "--fit", "1e-9"]) == 1
    assert "too short for one step of each of fixed" in capsys.readouterr().err
    assert main([*run, "--seconds", "0"]) == 0
    assert "fixed: out of time" in capsys.readouterr().out
    assert main(run) == 0
    assert "fixed: finished" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "nothing")]) == 1
