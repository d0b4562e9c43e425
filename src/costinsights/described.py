"""What clouds have said of the user's databases, kept in the user's cache folder.

`costinsights prices describe` asks and writes; a program only reads, and only for the services that
``describe`` of the configuration names. The file holds host names and sizes: it is the user's alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from costinsights.guard import say
from costinsights.hosts import Declared  # noqa: TC001  msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FILE = "resources.json"


class Answer(msgspec.Struct, frozen=True):
    """What one service has said of one region."""

    service: str
    region: str
    at: str
    """When it was asked, ISO 8601, UTC."""
    resources: tuple[Declared, ...]


def path() -> str:
    """Return where the answers are kept."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # the specification says to ignore one that is relative
        cache = os.path.expanduser("~/.cache")
    return os.path.join(cache, "costinsights", FILE)


def answers() -> tuple[Answer, ...]:
    """Return all that is kept; nothing where the file cannot be read, which is said."""
    where = path()
    try:
        with open(where, "rb") as file:
            return msgspec.json.decode(file.read(), type=tuple[Answer, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError) as error:
        say(f"costinsights: {where} is not used: {type(error).__name__}")
        return ()


def resources(services: Iterable[str]) -> tuple[Declared, ...]:
    """Return the resources that these services have described."""
    wanted = frozenset(services)
    if not wanted:
        return ()
    return tuple(
        resource
        for answer in answers()
        if answer.service in wanted
        for resource in answer.resources
    )


def keep(answer: Answer) -> str:
    """Keep an answer in place of the last one of that service and region; return the file's path.

    Raises:
        OSError: it cannot be written.
    """
    where = path()
    kept = [
        one for one in answers() if (one.service, one.region) != (answer.service, answer.region)
    ]
    os.makedirs(os.path.dirname(where), mode=0o700, exist_ok=True)
    fresh = f"{where}.{os.getpid()}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_encoded([*kept, answer]))
    os.replace(fresh, where)
    return where


def _encoded(given: Sequence[Answer]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(given), indent=1)
