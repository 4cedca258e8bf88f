"""Words to make names, values and keys of, out of the passages' own vocabulary; a tenth of all words is kept for measuring."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from retnet_core.distill.handwritten.rows import Passage

COMMONEST = 6000
_NAME = re.compile(r"\b[A-Z][a-z]{2,10}\b")
_WORD = re.compile(r"\b[a-z]{4,10}\b")


def kept_apart(word: str) -> bool:
    """Whether a word is for measuring alone: the same one in ten for everybody, whatever is gathered."""
    return hashlib.blake2b(word.lower().encode(), digest_size=2).digest()[0] % 10 == 0


@dataclass(frozen=True, slots=True)
class Words:
    """Words in lower case and words with a capital letter."""

    plain: list[str]
    names: list[str]

    @classmethod
    def gather(cls, passages: Iterable[Passage], *, measuring: bool = False) -> Words:
        """The commonest of the passages that are for training, or for measuring; always in the same order."""
        plain: Counter[str] = Counter()
        names: Counter[str] = Counter()
        for passage in passages:
            plain.update(_WORD.findall(passage.text))
            names.update(_NAME.findall(passage.text))

        def chosen(counts: Counter[str]) -> list[str]:
            ordered = sorted((word for word in counts if kept_apart(word) == measuring), key=lambda word: (-counts[word], word))
            return ordered[:COMMONEST]

        return cls(chosen(plain), chosen(names))

    def name(self, drawn: random.Random) -> str:
        """A name of one or two words, sometimes made up of syllables that no list holds."""
        if drawn.random() < 0.3:
            return invented(drawn)
        return " ".join(drawn.sample(self.names, drawn.choice((1, 1, 2))))

    def thing(self, drawn: random.Random) -> str:
        """One or two words in lower case."""
        return " ".join(drawn.sample(self.plain, drawn.choice((1, 2))))


def invented(drawn: random.Random) -> str:
    """A name made of syllables."""
    syllables = ["".join((drawn.choice("bdfghjklmnprstvwz"), drawn.choice("aeiou"), drawn.choice(("", "", "n", "r", "l", "s"))))
                 for _ in range(drawn.choice((2, 2, 3)))]  # fmt: skip
    return "".join(syllables).capitalize()


def digits(drawn: random.Random, count: int) -> str:
    return str(drawn.randrange(10 ** (count - 1), 10**count))


_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def value(words: Words, drawn: random.Random, kind: int | None = None) -> str:
    """Of one of `VALUE_KINDS` kinds: number, code, price, time, date, word, name, size, version, address."""
    makers = (
        lambda: digits(drawn, drawn.randint(2, 6)),
        lambda: f"{drawn.choice('ABCDEFGHKLMNPRSTVXZ')}{digits(drawn, drawn.randint(1, 3))}-{digits(drawn, drawn.randint(1, 4))}",
        lambda: f"{drawn.choice(('€', '$', '£', ''))}{drawn.randint(1, 900)}.{drawn.randint(0, 99):02d}",
        lambda: f"{drawn.randint(0, 23)}:{drawn.randint(0, 59):02d}",
        lambda: f"{drawn.randint(1, 28)} {drawn.choice(_MONTHS)}",
        lambda: words.thing(drawn),
        lambda: words.name(drawn),
        lambda: f"{drawn.randint(1, 400)} {drawn.choice(('kg', 'cm', 'metres', 'litres', 'minutes', 'days', 'percent', 'MB'))}",
        lambda: f"{drawn.randint(0, 12)}.{drawn.randint(0, 30)}",
        lambda: f"{drawn.choice(_DAYS)} {drawn.randint(7, 20)}:{drawn.choice(('00', '15', '30', '45'))}",
        lambda: (
            f"{words.name(drawn)} {drawn.choice(('Street', 'Road', 'Lane', 'Hall', 'Building', 'Square'))} {drawn.randint(1, 99)}"
        ),
    )
    return makers[drawn.randrange(len(makers)) if kind is None else kind]()


VALUE_KINDS = 11
