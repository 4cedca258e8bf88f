"""`python -m retnet_core.distill COMMAND`: each step of making the weights is a module with `add_arguments` and `run`."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys

from retnet_core.distill import DistillError

# The module of a command is imported only when it is called: gathering text needs no torch.
COMMANDS = {
    "data": ("retnet_core.distill.data", "gather passages from documentation packages and folders"),
    "write": ("retnet_core.distill.write", "write questions and answers over passages with a larger model"),
    "selection": ("retnet_core.distill.selection.command", "tune the encoder and the reader that find what answers"),
    "align": ("retnet_core.distill.align", "align each layer's retention to the teacher's attention"),
    "distill": ("retnet_core.distill.distill", "bring the student's logits to the teacher's"),
    "tune": ("retnet_core.distill.tune", "tune the student to answer from passages and from memory"),
    "export": ("retnet_core.distill.export", "write a checkpoint as the weights that are shipped"),
    "keep": ("retnet_core.distill.keep", "keep the written pairs that are fit to train on"),
}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 1 for what one line on stderr explains, 2 for a wrong call."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m retnet_core.distill", description="Make the weights: data, pairs, training and their measurement."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, (path, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary.capitalize() + ".")
        if given[:1] == [name]:
            module = importlib.import_module(path)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    parsed = parser.parse_args(given)
    try:
        parsed.run(parsed)
    except DistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # A reader of the output that leaves (`| head`) ends the command as it ends others, not with a trace.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
