"""dbt as it is run: an environment of its own, a small project, and what became of it.

dbt agrees with nothing else that is locked, so it is installed apart (`tests.environments`). The
package that is tested is lent to it, as `costinsights run` finds it in any environment that has it.

The project has a table, a view on it, a test and a model that fails. Its query comment is dbt's
own with a job's name added, as dbt's documentation shows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costinsights import statement
from costinsights.ledger.reader import read_ledger
from tests.environments import environment, lent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from costinsights.records import Charge

RUN_SECONDS = 300

JOB = "nightly"
ASSETS = {"orders", "sales", "broken", "not_null_orders_id"}
COMMENT = """
{% macro query_comment(node) %}
  {%- set words = dict(app='dbt', dbt_version=dbt_version, target_name=target.name) -%}
  {%- do words.update(invocation_id=invocation_id, job='JOB') -%}
  {%- if node is not none -%}{%- do words.update(node_id=node.unique_id) -%}{%- endif -%}
  {{ return(tojson(words)) }}
{% endmacro %}
""".replace("JOB", JOB)
FILES = {
    "dbt_project.yml": "name: shop\nversion: '1.0'\nprofile: shop\n",
    "models/orders.sql": "{{ config(materialized='table') }}"
    " select 1 as id, 's3cr3t-77ac' as word union all select 2 as id, 'other' as word",
    "models/sales.sql": "select count(*) as n from {{ ref('orders') }}",
    "models/broken.sql": "{{ config(materialized='table') }} select nothing from {{ ref('orders') }}",
    "models/schema.yml": "models:\n  - name: orders\n    columns:\n"
    "      - {name: id, data_tests: [not_null]}\n",
}
SECRET = "s3cr3t-77ac"  # a literal of a model: never in a ledger
# What dbt itself sends without its comment, or leaves to a method of the driver's.
TRANSACTIONS = {"BEGIN", "COMMIT", "ROLLBACK"}

Seen = tuple[str, str, str]
"""A statement without its literals and comments, dbt's node, and the job."""


@dataclass(frozen=True)
class Done:
    """A run of dbt's: how it ended, and what is in the ledger."""

    code: int
    output: str
    directory: Path
    ledger: Path

    @property
    def charges(self) -> list[Charge]:
        """Return each statement's charge with its latest figures; transactions are left out."""
        latest = {charge.charge_id: charge for charge in read_ledger(str(self.ledger))}
        return [charge for charge in latest.values() if charge.operation not in TRANSACTIONS]

    def charged(self, seen: Counter[Seen]) -> Counter[Seen]:
        """Return what was charged for, each as often as it was.

        What was `seen` without a comment has the node that dbt was working for, which no server
        knows: it is left out.
        """
        named = commented(seen)
        found: Counter[Seen] = Counter()
        for charge in self.charges:
            text = "" if charge.statement is None else charge.statement.text
            node = charge.attribution.get("dbt.node_id", "") if text in named else ""
            found[text, node, charge.attribution.get("job", "")] += 1
        return found

    def said(self) -> list[str]:
        """Return every statement's text that dbt itself says it has sent."""
        with (self.directory / "logs" / "dbt.log").open() as lines:
            events: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [event["data"]["sql"] for event in events if event["info"]["name"] == "SQLQuery"]


def sent(texts: Iterable[str], system: str) -> Counter[Seen]:
    """Return the statements that a server saw in the form of `Done.charged`."""
    found: Counter[Seen] = Counter()
    for text in texts:
        parsed = statement.parse(text, system)
        if parsed.operation in TRANSACTIONS:
            continue
        words = parsed.comment or {}
        found[parsed.text, words.get("dbt.node_id", ""), words.get("job", "")] += 1
    return found


def commented(seen: Counter[Seen]) -> set[str]:
    """Return the texts of statements whose comment named a node."""
    return {text for text, node, _ in seen if node}


def build(
    directory: Path,
    target: Mapping[str, Any],
    *,
    own_comment: bool = True,
    variables: Mapping[str, str] | None = None,
) -> Done:
    """Run ``dbt build`` of the project against `target`, a profile's output, under `costinsights run`."""
    files = dict(FILES)
    if own_comment:
        files["macros/comment.sql"] = COMMENT
        files["dbt_project.yml"] += 'query-comment: {comment: "{{ query_comment(node) }}"}\n'
    output = {"threads": 2, **target}
    # What is JSON is YAML.
    files["profiles.yml"] = json.dumps({"shop": {"target": "here", "outputs": {"here": output}}})
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    ledger = directory / "ledger"
    ours = Path(sys.executable).parent / "costinsights"
    done = subprocess.run(
        [
            *(ours, "run", "--ledger", ledger, "--"),
            *(
                environment("dbt") / "bin" / "dbt",
                "--no-use-colors",
                "--log-format-file",
                "json",
                "build",
            ),
            *("--project-dir", directory, "--profiles-dir", directory),
        ],
        cwd=directory,
        env={
            **os.environ,
            "PYTHONPATH": str(lent(directory / "packages")),
            "COSTINSIGHTS_STRICT": "1",
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            "DO_NOT_TRACK": "1",
            **(variables or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        timeout=RUN_SECONDS,
    )
    return Done(done.returncode, done.stdout, directory, ledger)
