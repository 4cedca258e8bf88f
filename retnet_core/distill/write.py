"""`python -m retnet_core.distill write`: questions and answers by a writer larger than the student, each placed by a second reading.

In this order: the writer is tuned on the hand-written rows; it writes new pages; it writes conversations with something to remember; it writes
questions and answers over all passages, and reads each question again beside its page, to say which sentence answers it. What is written goes
to numbered files as it comes; a command that was ended goes on after them, with as many processes as there are then. `keep` (its own command)
decides what is fit to train on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Generator as Generates
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from retnet_core.distill import DistillError, configuration
from retnet_core.distill.configuration import built, folder_or_file, read_table
from retnet_core.distill.functions import load_function
from retnet_core.distill.handwritten import rows as handwritten
from retnet_core.distill.handwritten.rows import Passage, passage_id
from retnet_core.distill.writer import tasks
from retnet_core.distill.writer.adapter import AdapterConfig, Adapters, Sample, tune
from retnet_core.distill.writer.files import Files, every, passage_of, passages_in, whole_records
from retnet_core.distill.writer.generator import Generator, Prompt, Written
from retnet_core.distill.writer.jobs import Desk, Job, Request, made
from retnet_core.distill.writer.kinds import random_request
from retnet_core.distill.writer.qwen import Qwen
from retnet_core.distill.writer.samples import Sentences, form_of, texts
from retnet_core.distill.writer.second import SecondReader
from retnet_core.distill.writer.tasks import Page
from retnet_core.gguf import GgufError
from retnet_core.training.processes import Processes

CONFIGURATION = Path(__file__).with_name("write.toml")
WRITTEN_PAGES = "written-pages"
PAGE_WORDS = (45, 220)
TITLE = 120  # characters
MESSAGES = (2, 2, 3, 3, 4, 5, 6)  # of a conversation
TOLD = 0.8  # the share of conversations in which the visitor told what he asks for
RUN = 64  # passages in a row that one process takes
SPAN = 16  # batches whose prompts are sorted by length
MOST_MAKERS = 4  # processes that make jobs beside each that writes; one makes about 1,500 a second
SAY = 15  # seconds between lines of the log

Keep = Callable[[list[Written], Generator], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much is written."""

    pages: int = 30000
    conversations: int = 30000
    asks: int = 4
    passes: int = 1


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """Sizes of the writer's caches, and how it samples. Raises `ValueError` for sizes that do not go together."""

    rows: int = 2048
    positions: int = 640
    most: int = 320
    batch: int = 256
    temperature: float = 0.8
    min_p: float = 0.05

    def __post_init__(self) -> None:
        if self.rows < 2 or not 1 <= self.batch <= self.rows:
            raise ValueError(f"rows is {self.rows} and batch {self.batch}; a batch has at most as many prompts as there are rows")
        if not 1 <= self.most < self.positions:
            raise ValueError(f"most is {self.most} and positions {self.positions}; what is written has to fit after its prompt")
        if not self.temperature > 0 or not 0 < self.min_p <= 1:
            raise ValueError(f"temperature is {self.temperature} and min_p {self.min_p}; expected more than 0, and 0 to 1")


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
        tables = {"adapter": AdapterConfig, "generator": GeneratorConfig, "amounts": Amounts}
        parts = {name: partial(built, kind, where=f"{path}: [{name}]") for name, kind in tables.items()}
        return built(
            cls, read_table(path), str(path),
            writer=folder_or_file, passages=configuration.files, out=folder_or_file, sentences=load_function, **parts,
        )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=CONFIGURATION, help="a TOML file like write.toml beside this module")
    parser.add_argument("--seconds", type=float, help="end after so long; the same command goes on later")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--makers",
        type=int,
        help="processes that make prompts ahead, beside each that writes (0: none; by default some of the cores)",
    )
    parser.add_argument(
        "--untuned", action="store_true", help="do not tune the writer first (its layouts are then foreign to it)"
    )


def run(given: argparse.Namespace) -> None:
    until = time.time() + given.seconds if given.seconds is not None else float("inf")
    config = WriteConfig.read(given.config)
    processes = Processes.join(given.device)
    makers = given.makers if given.makers is not None else min(MOST_MAKERS, max(1, (os.cpu_count() or 1) // processes.count - 1))
    try:
        Writing(config, processes, until, makers).run(tuned=not given.untuned)
    finally:
        processes.leave()


class Earlier:
    """What runs before this one wrote, whichever processes they had."""

    def __init__(self, out: Path) -> None:
        self.pages = [record for path in every(out, "pages") for record in whole_records(path)]
        self.conversations = sum(1 for path in every(out, "conversations") for _ in whole_records(path))
        self.done: set[tuple[str, int]] = set()
        """(first passage, turn) of the jobs that were done."""
        times: Counter[str] = Counter()
        for path in every(out, "pairs"):
            for record in whole_records(path):
                first = record["passages"][0]
                self.done.add((first, record.get("turn", times[first])))
                times[first] += 1


class Writing:
    """One run of the command. `makers`: processes that make prompts ahead."""

    def __init__(self, config: WriteConfig, processes: Processes, until: float, makers: int = 0) -> None:
        self.config, self.processes, self.until, self.begun = config, processes, until, time.time()
        self.makers = makers
        # Each process writes about its own share of the passages, to files of its own.
        self.folder = config.out / f"part-{processes.rank}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.seed = f"{config.seed} {processes.rank}"
        self.known = dict(handwritten.passages())
        self.earlier = Earlier(config.out)
        # Nobody writes before everybody has seen what there was. Processes that were started apart only share the passages.
        if torch.distributed.is_initialized():
            processes.wait()
        device = processes.device
        try:
            self.network, self.tokenizer = Qwen.load(
                config.writer, device, torch.bfloat16 if device.type == "cuda" else torch.float32
            )
        except (GgufError, OSError) as error:
            raise DistillError(f"the writer can't be loaded: {error}") from None
        end = self.tokenizer.token_to_id(tasks.END)
        if end is None:
            raise DistillError(f"{config.writer} can't write turns: it has no token {tasks.END}")
        self.end = end
        self.log(f"the writer has {self.network.config.layers} layers of width {self.network.config.width}")

    def log(self, text: str) -> None:
        """On the screen and in this process's log."""
        line = f"{time.time() - self.begun:7.1f} s  {text}"
        print(line, flush=True)
        with (self.folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def run(self, *, tuned: bool) -> None:
        """All steps, as far as the time allows."""
        if tuned:
            self.tune()
        for write in (self.write_pages, self.write_conversations, self.write_pairs):
            if time.time() < self.until:
                write()

    # Tuning

    def tune(self) -> None:
        """Adapters from the hand-written core rows, or those that an earlier run left."""
        path = self.config.out / "adapter.safetensors"
        if path.exists():
            adapters = Adapters(self.network, self.config.adapter.rank, 0)
            try:
                adapters.pairs.load_state_dict(load_file(path))
            except (RuntimeError, OSError, SafetensorError) as error:
                reason = str(error).splitlines()[0]
                raise DistillError(
                    f"{path} does not fit this writer and rank; remove it to tune the writer anew: {reason}"
                ) from None
        else:
            samples = self.samples()
            self.log(f"{len(samples)} samples of hand-written rows, {sum(map(len, samples))} tokens")
            adapters = tune(self.network, samples, self.config.adapter, self.processes, self.log)
            state = {name: value.detach().bfloat16().cpu().contiguous() for name, value in adapters.pairs.state_dict().items()}
            # Rounded as a run that goes on later reads them.
            adapters.pairs.load_state_dict(state)
            if self.processes.first:
                save_file(state, path.with_suffix(".partial"))
                path.with_suffix(".partial").rename(path)
        adapters.merge(self.network)

    def samples(self) -> list[Sample]:
        """The hand-written rows that fit, tokenised. Raises `DistillError` if none does."""
        found = texts(handwritten.rows("core"), self.known, self.config.sentences, self.config.seed)
        asked, targets = self.encode_all([one.page for one in found]), self.encode_all([one.target for one in found])
        prompts = [page + ids for page, ids in zip(asked, self.encode_all([one.asked for one in found]), strict=True)]
        samples = [Sample(*one) for one in zip(prompts, targets, (one.weight for one in found), strict=True)]
        fit = [one for one in samples if len(one) <= self.config.generator.positions]
        if not fit:
            raise DistillError(
                f"no hand-written row fits into {self.config.generator.positions} positions: give [generator] more"
            )
        return fit

    # Writing

    def generator(self, kind: str, written: int) -> Generator:
        sizes = self.config.generator
        return Generator(
            self.network,
            sizes.rows,
            sizes.positions,
            sizes.most,
            end=[self.end],
            temperature=sizes.temperature,
            min_p=sizes.min_p,
            # A run that goes on draws other numbers than the one before it.
            seed=random.Random(f"{self.seed} {kind} {written}").randrange(1 << 30),
        )

    def missing(self, wanted: int, there: int) -> int:
        """This process's share of what is still to be written."""
        count, rank = self.processes.count, self.processes.rank
        return (max(0, wanted - there) + count - 1 - rank) // count

    def write_pages(self) -> None:
        """Pages of invented places, which the questions are then asked of."""
        files = Files(self.folder, "pages")
        missing = self.missing(self.config.amounts.pages, len(self.earlier.pages))
        if not missing:
            return
        shuffled = random.Random(f"{self.seed} pages {files.count}")
        wanted = {number: random_request(shuffled) for number in range(missing)}
        prompts = (Prompt(number, self.encode(tasks.new_page_text(*one))) for number, one in wanted.items())

        def keep(written: list[Written], _: Generator) -> list[dict[str, Any]]:
            return [
                page for text, one in zip(self.decode(written), written, strict=True) if (page := page_record(text, one.complete))
            ]

        self.write("pages", files, prompts, keep)

    def write_conversations(self) -> None:
        """A visitor's messages, the last of which asks for something that they told."""
        files = Files(self.folder, "conversations")
        missing = self.missing(self.config.amounts.conversations, self.earlier.conversations)
        if not missing:
            return
        shuffled = random.Random(f"{self.seed} conversations {files.count}")
        prompts = (
            Prompt(number, self.encode(tasks.conversation_text(shuffled.choice(MESSAGES), shuffled.random() < TOLD)))
            for number in range(missing)
        )

        def keep(written: list[Written], _: Generator) -> list[dict[str, Any]]:
            whole = zip(self.decode(written), written, strict=True)
            found = [tasks.parse_conversation(text) for text, one in whole if one.complete]
            return [{"turns": one[0], "answer": one[1]} for one in found if one]

        self.write("conversations", files, prompts, keep)

    def write_pairs(self) -> None:
        """Questions and answers over all passages, each question read again beside its page."""
        files, sizes = Files(self.folder, "pairs"), self.config.generator
        passages = self.passages()
        self.log(f"{len(passages)} passages")
        room = sizes.positions - sizes.most // 2
        desk = Desk(self.tokenizer, self.config.sentences, self.config.amounts.asks, room, self.config.seed)
        second = SecondReader(self.tokenizer, self.network.device)
        begun: dict[int, Job] = {}

        def prompts() -> Generates[Prompt]:
            for job in made(desk, self.requests(passages), self.makers):
                begun[job.number] = job
                yield Prompt(job.number, job.ids)

        def keep(written: list[Written], generator: Generator) -> list[dict[str, Any]]:
            return second.records(generator, written, [begun.pop(one.key) for one in written])

        with closing(prompts()) as given:  # and with it the processes that make them
            self.write("pairs", files, given, keep)

    def requests(self, passages: Sequence[Passage]) -> Iterator[Request]:
        """What is still to be asked of, in a shuffled order, prompts of like length near each other."""
        for turn in range(self.config.amounts.passes):
            places = list(range(len(passages)))
            random.Random(f"{self.seed} order {turn}").shuffle(places)
            span = SPAN * self.config.generator.batch
            for start in range(0, len(places), span):
                for place in sorted(places[start : start + span], key=lambda place: len(passages[place].text)):
                    if (passages[place].id, turn) not in self.earlier.done:
                        following = passages[place + 1] if place + 1 < len(passages) else None
                        yield Request(turn * len(passages) + place, turn, passages[place], following)

    def passages(self) -> list[Passage]:
        """This process's of all passages to ask of: those gathered, those of the hand-written rows, and the written pages; none of the
        development sites."""
        found = {one.id: one for one in self.known.values() if not one.dev}
        for path in self.config.passages:
            for one in passages_in(path):
                if not one.dev and one.id not in self.known:
                    found.setdefault(one.id, one)
        for record in self.earlier.pages:
            found.setdefault(record["id"], passage_of(record))
        # Runs, so that neighbours stay together.
        count, rank = self.processes.count, self.processes.rank
        own = {one.id: one for place, one in enumerate(found.values()) if place // RUN % count == rank}
        for record in Files(self.folder, "pages").read():
            if record["id"] not in found:
                own.setdefault(record["id"], passage_of(record))
        return list(own.values())

    def write(self, kind: str, files: Files, prompts: Iterator[Prompt], keep: Keep) -> None:
        """Write after `prompts`, and keep what `keep` makes of each batch, until all are done or the time is up."""
        generator, begun, before = self.generator(kind, files.count), time.time(), files.count
        said = begun
        self.check(kind, generator)
        for written in generator.write(prompts, batch=self.config.generator.batch, until=self.until):
            records = keep(written, generator)
            files.append(records)
            if files.count == before + len(records) and records:
                self.log(f"{kind}: for example {json.dumps(records[0], ensure_ascii=False)}")
            if time.time() - said > SAY:
                said = time.time()
                spent = said - begun
                self.log(
                    f"{kind}: {files.count - before} kept, {generator.tokens} tokens written, {generator.read} read, "
                    f"{generator.tokens / spent:.0f} and {generator.read / spent:.0f} a second"
                )
        self.log(f"{kind}: {files.count} in all, {generator.tokens} tokens written in {time.time() - begun:.0f} s")

    def check(self, kind: str, generator: Generator) -> None:
        """Raises `KernelError` if this machine's kernels compute something else than the plain form."""
        page = Page((("A page", ("One sentence.", "Another one.")),))
        sample = self.encode(tasks.page_text(page) + "Visitor: which one")
        self.log(f"{kind}: logits differ from the plain form by {generator.check([sample, sample]):.4f}")

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_all(self, several: Sequence[str]) -> list[list[int]]:
        return [one.ids for one in self.tokenizer.encode_batch_fast(list(several), add_special_tokens=False)]

    def decode(self, written: Sequence[Written]) -> list[str]:
        return self.tokenizer.decode_batch([one.ids for one in written], skip_special_tokens=True)


def page_record(written: str, complete: bool) -> dict[str, Any] | None:
    """A page that was written, or None for what is no page."""
    title, _, text = written.strip().partition("\n")
    low, high = PAGE_WORDS
    # A table's row or a list's item that was begun again and again is no page.
    rows = text.split("\n")
    if not complete or not low <= len(text.split()) <= high or len(set(rows)) < len(rows) or not 0 < len(title) <= TITLE:
        return None
    return {
        "id": passage_id(WRITTEN_PAGES, title, text),
        "package": WRITTEN_PAGES,
        "title": title,
        "text": text,
        "form": form_of(text),
    }
