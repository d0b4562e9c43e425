"""What a statement does, and to what: the operation and OpenTelemetry's ``db.query.summary``.

A summary is the operations and their targets in the order in which they stand in the text, as in
``INSERT shipping_details SELECT orders``. Operations are in upper case, because another case is
not another operation; names keep theirs, and lose their quotes where they do not need them. Names
that a WITH clause defines are no targets; nor are users and roles, who are people.
(OpenTelemetry, semantic conventions for database spans, "Generating a summary of the query".)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = 255
"""Characters in a summary, by OpenTelemetry's rule. It ends before the name that does not fit."""

# The first words of statements. Any other first word makes no operation: whatever people send,
# an operation is one of few.
_VERBS = frozenset(
    "abort alter analyze assert attach backup begin bulk cache call change checkpoint clear close cluster"
    " comment commit convert copy create dbcc deallocate declare delete deny desc describe detach discard"
    " do drop end exec execute explain export fetch flush force get grant handler if import insert"
    " install kill list listen load lock merge move msck notify open optimize pivot pragma prepare"
    " print purge put raiserror reassign refresh reindex release remove rename repair replace reset"
    " restore revoke rollback savepoint security select set show shutdown start summarize table"
    " throw truncate uncache undrop unlisten unload unlock unpivot unset update upsert use vacuum"
    " values waitfor while xa".split()
)
_ROW_VERBS = frozenset(["insert", "update", "delete", "merge", "replace", "upsert"])
_BEFORE_ROW_VERB = frozenset(
    ") ( ; as begin explain analyze verbose extended plan json tree traditional".split()
)
_GRANTS = frozenset(["grant", "revoke", "deny"])

# Verbs whose object is part of the operation, and the objects there are.
_WITH_OBJECT = frozenset(["create", "alter", "drop", "refresh", "rename", "undrop"])
_OBJECTS = frozenset(
    "aggregate assembly cast catalog collation connection credential database domain event"
    " extension function group index language login macro model operator package pipe pipeline"
    " policy procedure publication role rule schema secret sequence server service session share"
    " stage statistics stream streamlit subscription synonym system table tablespace tag task"
    " trigger type user view volume warehouse".split()
)
_PEOPLE = frozenset(["user", "role", "login", "group", "session", "system", "credential"])
_REACH = 12  # words looked at for the object: OR REPLACE … DEFINER = … SQL SECURITY …

# Verbs that name one target, or several.
_NAMING = frozenset(
    "insert merge replace upsert copy call exec execute optimize refresh describe desc use set reset"
    " pragma repair msck reindex cluster cache uncache show comment table purge kill unset".split()
)
_NAMING_SEVERAL = frozenset(["update", "truncate", "vacuum", "analyze", "lock"])
_BEFORE_NAME = frozenset(
    "into table tables only if not exists or ignore low_priority high_priority delayed overwrite"
    " concurrently full freeze verbose analyze local session global materialized view first all"
    " abort fail rollback replace index database schema column in extended formatted on create"
    " repair".split()
)
_BEFORE_TABLE = frozenset(["only", "lateral", "table"])
_NO_TARGETS = frozenset(
    "unnest stdin stdout outfile dumpfile program immediate to as default names transaction"
    " values".split()
)
_ENDS_OF_LISTS = frozenset(
    "where group order having window union intersect except minus qualify limit offset fetch for"
    " returning set values connect start sort distribute view output option".split()
)

_BEFORE_STATEMENT = frozenset("{}?=;")  # as in {? = call procedure()}

_NOTHING, _ONE, _SEVERAL = range(3)  # how many names may come now


def describe(shown: list[str], words: list[str]) -> tuple[str, str]:
    """The operation and the summary of a statement; both empty if there is none.

    ``words`` are its words in lower case (quoted names as they are), ``shown`` the same in the
    user's letters.
    """
    reader = _Reader(shown, words)
    reader.read()
    # Of a WITH whose end was cut off, the first query has to speak for the whole.
    return reader.operation or "".join(reader.parts[:1]), _fit(reader.parts)


def _fit(parts: list[str]) -> str:
    length = -1
    for index, part in enumerate(parts):
        length += 1 + len(part)
        if length > LONGEST:
            return " ".join(parts[:index])
    return " ".join(parts)


class _Frame:
    """A pair of parentheses, or the statement around all of them."""

    __slots__ = ("clause", "expected", "listing", "reading", "skipped")

    def __init__(self) -> None:
        self.expected = _NOTHING  # names that may come now
        self.skipped: frozenset[str] = _BEFORE_NAME  # words that may stand before them
        self.listing = False  # a comma brings another one
        self.reading = False  # there is a query in here, so that FROM is about tables
        self.clause = False  # a WITH clause is being read


class _Reader:
    """Goes through the words once, and looks closely only where a name or a verb may come."""

    __slots__ = (
        "deciding", "defined", "frame", "fresh", "granting", "operation", "outer", "parts", "resume", "said",
        "shown", "table_first", "using", "words",
    )  # fmt: skip

    def __init__(self, shown: list[str], words: list[str]) -> None:
        self.shown = shown
        self.words = words
        self.operation = ""
        self.parts: list[str] = []
        self.said: set[str] = set()  # targets of the operation at hand
        self.defined: set[str] = set()  # names from WITH
        self.frame = _Frame()
        self.outer: list[_Frame] = []
        self.deciding: _Frame | None = None  # where the verb will come that a WITH belongs to
        self.fresh = True  # a statement may begin here
        self.resume = 0  # the first word that is not read yet
        self.granting = False  # its verbs are rights, not operations
        self.using = False  # USING brings tables
        self.table_first = False

    def read(self) -> None:
        alert = True  # the next word matters, whatever it is
        for at, word in enumerate(self.words):
            if alert:
                if at >= self.resume:
                    alert = self._attend(at, word)
            elif word in _ACTS:
                alert = _ACTS[word](self, at, word)

    def _attend(self, at: int, word: str) -> bool:
        if self.fresh:
            return self._begin(at, word)
        if self.frame.expected and self._take(at, word):
            return True
        return word in _ACTS and _ACTS[word](self, at, word)

    def _word(self, at: int) -> str:
        return self.words[at] if 0 <= at < len(self.words) else ""

    # All these say whether the next word matters, whatever it is.

    def _begin(self, at: int, word: str) -> bool:
        """The first word of a statement."""
        if word in _BEFORE_STATEMENT:
            return True
        if word == "(":
            return self.open(at, word)
        self.fresh = False
        self.granting = word in _GRANTS
        if word == "with":
            self.deciding = self.frame
            return self.read_with(at, word)
        if word == "from":  # DuckDB and Spark let the table come first
            self._say("SELECT")
            self.table_first = self.frame.reading = True
            return self.read_from(at, word)
        if word == "end" and self.parts:  # of a block
            return False
        return word in _VERBS and self._verb(at, word)

    def _say(self, operation: str) -> None:
        if not self.operation and self.deciding in (None, self.frame):
            self.operation = operation
        self.frame.clause = False
        self.parts.append(operation)
        self.said = set()

    def _verb(self, at: int, word: str) -> bool:
        phrase = word.upper()
        frame = self.frame
        frame.skipped = _BEFORE_NAME
        frame.expected = _NOTHING
        frame.reading = True
        self.using = word in ("merge", "delete")
        if word in _WITH_OBJECT:
            frame.expected = _SEVERAL if word == "drop" else _ONE
            phrase += self._object(at)
        elif word in _NAMING_SEVERAL:
            frame.expected = _SEVERAL
        elif word in _NAMING or (word == "delete" and self._word(at + 1) != "from"):
            frame.expected = _ONE
        elif word == "start" and self._word(at + 1) == "transaction":
            phrase = "START TRANSACTION"
        frame.listing = frame.expected == _SEVERAL
        self._say(phrase)
        return frame.expected != _NOTHING or self.resume > at

    def _object(self, at: int) -> str:
        """What is created, altered or dropped."""
        for index in range(at + 1, min(at + _REACH, len(self.words))):
            noun = self.words[index]
            if noun == "(":
                break
            if noun in _OBJECTS:
                self.resume = index + 1
                if noun in _PEOPLE:
                    self.frame.expected = _NOTHING
                materialized = self.words[index - 1] == "materialized"
                return " MATERIALIZED VIEW" if materialized else " " + noun.upper()
        return ""

    def _take(self, at: int, word: str) -> bool:
        """Take the name that was expected, or a word on the way to it; False if it is neither."""
        frame = self.frame
        after = self._word(at + 1)
        if word in frame.skipped:
            on = after in frame.skipped or (_is_name(after) and after not in _ACTS)
            if on or (after == "(" and frame.skipped is _BEFORE_TABLE):
                return True
        if word == "top" and after == "(":  # UPDATE TOP (10) t
            self.resume = at + 4
            return True
        if word == "?" and after == "=":  # EXEC @result = procedure
            self.resume = at + 2
            return True
        if not _is_name(word) or word in _ACTS or word in _NO_TARGETS:
            if word != "(":
                frame.expected = _NOTHING
            return False
        name, self.resume = self._name(at)
        frame.expected = _NOTHING
        if self.parts and name not in self.said and name.lower() not in self.defined:
            self.said.add(name)
            self.parts.append(name)
        return True

    def _name(self, at: int) -> tuple[str, int]:
        """A name with all its parts, and where it ends."""
        name = _bare(self.shown[at])
        at += 1
        while _is_name(self._word(at + 1)) or self._word(at + 1) == ".":
            mark = self._word(at)
            if mark == "-":  # BigQuery's projects have dashes in them
                glued = self.shown[at][0] != " " and self.shown[at + 1][0] != " "
                if not glued:
                    break
            elif mark != ".":
                break
            elif self._word(at + 1) == ".":  # database..table
                name += "."
                at += 1
                continue
            name += mark + _bare(self.shown[at + 1])
            at += 2
        return name, at

    # What the words with a meaning do.

    def select(self, at: int, word: str) -> bool:
        if self.granting:
            return False
        if self.table_first and not self.outer:
            self.table_first = False
            return False
        self._say("SELECT")
        frame = self.frame
        frame.reading, frame.listing, frame.expected = True, False, _NOTHING
        return False

    def row_verb(self, at: int, word: str) -> bool:
        # REPLACE and INSERT are functions as well; DO UPDATE and FOR UPDATE are not operations.
        acts = self.words[at - 1] in _BEFORE_ROW_VERB and self._word(at + 1) != "("
        return acts and not self.granting and self._verb(at, word)

    def read_from(self, at: int, word: str) -> bool:
        # EXTRACT(day FROM …), IS DISTINCT FROM
        if not self.frame.reading or self._word(at - 1) == "distinct" or self.granting:
            return False
        return self._expect_tables(_SEVERAL)

    def join(self, at: int, word: str) -> bool:
        listing = self.frame.listing
        self._expect_tables(_ONE)
        self.frame.listing = listing
        return True

    def read_using(self, at: int, word: str) -> bool:
        # MERGE INTO t USING s, DELETE FROM t USING s; but not JOIN t USING (id)
        if self.using and (self._word(at + 1) != "(" or self._word(at + 2) in ("select", "with")):
            self.using = False
            return self._expect_tables(_SEVERAL)
        return False

    def _expect_tables(self, number: int) -> bool:
        frame = self.frame
        frame.expected, frame.skipped, frame.listing = number, _BEFORE_TABLE, number == _SEVERAL
        return True

    def into(self, at: int, word: str) -> bool:
        self.frame.expected, self.frame.skipped = _ONE, _BEFORE_NAME
        return True

    def on(self, at: int, word: str) -> bool:
        return self.granting and self.into(at, word)

    def read_with(self, at: int, word: str) -> bool:
        at += 2 if self._word(at + 1) == "recursive" else 1
        defines = self._word(at + 1) in ("as", "(") and self._word(at) != "ordinality"
        return defines and self._define(at)

    def _define(self, at: int) -> bool:
        if _is_name(self._word(at)):
            self.frame.clause = True
            self.defined.add(_bare(self.shown[at]).lower())
            self.resume = at + 1
        return self.resume > at

    def comma(self, at: int, word: str) -> bool:
        frame = self.frame
        if frame.clause and self.words[at - 1] == ")":
            return self._define(at + 1)
        if frame.listing:
            frame.expected = _SEVERAL
        return frame.listing

    def end_list(self, at: int, word: str) -> bool:
        self.frame.listing = False
        return False

    def open(self, at: int, word: str) -> bool:
        frame, inner = self.frame, _Frame()
        if frame.expected and frame.skipped is _BEFORE_TABLE:  # FROM (a JOIN b)
            inner.expected, inner.skipped = frame.expected, frame.skipped
            inner.listing = True
            frame.expected = _NOTHING
        self.outer.append(frame)
        self.frame = inner
        return self.fresh or inner.expected != _NOTHING

    def close(self, at: int, word: str) -> bool:
        if self.outer:
            self.frame = self.outer.pop()
        return self.frame.expected != _NOTHING

    def next_statement(self, at: int, word: str) -> bool:
        self.frame = _Frame()
        self.outer.clear()
        self.fresh = True
        return True


_Act: TypeAlias = "Callable[[_Reader, int, str], bool]"

_ACTS: dict[str, _Act] = {
    **dict.fromkeys(_ENDS_OF_LISTS, _Reader.end_list),
    **dict.fromkeys(_ROW_VERBS, _Reader.row_verb),
    "select": _Reader.select,
    "from": _Reader.read_from,
    "join": _Reader.join,
    "straight_join": _Reader.join,
    "apply": _Reader.join,
    "into": _Reader.into,
    "(": _Reader.open,
    ")": _Reader.close,
    ",": _Reader.comma,
    ";": _Reader.next_statement,
    "with": _Reader.read_with,
    "using": _Reader.read_using,
    "on": _Reader.on,
}

_PLAIN_NAME = re.compile(r"[\w$.\-]+")


def _is_name(word: str) -> bool:
    first = word[:1]
    return first.isalpha() or first in ("_", '"', "`", "#") or (first == "[" and len(word) > 1)


def _bare(shown: str) -> str:
    """A name without its quotes, unless it needs them to be read as one."""
    name = shown.strip()
    if name[:1] in ('"', "`", "[") and _PLAIN_NAME.fullmatch(name, 1, len(name) - 1):
        return name[1:-1]
    return name
