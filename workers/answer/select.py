"""The few sentences that answer, verbatim: chosen by vectors made at ingest, so that it costs a millisecond.

The weights were chosen on one half of 406 hand-written questions over whole packages of documentation (12 passages found by
hybrid retrieval) and checked on the other half.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from workers.answer import code

# Score of a sentence, in units of cosine between question and sentence.
PASSAGE_COSINE_WEIGHT = 0.5
PASSAGE_SCORE_WEIGHT = 0.25  # of the retrieval score divided by the best candidate's
PASSAGE_SCORE_ALONE_WEIGHT = 0.4  # where a candidate brings no cosine of its own
COVERAGE_WEIGHT = 0.2  # of the share of the question's content words, rarer ones counting more
# Of what the reader says, in log-odds, of the passage and of the sentence; beyond ±READ_EDGE it says no more.
READ_PASSAGE_WEIGHT, READ_SENTENCE_WEIGHT = 0.03, 0.06
READ_EDGE = 8.0
LENGTH_WEIGHT = 0.03  # of the logarithm of the number of words: fragments answer little
HEADING_PENALTY = 0.1
NEIGHBOUR_BONUS = 0.05  # next to a sentence already chosen
# A sentence this far below the best one is not quoted.
WEAK_MARGIN = 0.25
# Once the question's words, by weight, are covered to these shares, a sentence that far below the best adds nothing: one of
# another passage, or one apart from those chosen in the same. On the half of the hand-written questions not chosen on: 3.77 →
# 3.73 sentences, no fact lost; on 160 generated questions, which use the pages' words: 3.54 → 3.16, of the answer's words 68 →
# 66 % kept. A smaller margin, or one that ignores coverage, loses facts: with this encoder what is needed may stand fourth.
COVERED_ELSEWHERE, COVERED_APART = 0.3, 0.5
ENOUGH_MARGIN = 0.1
DUPLICATE_COSINE = 0.97
DUPLICATE_OVERLAP = 0.8

_WORD = re.compile(r"[^\W_]+")
_REFERS_BACK = re.compile(
    r"(?:This|These|That|Those|It|They|Such|Its|Their|He|She|Otherwise|However|Therefore|Instead|In this case|Then|So|Both)\b"
)
_ENDS_SENTENCE = re.compile(r"[.!?:;)。！？…\"”'`]$")
_STOP_TABLE = """
    a an and are as at be been but by can could did do does for from had has have how i if in into is it its me my no not of off
    on or our out so than that the their them then there these they this to up was we were what when where which who whom whose
    why will with would you your am any about s t don im please should may might must there's it's what's
"""
_STOP_WORDS = frozenset(_STOP_TABLE.split())


@dataclass(frozen=True, slots=True)
class PassageCandidate:
    """A retrieved passage. `spans` are its sentences in `text`; `vectors` [sentences, 384] float32 or float16, normalised.

    `score` is the retrieval score, of any positive scale; `cosine` that of the question with the passage's own vector, if known.
    `reads` and `sentence_reads` [sentences] are the reader's log-odds, if it has read the passage (workers.reader); NaN for a
    sentence that it had no room for.
    """

    passage_id: Hashable
    title: str
    heading_path: Sequence[str]
    text: str
    spans: Sequence[Sequence[int]]
    vectors: np.ndarray
    score: float
    cosine: float | None = None
    reads: float | None = None
    sentence_reads: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class SelectedSentence:
    """A verbatim sentence, or lines of one that is code: `text == passage.text[start:end]`; `index` counts the sentences."""

    passage_id: Hashable
    index: int
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Selection:
    """Sentences in reading order within each passage, the passage of the best sentence first, and what the gate weighs."""

    sentences: list[SelectedSentence]
    features: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Scored:
    candidate: int
    index: int
    text: str
    words: int  # its size, see workers.answer.code
    start: int  # of `text` in its passage
    cosine: float
    coverage: float
    score: float
    stems: frozenset[str]
    reads: float = 0.0  # 0 where there is no reader


def select(
    question_vector: np.ndarray,
    candidates: Sequence[PassageCandidate],
    *,
    question: str,
    limit_sentences: int = 4,
    word_budget: int = 90,
) -> Selection:
    """Choose 1 to `limit_sentences` sentences of at most `word_budget` words together (the best one whole, however long).

    Of a long block of code the lines that matter are taken; code that is longer than the budget in one line is passed over.

    `question_vector` [384] is normalised and may stand for more than `question`, for example for the dialogue before it. Without
    any candidate sentence the selection is empty.
    """
    vector = np.asarray(question_vector, dtype=np.float32)
    wanted = frozenset(content_stems(question))
    scored = _score(vector, candidates, wanted)
    if not scored:
        return Selection([], _features([], [], candidates, wanted))
    chosen = _choose(scored, candidates, wanted, limit_sentences, word_budget)
    sentences = []
    for item in _reading_order(chosen):
        passage_id = candidates[item.candidate].passage_id
        end = item.start + len(item.text)
        sentences.append(SelectedSentence(passage_id, item.index, item.start, end, item.text, item.score))
    return Selection(sentences, _features(scored, chosen, candidates, wanted))


def content_stems(text: str) -> list[str]:
    """Content words of a text, lightly stemmed, in order."""
    return [_stem(word) for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS]


@lru_cache(maxsize=8192)
def _stem(word: str) -> str:
    return re.sub(r"(?<=...)(?:ing|ed|es|s|ly)$", "", word)


def grounds(candidates: Sequence[PassageCandidate]) -> list[float]:
    """How much each passage speaks for its sentences, by retrieval and the reader, in units of cosine."""
    best = max((each.score for each in candidates), default=0.0)
    found = []
    for candidate, (of_passage, _) in zip(candidates, _reads(candidates), strict=True):
        ratio = candidate.score / best if best > 0 else 1.0
        if candidate.cosine is None:
            ground = PASSAGE_SCORE_ALONE_WEIGHT * ratio
        else:
            ground = PASSAGE_SCORE_WEIGHT * ratio + PASSAGE_COSINE_WEIGHT * candidate.cosine
        found.append(ground + READ_PASSAGE_WEIGHT * of_passage)
    return found


def sentence_scores(question_vector: np.ndarray, candidates: Sequence[PassageCandidate], *, question: str) -> list[np.ndarray]:
    """For each candidate float [sentences], by which `select` chooses; higher is better."""
    found = [np.zeros(len(each.spans)) for each in candidates]
    for each in _score(np.asarray(question_vector, dtype=np.float32), candidates, frozenset(content_stems(question))):
        found[each.candidate][each.index] = each.score
    return found


def _score(vector: np.ndarray, candidates: Sequence[PassageCandidate], wanted: frozenset[str]) -> list[_Scored]:
    stems = [[frozenset(content_stems(each.text[start:end])) for start, end in each.spans] for each in candidates]
    weights = _rarity(wanted, stems)
    reads = _reads(candidates)
    scored: list[_Scored] = []
    for number, (candidate, ground) in enumerate(zip(candidates, grounds(candidates), strict=True)):
        if not len(candidate.spans):
            continue
        cosines = np.asarray(candidate.vectors, dtype=np.float32) @ vector
        of_sentences = reads[number][1]
        for index, (start, end) in enumerate(candidate.spans):
            text = candidate.text[start:end]
            words = len(text.split())  # the score was fitted on words
            coverage = _coverage(weights, stems[number][index])
            cosine, key, read = float(cosines[index]), stems[number][index], float(of_sentences[index])
            score = cosine + ground + COVERAGE_WEIGHT * coverage + LENGTH_WEIGHT * math.log(max(words, 1))
            score += READ_SENTENCE_WEIGHT * read
            if words < 9 and not _ENDS_SENTENCE.search(text):
                score -= HEADING_PENALTY
            scored.append(_Scored(number, index, text, code.size(text), int(start), cosine, coverage, score, key, read))
    return scored


def _reads(candidates: Sequence[PassageCandidate]) -> list[tuple[float, np.ndarray]]:
    """For each candidate the reader's log-odds of the passage and of its sentences; zeros when it has read none of them.

    One that was not read counts like the least of those that were, for it was found behind them, and a sentence without a reading
    like the middle one of all, for most answer nothing; neither counts as likely.
    """
    found = [
        (float(np.clip(each.reads, -READ_EDGE, READ_EDGE)), np.clip(each.sentence_reads, -READ_EDGE, READ_EDGE))
        for each in candidates
        if each.reads is not None and each.sentence_reads is not None
    ]
    sentences = np.concatenate([own for _, own in found]) if found else np.zeros(0)
    least = min([0.0, *(of_passage for of_passage, _ in found)])
    middle = 0.0 if np.isnan(sentences).all() else min(0.0, float(np.nanmedian(sentences)))
    read = iter([(of_passage, np.where(np.isnan(own), middle, own)) for of_passage, own in found])
    return [
        (least, np.full(len(each.spans), middle)) if each.reads is None or each.sentence_reads is None else next(read)
        for each in candidates
    ]


def _rarity(wanted: frozenset[str], stems: list[list[frozenset[str]]]) -> dict[str, float]:
    """How much each of the question's words tells these sentences apart: log(1 + n / (1 + sentences with it))."""
    counts: Counter[str] = Counter()
    total = 0
    for passage in stems:
        total += len(passage)
        for sentence in passage:
            counts.update(wanted & sentence)
    return {word: math.log(1 + total / (1 + counts[word])) for word in wanted}


def _coverage(weights: dict[str, float], stems: frozenset[str]) -> float:
    """Share of the question's words, by weight, in the sentence; a common beginning of five letters counts as the same word."""
    total = sum(weights.values())
    if not total:
        return 0.0
    beginnings = {stem[:5] for stem in stems if len(stem) >= 5}
    return sum(weight for word, weight in weights.items() if word in stems or (len(word) >= 5 and word[:5] in beginnings)) / total


def _choose(
    scored: list[_Scored], candidates: Sequence[PassageCandidate], wanted: frozenset[str], limit: int, budget: int
) -> list[_Scored]:
    """Best first, each with the neighbour that it needs to be understood, until the limits are reached."""
    weights = _rarity(wanted, _by_passage(scored))
    readable = [short for each in scored if (short := _shortened(each, weights, budget))] or scored
    place = {(each.candidate, each.index): each for each in readable}
    left = dict(place)
    ranking = {key: each.score for key, each in place.items()}
    best = max(ranking.values())
    chosen: list[_Scored] = []
    words = 0
    while left and len(chosen) < limit:
        key = max(left, key=lambda each: ranking[each])
        item = left.pop(key)
        if chosen and ranking[key] < best - WEAK_MARGIN:
            break
        if chosen and (_is_duplicate(item, chosen, candidates) or _is_enough(item, chosen, weights, best)):
            continue
        group = _with_neighbour(item, place, chosen, limit)
        if chosen and words + sum(each.words for each in group) > budget:
            group = [item]
            if words + item.words > budget:
                continue
        elif not chosen and sum(each.words for each in group) > budget:
            group = [item]
        for each in group:
            left.pop((each.candidate, each.index), None)
            chosen.append(each)
            words += each.words
            for step in (-1, 1):
                neighbour = (each.candidate, each.index + step)
                if neighbour in left:
                    ranking[neighbour] += NEIGHBOUR_BONUS
    return chosen


def _by_passage(scored: list[_Scored]) -> list[list[frozenset[str]]]:
    found: dict[int, list[frozenset[str]]] = {}
    for each in scored:
        found.setdefault(each.candidate, []).append(each.stems)
    return list(found.values())


def _shortened(item: _Scored, weights: dict[str, float], budget: int) -> _Scored | None:
    """The same, or the lines that matter of a long block of code; None for code that no line of fits into the budget."""
    if item.words <= min(code.BLOCK_SIZE, budget) or not code.is_code(item.text):
        return item
    room = min(code.BLOCK_SIZE, budget)
    span = code.lines_that_matter(item.text, lambda line: _coverage(weights, frozenset(content_stems(line))), room)
    if span is None:
        return item if item.words <= budget else None
    text = item.text[span[0] : span[1]]
    return replace(item, text=text, words=code.size(text), start=item.start + span[0])


def _is_enough(item: _Scored, chosen: list[_Scored], weights: dict[str, float], best: float) -> bool:
    """Whether those chosen speak of what was asked, and this one, far below the best, stands apart from them."""
    if item.score > best - ENOUGH_MARGIN:
        return False
    if any(each.candidate == item.candidate and abs(each.index - item.index) == 1 for each in chosen):
        return False
    covered = _coverage(weights, frozenset().union(*(each.stems for each in chosen)))
    same = any(each.candidate == item.candidate for each in chosen)
    return covered >= (COVERED_APART if same else COVERED_ELSEWHERE)


def _with_neighbour(item: _Scored, place: dict[tuple[int, int], _Scored], chosen: list[_Scored], limit: int) -> list[_Scored]:
    """The sentence before one that refers back, the one after one that announces or asks."""
    if len(chosen) + 2 > limit:
        return [item]
    before = place.get((item.candidate, item.index - 1))
    after = place.get((item.candidate, item.index + 1))
    if before and before not in chosen and _REFERS_BACK.match(item.text):
        return [before, item]
    if after and after not in chosen and item.text.endswith((":", "?")):
        return [item, after]
    return [item]


def _is_duplicate(item: _Scored, chosen: list[_Scored], candidates: Sequence[PassageCandidate]) -> bool:
    for other in chosen:
        shared = len(item.stems & other.stems)
        if item.stems and shared >= DUPLICATE_OVERLAP * len(item.stems | other.stems):
            return True
        mine = candidates[item.candidate].vectors[item.index]
        theirs = candidates[other.candidate].vectors[other.index]
        if float(np.dot(mine.astype(np.float32), theirs.astype(np.float32))) > DUPLICATE_COSINE:
            return True
    return False


def _reading_order(chosen: list[_Scored]) -> list[_Scored]:
    best: dict[int, float] = {}
    for each in chosen:
        best[each.candidate] = max(best.get(each.candidate, -math.inf), each.score)
    return sorted(chosen, key=lambda each: (-best[each.candidate], each.candidate, each.index))


def _features(
    scored: list[_Scored], chosen: list[_Scored], candidates: Sequence[PassageCandidate], wanted: frozenset[str]
) -> dict[str, float]:
    """Numbers for the evidence gate: between 0 and about 1, but for the reader's log-odds ("reads"), which are missing without it.

    All are zero when nothing was found.
    """
    cosines = sorted((each.cosine for each in scored), reverse=True)
    ranked = sorted(scored, key=lambda each: each.score, reverse=True)
    elsewhere = [each.score for each in ranked[1:] if each.candidate != ranked[0].candidate]
    found = frozenset().union(*(each.stems for each in chosen)) if chosen else frozenset()
    around: set[str] = set(found)
    for number in {each.candidate for each in chosen}:
        candidate = candidates[number]
        around.update(content_stems(" ".join((candidate.title, *candidate.heading_path, candidate.text))))
    scores = sorted((each.score for each in candidates), reverse=True)
    reads = [float(np.clip(each.reads, -READ_EDGE, READ_EDGE)) for each in candidates if each.reads is not None]
    read = {"reads": max(reads), "sentence_reads": max((each.reads for each in scored), default=0.0)} if reads else {}
    return read | {
        "best_cosine": cosines[0] if cosines else 0.0,
        "second_cosine": cosines[1] if len(cosines) > 1 else 0.0,
        "mean_cosine": float(np.mean([each.cosine for each in chosen])) if chosen else 0.0,
        "best_score": ranked[0].score if ranked else 0.0,
        "margin": ranked[0].score - elsewhere[0] if elsewhere else 0.0,
        "coverage": max((each.coverage for each in chosen), default=0.0),
        "words_in_sentences": len(wanted & found) / len(wanted) if wanted else 0.0,
        "words_in_passages": len(wanted & around) / len(wanted) if wanted else 0.0,
        "passage_cosine": max((each.cosine for each in candidates if each.cosine is not None), default=0.0),
        "passage_margin": 1 - scores[1] / scores[0] if len(scores) > 1 and scores[0] > 0 else 0.0,
        "question_words": min(len(wanted), 10) / 10,
    }
