"""`python -m retnet_core.training`: make tokens, train, compare, report. docs/training.md shows each."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from retnet_core.training import comparison
from retnet_core.training.checkpoints import ResumeError
from retnet_core.training.configuration import ConfigurationError, TrainingConfig
from retnet_core.training.data import DataError, write_tokens
from retnet_core.training.loop import Diverged, Trainer
from retnet_core.training.processes import Processes
from retnet_core.training.report import tables

_SHARED = "given to torchrun, all processes train one model"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 also for a run that was stopped or ran out of time, which is saved; 1 for what one line on stderr explains."""
    given = _parser().parse_args(arguments)
    try:
        given.command(given)
    except (ConfigurationError, DataError, ResumeError, Diverged) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m retnet_core.training", description="Train a RetNet, or compare one with a Transformer."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    tokens = commands.add_parser("tokens", help="make a token file from UTF-8 texts")
    tokens.add_argument(
        "texts", nargs="+", type=Path, metavar="TEXT", help="a file, or a folder whose .txt, .md and .rst files are taken"
    )
    tokens.add_argument("out", type=Path, metavar="OUT", help="NAME.bin; NAME.json is written beside it")
    tokens.add_argument("--bytes", action="store_true", help="a token a byte instead of the shipped model's tokenizer")
    tokens.add_argument("--seed", type=int, default=0, help="of the order of the documents")
    tokens.add_argument("--processes", type=int, default=1)
    tokens.set_defaults(command=_tokens)

    train = commands.add_parser("train", help=f"train one model; {_SHARED}")
    _add_run(train)
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint of output.folder")
    train.set_defaults(command=_train)

    compare = commands.add_parser(
        "compare", help=f"train a Transformer and RetNets of equal size on the same tokens; {_SHARED} after the other"
    )
    _add_run(compare)
    compare.add_argument("--out", type=Path, required=True, help="gets a folder for each model, and comparison.json")
    compare.add_argument(
        "--only", choices=comparison.NAMES, help="this model alone, for several processes at the same time; `report` joins them"
    )
    compare.add_argument(
        "--fit", type=float, metavar="SECONDS", help="measure first, and choose training.steps so that all models need so long"
    )
    compare.set_defaults(command=_compare)

    speed = commands.add_parser("speed", help="seconds of a step of each model of a comparison")
    _add_run(speed)
    speed.add_argument("--only", choices=comparison.NAMES)
    speed.add_argument("--json", action="store_true", help="one line: seconds by name")
    speed.set_defaults(command=_speed)

    evaluate = commands.add_parser("evaluate", help="evaluate the last checkpoint of each model of a comparison again")
    _add_run(evaluate)
    evaluate.add_argument("--out", type=Path, required=True)
    evaluate.add_argument("--only", choices=comparison.NAMES)
    evaluate.set_defaults(command=_evaluate)

    report = commands.add_parser("report", help="the curves and figures of a comparison, side by side, and comparison.json")
    report.add_argument("out", type=Path, metavar="OUT")
    report.set_defaults(command=_report)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="TOML")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="changes", help="instead of what the file says"
    )
    parser.add_argument("--seconds", type=float, help="end after so long, with a checkpoint to go on from")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def _tokens(given: argparse.Namespace) -> None:
    made = write_tokens(given.texts, given.out, bytewise=given.bytes, seed=given.seed, processes=given.processes)
    print(f"{given.out}: {made.tokens:,} tokens of {made.documents:,} documents")


def _train(given: argparse.Namespace) -> None:
    config = TrainingConfig.read(given.config, given.changes)
    processes = Processes.join(given.device)
    try:
        trainer = Trainer(config, processes, resume=given.resume)
        ending = trainer.run(given.seconds)
    finally:
        processes.leave()
    if processes.first:
        goes_on = "" if ending == "finished" else "; --resume goes on"
        print(f"{ending} at step {trainer.progress.step} of {config.training.steps}, saved in {config.output.folder}{goes_on}")


def _compare(given: argparse.Namespace) -> None:
    config = TrainingConfig.read(given.config, given.changes)
    names = comparison.NAMES if given.only is None else (given.only,)
    processes = Processes.join(given.device)
    try:
        if given.fit is not None:
            config = comparison.fitted(names, config, processes, given.fit)
        for name in names:
            ending = comparison.train(name, config, given.out, processes, given.seconds)
            if processes.first:
                print(f"{name}: {ending}", flush=True)
            if ending == "stopped":
                return
    finally:
        processes.leave()
    if processes.first and given.only is None:
        _report(given)


def _speed(given: argparse.Namespace) -> None:
    config = TrainingConfig.read(given.config, given.changes)
    names = comparison.NAMES if given.only is None else (given.only,)
    tokens = config.training.batch * config.data.context
    measured = comparison.speeds(names, config, Processes.join(given.device))
    if given.json:
        print(json.dumps(measured))
        return
    for name, seconds in measured.items():
        print(f"{name}: {seconds:.3f} s a step, {tokens / seconds:,.0f} tokens/s", flush=True)


def _evaluate(given: argparse.Namespace) -> None:
    config = TrainingConfig.read(given.config, given.changes)
    for name in comparison.NAMES if given.only is None else (given.only,):
        comparison.evaluate_saved(name, config, given.out, Processes.join(given.device).device)
    _report(given)


def _report(given: argparse.Namespace) -> None:
    collected = comparison.collect(given.out)
    path = given.out / "comparison.json"
    path.write_text(json.dumps(collected, indent=1) + "\n")
    print(tables(collected))
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    # A reader of the output that leaves (`| head`) ends the command as it ends others, not with a trace.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
