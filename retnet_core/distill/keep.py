"""`python -m retnet_core.distill keep`: which written pairs are fit to train on, and why the others are not.

A question is kept where the second reading agrees with what was asked for, where it reads like a visitor's and not like the page, and stands
alone. Its answer is kept where all numbers and names stand in the evidence and the product's own verifier lets it pass; a question whose answer
fails goes on without it, for finding and refusing need no answer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import multiprocessing
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from retnet_core.distill import DistillError, configuration
from retnet_core.distill.configuration import built, folder_or_file, read_table
from retnet_core.distill.functions import load_function
from retnet_core.distill.handwritten import rows as handwritten
from retnet_core.distill.handwritten.rows import Passage
from retnet_core.distill.writer.files import every, passage_of, passages_in, record_in, whole_records
from retnet_core.distill.writer.samples import Sentences, page_of

CONFIGURATION = Path(__file__).with_name("keep.toml")
QUESTION_WORDS, ANSWER_WORDS = (2, 36), (2, 40)
LONGEST = 220  # characters of a question
# An answer's words that are in its evidence, at least; the rest is grammar.
SUPPORTED = 0.6
BATCH = 512

_STOP_TABLE = """
    a an the of to in is are and or that this it for on with as be by can if you not from at will which your when has have was but do does did use
    used one all any may must should there these those they their its than then into only other more such so no we i my me what how why where who
    yes also just get need want would could been being about up out some them our us were had per like make i'm it's don't can't
"""
_STOP = frozenset(_STOP_TABLE.split())
_WORD = re.compile(r"[a-z0-9][a-z0-9._+/'-]*[a-z0-9]|[a-z0-9]")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_NAME = re.compile(r"(?<![.!?:] )(?<!^)\b[A-Z][\w+.-]*\w\b")
_OF_THE_PAGE = re.compile(
    r"\b(?:the|this) (?:text|passage|page|article|paragraph|document|section|excerpt|sentence|table|list)"
    r" ?(?:say|state|mention|describ|about|above|below|list)|"
    r"according to the (?:text|page|passage|table|document)|mentioned (?:above|below|in the)|sentence [A-Z]\b",
    re.I,
)
_MARKS = re.compile(r"<\||\[[A-Z0]\]|\bnone:|^[A-Z]: |=|https?://|�|>>")


@dataclass(frozen=True, slots=True)
class KeepConfig:
    """What keep.toml says."""

    written: Path
    passages: list[Path]
    out: Path
    sentences: Sentences
    verifier: Callable[..., Any] | None = None
    gold: float = 0.5
    none: float = 0.4
    unanswered: float = 0.6
    overlap: float = 0.5
    above: float = 0.25

    @classmethod
    def read(cls, path: Path) -> KeepConfig:
        """Raises `DistillError` for a file that can't be read, an unknown key or a value that does not fit."""
        return built(
            cls, read_table(path), str(path),
            written=folder_or_file, passages=configuration.files, out=folder_or_file, sentences=load_function,
            verifier=lambda name: load_function(name) if name else None,
        )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=CONFIGURATION, help="a TOML file like keep.toml beside this module")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())


def run(given: argparse.Namespace) -> None:
    counts = keep(KeepConfig.read(given.config), given.processes)
    for reason, count in counts.most_common():
        print(f"{count:9d}  {reason}")


def read_passages(gathered: Sequence[Path], written: Path) -> dict[str, Passage]:
    """All passages that pairs may rest on, the development sites' too: the hand-written rows', those gathered, and the written pages.

    Raises `DistillError` for a file that holds no passages.
    """
    known = dict(handwritten.passages())
    for path in gathered:
        for one in passages_in(path):
            known.setdefault(one.id, one)
    for path in every(written, "pages"):
        for record in whole_records(path):
            known.setdefault(record["id"], passage_of(record))
    return known


_state: tuple[KeepConfig, Mapping[str, Passage]] | None = None
"""What a worker process was started with."""


def keep(config: KeepConfig, processes: int) -> Counter[str]:
    """Write the kept pairs to `config.out`; the counts by reason. Raises `DistillError` where nothing was written or passages are missing."""
    global _state
    files = every(config.written, "pairs")
    if not files:
        raise DistillError(f"there are no pairs in {config.written}: `write` makes them")
    _state = config, read_passages(config.passages, config.written)
    counts: Counter[str] = Counter()
    seen: set[bytes] = set()
    partial = config.out.with_name(config.out.name + ".partial")
    with _open(partial, config.out.suffix) as file, multiprocessing.get_context("fork").Pool(processes) as pool:
        for kept, reasons in pool.imap(_judge_all, _batches(files)):
            counts.update(reasons)
            for record in kept:
                digest = hashlib.blake2b(_plain(record["q"] + record.get("before", "")).encode(), digest_size=10).digest()
                if digest in seen:
                    counts["question twice"] += 1
                    continue
                seen.add(digest)
                counts[_kept_as(record)] += 1
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    partial.rename(config.out)
    return counts


def _kept_as(record: Mapping[str, Any]) -> str:
    if not record["at"]:
        return "kept, unanswered"
    return "kept, with its answer" if "a" in record else "kept, question alone"


def _open(path: Path, suffix: str) -> TextIO:
    return lzma.open(path, "wt", encoding="utf-8", preset=1) if suffix == ".xz" else path.open("w", encoding="utf-8")


def _batches(files: Sequence[Path]) -> Iterator[list[str]]:
    batch: list[str] = []
    for path in files:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                batch.append(line)
                if len(batch) == BATCH:
                    yield batch
                    batch = []
    yield batch


def _judge_all(lines: list[str]) -> tuple[list[dict[str, Any]], Counter[str]]:
    assert _state is not None
    config, known = _state
    kept: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    for record in map(record_in, lines):
        if record is None:
            reasons["a line that was cut off"] += 1
            continue
        try:
            passages = [known[one] for one in record["passages"]]
        except KeyError as error:
            raise DistillError(
                f"pairs rest on the passage {error}, which is in none of the files that `passages` names"
            ) from None
        page = page_of(passages, config.sentences)
        if any(one.dev for one in passages):
            reasons["passage of a development site"] += len(record["pairs"])
        elif page is None:
            reasons["sentences cut differently"] += len(record["pairs"])
        else:
            title = " ".join(passage.title for passage in passages)
            for pair in record["pairs"]:
                found, why = judged(pair, page.sentences, title, config)
                reasons.update([why] if why else [])
                kept += [{"passages": record["passages"], **found}] if found else []
    return kept, reasons


def judged(pair: Mapping[str, Any], sentences: list[str], title: str, config: KeepConfig) -> tuple[dict[str, Any] | None, str]:
    """(what is kept of a pair, why not all of it); the latter is "" where all is kept."""
    reason = misfit(pair, sentences, title, config)
    if reason:
        return None, reason
    found = {name: pair[name] for name in ("q", "at", "style", "gold", "none", "before") if name in pair}
    if not pair["at"]:
        return found, ""
    why = unsupported(pair["a"], [sentences[place] for place in pair["at"]], title, pair["q"], config)
    return (found, f"answer: {why}") if why else (found | {"a": pair["a"]}, "")


def misfit(pair: Mapping[str, Any], sentences: list[str], title: str, config: KeepConfig) -> str:
    """Why a question is not kept; "" for one that is."""
    question = pair["q"]
    words = question.split()
    if not QUESTION_WORDS[0] <= len(words) <= QUESTION_WORDS[1] or len(question) > LONGEST:
        return "question: length"
    if _OF_THE_PAGE.search(question) or _MARKS.search(question):
        return "question: speaks of the page"
    if any(place >= len(sentences) for place in pair["at"]):
        return "sentences cut differently"
    if not pair["at"]:
        return "" if pair["none"] >= config.unanswered else "second reading: is answered"
    if pair["none"] > config.none:
        return "second reading: not answered"
    if pair["gold"] < config.gold or pair["read"] not in pair["at"]:
        return "second reading: by another sentence"
    share = overlap(question, " ".join([title, *sentences]))
    if share > config.overlap and _chance(question) >= config.above:
        return "question: the page's words"
    return ""


def unsupported(answer: str, evidence: list[str], title: str, question: str, config: KeepConfig) -> str:
    """Why an answer is not kept; "" for one that is."""
    words = answer.split()
    if not ANSWER_WORDS[0] <= len(words) <= ANSWER_WORDS[1]:
        return "length"
    if _MARKS.search(answer) or answer[-1] not in ".!?)\"'”’":
        return "unfinished"
    read = " ".join([title, *evidence])
    if not set(_NUMBER.findall(answer)) <= set(_NUMBER.findall(read)) | set(_NUMBER.findall(question)):
        return "a number"
    names = {name.lower() for name in _NAME.findall(answer)}
    if any(name not in read.lower() and name not in question.lower() for name in names):
        return "a name"
    content = _stems(answer)
    known = set(_stems(read)) | set(_stems(question))
    if content and sum(word in known for word in content) < SUPPORTED * len(content):
        return "words of its own"
    if _plain(answer) == _plain(question):
        return "the question again"
    if config.verifier is not None:
        for start, end in config.sentences(answer):
            if not config.verifier(answer[start:end], evidence, question=question, topic=title).supported:
                return "the verifier"
    return ""


def overlap(question: str, page: str) -> float:
    """The share of the question's content words, lightly stemmed, that the page has."""
    own = set(_stems(question))
    return len(own & set(_stems(page))) / len(own) if own else 0.0


def _stems(text: str) -> list[str]:
    return [re.sub(r"(?<=...)('s|ies|ing|ed|es|s|ly)$", "", word) for word in _WORD.findall(text.lower()) if word not in _STOP]


def _plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def _chance(text: str) -> float:
    """A number from 0 to 1 that depends on the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") / 2**32
