"""`python -m benchmarks.report_card selection` and `… eval`, which `retort eval` starts."""

from __future__ import annotations

import argparse

from benchmarks.report_card import product, selection


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_card", description="The report card, part by part.")
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("selection", help="finding passages and sentences, and telling what is not answered")
    selection.add_arguments(one)
    one.set_defaults(run=selection.run)
    one = parts.add_parser("eval", help="a labelled set of questions through the whole product")
    product.add_arguments(one)
    one.set_defaults(run=product.run)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
