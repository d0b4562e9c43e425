"""`python -m benchmarks`: everything; `python -m benchmarks startup texts`: some of it."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import version

from benchmarks import suite
from benchmarks.bills import ROWS_SET
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
    parser.add_argument("--markdown", action="store_true", help="the README's tables")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and peers")
    parser.add_argument("--rows", type=int, help="the size of bills' export  [300,000]")
    options = parser.parse_args()
    if options.rows is not None:
        os.environ[ROWS_SET] = str(options.rows)
    outcomes: list[Outcome] = []
    with suite.servers():
        for name in options.names or suite.BENCHMARKS:
            print(f"… {name}", file=sys.stderr, flush=True)
            outcome = suite.run(name, quick=options.quick)
            outcomes.append(outcome)
            if not options.markdown:
                print("\n\n".join(plain(table) for table in outcome.tables), end="\n\n", flush=True)
            if outcome.skipped:
                print(f"{name}: left out, {outcome.skipped}", file=sys.stderr)
    write = markdown if options.markdown else plain
    print(write(figures(outcomes)))
    if options.markdown:
        for outcome in outcomes:
            for table in outcome.tables:
                print(
                    f"\n<details><summary>{table.title}</summary>\n\n{write(table)}\n\n</details>"
                )
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
    versions = ", ".join(f"{name} {version(name)}" for name in SHOWN)
    return (
        f"{os.cpu_count()} cores, {processor()}, {platform.system()} {platform.release()}, "
        f"CPython {platform.python_version()}; {versions}"
    )


def processor() -> str:
    """The processor's name where the system tells it, otherwise its kind."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
