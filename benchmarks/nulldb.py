"""A DB-API driver that does nothing: what is left when it is instrumented is the instrumentation.

`another` gives copies of it, so that each peer has one of its own to wrap.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

apilevel = "2.0"
threadsafety = 3
paramstyle = "pyformat"
__version__ = "1.0"


class Connection:
    """A connection that has an address and leads nowhere."""

    def __init__(self, host: str = "db.example", port: int = 5432, db: str = "shop") -> None:
        self.host = host
        self.port = port
        self.db = db
        self.user = "reader"

    def cursor(self) -> Cursor:
        return Cursor(self)

    def close(self) -> None:
        pass


class Cursor:
    """A cursor that has brought one row of everything."""

    description = None

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.rowcount = 1

    def execute(self, query: str, args: object = None) -> Cursor:
        return self

    def close(self) -> None:
        pass


def connect(**address: Any) -> Connection:
    return Connection(**address)


def another(name: str) -> Any:
    """Return this module once more, with classes of its own."""
    spec = importlib.util.spec_from_file_location(f"{__name__}_{name}", __file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
