"""Attribution rules of the configuration: what a call looks like, and who it is then for.

A rule is facts and patterns, never code. The patterns are shell globs (``*``, ``?``, ``[abc]``) that
do not mind capitals; a field that a call does not have is the empty text. Rules stand in order, and
for each label the first rule that matches and gives it wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.attribution import clean_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from costinsights.records import Resource
    from costinsights.statement import Statement

    Patterns = str | Sequence[str]

FIELDS = (
    "system",
    "address",
    "port",
    "namespace",
    "service",
    "instrumentor",
    "operation",
    "summary",
    "text",
    "fingerprint",
    "user",
)
"""What a pattern can be held against. `service` is the program's, `user` the account that a system's
own history names (see docs/settlement.md: a call does not know it); the rest is the call's."""

_SPECIAL = frozenset("*?[")


class Rule:
    """One rule: every field of `match` must fit one of its patterns; an empty match fits all.

    ::

        Rule("growth", {"namespace": "growth_*"}, {"team": "growth"})
        Rule("reports", {"operation": ["SELECT", "COPY"], "service": "bi"}, {"job": "reports"})

    Raises:
        ValueError: `match` names a field that is not in `FIELDS`.
    """

    __slots__ = ("_tests", "labels", "match", "name")

    def __init__(
        self, name: str, match: Mapping[str, Patterns], labels: Mapping[str, object]
    ) -> None:
        for field in match:
            if field not in FIELDS:
                raise ValueError(f"a rule cannot match on {field!r}; it can on {', '.join(FIELDS)}")
        self.name = name
        self.match: Mapping[str, tuple[str, ...]] = {
            field: (patterns,) if isinstance(patterns, str) else tuple(patterns)
            for field, patterns in match.items()
        }
        self.labels: Mapping[str, str] = clean_labels(labels)
        self._tests: tuple[tuple[str, Callable[[str], bool]], ...] | None = None

    def __repr__(self) -> str:
        return f"Rule({self.name!r}, {self.match!r}, {self.labels!r})"

    def matches(
        self,
        system: str,
        resource: Resource,
        statement: Statement | None,
        *,
        instrumentor: str = "",
        operation: str | None = None,
        service: str = "",
        user: str = "",
    ) -> bool:
        """Tell whether the rule speaks of this call.

        `operation` replaces the statement's own where the driver's method says it (``COPY``).
        """
        tests = self._tests
        if tests is None:
            tests = self._tests = tuple(
                (field, _any_of(patterns)) for field, patterns in self.match.items()
            )
        for field, fits in tests:
            if field == "system":
                value = system
            elif field == "instrumentor":
                value = instrumentor
            elif field == "service":
                value = service
            elif field == "user":
                value = user
            elif field in ("address", "port", "namespace"):
                found = getattr(resource, field)
                value = "" if found is None else str(found)
            elif field == "operation" and operation is not None:
                value = operation
            else:
                value = "" if statement is None else getattr(statement, field)
            if not fits(value.lower()):
                return False
        return True


def applicable(rules: Sequence[Rule], service: str) -> tuple[Rule, ...]:
    """Return the rules that can match in the program called `service`, in their order.

    What a rule says of the program is decided once, so that the calls need not ask again.
    """
    kept: list[Rule] = []
    for rule in rules:
        patterns = rule.match.get("service")
        if patterns is None:
            kept.append(rule)
        elif _any_of(patterns)(service.lower()):
            rest = {field: found for field, found in rule.match.items() if field != "service"}
            kept.append(Rule(rule.name, rest, rule.labels))
    return tuple(kept)


def _any_of(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return a test whether a text in small letters fits one of `patterns`."""
    lowered = [pattern.lower() for pattern in patterns]
    if all(_SPECIAL.isdisjoint(pattern) for pattern in lowered):
        return frozenset(lowered).__contains__
    import re
    from fnmatch import translate

    fits = re.compile("|".join(map(translate, lowered))).match
    return lambda value: fits(value) is not None
