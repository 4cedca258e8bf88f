"""What the writer is asked for, as text: the layouts of prompts and of what comes back. It is tuned on the hand-written rows in these layouts.

Every prompt begins with the page, a sentence a line under a letter, so that several things can be asked about one reading of it:

    {title}
    A: first sentence
    B: second sentence
    Write: B casual number; A yesno; none why        → B: question\\n= answer\\nA: …\\n= …\\nnone: question
    Visitor: {question}                              → Sentence: B   (or A, or none)

Two pages of one document stand one after the other with letters that go on. A page itself is asked for with `Page: …`, and a conversation in
which a visitor asks for something that he told, with `Conversation: …`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NONE = "none"
START, END = "<|im_start|>", "<|im_end|>"
USER, WRITER = f"{START}user\n", f"{END}\n{START}assistant\n"
READ = "Sentence:"
FOLLOW = " >> "
STYLES = ("plain", "casual", "terse", "typo", "howto", "yesno", "why", "problem", "number", "when", "who", "which", "compare")

_LINE = re.compile(r"^(?P<label>[A-Z](?:, ?[A-Z])*|none): (?P<question>.+)$")


@dataclass(frozen=True, slots=True)
class Page:
    """One passage, or two of one document: `parts` are (title, sentences)."""

    parts: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def sentences(self) -> list[str]:
        return [sentence for _, sentences in self.parts for sentence in sentences]

    def fits(self) -> bool:
        """Whether there are letters enough."""
        return 1 <= len(self.sentences) <= len(LETTERS)


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing to write: a question that the sentences at `places` answer (none: that the page does not answer), of these styles."""

    places: tuple[int, ...]
    styles: tuple[str, ...] = ()
    follow_up: bool = False

    def text(self) -> str:
        label = ", ".join(LETTERS[place] for place in self.places) or NONE
        return " ".join([label, *(["follow-up"] if self.follow_up else []), *self.styles])


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and, unless the page does not answer it, the answer. `before`: the visitor's message that a follow-up follows."""

    ask: Ask
    question: str
    answer: str = ""
    before: str = ""


@dataclass(slots=True)
class Parsed:
    """What came back: the pairs, and how many lines were of no use."""

    pairs: list[Pair] = field(default_factory=list)
    lost: int = 0


def page_text(page: Page) -> str:
    """The beginning of every prompt about a page; ends with a line break."""
    lines, place = [], 0
    for title, sentences in page.parts:
        lines.append(_line(title))
        for sentence in sentences:
            lines.append(f"{LETTERS[place]}: {_line(sentence)}")
            place += 1
    return USER + "\n".join(lines) + "\n"


def write_text(asks: Sequence[Ask]) -> str:
    """What follows the page when questions are to be written."""
    return "Write: " + "; ".join(ask.text() for ask in asks) + WRITER


def read_text(question: str, before: str = "") -> str:
    """What follows the page when a question is to be placed: the next token is the letter of the sentence that answers, or none."""
    asked = f"{_line(before)}{FOLLOW}{_line(question)}" if before else _line(question)
    return f"Visitor: {asked}{WRITER}{READ}"


def answer_text(pairs: Iterable[Pair]) -> str:
    """What the writer is to write, for tuning."""
    lines = []
    for pair in pairs:
        label = ", ".join(LETTERS[place] for place in pair.ask.places) or NONE
        asked = f"{_line(pair.before)}{FOLLOW}{_line(pair.question)}" if pair.before else _line(pair.question)
        lines.append(f"{label}: {asked}")
        if pair.ask.places:
            lines.append(f"= {_line(pair.answer)}")
    return "\n".join(lines) + END


def parse(text: str, asks: Sequence[Ask], *, complete: bool) -> Parsed:
    """The pairs in what was written for `asks`, in their order. A line with another label than was asked for is lost, and so is the last one
    of a text that was cut off."""
    found, lines = Parsed(), text.strip().split("\n")
    if not complete:
        lines = lines[:-1]
    place, number = 0, 0
    while number < len(lines) and place < len(asks):
        match, ask = _LINE.match(lines[number].strip()), asks[place]
        number += 1
        if match is None:
            found.lost += 1
            continue
        place += 1
        answer = ""
        if number < len(lines) and lines[number].startswith("="):
            answer = lines[number][1:].strip()
            number += 1
        label = ", ".join(LETTERS[one] for one in ask.places) or NONE
        before, mark, question = match["question"].partition(FOLLOW)
        if not mark:
            before, question = "", before
        if (
            match["label"].replace(", ", ",") != label.replace(", ", ",")
            or bool(answer) != bool(ask.places)
            or bool(mark) != ask.follow_up
        ):
            found.lost += 1
            continue
        found.pairs.append(Pair(ask, question.strip(), answer, before.strip()))
    return found


def new_page_text(kind: str, topic: str, form: str) -> str:
    """Ask for a page: `kind` of website, `topic`, and whether it is prose, a list or a table."""
    return f"{USER}Page: {_line(kind)}; {_line(topic)}; {form}{WRITER}"


def new_page_answer(title: str, text: str) -> str:
    return f"{_line(title)}\n{text.strip()}{END}"


def conversation_text(messages: int, told: bool) -> str:
    """Ask for a visitor's `messages`, of which the last asks for something that he told before, or never told."""
    return f"{USER}Conversation: {messages} messages; {'told' if told else 'not told'}{WRITER}"


def conversation_answer(turns: Sequence[str], answer: str) -> str:
    lines = [f"- {_line(turn)}" for turn in turns[:-1]] + [f"? {_line(turns[-1])}"]
    return "\n".join([*lines, f"= {_line(answer)}" if answer else "= not told"]) + END


def parse_conversation(text: str) -> tuple[list[str], str] | None:
    """The visitor's messages, the last of which asks, and the answer ("" when he never told); None for anything else."""
    turns: list[str] = []
    for line in text.strip().split("\n"):
        mark, rest = line[:2], line[2:].strip()
        if (mark == "- " and rest) or (mark == "? " and rest and turns):
            turns.append(rest)
        elif mark == "= " and len(turns) > 1:
            return turns, "" if rest == "not told" else rest
        else:
            return None
    return None


def _line(text: str) -> str:
    """On one line, without control tokens of the writer's."""
    return " ".join(text.replace(START, "< |im_start|>").replace(END, "< |im_end|>").split())
