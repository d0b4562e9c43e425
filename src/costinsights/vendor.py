"""Whoever asks a vendor's API for us: its options, what it needs, and what it has used so far.

`costinsights.settlement.history.History` reads what queries and jobs used,
`costinsights.billing.puller.Puller` what the bill says. Both take their options from the
configuration, name the grants that they need, count their requests, and keep secrets to themselves.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import msgspec

from costinsights.records import Resource

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal


class VendorError(Exception):
    """A vendor cannot be asked now; the text says why and what to do, without any secret.

    `grant` is the statement or policy that is missing, exactly as it has to be run.
    """

    def __init__(self, message: str, *, grant: str = "") -> None:
        super().__init__(message)
        self.grant = grant


class Vendor:
    """Asks one vendor; see the module's docstring."""

    system: ClassVar[str]
    """Its key in the configuration and on the command line."""
    table: ClassVar[str]
    """The table of the configuration that has its options: ``settle``, ``pull``."""
    page: ClassVar[str]
    """The page of the documentation that tells of them."""
    raises: ClassVar[type[VendorError]] = VendorError
    """What is raised where it cannot be asked."""
    grants: ClassVar[str] = ""
    """The least that its account needs, as it has to be run."""
    verified: ClassVar[str] = ""
    """What it was tested on: ``real engine: Trino 368``, ``emulator: …``."""
    dependencies: ClassVar[str] = ""
    """The extra that brings its client, ``costinsights[trino]``; named when that is missing."""
    Options: ClassVar[type[msgspec.Struct] | None] = None
    """The options that it takes, a frozen struct; None for one without any."""

    options: Any = None
    """An `Options`, from ``[settle."<system>"]`` or ``[pull."<system>"]`` of the configuration."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options as the configuration has them. Nothing is opened yet.

        Raises:
            VendorError: an option is missing, unknown or of the wrong kind, or a variable of the
                environment that one refers to is not set.
        """
        self._secrets: list[str] = []
        given = {name: self._expanded(name, value) for name, value in (options or {}).items()}
        place = f'[{self.table}."{self.system}"]'
        if self.Options is None:
            if given:
                raise self.raises(f"{place} takes no options: {', '.join(given)}")
        else:
            try:
                self.options = msgspec.convert(given, self.Options)
            except msgspec.ValidationError as error:
                # msgspec names fields and types, never values.
                missing = str(error).partition("missing required field ")[2].strip("`")
                if missing:
                    raise self.raises(
                        f"nobody has said how to reach {self.system}: put  {missing} = …  into "
                        f"{place} of costinsights.toml ({self.page})"
                    ) from None
                raise self.raises(f"{place}: {error}") from None
        self.requests = 0
        """Requests that were made."""
        self.spent: dict[str, int | Decimal] = {}
        """What they used, in the price book's meters."""
        self.incomplete: list[str] = []
        """Why some of what was asked for is not there; each is said in the report."""
        self.place: tuple[Resource, Mapping[str, str]] = (Resource(), {})
        """Where its own requests run, for their price: resource (with region) and dimensions."""
        self.progress: Callable[[str, int, int | None], None] = nothing
        """Tells who watches what is being read, how much of it, and of how much (None: unknown):
        for what takes long before it has a figure. Set before `plan`."""

    def open(self) -> None:
        """Connect. Called after `plan` was said, and before anything is read.

        Raises:
            VendorError: with `grant` where a permission is missing.
        """

    def close(self) -> None:
        """Let go of the connection. Called in any case, also when `open` was not or failed."""

    def renew(self) -> None:
        """Connect anew: the credentials have expired half-way."""
        self.close()
        self.open()

    def spend(self, requests: int = 1, **meters: int | Decimal) -> None:
        """Count requests, and what they used: ``spend(data_scanned_bytes=…)``."""
        self.requests += requests
        for name, quantity in meters.items():
            self.spent[name] = self.spent.get(name, 0) + quantity

    def missing(self, why: str) -> None:
        """Say that some of what was asked for is not there (late, cut off, expired): `why`, once."""
        if why not in self.incomplete:
            self.incomplete.append(why)

    def denied(self, what: str) -> VendorError:
        """Return the error to raise where a permission is missing to read `what`."""
        return self.raises(f"{self.system}: no permission to read {what}", grant=self.grants)

    def _expanded(self, name: str, value: object) -> object:
        if isinstance(value, str):
            return _VARIABLE.sub(lambda found: self._variable(name, found[1]), value)
        if isinstance(value, Mapping):
            table = cast("Mapping[str, object]", value)
            return {key: self._expanded(f"{name}.{key}", item) for key, item in table.items()}
        if isinstance(value, (list, tuple)):
            return [self._expanded(name, item) for item in cast("list[object]", value)]
        return value

    def _variable(self, name: str, variable: str) -> str:
        found = os.environ.get(variable)
        if found is None:
            raise self.raises(
                f'[{self.table}."{self.system}"]: {name} refers to ${{{variable}}}, which is not '
                "set in the environment"
            )
        self._secrets.append(found)
        return found

    def without_secrets(self, text: str) -> str:
        """Return a message without what the options took from the environment."""
        for secret in self._secrets:
            if secret:
                text = text.replace(secret, "…")
        return text


def nothing(_what: str, _done: int, _total: int | None) -> None:
    """Nobody watches."""


_VARIABLE = re.compile(r"\$\{(\w+)\}")
