"""The product's prompt, to the token, with what each token is for.

The strings stand here a second time because nothing of retnet_core may import the workers; a test holds them equal to `workers.answer.prompt`.
Turns are tokenised as the product tokenises them: each turn of its own, and from the passages to the opening bracket in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from retnet_core.tokenizer import Tokenizer

SYSTEM = "<|im_start|>system\n{}<|im_end|>\n"
VISITOR = "<|im_start|>user\n{}<|im_end|>\n"
ASSISTANT = "<|im_start|>assistant\n"
ASSISTANT_TURN = ASSISTANT + "{}<|im_end|>\n"
PASSAGES = "<|im_start|>passages\n{}<|im_end|>\n"
PASSAGE = "[{number}] {title}\n{text}"
QUESTION_CHARACTERS = 400
PASSAGE_CHARACTERS = 900
TITLE_CHARACTERS = 120
PASSAGE_LIMIT = 5
REFUSED = "Not in the passages."

CONTEXT, ANSWER, DIGIT, PROSE = range(4)
"""What a token is for: read only, an answer's own, the number of the passage it rests on, or running text."""
CODES = ("context", "answer", "digit", "prose")


@dataclass(slots=True)
class Conversation:
    """Token ids and their codes, turn after turn. `marks`: places of what is measured, by name."""

    tokenizer: Tokenizer
    ids: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)

    def _read(self, text: str) -> None:
        self._add(self.tokenizer.encode(text), CONTEXT)

    def _add(self, ids: Sequence[int], code: int) -> None:
        self.ids += ids
        self.codes += [code] * len(ids)

    def persona(self, text: str) -> None:
        self._read(SYSTEM.format(self.tokenizer.escape(text.strip())))

    def visitor(self, text: str) -> None:
        self._read(VISITOR.format(self.tokenizer.escape(text.strip())))

    def read_answer(self, text: str) -> None:
        """An earlier answer, which the state has read and nothing is learnt from."""
        self._read(ASSISTANT_TURN.format(self.tokenizer.escape(text.strip())))

    def own_answer(self, text: str) -> None:
        """An answer from the state alone, learnt from."""
        self._read(ASSISTANT)
        self.marks["answer"] = len(self.ids)
        self._add(self.tokenizer.encode(self.tokenizer.escape(text.strip())), ANSWER)
        self._end()

    def grounded(
        self,
        question: str,
        passages: Sequence[tuple[str, str]],
        number: int,
        answer: str | None,
        *,
        characters: int = PASSAGE_CHARACTERS,
    ) -> None:
        """The fork's turn, after the visitor's: passages (title, text), question, number and answer.

        `number` 0 refuses, whatever the answer; an `answer` of None is not known, and only the number is learnt. `characters` of a passage are
        shown.
        """
        blocks = [
            PASSAGE.format(
                number=place,
                title=self.tokenizer.escape(title[:TITLE_CHARACTERS]),
                text=self.tokenizer.escape(text[:characters]),
            )
            for place, (title, text) in enumerate(passages[:PASSAGE_LIMIT], start=1)
        ]
        asked = VISITOR.format(self.tokenizer.escape(question.strip()[:QUESTION_CHARACTERS]))
        self._read(PASSAGES.format("\n\n".join(blocks)) + asked + ASSISTANT + "[")
        self.marks["digit"] = len(self.ids)
        self._add([self.tokenizer.token_id(str(number))], DIGIT)
        if number and answer is None:
            return
        self._add([self.tokenizer.token_id("]")], CONTEXT)
        self.marks["answer"] = len(self.ids)
        text = answer.strip() if number and answer else REFUSED
        self._add(self.tokenizer.encode(" " + self.tokenizer.escape(text)), ANSWER)
        self._end()

    def _end(self) -> None:
        self._add([self.tokenizer.end_id], ANSWER)
        self.marks["end"] = len(self.ids)
        self._add(self.tokenizer.encode("\n"), CONTEXT)
