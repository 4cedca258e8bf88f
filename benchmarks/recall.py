"""`retort bench recall`: exact recall over a long context, the shipped RetNet beside the Transformer it was made from.

A text gives pairs of words, then prose of this project's own documentation, and then one of the pairs is asked for: the next token must
be its value. Keys and values are everyday nouns that the prose lacks, and every value is one token; both models read the same ids.
*Picked* is the share of questions where the value is the most probable of all values in the text (chance: one over the pairs), which no habit
of wording disturbs; *exact* where it is the most probable of all 49,152 tokens, so that greedy decoding writes it; *probability* is its mean one
among the values. In brackets: the number of questions, and 95 % intervals (Wilson's), widened by what questions about one text share.

Four layouts: the *list* in the format that the RetNet was tuned on, with the question before and after it; the *late list*, which is the
same without the question before; *sentences* in an ordinary chat; and plain *lines*, without any chat. In the last three, which are asked
at the end alone, a text is read once, and each question is asked of a fork.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import _report as report
from benchmarks._nouns import NOUNS
from benchmarks._readers import Reader, RetNetReader, TransformerReader
from retnet_core import Tokenizer, load_model

THREADS = 2
DOCS = Path(__file__).parents[1] / "docs"
LONGEST_TEXT = 8192
"""Tokens that the Transformer was trained to read at once."""
FEWEST_WORDS = 30
Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a text looks: what precedes the pairs, the pairs, and what a question adds at the end. `{key}` is the key that is asked for."""

    name: str
    before: str
    pair: str
    between: str  # before the prose, which a distance of 0 leaves out as well
    question: str  # the value follows it
    joint: str = "\n"
    asked_first: bool = False  # the question precedes the pairs too, so a text can be asked once only


SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
LIST = Layout(
    "list",
    SYSTEM + "<|im_start|>user\nWhat is the code of {key}?<|im_end|>\n<|im_start|>passages\n[1] Register\nCode:\n",
    "{key}: {value}", "\n\n[2] Documentation\n",
    "<|im_end|>\n<|im_start|>user\nWhat is the code of {key}?<|im_end|>\n<|im_start|>assistant\n[1]",
    asked_first=True,
)  # fmt: skip
LATE_LIST = replace(
    LIST,
    name="late list",
    before=LIST.before.replace("<|im_start|>user\nWhat is the code of {key}?<|im_end|>\n", ""),
    asked_first=False,
)
SENTENCES = Layout(
    "sentences", SYSTEM + "<|im_start|>user\n", "The code of {key} is {value}.", "\n\n",
    "\n\nWhat is the code of {key}?<|im_end|>\n<|im_start|>assistant\nThe code of {key} is", " ",
)  # fmt: skip
LINES = Layout("lines", "", "{key}: {value}", "\n\n", "\n\n{key}:")
LAYOUTS = (LIST, LATE_LIST, SENTENCES, LINES)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is asked."""

    pairs: tuple[int, ...]  # with nothing between them and the question
    distances: tuple[int, ...]  # tokens of prose between `distant_pairs` pairs and the question
    listed_distances: int  # of which the list, that must be read anew for each question, has so many
    distant_pairs: int
    texts: int  # that many different ones for the pairs, and for the distances
    distant_texts: int
    questions: int  # of a text
    listed: int  # texts of the list, one question each


FULL = Size((4, 8, 16, 32, 64, 128), (0, 256, 1024, 2048, 4096, 7168), 4, 8, 12, 8, 8, 48)
QUICK = Size((4, 16), (0, 512), 2, 8, 2, 1, 4, 4)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: whether the value is the most probable of the values and of all tokens, its probability among the values, and its text."""

    picked: bool
    exact: bool
    probability: float
    text: int


class Task:
    """Makes the texts, the same ones for every reader."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.nouns = [noun for noun in NOUNS if len(tokenizer.encode(" " + noun)) == 1]
        self.paragraphs = list(prose())

    def pairs(self, count: int, random_: random.Random) -> Pairs:
        chosen = random_.sample(self.nouns, 2 * count)
        return list(zip(chosen[:count], chosen[count:], strict=True))

    def filler(self, pairs: Pairs, length: int, random_: random.Random) -> list[int]:
        """`length` tokens of prose without any of the words."""
        taken = {word for pair in pairs for word in pair}
        free = [text for text in self.paragraphs if taken.isdisjoint(re.findall(r"[a-z]+", text.lower()))]
        random_.shuffle(free)
        ids: list[int] = []
        while len(ids) < length:
            ids += self.tokenizer.encode("\n\n".join(free) + "\n\n")
        return ids[:length]

    def ask(self, reader: Reader, layout: Layout, pairs: Pairs, key: str, text: int) -> Asked:
        logits = reader.ask(self.tokenizer.encode(layout.question.format(key=key)))
        values = [self.tokenizer.encode(" " + value)[0] for _, value in pairs]
        right = next(place for place, (name, _) in enumerate(pairs) if name == key)
        among = torch.softmax(logits[values], 0)
        return Asked(int(among.argmax()) == right, int(logits.argmax()) == values[right], float(among[right]), text)

    def run(
        self, reader: Reader, layout: Layout, count: int, distances: Sequence[int], texts: int, questions: int
    ) -> dict[int, list[Asked]]:
        """What was asked at each distance. The prose grows behind one and the same list, so all distances have the same pairs."""
        found: dict[int, list[Asked]] = {distance: [] for distance in distances}
        for text in range(texts):
            random_ = random.Random(f"{layout.name} {count} {text}")
            pairs = self.pairs(count, random_)
            keys = [key for key, _ in random_.sample(pairs, 1 if layout.asked_first else min(questions, count))]
            filler = self.filler(pairs, max(distances), random_)
            reader.restart()
            lines = layout.joint.join(layout.pair.format(key=key, value=value) for key, value in pairs)
            reader.read(self.tokenizer.encode(layout.before.format(key=keys[0]) + lines))
            place = 0
            for distance in distances:
                if distance:
                    reader.read((self.tokenizer.encode(layout.between) if not place else []) + filler[place:distance])
                place = distance
                found[distance] += [self.ask(reader, layout, pairs, key, text) for key in keys]
        return found


def prose() -> Iterator[str]:
    """Paragraphs of the documentation in whole sentences: no tables, lists, code or headings."""
    for path in sorted(DOCS.glob("*.md")):
        for block in re.sub(r"```.*?```", "", path.read_text(), flags=re.S).split("\n\n"):
            text = " ".join(block.split())
            if text and text[0] not in "#|-![*<" and not re.match(r"\d+\.", text) and len(text.split()) >= FEWEST_WORDS:
                yield text


def interval(asked: Sequence[Asked], right: Callable[[Asked], bool]) -> tuple[float, float]:
    """Wilson's 95 % interval of a share. Questions about one text are no independent draws: they count as fewer by the design effect,
    which is the variance of the texts' means over what it were for independent questions (at least 1)."""
    count, z = float(len(asked)), 1.96
    share = sum(map(right, asked)) / count
    by_text: dict[int, list[bool]] = {}
    for one in asked:
        by_text.setdefault(one.text, []).append(right(one))
    if 0 < share < 1 and 1 < len(by_text) < count:
        means = torch.tensor([sum(answers) / len(answers) for answers in by_text.values()])
        count /= max(1.0, float(means.var()) / (share * (1 - share) / (count / len(by_text))))
    middle, half = share + z * z / (2 * count), z * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)


def add(rows: report.Report, name: str, asked: dict[str, list[Asked]]) -> None:
    """The RetNet's shares beside the Transformer's, with both ends of their intervals."""
    both = [asked[reader] for reader in (RetNetReader.name, TransformerReader.name)]

    def row(kind: str, values: Sequence[float], **more: Any) -> None:
        ours, theirs = values
        rows.add(f"{name}: {kind}", 100 * ours, "%", peer=TransformerReader.name, peer_value=100 * theirs, **more)

    kinds: dict[str, Callable[[Asked], bool]] = {"picked": lambda one: one.picked, "exact": lambda one: one.exact}
    for kind, right in kinds.items():
        ends = [interval(answers, right) for answers in both]
        shown = ", ".join(f"{100 * low:.0f}–{100 * high:.0f}" for low, high in ends)
        row(kind, [sum(map(right, answers)) / len(answers) for answers in both], note=f"{len(both[0])}: {shown}")
        for place, end in enumerate(("from", "to")):
            row(f"{kind}, {end}", [interval_[place] for interval_ in ends], detail=True)
    row("probability", [sum(one.probability for one in answers) / len(answers) for answers in both], detail=True)


def compare(rows: report.Report, task: Task, readers: Sequence[Reader], size: Size) -> None:
    """Both models at every size, layout after layout, so that what is there when it is interrupted can be compared."""
    for layout in LAYOUTS:
        texts = size.listed if layout.asked_first else size.texts
        for count in size.pairs:
            found = {reader.name: task.run(reader, layout, count, (0,), texts, size.questions)[0] for reader in readers}
            add(rows, f"{layout.name}, {count} pairs, 0 tokens away", found)
    for layout in reversed(LAYOUTS):
        texts = size.listed if layout.asked_first else size.distant_texts
        distances = size.distances[: size.listed_distances] if layout.asked_first else size.distances
        by_reader = {
            reader.name: task.run(reader, layout, size.distant_pairs, distances, texts, size.questions) for reader in readers
        }
        # Distance 0 of this many pairs is there from above, from more texts.
        for distance in distances[1:]:
            found = {name: asked[distance] for name, asked in by_reader.items()}
            add(rows, f"{layout.name}, {size.distant_pairs} pairs, {distance} tokens away", found)


def main() -> None:
    given = report.arguments(__doc__ or "").parse_args()
    rows = report.Report("Exact recall (in brackets: questions; 95 % interval of the RetNet's share, of the Transformer's)")
    model = load_model()
    rows.notes.append(f"the RetNet in {model.precision}, {TransformerReader.name} in fp32 from Q4_1; {THREADS} threads")
    readers: list[Reader] = [RetNetReader(model, THREADS), TransformerReader(THREADS)]
    try:
        compare(rows, Task(model.tokenizer), readers, QUICK if given.quick else FULL)
    except KeyboardInterrupt:
        rows.notes.append("interrupted: not everything was asked")
    finally:
        for reader in readers:
            reader.close()
    rows.finish(given)


if __name__ == "__main__":
    main()
