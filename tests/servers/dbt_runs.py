"""The shop, a dbt project of over thirty models, as it is run with and without costinsights.

The project is in ``dbt_shop``: seeds, views, tables, ephemeral and incremental models, a Python
model, a snapshot, tests, a unit test, hooks; one model fails until ``SHOP_MENDED`` is set, one is
skipped for it, and one test fails.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costinsights.ledger.reader import read_ledger
from tests.environments import environment, lent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from costinsights.records import Charge

PROJECT = Path(__file__).with_name("dbt_shop")
RUN_SECONDS = 400
SECRETS = ("s3cr3t-l1teral", "s3cr3t-v4r", "@example.com")
"""A literal, a variable and part of somebody's address: never in a ledger."""

# What is another in every run, in texts that are otherwise the same: the place, names of temporary
# tables, and the moment of a snapshot.
_VARYING = re.compile(
    r"__dbt_tmp\d+|shop_(bare|ours)|/(bare|ours)/|st_[0-9a-f]{32}|\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(\+00:?00)?|dbt_\w*_[0-9a-f]{8,}"
)
# What dbt-duckdb and Trino's client ask once and remember, without a lock: each thread that comes
# before the first answer asks, too.
_ONCE = (
    "EXECUTE IMMEDIATE 'SELECT 1'",
    "constraint_type from duckdb_constraints()",
    "type from duckdb_databases()",
    "SELECT version()",
)
_TIMES = ("timing", "execution_time", "thread_id")


@dataclass(frozen=True)
class Run:
    """A command of dbt's: how it ended, and what it left behind."""

    code: int
    output: str
    target: Path

    def results(self) -> dict[str, dict[str, Any]]:
        """Return ``run_results.json`` by node, without what is another in every run."""
        document = self._read("run_results.json")
        found: dict[str, dict[str, Any]] = {}
        for result in document["results"]:
            kept = {key: value for key, value in result.items() if key not in _TIMES}
            found[result["unique_id"]] = json.loads(same(json.dumps(kept)))
        return found

    def costs(self) -> dict[str, Any]:
        """Return ``costs.json``."""
        return self._read("costs.json")

    def _read(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.target / name).read_text())
        return found


@dataclass
class Shop:
    """A copy of the project with a profile of its own, and a ledger where it is measured."""

    directory: Path
    measured: bool
    variables: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def ledger(self) -> Path:
        return self.directory / "ledger"

    def begin(
        self, *words: str, mended: bool = False, quiet: bool = False
    ) -> subprocess.Popen[str]:
        """Start a command of dbt's; what it prints is kept, or lost with `quiet`."""
        binaries = environment("dbt") / "bin"
        command: list[str | Path] = [binaries / "dbt", "--log-format-file", "json", *words]
        if self.measured:
            command = [
                Path(sys.executable).parent / "costinsights",
                *("run", "--ledger", self.ledger, "--"),
                *command,
            ]
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.environment(mended=mended),
            stdout=subprocess.DEVNULL if quiet else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self, process: subprocess.Popen[str]) -> Run:
        """Wait for it."""
        output, _ = process.communicate(timeout=RUN_SECONDS)
        return Run(process.returncode, output, self.directory / "target")

    def run(self, *words: str, mended: bool = False) -> Run:
        """Run a command of dbt's."""
        return self.end(self.begin(*words, mended=mended))

    def program(self, text: str) -> str:
        """Run a program in dbt's environment, and return what it prints."""
        path = self.directory / "program.py"
        path.write_text(text)
        done = subprocess.run(
            [environment("dbt") / "bin" / "python", path],
            cwd=self.directory,
            env={**self.environment(), "COSTINSIGHTS_LEDGER": str(self.ledger)},
            capture_output=True,
            check=False,
            text=True,
            timeout=RUN_SECONDS,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def environment(self, *, mended: bool = False) -> dict[str, str]:
        """Return the environment of its programs."""
        return {
            **os.environ,
            **({"PYTHONPATH": str(lent(self.directory / "packages"))} if self.measured else {}),
            **({"SHOP_MENDED": "1"} if mended else {}),
            "COSTINSIGHTS_STRICT": "1",
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            "DO_NOT_TRACK": "1",
            **self.variables,
        }

    def charges(self) -> list[Charge]:
        """Return each statement's charge with its latest figures."""
        latest = {charge.charge_id: charge for charge in read_ledger(str(self.ledger))}
        return list(latest.values())

    def said(self) -> list[str]:
        """Return every statement that dbt itself says it has sent."""
        with (self.directory / "logs" / "dbt.log").open() as lines:
            events: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [event["data"]["sql"] for event in events if event["info"]["name"] == "SQLQuery"]


def shop(
    directory: Path,
    target: Mapping[str, Any],
    *,
    measured: bool = True,
    prices: str = "",
    variables: Mapping[str, str] | None = None,
) -> Shop:
    """Make a copy of the project for `target`, a profile's output."""
    shutil.copytree(PROJECT, directory)
    output = {"threads": 4, **target}
    # What is JSON is YAML.
    profile = {"shop": {"target": "here", "outputs": {"here": output}}}
    (directory / "profiles.yml").write_text(json.dumps(profile))
    (directory / "costinsights.toml").write_text(prices)
    return Shop(directory, measured, dict(variables or {}))


def priced(system: str, price: str = "0.40") -> str:
    """Return a configuration that says what an hour of a system costs."""
    return (
        f'[[capacity]]\nname = "here"\nsystem = "{system}"\nprice = "{price}"\ncurrency = "USD"\n'
    )


def same(text: str) -> str:
    """Return a text without what is another in every run."""
    return _VARYING.sub("~", text)


def alike(texts: Iterable[str]) -> Counter[str]:
    """Count texts, without what is another in every run."""
    return Counter(same(text) for text in texts if not any(once in text for once in _ONCE))


def total(amounts: Sequence[Mapping[str, str]]) -> Decimal:
    """Return the one amount of a list in ``costs.json``; 0 for none."""
    assert len(amounts) <= 1
    return Decimal(amounts[0]["amount"]) if amounts else Decimal(0)
