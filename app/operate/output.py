"""Progress for people: a spinner and bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Step:
    """One step under way. `detail` is shown beside its name; `result` replaces the time it took."""

    def __init__(self, name: str, console: Console) -> None:
        self.name = name
        self.result = ""
        self._console = console
        self._status = console.status(f"{name} …") if console.is_terminal else None
        self._last = ""

    def detail(self, text: str) -> None:
        """What is being waited for; told once, however often it is said."""
        if text == self._last:
            return
        self._last = text
        if self._status:
            self._status.update(f"{self.name} … [dim]{text}[/dim]")
        else:
            self._console.print(f"  {self.name}: {text}", highlight=False)


class Output:
    """Where the steps of a command are told. `error=True` writes to stderr, so that stdout stays for data."""

    def __init__(self, *, error: bool = False) -> None:
        self.console = Console(stderr=error, highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        self.console.print(text, markup=False)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Tell the beginning and the end of a step, with its duration."""
        began = time.monotonic()
        step = Step(name, self.console)
        if step._status:
            step._status.start()
        try:
            yield step
        except BaseException:
            if step._status:
                step._status.stop()
            self.console.print(f"[red]✗[/red] {name}" if self.console.is_terminal else f"failed: {name}")
            raise
        if step._status:
            step._status.stop()
        took = f"{time.monotonic() - began:.1f} s"
        mark = "[green]✓[/green]" if self.console.is_terminal else "ok"
        tail = f"{step.result}, {took}" if step.result else took
        self.console.print(f"{mark} {name} [dim]({tail})[/dim]" if self.console.is_terminal else f"{mark}: {name} ({tail})")
