"""What docs/model.md shows of the engine runs as it stands there, and its table of errors is whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import retnet_core
from retnet_core import Model, Result, State

PAGE = (Path(__file__).parents[2] / "docs" / "model.md").read_text()


def test_the_example_runs(shipped_int8: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(from retnet_core import Engine.*?)```", PAGE, flags=re.S)
    monkeypatch.setattr(retnet_core, "load_model", lambda: shipped_int8)
    names: dict[str, object] = {}
    exec(compile(code, "docs/model.md", "exec"), names)
    answer, resumed = names["answer"], names["resumed"]
    assert isinstance(answer, Result) and isinstance(resumed, State) and answer.state is not None
    assert answer.finish in capsys.readouterr().out
    # Only what the last request brought was read for it.
    assert answer.prompt_tokens == len(shipped_int8.tokenizer.encode("<|im_start|>assistant\n"))
    assert resumed.tokens == answer.state.tokens


def test_the_table_names_every_error_of_the_engine() -> None:
    told = set(re.findall(r"^\| `([A-Z]\w+)` \|", PAGE, flags=re.M))
    exported = {name for name in retnet_core.__all__ if isinstance(getattr(retnet_core, name), type)}
    errors = {name for name in exported if issubclass(getattr(retnet_core, name), Exception)}
    # Of loading, and of the networks for training.
    assert told == errors - {"CheckpointError", "RetentionError"}
