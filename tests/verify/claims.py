"""Reads claims.txt and fresh.txt: evidence with true and false sentences about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CLAIMS = Path(__file__).with_name("claims.txt")
FRESH = Path(__file__).with_name("fresh.txt")
KINDS = ("negation", "number", "name", "unit", "direction", "halves", "omission")


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of wording. `kind` is "true", or what is wrong with it."""

    kind: str
    sentence: str
    evidence: tuple[str, ...]
    question: str


def read_claims(path: Path = CLAIMS) -> Iterator[Claim]:
    """Every sentence of the file, in order. ValueError on a line that is none of Q, E, +, -."""
    question, evidence = "", []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        mark, _, rest = line.partition(" ")
        match mark:
            case "" | "#":
                continue
            case "Q":
                question, evidence = rest, []
            case "E":
                evidence.append(rest)
            case "+":
                yield Claim("true", rest, tuple(evidence), question)
            case "-":
                kind, _, sentence = rest.partition(" ")
                if kind not in KINDS:
                    raise ValueError(f"{path.name}:{number}: {kind!r} is none of {', '.join(KINDS)}")
                yield Claim(kind, sentence, tuple(evidence), question)
            case _:
                raise ValueError(f"{path.name}:{number}: begin the line with Q, E, + or -")
