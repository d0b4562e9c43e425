"""`python -m benchmarks`: everything; `python -m benchmarks startup texts`: some of it."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.metadata import version

from benchmarks import suite
from benchmarks.outcome import Outcome, Table, markdown, plain

SHOWN = (
    "opentelemetry-sdk",
    "opentelemetry-instrumentation-dbapi",
    "ddtrace",
    "psycopg",
    "pymysql",
    "duckdb",
    "wrapt",
)


def main() -> int:
    """Run what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *suite.BENCHMARKS], metavar="NAME")
    parser.add_argument("--markdown", action="store_true", help="the README's table")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and peers")
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    for name in options.names or suite.BENCHMARKS:
        print(f"… {name}", file=sys.stderr, flush=True)
        outcome = suite.BENCHMARKS[name](options.quick)
        outcomes.append(outcome)
        if not options.markdown:
            print("\n\n".join(plain(table) for table in outcome.tables), end="\n\n", flush=True)
        if outcome.skipped:
            print(f"{name}: left out, {outcome.skipped}", file=sys.stderr)
    table = figures(outcomes)
    print(markdown(table) if options.markdown else plain(table))
    print(f"\n{machine()}")
    return 0


def figures(outcomes: list[Outcome]) -> Table:
    """The promised figures of all outcomes."""
    return Table(
        "promised",
        ("measure", "here", "target"),
        [
            (figure.text, figure.shown(), figure.wanted())
            for outcome in outcomes
            for figure in outcome.figures
        ],
    )


def machine() -> str:
    """Where and with what it was measured."""
    import os

    versions = ", ".join(f"{name} {version(name)}" for name in SHOWN)
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"CPython {platform.python_version()}; {versions}"
    )


if __name__ == "__main__":
    sys.exit(main())
