"""Training of the encoder and of the reader, on one GPU or in miniature on a processor."""

from __future__ import annotations

import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from retnet_core.distill import DistillError
from retnet_core.distill.handwritten.rows import Passage
from retnet_core.distill.selection.ahead import prefetched
from retnet_core.distill.selection.examples import Neighbours, Question
from retnet_core.distill.selection.network import Encoder, Reader, Texts
from retnet_core.distill.selection.tokens import Pieces, Ragged, Tokens

# Packages whose pages are each another place's: a page of the same topic there would answer as well, and is no negative.
STRANGERS = ("invented-pages", "written-pages")
SAY = 50  # steps between lines of the log


@dataclass(frozen=True, slots=True)
class SelectionConfig:
    """How encoder and reader are tuned. `seconds`: at most so long, the rate falling to nothing by then. Raises `ValueError`."""

    rank: int = 32
    rate: float = 1e-3
    batch: int = 768
    group: int = 64
    scale: float = 25.0
    sentences: int = 4
    seconds: float = 300.0
    epochs: float = 2.0
    reader_questions: int = 96
    negatives: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "rate", "batch", "group", "scale", "seconds", "epochs", "reader_questions", "negatives"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected more than 0")


@dataclass(frozen=True, slots=True)
class Material:
    """What is learned from: questions and passages with their word pieces."""

    questions: Sequence[Question]
    passages: Sequence[Passage]
    pieces: Pieces
    asked: Ragged
    before: Ragged
    tokens: Tokens

    @classmethod
    def make(
        cls, questions: Sequence[Question], passages: Sequence[Passage], tokens: Tokens, sentences: Callable[..., Any]
    ) -> Material:
        """Tokenise everything."""
        asked, before = tokens.encode([one.text for one in questions]), tokens.encode([one.before for one in questions])
        return cls(questions, passages, tokens.pieces(passages, sentences), asked, before, tokens)


Log = Callable[[str], None]


def autocast(device: torch.device) -> Any:
    """bfloat16 for matrix products on a GPU, nothing on a processor."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


class Schedule:
    """The learning rate: up in a line, then down to nothing when steps or seconds are used up."""

    def __init__(self, config: SelectionConfig, steps: int) -> None:
        self.config, self.steps, self.step, self.begun = config, max(steps, 1), 0, time.time()

    def share(self) -> float:
        """How much is used up, of whichever ends first; 1 is the end."""
        return max(self.step / self.steps, (time.time() - self.begun) / self.config.seconds)

    def rate(self) -> float:
        """The rate of the next step."""
        self.step += 1
        return self.config.rate * min(1.0, self.step / 50) * max(0.0, 1 - self.share())


# The encoder


def encoder_batches(material: Material, config: SelectionConfig) -> Iterator[list[int]]:
    """Numbers of answered questions: groups of one package side by side, so that a batch holds near misses of each other.

    Without end; a batch has all questions where there are fewer than the configuration says. Raises `DistillError` if nothing is answered.
    """
    shuffled = random.Random(config.seed)
    packages: dict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(material.questions):
        if one.answers:
            packages[one.near[0].partition(":")[0]] += [number] * max(1, round(one.weight))
    most = min(config.batch, sum(map(len, packages.values())))
    if not most:
        raise DistillError("no question is answered by a passage: there is nothing to tune the encoder on")
    while True:
        groups: list[list[int]] = []
        for package, numbers in packages.items():
            shuffled.shuffle(numbers)
            size = 8 if package in STRANGERS else config.group
            groups += [numbers[start : start + size] for start in range(0, len(numbers), size)]
        shuffled.shuffle(groups)
        batch: list[int] = []
        for group in groups:
            batch += group
            while len(batch) >= most:
                yield batch[:most]
                batch = batch[most:]


def train_encoder(encoder: Encoder, material: Material, config: SelectionConfig, device: torch.device, log: Log) -> None:
    """Bring questions near the passages and sentences that answer them, and away from the others of the batch (InfoNCE, arXiv 1807.03748)."""
    answered = sum(max(1, round(one.weight)) for one in material.questions if one.answers)
    steps = math.ceil(answered * config.epochs / config.batch)
    schedule = Schedule(config, steps)
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=config.rate, weight_decay=0.01)
    made = prefetched(_encoder_batch(material, numbers, config) for numbers in encoder_batches(material, config))
    log(f"encoder: {answered} questions, {steps} steps at most")
    for batch in made:
        if schedule.share() >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate()
        with autocast(device):
            passage_loss, sentence_loss = _encoder_losses(encoder, batch, config, device)
        (passage_loss + sentence_loss).backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if schedule.step == 1 or schedule.step % SAY == 0 or schedule.step == steps:
            losses = f"passages {float(passage_loss.detach()):.3f}, sentences {float(sentence_loss.detach()):.3f}"
            log(f"encoder: step {schedule.step}, {losses}")


def _encoder_batch(material: Material, numbers: Sequence[int], config: SelectionConfig) -> dict[str, Any]:
    shuffled, pieces, tokens = random.Random(numbers[0]), material.pieces, material.tokens
    passages: dict[int, int] = {}
    sentences: dict[int, int] = {}
    gold_passage, gold_sentences = [], []
    for number in numbers:
        answers = material.questions[number].answers
        one, places = answers[shuffled.randrange(len(answers))]
        place = pieces.places[one]
        gold_passage.append(passages.setdefault(place, len(passages)))
        own = pieces.sentences_of(place)
        right = {own[at] for at in places if at < len(own)}
        others = [sentence for sentence in own if sentence not in right]
        for sentence in [*right, *shuffled.sample(others, min(config.sentences, len(others)))]:
            sentences.setdefault(sentence, len(sentences))
        gold_sentences.append([sentences[sentence] for sentence in right])
    owner = np.searchsorted(pieces.first, list(sentences), side="right") - 1
    texts = [
        pieces.headings[int(passage)] + pieces.sentences[sentence] for sentence, passage in zip(sentences, owner, strict=True)
    ]
    positives = torch.zeros(len(numbers), len(sentences), dtype=torch.bool)
    for row, gold in enumerate(gold_sentences):
        positives[row, gold] = True
    also = torch.zeros(len(numbers), len(passages), dtype=torch.bool)
    for row, number in enumerate(numbers):
        columns = (passages.get(pieces.places[one]) for one, _ in material.questions[number].answers)
        also[row, [column for column in columns if column is not None]] = True
    befores = [material.before[number] for number in numbers]
    return {
        "questions": tokens.texts([material.asked[number] for number in numbers], 96),
        "before": tokens.texts(befores, 96),
        "joined": torch.tensor([bool(one) for one in befores]),
        "passages": tokens.texts([pieces.whole[place] for place in passages]),
        "sentences": tokens.texts(texts, 128),
        "gold": torch.tensor(gold_passage),
        "positives": positives,
        # Every passage that answers, of those in the batch, is no negative.
        "also": also,
    }


def _encoder_losses(
    encoder: Encoder, batch: Mapping[str, Any], config: SelectionConfig, device: torch.device
) -> tuple[Tensor, Tensor]:
    asked = encoder(batch["questions"].to(device))
    joined = batch["joined"].to(device)
    if bool(batch["joined"].any()):
        # As the product joins a follow-up with the question before it.
        asked = functional.normalize(asked + encoder(batch["before"].to(device)) * joined[:, None], dim=1)
    passages = by_length(encoder, batch["passages"], device)
    sentences = by_length(encoder, batch["sentences"], device)
    gold, also, positives = batch["gold"].to(device), batch["also"].to(device), batch["positives"].to(device)
    scores = config.scale * asked @ passages.T
    right = functional.one_hot(gold, scores.shape[1]).bool()
    passage_loss = functional.cross_entropy(scores.masked_fill(also & ~right, float("-inf")), gold)
    scores = config.scale * asked @ sentences.T
    # A question whose sentences were cut differently has none here.
    there = positives.any(dim=1)
    logs = scores.log_softmax(dim=1)[there]
    sentence_loss = -(torch.logsumexp(logs.masked_fill(~positives[there], float("-inf")), dim=1)).sum() / max(1, int(there.sum()))
    return passage_loss, sentence_loss


def by_length(encoder: Encoder, texts: Texts, device: torch.device, parts: int = 4) -> Tensor:
    """Vectors [texts, 384] of `texts`, those of like length together, so that little is padding."""
    order = texts.lengths.argsort()
    found = []
    for rows in order.chunk(parts):
        width = int(texts.lengths[rows].max())
        found.append(encoder(Texts(texts.ids[rows, :width], texts.lengths[rows]).to(device)))
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    return torch.cat(found)[back.to(device)]


@torch.no_grad()
def vectors(
    encoder: Encoder, tokens: Tokens, lists: Ragged, numbers: Sequence[int], device: torch.device, batch: int = 512
) -> np.ndarray:
    """float32 [len(numbers), 384] of the texts with these numbers."""
    order = sorted(numbers, key=lambda number: int(lists.ends[number + 1] - lists.ends[number]))
    rows = {number: row for row, number in enumerate(numbers)}
    out = np.empty((len(numbers), 384), dtype=np.float32)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        with autocast(device):
            made = encoder(tokens.texts([lists[number] for number in part]).to(device))
        out[[rows[number] for number in part]] = made.float().cpu().numpy()
    return out


# The reader


def mine(encoder: Encoder, material: Material, device: torch.device, log: Log, most: int = 16) -> list[list[str]]:
    """For each question the passages of its package that the encoder finds nearest, but for those that answer it; none for strangers' pages."""
    found: list[list[str]] = [[] for _ in material.questions]
    packages: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(material.passages):
        if one.package not in STRANGERS and not one.dev:
            packages[one.package].append(place)
    asked: dict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(material.questions):
        asked[one.near[0].partition(":")[0]].append(number)
    begun = time.time()
    for package, places in packages.items():
        numbers = asked.get(package, [])
        if len(places) < 4 or not numbers:
            continue
        site = torch.from_numpy(vectors(encoder, material.tokens, material.pieces.whole, places, device)).to(device)
        own = torch.from_numpy(vectors(encoder, material.tokens, material.asked, numbers, device)).to(device)
        for start in range(0, len(numbers), 4096):
            best = (own[start : start + 4096] @ site.T).topk(min(most, len(places)), dim=1).indices.cpu().numpy()
            for number, row in zip(numbers[start : start + 4096], best, strict=True):
                question = material.questions[number]
                right = {one for one, _ in question.answers} | set(question.near)
                found[number] = [one for at in row if (one := material.passages[places[at]].id) not in right]
    log(f"mined in {time.time() - begun:.0f} s")
    return found


def reader_batches(material: Material, alike: Sequence[Sequence[str]], config: SelectionConfig) -> Iterator[dict[str, Any]]:
    """Each question with a passage that answers (or nearly does), and `negatives` that do not. Raises `DistillError` for no questions."""
    shuffled = random.Random(config.seed)
    neighbours = Neighbours({one.id: one for one in material.passages})
    numbers = [number for number, one in enumerate(material.questions) for _ in range(max(1, round(one.weight)))]
    size = min(config.reader_questions, len(numbers))
    if not size:
        raise DistillError("there are no questions to tune the reader on")
    while True:
        shuffled.shuffle(numbers)
        for start in range(0, len(numbers) - size + 1, size):
            part = numbers[start : start + size]
            questions, passages, labels, places, groups, weights = [], [], [], [], [], []
            for group, number in enumerate(part):
                one = material.questions[number]
                right = dict(one.answers)
                drawn = neighbours.draw(one, config.negatives, shuffled, alike[number])
                shown = [*right, *(near for near in one.near if near not in right), *drawn]
                for passage in shown:
                    ids = material.before[number] + material.asked[number] if one.before else material.asked[number]
                    questions.append(ids)
                    passages.append(material.pieces.places[passage])
                    labels.append(float(passage in right))
                    places.append(right.get(passage, ()))
                    groups.append(group)
                    # Whether a neighbour answers too was never asked of a person; of a near-miss it was.
                    weights.append(1.0 if passage in right or (passage in one.near and not right) else 0.5)
            order = sorted(range(len(questions)), key=lambda row: len(material.pieces.whole[passages[row]]))
            yield {
                "pairs": [
                    material.tokens.pairs([questions[row] for row in rows], [passages[row] for row in rows], material.pieces)
                    for rows in (order[at : at + (len(order) + 2) // 3] for at in range(0, len(order), (len(order) + 2) // 3))
                ],
                "order": order,
                "labels": torch.tensor(labels),
                "places": places,
                "groups": torch.tensor(groups),
                "weights": torch.tensor(weights),
            }


def train_reader(
    reader: Reader, material: Material, alike: Sequence[Sequence[str]], config: SelectionConfig, device: torch.device, log: Log
) -> None:
    """Whether a passage answers a question (cross-entropy, and against the others shown with it), and which sentences do."""
    total = sum(max(1, round(one.weight)) for one in material.questions)
    steps = math.ceil(total * config.epochs / config.reader_questions)
    schedule = Schedule(config, steps)
    optimiser = torch.optim.AdamW(reader.parameters(), lr=config.rate, weight_decay=0.01)
    sums, since = torch.zeros(3, device=device), 0
    log(f"reader: {total} questions, {steps} steps at most")
    for batch in prefetched(reader_batches(material, alike, config), depth=12):
        if schedule.share() >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate()
        losses = reader_losses(reader, batch, device)
        losses.sum().backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        sums += losses.detach()
        since += 1
        if schedule.step == 1 or schedule.step % SAY == 0 or schedule.step == steps:
            answers, against, sentences = (sums / since).tolist()
            log(f"reader: step {schedule.step}, answers {answers:.3f}, against others {against:.3f}, sentences {sentences:.3f}")
            sums.zero_()
            since = 0


def reader_losses(reader: Reader, batch: Mapping[str, Any], device: torch.device) -> Tensor:
    """[3]: cross-entropy of "answers", of the passage against those shown with it, and of each sentence of a passage that answers."""
    scores, sentence_losses = [], []
    done = 0
    for texts, numbers in batch["pairs"]:
        with autocast(device):
            passage, sentence = reader(texts.to(device), numbers.to(device))
        rows = batch["order"][done : done + len(passage)]
        done += len(passage)
        scores.append(passage.float())
        wanted = torch.zeros(sentence.shape)
        there = torch.zeros(sentence.shape, dtype=torch.bool)
        for line, row in enumerate(rows):
            count = int(numbers[line].max()) + 1
            there[line, :count] = True
            for place in batch["places"][row]:
                if place < count:
                    wanted[line, place] = 1.0
        loss = functional.binary_cross_entropy_with_logits(sentence.float(), wanted.to(device), reduction="none")
        sentence_losses.append((loss * there.to(device)).sum(dim=1))
    back = torch.empty(len(batch["order"]), dtype=torch.long)
    back[torch.tensor(batch["order"])] = torch.arange(len(batch["order"]))
    score, sentence_loss = torch.cat(scores)[back.to(device)], torch.cat(sentence_losses)[back.to(device)]
    labels, weights, groups = (batch[name].to(device) for name in ("labels", "weights", "groups"))
    answers = (functional.binary_cross_entropy_with_logits(score, labels, reduction="none") * weights).sum() / weights.sum()
    # Against those shown with it: softmax within a group, which has at least one that answers.
    count = int(groups.max()) + 1
    highest = torch.full((count,), -1e4, device=device).scatter_reduce(0, groups, score, "amax")
    powers = (score - highest[groups]).exp()
    sums = torch.zeros(count, device=device).scatter_add(0, groups, powers)
    right = torch.zeros(count, device=device).scatter_add(0, groups, powers * labels)
    answered = right > 0
    against = -(right[answered] / sums[answered]).clamp(min=1e-9).log().mean() if bool(answered.any()) else score.sum() * 0
    # A passage that does not answer has no sentence that does: it counts, but less, for it is easy.
    share = torch.where(labels > 0, 1.0, 0.2) * weights
    return torch.stack([answers, against, 0.5 * (sentence_loss * share).sum() / share.sum()])
