"""The one exception of the price book."""

from __future__ import annotations


class PriceBookError(ValueError):
    """A price file or a capacity entry that is refused.

    `path` names the file (or the entry, when it came from no file), `line` counts from 1 and is 0
    where there is no line to name, `message` says what is wrong and what would be right.
    """

    def __init__(self, path: str, line: int, message: str) -> None:
        self.path = path
        self.line = line
        self.message = message
        where = f"{path}:{line}" if line else path
        super().__init__(f"{where}: {message}")

    def __reduce__(self) -> tuple[type[PriceBookError], tuple[str, int, str]]:
        return type(self), (self.path, self.line, self.message)
