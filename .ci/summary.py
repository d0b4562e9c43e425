"""Sum up a CI run: every step with its time, and one closing line with what passed and failed.

Usage: python summary.py RESULTS, a directory with `steps` (status, seconds, name; tabs between) and
pytest's JUnit files. The steps are counted as well as the tests. Exits with 1 when anything
failed, or nothing passed.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET


def tests_in(report: Path) -> Counter[str]:
    """Count the outcomes in one of pytest's JUnit files."""
    counts: Counter[str] = Counter()
    for suite in ET.parse(report).getroot().iter("testsuite"):
        skipped = int(suite.get("skipped", "0"))
        failed = int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
        counts["skipped"] += skipped
        counts["failed"] += failed
        # A test that passed and whose teardown failed is reported twice, once as an error.
        counts["passed"] += max(0, int(suite.get("tests", "0")) - skipped - failed)
    return counts


def main(results: Path) -> int:
    """Print the summary of the run in `results`."""
    counts: Counter[str] = Counter()
    print("\n===== summary")
    for line in (results / "steps").read_text().splitlines():
        status, seconds, name = line.split("\t")
        print(f"{status:8}{int(seconds):6} s  {name}")
        counts[status] += 1
    for report in sorted(results.glob("*.xml")):
        tests = tests_in(report)
        print(f"{report.stem}: " + ", ".join(f"{n} {status}" for status, n in tests.items()))
        counts += tests
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
