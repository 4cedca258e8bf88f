"""Conversations and prose drawn into packed rows: every batch is a pure function of seed and number, so a run that is resumed reads the same."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retnet_core.distill import DistillError
from retnet_core.distill.handwritten.rows import OWN, Row
from retnet_core.distill.mixture import facts, tables
from retnet_core.distill.mixture.evidence import shown
from retnet_core.distill.mixture.layout import CONTEXT, PROSE, REFUSED, Conversation
from retnet_core.distill.mixture.questions import Library, Question
from retnet_core.distill.mixture.words import Words
from retnet_core.tokenizer import Tokenizer

BEGIN = 128
"""Set in the code of a document's first token."""
WAITING, SHORTEST = 8, 64
"""Documents that may wait for a row with room for them, and the rest of a row, in tokens, for which no further ones are drawn."""
PERSONAS = (
    "You are {}, a helpful assistant. Answer briefly, from the passages given.",
    "You are the assistant of {}. Answer from the passages in one or two plain sentences.",
    "You answer the questions of visitors of {}. Use only the passages.",
    "You are a friendly assistant for {}. Be brief. Use the passages and what the visitor told you.",
    "You help visitors of the {} site. If the passages do not have the answer, say so.",
    "You are {}'s assistant. Say it plainly.",
    "Answer the visitors of {} from the passages you are given.",
)
_QUESTION = re.compile(r"\?|^(?:what|which|who|where|when|why|how|do|does|did|is|are|can|could|may|will|would)\b", re.I)


@dataclass(frozen=True, slots=True)
class Shares:
    """How often each kind of document is drawn, and how evidence is shown; the rest are grounded questions."""

    recall: float = 0.08
    tables: float = 0.06
    facts: float = 0.08
    told: float = 0.06
    prose: float = 0.1
    unanswered: float = 0.22
    missing: float = 0.18
    alone: float = 0.25
    earlier: float = 0.2

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a share between 0 and 1")
        if self.recall + self.tables + self.facts + self.told + self.prose > 1:
            raise ValueError("recall, tables, facts, told and prose together are more than 1")


class _Weighted:
    """Draws by weight."""

    def __init__(self, items: Sequence[Any], weights: Sequence[float]) -> None:
        self.items, self._sums = list(items), list(itertools.accumulate(weights))

    def __len__(self) -> int:
        return len(self.items)

    def draw(self, drawn: random.Random) -> Any:
        return drawn.choices(self.items, cum_weights=self._sums)[0]


class Mixture:
    """Documents of all kinds. `own`: the hand-written rows that ask for what the visitor told."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        library: Library,
        questions: Sequence[Question],
        own: Sequence[Row],
        words: Words,
        shares: Shares,
    ) -> None:
        self.tokenizer, self.library, self.words, self.shares = tokenizer, library, words, shares
        answered, unanswered = [one for one in questions if one.gold], [one for one in questions if not one.gold]
        if not answered or not unanswered:
            raise DistillError("the mixture needs questions that are answered and questions that are not")
        self.answered = _Weighted(answered, [one.weight for one in answered])
        self.unanswered = _Weighted(unanswered, [one.weight for one in unanswered])
        worded = [one for one in answered if one.answer]
        self._worded = _Weighted(worded, [one.weight for one in worded])
        self._own = [row for row in own if row.kind in OWN]

    def document(self, drawn: random.Random) -> Conversation:
        """One conversation, or a stretch of prose."""
        shares, place = self.shares, drawn.random()
        for share, make in (
            (shares.recall, self.lookup),
            (shares.tables, self.table),
            (shares.facts, self.facts),
            (shares.told, self.told if self._own else self.facts),
            (shares.prose, self.prose),
        ):
            if place < share:
                return make(drawn)
            place -= share
        return self.grounded(drawn)

    def begun(self, drawn: random.Random) -> Conversation:
        """A conversation with its persona."""
        conversation = Conversation(self.tokenizer)
        conversation.persona(drawn.choice(PERSONAS).format(self.words.name(drawn)))
        return conversation

    def grounded(self, drawn: random.Random, question: Question | None = None) -> Conversation:
        """A question with evidence: answered, or refused where the evidence does not answer."""
        asked = question or (self.unanswered if drawn.random() < self.shares.unanswered else self.answered).draw(drawn)
        conversation = self.begun(drawn)
        for message in asked.before:
            conversation.visitor(message)
            conversation.read_answer(self.reply(message, asked, drawn))
        if not asked.before and drawn.random() < self.shares.earlier:
            for _ in range(drawn.choice((1, 1, 2, 3))):
                self.earlier(conversation, drawn)
        evidence = shown(asked, self.library, drawn, missing=self.shares.missing, alone=self.shares.alone)
        conversation.visitor(asked.text)
        conversation.grounded(asked.text, evidence.passages, evidence.number, asked.answer)
        return conversation

    def earlier(self, conversation: Conversation, drawn: random.Random) -> None:
        """A turn that is only read: a question answered in words or by a sentence of its page, or refused."""
        question = self._worded.draw(drawn) if len(self._worded) else self.answered.draw(drawn)
        conversation.visitor(question.text)
        conversation.read_answer(self._words_of(question, drawn))

    def _words_of(self, question: Question, drawn: random.Random) -> str:
        place = drawn.random()
        if place < 0.1:
            return REFUSED if place < 0.02 else "The pages I know do not answer that."
        if question.answer and place < 0.7:
            return question.answer
        passage, sentence = question.gold[0]
        return self.library.sentences(question.passages[passage])[sentence]

    def reply(self, message: str, question: Question, drawn: random.Random) -> str:
        """To an earlier message whose answer nobody wrote: a sentence of the same page, or a word of thanks."""
        sentences = self.library.sentences(question.passages[0])
        if not _QUESTION.search(message) and drawn.random() < 0.7:
            return drawn.choice(facts.THANKS)
        # Not what the last question asks for: a follow-up's answer is news.
        other = [one for place, one in enumerate(sentences) if (0, place) not in question.gold]
        return drawn.choice(other) if other else "The pages I know do not answer that."

    def lookup(self, drawn: random.Random, count: int | None = None, *, measuring: bool = False) -> Conversation:
        """A list and a question about it, beside another passage at times."""
        count = count or min(40, int(2 ** drawn.uniform(1, 5.4)))
        found = tables.pairs(self.words, drawn, count, measuring=measuring)
        return self._looked_up(drawn, found, alone=measuring or count > 16)

    def table(self, drawn: random.Random) -> Conversation:
        """A table in the product's lines and a question about a cell."""
        rows = min(24, int(2 ** drawn.uniform(0.5, 4.6)))
        return self._looked_up(drawn, tables.table(self.words, drawn, rows), alone=rows > 10)

    def _looked_up(self, drawn: random.Random, found: tables.Lookup, *, alone: bool) -> Conversation:
        conversation = self.begun(drawn)
        passages = [(found.title, found.text)]
        if not alone and drawn.random() < 0.3:
            one = drawn.choice(self.library.ids)
            passages.insert(drawn.randrange(2), (self.library.title(one), " ".join(self.library.sentences(one)[:3])))
        conversation.visitor(found.question)
        number = passages.index((found.title, found.text)) + 1
        # Whole, whatever its length: one that is cut off may have lost what is asked for.
        conversation.grounded(found.question, passages, number, found.answer, characters=len(found.text))
        return conversation

    def facts(self, drawn: random.Random, turns: int | None = None, *, measuring: bool = False) -> Conversation:
        """The visitor tells of themselves, talks of other things, and asks for what they told. `turns`: so many of those between."""
        conversation = self.begun(drawn)
        told = facts.facts(self.words, drawn, 1 if measuring else drawn.randint(1, 5))
        waiting = list(told)
        while waiting:
            said = waiting.pop().told(drawn, measuring=measuring)
            if waiting and drawn.random() < 0.35:
                said = f"{said.rstrip('.!')}{drawn.choice((' and ', ', ', '. '))}{waiting.pop().told(drawn)}"
            conversation.visitor(said)
            self._acknowledged(conversation, drawn, measuring)
            if not measuring and drawn.random() < 0.25:
                self.earlier(conversation, drawn)
        for _ in range(drawn.choice((0, 0, 1, 1, 2, 3, 4, 6, 8, 12, 18)) if turns is None else turns):
            self.earlier(conversation, drawn)
        for fact in drawn.sample(told, drawn.randint(1, len(told))):
            conversation.visitor(fact.asked(drawn, measuring=measuring))
            conversation.own_answer(fact.answer)
            conversation.marks["value"] = len(self.tokenizer.encode(" " + fact.value))
        if not measuring and drawn.random() < 0.2:
            other = [kind for kind in facts.KINDS if kind not in [fact.kind for fact in told]]
            conversation.visitor(drawn.choice(drawn.choice(other).ask[1:]))
            conversation.own_answer(facts.NOT_TOLD[0])
        return conversation

    def _acknowledged(self, conversation: Conversation, drawn: random.Random, measuring: bool) -> None:
        thanks = facts.THANKS[0] if measuring else drawn.choice(facts.THANKS)
        (conversation.read_answer if measuring else conversation.own_answer)(thanks)

    def told(self, drawn: random.Random, row: Row | None = None) -> Conversation:
        """A hand-written row that asks for what the visitor told."""
        row = row or drawn.choice(self._own)
        conversation = self.begun(drawn)
        for message in row.turns[:-1]:
            conversation.visitor(message)
            if _QUESTION.search(message):
                conversation.read_answer(self._words_of(self.answered.draw(drawn), drawn))
            else:
                conversation.read_answer(drawn.choice(facts.THANKS))
            if len(conversation.ids) < 700 and drawn.random() < 0.25:
                self.earlier(conversation, drawn)
        conversation.visitor(row.question)
        conversation.own_answer(row.answer or facts.NOT_TOLD[0])
        return conversation

    def prose(self, drawn: random.Random, length: int = 512) -> Conversation:
        """Passages one after the other as they stand in their package, of at least `length` tokens."""
        found, one = Conversation(self.tokenizer), drawn.choice(self.library.ids)
        while len(found.ids) < length:
            passage = self.library.known[one]
            ids = self.tokenizer.encode(self.tokenizer.escape(f"{passage.title}\n{passage.text}\n\n"))
            found.ids += ids
            found.codes += [PROSE] * len(ids)
            one = self.library.beside(one, 1)
        found.ids, found.codes = found.ids[:length], found.codes[:length]
        return found

    def batch(self, seed: str, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """uint16 ids and uint8 codes `[rows, length]`: documents one after the other, prose at the end of a row."""
        drawn = random.Random(seed)
        return packed(lambda: self.document(drawn), lambda left: self.prose(drawn, left), rows, length)


def packed(
    document: Callable[[], Conversation], prose: Callable[[int], Conversation], rows: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of whole documents; one that is longer than a row is left out. A document that a row has no room for waits for the next one, and
    only where several in turn have none is the rest of the row filled with prose."""
    ids, codes = np.zeros((rows, length), np.uint16), np.zeros((rows, length), np.uint8)
    waiting: list[Conversation] = []
    for row in range(rows):
        place = 0
        while place < length:
            fits = next((one for one in waiting if place + len(one.ids) <= length), None)
            if fits is not None:
                waiting.remove(fits)
            elif len(waiting) < WAITING and length - place > SHORTEST:
                drawn = document()
                if len(drawn.ids) <= length:
                    waiting.append(drawn)
                continue
            else:
                fits = prose(length - place)
            end = place + len(fits.ids)
            ids[row, place:end], codes[row, place:end] = fits.ids, fits.codes
            codes[row, place] |= BEGIN
            place = end
    return ids, codes


def since_of(codes: np.ndarray) -> np.ndarray:
    """How many tokens of the same document stand before each: int64 like `codes`."""
    places = np.broadcast_to(np.arange(codes.shape[1]), codes.shape)
    begun = np.maximum.accumulate(np.where(codes >= BEGIN, places, 0), axis=1)
    return places - begun


def targets(ids: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each token is to be followed by, and that token's code; `NO_TARGET` at a document's end."""
    wanted, kinds = np.zeros_like(ids), np.full_like(codes, NO_TARGET)
    wanted[:, :-1] = ids[:, 1:]
    kinds[:, :-1] = np.where(codes[:, 1:] >= BEGIN, NO_TARGET, codes[:, 1:])
    return wanted, kinds


NO_TARGET = 4
assert CONTEXT < NO_TARGET
