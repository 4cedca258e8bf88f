"""`python -m retnet_core.distill write`: questions and answers by a writer larger than the student, each placed by a second reading.

In this order: the writer is tuned on the hand-written rows; it writes new pages; it writes conversations with something to remember; it writes
questions and answers over all passages, and reads each question again beside its page, to say which sentence answers it. What is written goes
to numbered files as it comes; a command that was ended goes on after them. `keep` (its own command) decides what is fit to train on.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from retnet_core.distill import DistillError
from retnet_core.distill.functions import load_function
from retnet_core.distill.handwritten import rows as handwritten
from retnet_core.distill.handwritten.rows import Passage, passage_id
from retnet_core.distill.writer import tasks
from retnet_core.distill.writer.adapter import AdapterConfig, Adapters, Sample, tune
from retnet_core.distill.writer.generator import Generator, Prompt, Written, peaks
from retnet_core.distill.writer.kinds import random_request
from retnet_core.distill.writer.qwen import Qwen
from retnet_core.distill.writer.samples import Sentences, form_of, page_of, texts
from retnet_core.distill.writer.tasks import Ask, Page, Pair
from retnet_core.gguf import GgufError
from retnet_core.training.processes import Processes

CONFIGURATION = Path(__file__).with_name("write.toml")
WRITTEN_PAGES = "written-pages"
# Sentences that are asked for have so many words.
WORDS = (5, 60)
TWO_SENTENCES, FOLLOW_UPS, TWO_PASSAGES, UNANSWERED = 0.2, 0.12, 0.1, 0.9
# Shares of the styles among the hand-written rows.
STYLE_SHARES = {
    "yesno": 630, "howto": 304, "problem": 299, "casual": 288, "number": 243, "plain": 238, "terse": 161, "which": 160,
    "why": 108, "when": 85, "typo": 59, "who": 35, "compare": 27,
}  # fmt: skip
PAGE_WORDS = (45, 220)
LINES = 4096  # of an output file
RUN = 64  # passages in a row that one process takes


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much is written."""

    pages: int = 30000
    conversations: int = 30000
    asks: int = 4
    passes: int = 1


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """Sizes of the writer's caches, and how it samples."""

    rows: int = 2048
    positions: int = 640
    most: int = 320
    batch: int = 256
    temperature: float = 0.8
    min_p: float = 0.05


@dataclass(frozen=True, slots=True)
class WriteConfig:
    """What write.toml says."""

    writer: Path
    passages: list[Path]
    out: Path
    sentences: Sentences
    seed: int = 0
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    amounts: Amounts = field(default_factory=Amounts)

    @classmethod
    def read(cls, path: Path) -> WriteConfig:
        """Raises `DistillError` for a file that can't be read, an unknown key or a value that does not fit."""
        try:
            given = tomllib.loads(path.read_text("utf-8"))
            parts = {
                name: kind(**given.pop(name, {}))
                for name, kind in (("adapter", AdapterConfig), ("generator", GeneratorConfig), ("amounts", Amounts))
            }
            return cls(
                writer=Path(given.pop("writer")),
                passages=[Path(one) for one in given.pop("passages")],
                out=Path(given.pop("out")),
                sentences=load_function(given.pop("sentences")),
                **given,
                **parts,
            )
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise DistillError(f"{path} can't be read: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise DistillError(f"{path}: {error}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=CONFIGURATION, help="a TOML file like write.toml beside this module")
    parser.add_argument("--seconds", type=float, help="end after so long; the same command goes on later")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--untuned", action="store_true", help="do not tune the writer first (its layouts are then foreign to it)"
    )


def run(given: argparse.Namespace) -> None:
    until = time.time() + given.seconds if given.seconds else float("inf")
    config = WriteConfig.read(given.config)
    processes = Processes.join(given.device)
    try:
        Writing(config, processes, until).run(tuned=not given.untuned)
    finally:
        processes.leave()


class Files:
    """Numbered JSONL files of one kind in a folder: `append` writes lines through, a file at a time; `read` gives all of them."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        folder.mkdir(parents=True, exist_ok=True)
        self.count = sum(1 for _ in self.read())

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        for record in records:
            path = self.folder / f"{self.kind}-{self.count // LINES:05d}.jsonl"
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self.count += 1

    def read(self) -> Iterator[dict[str, Any]]:
        """A line that was cut off when the command was killed is left out."""
        for path in sorted(self.folder.glob(f"{self.kind}-*.jsonl")):
            with path.open(encoding="utf-8") as file:
                for line in file:
                    if line.endswith("\n"):
                        yield json.loads(line)


class Writing:
    """One run of the command."""

    def __init__(self, config: WriteConfig, processes: Processes, until: float) -> None:
        self.config, self.processes, self.until, self.begun = config, processes, until, time.time()
        # Each process writes about its own share of the passages, to files of its own.
        self.folder = config.out / f"part-{processes.rank}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.seed = f"{config.seed} {processes.rank}"
        self.known = dict(handwritten.passages())
        device = processes.device
        try:
            self.network, self.tokenizer = Qwen.load(
                config.writer, device, torch.bfloat16 if device.type == "cuda" else torch.float32
            )
        except (GgufError, OSError) as error:
            raise DistillError(f"the writer can't be loaded: {error}") from None
        self.log(f"the writer has {self.network.config.layers} layers of width {self.network.config.width}")

    def log(self, text: str) -> None:
        line = f"{time.time() - self.begun:7.1f} s  {text}"
        print(line, flush=True)
        with (self.folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def run(self, *, tuned: bool) -> None:
        if tuned:
            self.tune()
        self.write_pages()
        self.write_conversations()
        self.write_pairs()

    # Tuning

    def tune(self) -> None:
        """Adapters from the hand-written core rows, or those that an earlier run left."""
        path = self.config.out / "adapter.safetensors"
        if path.exists():
            adapters = Adapters(self.network, self.config.adapter.rank, 0)
            adapters.pairs.load_state_dict(load_file(path))
        else:
            samples = self.samples()
            self.log(f"{len(samples)} samples of hand-written rows, {sum(map(len, samples))} tokens")
            adapters = tune(self.network, samples, self.config.adapter, self.processes, self.log)
            if self.processes.first:
                state = {
                    name: value.detach().bfloat16().cpu().contiguous() for name, value in adapters.pairs.state_dict().items()
                }
                save_file(state, path.with_suffix(".partial"))
                path.with_suffix(".partial").rename(path)
        adapters.merge(self.network)

    def samples(self) -> list[Sample]:
        found = texts(handwritten.rows("core"), self.known, self.config.sentences, self.config.seed)
        return [
            sample
            for one in found
            if len(sample := Sample(self.encode(one.page) + self.encode(one.asked), self.encode(one.target), one.weight))
            <= self.config.generator.positions
        ]

    # Writing

    def generator(self, most: int | None = None) -> Generator:
        sizes = self.config.generator
        end = [self.tokenizer.token_to_id(tasks.END)]
        return Generator(
            self.network,
            sizes.rows,
            sizes.positions,
            most or sizes.most,
            end=end,
            temperature=sizes.temperature,
            min_p=sizes.min_p,
            seed=random.Random(f"{self.seed} {time.time()}").randrange(1 << 30),
        )

    def write_pages(self) -> None:
        """Pages of invented places, which the questions are then asked of."""
        files = Files(self.folder, "pages")
        missing = self.config.amounts.pages // self.processes.count - files.count
        if missing > 0:
            shuffled = random.Random(f"{self.seed} pages {files.count}")
            wanted = {number: random_request(shuffled) for number in range(missing)}
            prompts = (Prompt(number, self.encode(tasks.new_page_text(*one))) for number, one in wanted.items())

            def keep(written: list[Written], _: Generator) -> list[dict[str, Any]]:
                return [page for one in written if (page := self.page(one, wanted[one.key]))]

            self.write("pages", files, prompts, keep)

    def page(self, written: Written, wanted: tuple[str, str, str]) -> dict[str, Any] | None:
        title, _, text = self.decode(written.ids).strip().partition("\n")
        low, high = PAGE_WORDS
        # A table's row or a list's item that was begun again and again is no page.
        lines = text.split("\n")
        if not written.complete or not low <= len(text.split()) <= high or len(set(lines)) < len(lines) or len(title) > 120:
            return None
        return {
            "id": passage_id(WRITTEN_PAGES, title, text),
            "package": WRITTEN_PAGES,
            "title": title,
            "text": text,
            "form": form_of(text),
        }

    def write_conversations(self) -> None:
        """A visitor's messages, the last of which asks for something that they told."""
        files = Files(self.folder, "conversations")
        missing = self.config.amounts.conversations // self.processes.count - files.count
        if missing > 0:
            shuffled = random.Random(f"{self.seed} conversations {files.count}")
            prompts = (
                Prompt(
                    number, self.encode(tasks.conversation_text(shuffled.choice((2, 2, 3, 3, 4, 5, 6)), shuffled.random() < 0.8))
                )
                for number in range(missing)
            )

            def keep(written: list[Written], _: Generator) -> list[dict[str, Any]]:
                found = [tasks.parse_conversation(self.decode(one.ids)) for one in written if one.complete]
                return [{"turns": one[0], "answer": one[1]} for one in found if one]

            self.write("conversations", files, prompts, keep)

    def write_pairs(self) -> None:
        """Questions and answers over all passages, each question read again beside its page."""
        files = Files(self.folder, "pairs")
        passages = self.passages()
        done = {record["job"] for record in files.read()}
        self.log(f"{len(passages)} passages")
        jobs: dict[int, tuple[tuple[Passage, ...], Page, list[Ask]]] = {}

        def prompts() -> Iterator[Prompt]:
            for number in self.order(passages, done):
                shuffled = random.Random(f"{self.seed} job {number}")
                job = self.job(number, passages, shuffled)
                if job is None:
                    continue
                ids = self.encode(tasks.page_text(job[1])) + self.encode(tasks.write_text(job[2]))
                if len(ids) + self.config.generator.most // 2 < self.config.generator.positions:
                    jobs[number] = job
                    yield Prompt(number, ids)

        def keep(written: list[Written], generator: Generator) -> list[dict[str, Any]]:
            own = [(one, jobs.pop(one.key)) for one in written]
            parsed = [tasks.parse(self.decode(one.ids), job[2], complete=one.complete) for one, job in own]
            read = self.read_again(generator, [(one, job[1], found.pairs) for (one, job), found in zip(own, parsed, strict=True)])
            return [
                {"job": one.key, "passages": [passage.id for passage in job[0]], "lost": found.lost, "pairs": pairs}
                for (one, job), found, pairs in zip(own, parsed, read, strict=True)
            ]

        self.write("pairs", files, prompts(), keep)

    def order(self, passages: Sequence[Passage], done: set[int]) -> Iterator[int]:
        """Numbers of jobs in a shuffled order, prompts of like length near each other."""
        for turn in range(self.config.amounts.passes):
            numbers = [turn * len(passages) + place for place in range(len(passages))]
            random.Random(f"{self.seed} order {turn}").shuffle(numbers)
            span = 16 * self.config.generator.batch
            for start in range(0, len(numbers), span):
                part = sorted(numbers[start : start + span], key=lambda number: len(passages[number % len(passages)].text))
                yield from (number for number in part if number not in done)

    def passages(self) -> list[Passage]:
        """All passages to ask of: those gathered, those of the hand-written rows, and the new pages; none of the development sites."""
        found = [one for one in self.known.values() if not one.dev]
        for path in self.config.passages:
            try:
                with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
                    found += [
                        Passage(one["id"], one["package"], one["title"], one["text"], False)
                        for one in map(json.loads, file)
                        if one.get("split", "train") == "train"
                    ]
            except (OSError, ValueError, KeyError, lzma.LZMAError) as error:
                raise DistillError(f"{path} is no file of passages: {error}") from None
        found = self.share(list({one.id: one for one in found}.values()))
        for one in Files(self.folder, "pages").read():
            found.append(Passage(one["id"], one["package"], one["title"], one["text"], False))
        return list({one.id: one for one in found}.values())

    def share(self, passages: list[Passage]) -> list[Passage]:
        """This process's, in runs, so that neighbours stay together."""
        return [one for place, one in enumerate(passages) if place // RUN % self.processes.count == self.processes.rank]

    def job(
        self, number: int, passages: Sequence[Passage], shuffled: random.Random
    ) -> tuple[tuple[Passage, ...], Page, list[Ask]] | None:
        """The passage, or it and the next of its document, as a page, and what is asked of it; None where nothing can be."""
        place = number % len(passages)
        own = (passages[place],)
        page = page_of(own, self.config.sentences)
        if page is None:
            return None
        if (
            shuffled.random() < TWO_PASSAGES
            and place + 1 < len(passages)
            and self.are_neighbours(passages[place], passages[place + 1])
        ):
            both = (passages[place], passages[place + 1])
            joined = page_of(both, self.config.sentences)
            if joined is not None:
                first, second = (fit_places(part) for part in joined.parts)
                if first and second:
                    after = len(joined.parts[0][1])
                    asks = [
                        Ask((shuffled.choice(first), after + shuffled.choice(second)), styles(shuffled)),
                        Ask((after + shuffled.choice(second),), styles(shuffled)),
                        Ask((), styles(shuffled)),
                    ]
                    return both, joined, asks
        fit = fit_places(page.parts[0])
        if not fit:
            return None
        asks = asks_of(fit, self.config.amounts.asks, shuffled)
        return own, page, asks

    @staticmethod
    def are_neighbours(one: Passage, other: Passage) -> bool:
        """Of one package and of headings that begin alike."""
        return one.package == other.package and one.title.split(" - ")[0] == other.title.split(" - ")[0]

    def read_again(self, generator: Generator, batch: Sequence[tuple[Written, Page, list[Pair]]]) -> list[list[dict[str, Any]]]:
        """Each pair as a record with the second reading: `read` is the likeliest sentence (-1: none), `gold` and `none` are the probabilities of
        the sentences asked for together, and of none."""
        letters = [self.tokenizer.encode(f" {letter}", add_special_tokens=False).ids[0] for letter in tasks.LETTERS]
        nothing = self.tokenizer.encode(f" {tasks.NONE}", add_special_tokens=False).ids[0]
        among = torch.tensor([nothing, *letters], device=self.network.device)
        found: list[list[dict[str, Any]]] = [[] for _ in batch]
        past = [len(self.encode(tasks.page_text(page))) for _, page, _ in batch]
        for turn in range(max((len(pairs) for _, _, pairs in batch), default=0)):
            at = [place for place, (_, _, pairs) in enumerate(batch) if len(pairs) > turn]
            asked = [self.encode(tasks.read_text(batch[place][2][turn].question, batch[place][2][turn].before)) for place in at]
            hidden = generator.extend(asked, [batch[place][0].slot for place in at], [past[place] for place in at])
            shares = peaks(self.network.logits(hidden, among))
            for place, share in zip(at, shares, strict=True):
                _, page, pairs = batch[place]
                share = share[: 1 + len(page.sentences)] / share[: 1 + len(page.sentences)].sum()
                pair = pairs[turn]
                found[place].append(
                    {
                        "q": pair.question,
                        **({"before": pair.before} if pair.before else {}),
                        **({"a": pair.answer} if pair.answer else {}),
                        "at": list(pair.ask.places),
                        "style": list(pair.ask.styles),
                        "read": int(share.argmax()) - 1,
                        "gold": round(float(sum(share[1 + one] for one in pair.ask.places)), 3),
                        "none": round(float(share[0]), 3),
                    }
                )
        return found

    def write(
        self,
        kind: str,
        files: Files,
        prompts: Iterator[Prompt],
        keep: Callable[[list[Written], Generator], list[dict[str, Any]]],
    ) -> None:
        """Write after `prompts`, and keep what `keep` makes of each batch, until all are done or the time is up."""
        generator, begun, said, before = self.generator(), time.time(), time.time(), files.count
        sample = [
            self.encode(tasks.page_text(Page((("A page", ("One sentence.", "Another one.")),))))
            + self.encode("Visitor: which one")
        ] * 2
        self.log(f"{kind}: logits differ from the plain form by {generator.check(sample):.4f}")
        for written in generator.write(prompts, batch=self.config.generator.batch, until=self.until):
            records = keep(written, generator)
            files.append(records)
            if files.count == before + len(records) and records:
                self.log(f"{kind}: for example {json.dumps(records[0], ensure_ascii=False)}")
            if time.time() - said > 15:
                said = time.time()
                spent = said - begun
                self.log(
                    f"{kind}: {files.count - before} kept, {generator.tokens} tokens written, {generator.read} read, "
                    f"{generator.tokens / spent:.0f} and {generator.read / spent:.0f} a second"
                )
        self.log(f"{kind}: {files.count} in all, {generator.tokens} tokens written in {time.time() - begun:.0f} s")

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids if text else []

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)


def fit_places(part: tuple[str, tuple[str, ...]]) -> list[int]:
    """The sentences of a part of a page that say something of their own."""
    low, high = WORDS
    return [place for place, sentence in enumerate(part[1]) if low <= len(sentence.split()) <= high]


def styles(shuffled: random.Random) -> tuple[str, ...]:
    """One or two styles, as often as the hand-written rows have them."""
    names, shares = list(STYLE_SHARES), list(STYLE_SHARES.values())
    return tuple(dict.fromkeys(shuffled.choices(names, shares, k=shuffled.choice((1, 2)))))


def asks_of(fit: Sequence[int], count: int, shuffled: random.Random) -> list[Ask]:
    """What is asked of one page: questions that single sentences or two in a row answer, a follow-up now and then, and one that nothing
    answers."""
    order = list(fit)
    # Sentences that are chosen first are asked first; figures are asked for twice as often by the style, not here.
    shuffled.shuffle(order)
    answered = count - 1 if shuffled.random() < UNANSWERED else count
    asks = []
    for place in order[:answered]:
        places = (place, place + 1) if place + 1 in fit and shuffled.random() < TWO_SENTENCES else (place,)
        asks.append(Ask(places, styles(shuffled), shuffled.random() < FOLLOW_UPS))
    if answered < count:
        asks.append(Ask((), styles(shuffled)))
    return asks
