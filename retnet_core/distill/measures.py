"""What a run is followed by: hand-written development rows of the half `choose`, and lists and facts in words that are never trained on."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retnet_core.distill.losses import ROWS
from retnet_core.distill.mixture.evidence import shown
from retnet_core.distill.mixture.layout import ANSWER, Conversation
from retnet_core.distill.mixture.mix import Mixture, since_of
from retnet_core.distill.mixture.questions import Question
from retnet_core.distill.student import Student
from retnet_core.distill.teacher import Teacher

LENGTH, BATCH = 2048, 8
"""Of the rows that are measured, and how many at a time."""
PAIRS, TURNS, EACH = (4, 16, 32), (0, 3, 18), 48
"""Sizes of lists, turns between telling and asking, and how many conversations of each."""
PROSE_ROWS = 12


def area(wrong: Sequence[float], right: Sequence[float]) -> float:
    """The share of pairs in which the one of `wrong` is higher: the area under the curve, ties half."""
    if not wrong or not right:
        return float("nan")
    ordered = np.sort(np.asarray(right))
    below = np.searchsorted(ordered, wrong, "left") + np.searchsorted(ordered, wrong, "right")
    return float(below.mean() / (2 * len(ordered)))


class Measures:
    """Conversations made once, and read by the student whenever it is called. The same for the same mixture."""

    def __init__(self, student: Student, teacher: Teacher, mixture: Mixture, *, rows: int = 400) -> None:
        self.student, self.teacher = student, teacher
        self._kinds: list[tuple[str, Conversation]] = []
        drawn = random.Random("measures")
        questions = [*mixture.answered.items, *mixture.unanswered.items]
        drawn.shuffle(questions)
        for question in questions[:rows]:
            self._ask(mixture, question, drawn)
        for count in PAIRS:
            self._many(f"recall_{count}", lambda count=count: mixture.lookup(drawn, count, measuring=True))
        for turns in TURNS:
            self._many(f"fact_{turns}", lambda turns=turns: mixture.facts(drawn, turns, measuring=True))
        self._digits = [mixture.tokenizer.token_id(str(number)) for number in range(6)]
        self._pack()
        self._prose = np.stack([np.asarray(mixture.prose(drawn, LENGTH).ids) for _ in range(PROSE_ROWS)])
        self._taught = self._prose_losses(teacher.hidden)

    def _ask(self, mixture: Mixture, question: Question, drawn: random.Random) -> None:
        def conversation(*, elsewhere: bool) -> Conversation:
            made = mixture.begun(random.Random(question.text))
            evidence = shown(question, mixture.library, drawn, missing=0.0, elsewhere=elsewhere)
            for message in question.before:
                made.visitor(message)
                made.read_answer(mixture.reply(message, question, drawn))
            made.visitor(question.text)
            made.grounded(question.text, evidence.passages, evidence.number, question.answer)
            return made

        self._kinds.append(("answerable" if question.gold else "near_miss", conversation(elsewhere=False)))
        if question.gold:
            self._kinds.append(("elsewhere", conversation(elsewhere=True)))

    def _many(self, name: str, make: Callable[[], Conversation]) -> None:
        # A conversation that is too long is drawn again.
        found = [one for one in (make() for _ in range(3 * EACH)) if len(one.ids) <= LENGTH]
        self._kinds += [(name, one) for one in found[:EACH]]

    def _pack(self) -> None:
        """Rows one conversation after the other, each one's place by the order of `_kinds`."""
        self._kinds = [(name, one) for name, one in self._kinds if len(one.ids) <= LENGTH]
        self._places: list[tuple[int, int]] = []
        row, place = 0, 0
        for _, one in self._kinds:
            if place + len(one.ids) > LENGTH:
                row, place = row + 1, 0
            self._places.append((row, place))
            place += len(one.ids)
        self._ids = np.zeros((row + 1, LENGTH), np.int64)
        codes = np.zeros((row + 1, LENGTH), np.uint8)
        for (at, start), (_, one) in zip(self._places, self._kinds, strict=True):
            self._ids[at, start : start + len(one.ids)] = one.ids
            codes[at, start] = 128
        self._since = since_of(codes)

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Values by name; losses in nats, shares from 0 to 1."""
        losses, best, digits = self._read()
        zero: dict[str, list[float]] = defaultdict(list)
        values: dict[str, list[float]] = defaultdict(list)
        for (name, one), (row, start) in zip(self._kinds, self._places, strict=True):
            answer = [
                start + place
                for place, code in enumerate(one.codes)
                if code == ANSWER and place >= one.marks.get("answer", len(one.ids))
            ]
            if "digit" in one.marks and not name.startswith("recall"):
                at = start + one.marks["digit"] - 1
                zero[name].append(float(digits[row, at, 0]))
                if name == "answerable":
                    said = self._digits[int(digits[row, at].argmax())]
                    values["digit"].append(said == one.ids[one.marks["digit"]])
                    # Which passage, once it is settled that one answers.
                    named = self._digits[1 + int(digits[row, at, 1:].argmax())]
                    values["digit_forced"].append(named == one.ids[one.marks["digit"]])
                    values["wrongly_refused"].append(digits[row, at].argmax() == 0)
                    values["answer_loss"] += [float(losses[row, place - 1]) for place in answer]
                else:
                    values[f"refused_{name}"].append(digits[row, at].argmax() == 0)
            else:
                # The value alone: it stands last, before a full stop and the end.
                answer = answer[:-2][-one.marks.get("value", len(answer)) :]
                values[name].append(bool(all(best[row, place - 1] == self._ids[row, place] for place in answer)))
        found = {name: float(np.mean(one)) for name, one in values.items()}
        found["auc_near_miss"] = area(zero["near_miss"], zero["answerable"])
        found["auc_elsewhere"] = area(zero["elsewhere"], zero["answerable"])
        own = self._prose_losses(self.student.hidden)
        return found | {"prose_loss": own, "prose_above_teacher": own - self._taught}

    def _read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By place: the next id's loss, the likeliest next id, and the log probabilities of 0 to 5."""
        losses, best, digits = [], [], []
        numbers = torch.tensor(self._digits, device=self.teacher.device)
        for start in range(0, len(self._ids), BATCH):
            ids = self._on_device(self._ids[start : start + BATCH])
            hidden = self.student.hidden(ids, self._on_device(self._since[start : start + BATCH]))
            wanted = F.pad(ids[:, 1:], (0, 1)).flatten()
            for piece, sought in zip(hidden.flatten(0, 1).split(ROWS), wanted.split(ROWS), strict=True):
                logs = self._logs(piece)
                losses.append(-logs.gather(1, sought[:, None])[:, 0].cpu())
                best.append(logs.argmax(-1).cpu())
                digits.append(logs[:, numbers].cpu())
        shape = self._ids.shape
        return (
            torch.cat(losses).view(shape).numpy(),
            torch.cat(best).view(shape).numpy(),
            torch.cat(digits).view(*shape, -1).numpy(),
        )

    @torch.no_grad()
    def _prose_losses(self, hidden: Callable[[Tensor], Tensor]) -> float:
        losses = []
        for start in range(0, len(self._prose), BATCH):
            ids = self._on_device(self._prose[start : start + BATCH])
            for row, states in zip(ids, hidden(ids), strict=True):
                logs = self._logs(states[:-1])
                losses.append(-logs.gather(1, row[1:, None]).mean().cpu())
        return float(torch.stack(losses).mean())

    def _logs(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.student.get_buffer("embedding").to(hidden.dtype)).float().log_softmax(-1)

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.teacher.device)
