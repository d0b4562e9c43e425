"""From the masked text to the words that make the fingerprint, and the text that is shown.

Both are lists of the same things side by side: ``words`` in one spelling (lower case, every value
``?``), ``shown`` as the user wrote them, each with the space that stood before it.

Two statements have the same shape when only their values differ, or how many there are: a list of
values is as good as its first of each kind, and so are the rows of an INSERT. A parameter is a
value: ``id = %s``, ``id = :id`` and ``id = 42`` ask the same question through different drivers.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from costinsights._lexer import NAME, Dialect

_LONGEST_NAME = 256  # more than any system allows for one part of a name

_WORDS = (
    r" ?(?:WORD|[,.()=*?]"
    r"|%[sbt]\b|%\([^()\s]*\)[sbt]"  # parameters of pyformat drivers
    r"|::|(?<![\w)\]NAME\"?]):[^\W\d]\w*"  # ':name', but neither 'a::b' nor 'a:b'
    r"|@@?[\w.$]+|\$\w+|.)"
)
# Signs that are no part of a word; what is not ASCII in a masked text always is. (Said by what is
# left out, because the expression is then compiled in a fifth of the time.)
_BREAKS = r"%-/:-@\[-\^`{-\x7f"
_SPLIT = {
    False: re.compile(
        _WORDS.replace("WORD", rf"[^\x00-9{_BREAKS}][^\x00-\#{_BREAKS}]*").replace("NAME", NAME)
    ),
    True: re.compile(
        _WORDS.replace("WORD", rf"\#{{,2}}[^\x00-9{_BREAKS}][^\x00-\"{_BREAKS}]*").replace(
            "NAME", NAME
        )
    ),
}

# What the loop over the words has something to do for; without any of it, it is not run.
_TRIGGERS = frozenset(
    ["true", "false", "null", "values", "value", "in", "array", "[", "+", "-", ";"]
)
_PARAMETER_SIGNS = frozenset("%:@$")

LONGEST_SHAPED = 12288
"""Characters of masked text that are read."""

Shape: TypeAlias = "tuple[list[str], list[str], bool, bool]"
"""What is shown; the words; whether the statement goes on; whether it does so with more rows."""


def shape(text: str, names: list[str], dialect: Dialect, *, cut: bool = False) -> Shape:
    """Read a masked text into its words; ``cut`` says that it is only a beginning."""
    if "?," in text:
        text = _ALIKE_ROWS.sub(r"\1", _MANY.sub(r"\1", text))
    if "@" in text:
        text = _ACCOUNT.sub(_hide_account, text)
    if len(text) > LONGEST_SHAPED:
        text, cut = text[:LONGEST_SHAPED], True
    shown: list[str] = _SPLIT[dialect.hash == "word"].findall(text)
    joined = " ".join(shown).replace("  ", " ").lower()
    words = joined.split(" ")
    if cut and words[-1] != "?":
        del shown[-1:], words[-1:]  # it may be half a word
    while words and words[-1] == ";":
        del shown[-1], words[-1]
    if words and words[0] == ";":
        del shown[0], words[0]
    if not shown:
        return [], [], cut, False
    if names:
        _restore_names(shown, words, names, dialect)
        joined += " " + "".join(names).lower()
    if _may_hold_secrets(joined, words):
        shown, words = _hide_secrets(shown, words)
    if words[0] in _HANDLE_VERBS:
        _hide_handles(shown, words)
    if cut or not _TRIGGERS.isdisjoint(words) or _has_parameters(joined):
        return _collapse(shown, words, cut=cut)
    return shown, words, cut, False


def _has_parameters(joined: str) -> bool:
    return "%" in joined or ":" in joined or "@" in joined or "$" in joined


# Long statements are mostly values: these two take most of them away before anything is split.
_MANY = re.compile(r"(\?(?:, ?\?){63})(?:, ?\?)+")
_ALIKE_ROWS = re.compile(r"(\((?:\?, ?)*\?\))(?:, ?\1)+")


def _value_like(shown: str) -> str:
    """A value in the place of something, with the space before it."""
    return " ?" if shown[0] == " " else "?"


def _is_word(word: str) -> bool:
    """A keyword or a name, quoted or not."""
    return word[0].isalpha() or word[0] in _WORD_SIGNS


_WORD_SIGNS = frozenset('_"`[#')


# --- quoted names ---------------------------------------------------------------------------------


def _restore_names(shown: list[str], words: list[str], names: list[str], dialect: Dialect) -> None:
    """Put the quoted names back in their places, but for those that hold more than a name."""
    together = "".join(names)
    plain = len(together) <= _LONGEST_NAME and _is_name(together)
    texts = _texts_in_double_quotes(words, names) if dialect.double == "either" else ()
    remaining = iter(names)
    for index, word in enumerate(words):
        if word == NAME:
            name = next(remaining, "")
            if index in texts or not (plain or _is_name(name)):
                name = "?"
            words[index] = name
            shown[index] = " " + name if shown[index][0] == " " else name


def _is_name(quoted: str) -> bool:
    """Not an address, an account or a setting, and nothing that cannot be printed."""
    return (
        0 < len(quoted) <= _LONGEST_NAME
        and quoted.isprintable()
        and "=" not in quoted
        and "@" not in quoted
        and "://" not in quoted
    )


_BEFORE_TEXT = frozenset("=<>!|~+") | frozenset(
    ["like", "ilike", "glob", "regexp", "match", "comment", "location"]
)
_LIST_ENDS = frozenset(["select", "on", "returning", "from", "as", "where", "and", "or", ";"])


def _texts_in_double_quotes(words: list[str], names: list[str]) -> set[int]:
    """Where a system takes "…" for a name or for a text, the place decides.

    SQLite makes a text of a name that it does not know, SQL Server can be set to, and Athena's
    DDL is Hive's. Compared with, assigned or in a list of values it is a text, unless a dot makes
    it part of a longer name.
    """
    found: set[int] = set()
    remaining = iter(names)
    listed = False
    for index, word in enumerate(words):
        if word in ("values", "in"):
            listed = True
        elif word in _LIST_ENDS or (word == ")" and words[index + 1 : index + 2] != [","]):
            listed = False
        elif word == NAME and next(remaining, "")[:1] == '"':
            before = words[index - 1] if index else ""
            after = words[index + 1] if index + 1 < len(words) else ""
            if before != "." and after != "." and (listed or before in _BEFORE_TEXT):
                found.add(index)
    return found


# --- secrets that no quotes protect ---------------------------------------------------------------


def _may_hold_secrets(joined: str, words: list[str]) -> bool:
    """A quick look for any of the words below; most statements have none of them."""
    return (
        "pass" in joined
        or "key" in joined
        or "token" in joined
        or "secret" in joined
        or "pwd" in joined
        or "cred" in joined
        or "identified" in joined
        or words[0] == "connect"
        or not _ASSIGNED_SECRETS.isdisjoint(words)
    )


_SECRET = re.compile(
    r"\W?\w*(?:password|passwd|pwd|passphrase|passcode|secret|token|credentials?"
    r"|(?:access|secret|api|account|private|master|encryption|shared|auth)_?key(?:_?id)?)\d?\W?",
    re.IGNORECASE,
)
_ASSIGNED_SECRETS = frozenset(
    written
    for word in ("key", "sig", "signature", "sas", "auth", "bearer")
    for written in (word, f'"{word}"', f"`{word}`", f"[{word}]")
)
_ASSIGNMENT = frozenset("=:>")
_BETWEEN = frozenset(["to", "as", "by", "is", "values", "for", "("])
_READING = frozenset(
    [
        "select",
        "with",
        "insert",
        "update",
        "delete",
        "merge",
        "replace",
        "values",
        "explain",
        "from",
    ]
)
_TABLES = frozenset(["table", "view", "index"])  # CREATE TABLE and the like
# A column may be called "password"; these words go on after it.
_GOES_ON = frozenset(
    "from as desc asc nulls is in and or not like ilike between where when then else end on using"
    " order group having limit union join inner left right cross full default null cascade restrict"
    " text ntext tinytext mediumtext longtext clob varchar varchar2 nvarchar nvarchar2 char nchar"
    " character string bytea bytes binary varbinary blob raw uuid json jsonb variant integer int"
    " bigint boolean timestamp date set drop type to".split()
)
_FILLERS = 8  # words looked at between PASSWORD and what it is

# user:password@host and user/password@host without an address around it
_ACCOUNT = re.compile(rf"(?<![^\s(),;'?={NAME}])[^\s(),;'?={NAME}]+@[\w?][^\s(),;{NAME}]*")
_PASSWORD = re.compile(r"[\w?][:/][^:/=+*<>|&]+\Z")


def _hide_account(match: re.Match[str]) -> str:
    return "?" if _PASSWORD.search(match[0].rpartition("@")[0]) else match[0]


def _hide_secrets(shown: list[str], words: list[str]) -> tuple[list[str], list[str]]:
    """Hide what follows a word such as PASSWORD and is not in quotes.

    In a statement about rows or tables such a word is a column most of the time: what is hidden
    there are values and names it is compared with, not the keywords after it. In all others
    everything up to the next space goes.
    """
    if words[0] == "connect":
        return [shown[0], " ?"], ["connect", "?"]
    kept_shown: list[str] = []
    kept_words: list[str] = []
    rows = words[0] in _READING or not _TABLES.isdisjoint(words[1:6])
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        start = _secret_after(words, at, word, rows=rows)
        kept_shown += shown[at - 1 : start or at]
        kept_words += words[at - 1 : start or at]
        while start:
            at = _end_of_secret(shown, words, start, rows=rows)
            kept_shown.append(_value_like(shown[start]))
            kept_words.append("?")
            # SET PASSWORD FOR user = …: what was hidden was not it yet
            start = at + 1 if words[at : at + 1] == ["="] and at + 1 < len(words) else 0
            kept_shown += shown[at : start or at]
            kept_words += words[at : start or at]
    return kept_shown, kept_words


def _secret_after(words: list[str], at: int, word: str, *, rows: bool) -> int:
    """Where a secret starts behind ``word``, which stands before ``at``; 0 if there is none."""
    identified = word in ("by", "replace") and "identified" in words[max(0, at - 8) : at]
    direct = identified or _SECRET.fullmatch(word) is not None
    if not direct and word.lower() not in _ASSIGNED_SECRETS:
        return 0
    assigned = identified
    for start in range(at, min(at + _FILLERS, len(words))):
        found = words[start]
        if found in _ASSIGNMENT:
            assigned = True
            continue
        between = direct and (found in _BETWEEN or _SECRET.fullmatch(found))
        if not between or (rows and not assigned and found != "("):
            break
    else:
        return min(at + _FILLERS, len(words)) - 1 if assigned and at < len(words) else 0
    if not (direct or assigned) or found in (",", ")", ";", "."):
        return 0
    if rows:
        if found in _READING or (found in _GOES_ON and not assigned):
            return 0
        after = words[start + 1 : start + 3]
        if after[:1] == ["("]:  # a function of values, which are hidden already
            return 0
        if _SECRET.fullmatch(after[-1] if after[:1] == ["."] else found):
            return 0  # one such column compared with another
        if not assigned and found != "?" and not _is_word(found):
            return 0
    return start


def _end_of_secret(shown: list[str], words: list[str], start: int, *, rows: bool) -> int:
    """Behind everything that is glued to the secret, but for closing signs at its end."""
    end = start + 1
    while end < len(words) and shown[end][0] != " ":
        if rows and words[end] in _CLOSING:
            return end
        end += 1
    while end > start + 1 and words[end - 1] in _CLOSING:
        end -= 1
    return end


_CLOSING = frozenset(",);")


# --- names that are made up for each call ---------------------------------------------------------

_HANDLE_VERBS = frozenset(
    ["savepoint", "release", "rollback", "close", "deallocate", "fetch", "move", "declare"]
)
_NO_HANDLES = frozenset(
    "to savepoint work transaction tran and chain no next prior first last absolute relative"
    " forward backward all from in into count prepare prepared cursor".split()
)


def _hide_handles(shown: list[str], words: list[str]) -> None:
    """Savepoints and cursors are named anew each time: the name is no part of the shape."""
    if words[0] == "declare":
        last = 2 if "cursor" in words[2:8] else 0
    else:
        last = words.index(";") if ";" in words else len(words)
    for index in range(1, last):
        word = words[index]
        if word not in _NO_HANDLES and _is_word(word):
            words[index] = "?"
            shown[index] = _value_like(shown[index])


# --- values and lists of values -------------------------------------------------------------------

_OPEN, _CLOSE, _COMMA, _LIST, _ROWS, _TRUTH, _NULL, _SIGN, _END = range(1, 10)
_ROLES = {
    "(": _OPEN,
    "[": _OPEN,
    ")": _CLOSE,
    "]": _CLOSE,
    ",": _COMMA,
    "values": _ROWS,
    "value": _ROWS,
    "true": _TRUTH,
    "false": _TRUTH,
    "null": _NULL,
    "+": _SIGN,
    "-": _SIGN,
    ";": _END,
}
_OPERATORS = frozenset("=<>!|&~^+-*/%([{,:")
_BEFORE_VALUE = _OPERATORS | frozenset(
    "select where and or not when then else in between like limit offset by values return set on"
    " having case distinct all top interval returning".split()
)
_BEFORE_NULL = _BEFORE_VALUE - {"not", "set", "on"}  # NOT NULL, ON DELETE SET NULL, ON NULL INPUT


class _List:
    """A list being read: where its current element starts, and the elements it has had."""

    __slots__ = ("rows", "seen", "start")

    def __init__(self, start: int, *, rows: bool = False) -> None:
        self.start = start
        self.rows = rows
        self.seen: set[tuple[str, ...]] = set()


def _collapse(raws: list[str], all_words: list[str], *, cut: bool) -> Shape:
    """Give every value one spelling and leave one of each kind in a list of values."""
    shown: list[str] = []
    words: list[str] = []
    current: _List | None = None
    outer: list[_List | None] = []
    before = ""
    lead: str | None = None  # the space before a sign that was dropped
    for index, word in enumerate(all_words):
        raw = raws[index]
        if lead is not None:
            raw, lead = lead + raw.lstrip(), None
        role = _ROLES.get(word)
        value = False
        if role is None:
            if word[0] in _PARAMETER_SIGNS and _is_parameter(word):
                shown.append(raw)
                words.append("?")
                before = "?"
                continue
            if current is not None and current.rows and before in _ENDS_OF_ROW and _is_word(word):
                _end_element(shown, words, current)  # what follows the last row
                current = None
        elif role is _COMMA:
            if current is not None:
                _end_element(shown, words, current)
                current.start = len(words) + 1
        elif role is _OPEN:
            after = all_words[index + 1] if index + 1 < len(all_words) else ""
            outer.append(current)
            current = _List(len(words) + 1) if _opens_list(word, before, after) else None
        elif role is _CLOSE:
            if current is not None:
                _end_element(shown, words, current)
            current = outer.pop() if outer else None
        elif role is _TRUTH:
            value = before != "is" and not (before == "not" and words[-2:-1] == ["is"])
        elif role is _NULL:
            value = before in _BEFORE_NULL
        elif role is _SIGN:
            if before in _BEFORE_VALUE or not before:
                after = all_words[index + 1] if index + 1 < len(all_words) else ""
                if after == "?" or _is_parameter(after):
                    lead = raw[:-1]
                    continue
        elif role is _ROWS:
            if word == "values" or all_words[index + 1 : index + 2] == ["("]:
                current = _List(len(words) + 1, rows=True)
        elif current is not None and current.rows:
            _end_element(shown, words, current)
            current = None
        before = "?" if value else word
        shown.append(_value_like(raw) if value else raw)
        words.append(before)
    if cut:
        in_rows = _end_lists(shown, words, [*outer, current])
        return shown, words, True, in_rows
    if current is not None and current.rows:
        _end_element(shown, words, current)
    return shown, words, cut, False


def _is_parameter(word: str) -> bool:
    return word[:1] in _PARAMETER_SIGNS and len(word) > 1 and word[1] not in "@:"


def _opens_list(bracket: str, before: str, after: str) -> bool:
    """IN (…), ARRAY(…), ARRAY[…], and any […] that is not a subscript."""
    if bracket == "[":
        return not before or before in _BEFORE_VALUE or before in ("array", "unnest")
    return before in ("in", "array") and after not in ("select", "with", "values")


_ENDS_OF_ROW = frozenset([")", "?", "]"])


def _end_element(shown: list[str], words: list[str], current: _List) -> None:
    """Take the element that ends here away, with the comma before it, if it was there before."""
    element = tuple(words[current.start :])
    if element in current.seen:
        del words[current.start - 1 :]
        del shown[current.start - 1 :]
    else:
        current.seen.add(element)


def _end_lists(shown: list[str], words: list[str], lists: list[_List | None]) -> bool:
    """The text was cut: drop what is incomplete of the list it was cut in, and close that list.

    True if it was a list of rows.
    """
    for current in lists:
        if current is not None and current.seen:
            del words[current.start - 1 :]
            del shown[current.start - 1 :]
            if current.rows:
                return True
            words.append(")")
            shown.append(")")
            break
    return False
