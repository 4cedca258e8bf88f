"""The tables of a comparison: curves over tokens, held-out loss as a whole, by position and by what was seen before, recall, and speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROWS = 16
"""Lines of the table of curves."""


def tables(collected: Mapping[str, Any]) -> str:
    """All tables as text, a column for each model. `collected`: what `comparison.collect` returns."""
    models: dict[str, dict[str, Any]] = collected["models"]
    evaluated = {name: model["evaluation"] for name, model in models.items() if model["evaluation"] is not None}
    parts = [_curves(models), _sizes(models)]
    if evaluated:
        parts.append(_whole(evaluated))
        for title, key in (
            ("held-out loss by position in the context", "by_position"),
            ("held-out loss by what was seen before", "by_repetition"),
        ):
            parts.append(_sliced(title, {name: one[key] for name, one in evaluated.items()}))
        parts.append(
            _table(
                "a passage of 64 ids read again after so many: loss the second time, and without a first time",
                evaluated,
                [str(one["distance"]) for one in _any(evaluated)["repeated_passages"]],
                lambda name, row: "{second:.3f} ({first:.3f})".format(**evaluated[name]["repeated_passages"][row]),
            )
        )
        parts.append(
            _table(
                "keys whose value is found among those of the list, per cent (guessing)",
                evaluated,
                [f"{one['pairs']} pairs ({100 * one['chance']:.1f})" for one in _any(evaluated)["key_values"]],
                lambda name, row: f"{100 * evaluated[name]['key_values'][row]['correct']:.1f}",
            )
        )
    return "\n\n".join(parts)


def _curves(models: Mapping[str, Mapping[str, Any]]) -> str:
    """The mean training loss of as many equal stretches of tokens as the table has rows."""
    end = max((model["trained_tokens"] for model in models.values()), default=0)
    bounds = [end * row // ROWS for row in range(ROWS + 1)]

    def cell(name: str, row: int) -> str:
        losses = [loss for tokens, loss in models[name]["loss"] if bounds[row] < tokens <= bounds[row + 1]]
        return f"{sum(losses) / len(losses):.3f}" if losses else "–"

    return _table("training loss up to so many million tokens", models, [f"{bound / 1e6:.4g}" for bound in bounds[1:]], cell)


def _sizes(models: Mapping[str, Mapping[str, Any]]) -> str:
    rows: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "parameters": lambda model: f"{model['parameters']:,}",
        "tokens trained on": lambda model: f"{model['trained_tokens']:,}",
        "tokens/s (median)": lambda model: f"{model['tokens_per_second'] or 0:,.0f}",
        "peak memory, GiB": lambda model: f"{(model['peak_bytes'] or 0) / 2**30:.2f}",
    }
    makers = list(rows.values())
    return _table("size and speed", models, list(rows), lambda name, row: makers[row](models[name]))


def _whole(evaluated: Mapping[str, Mapping[str, Any]]) -> str:
    return _table(
        "held-out loss in nats (standard error over windows)",
        evaluated,
        [f"{_any(evaluated)['held_out_tokens']:,} tokens"],
        lambda name, row: "{held_out_loss:.4f} ({standard_error:.4f})".format(**evaluated[name]),
    )


def _sliced(title: str, slices: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    rows = [f"{one['name']} ({one['ids']:,})" for one in _any(slices)]
    return _table(title, slices, rows, lambda name, row: _shown(slices[name][row]["loss"]))


def _shown(loss: float | None) -> str:
    return "–" if loss is None else f"{loss:.3f}"


def _any(evaluated: Mapping[str, Any]) -> Any:
    return next(iter(evaluated.values()))


def _table(title: str, columns: Mapping[str, Any], rows: Sequence[str], cell: Callable[[str, int], str]) -> str:
    lines = [["", *columns], *([name, *(cell(column, row) for column in columns)] for row, name in enumerate(rows))]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    shown = [
        "  ".join([line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    return "\n".join([title, *(line.rstrip() for line in shown)])
