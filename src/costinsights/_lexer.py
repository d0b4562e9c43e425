"""Where the literals are: the part of the statement reader that keeps secrets out.

One compiled regular expression a dialect walks over the text once and leaves no character
unaccounted for. What it takes for a literal becomes ``?``, a comment becomes a space, a quoted
name is set aside; what remains are words, signs and spaces.

It fails closed, which decides three questions:

* What has no end (a string, a comment, a dollar quote) ends with the text, and all of it is hidden.
* Where a backslash stands before a quote, servers disagree, by product and by setting. Both
  readings are tried. The one that is the system's own by default is used if it makes sense of the
  whole text and the other does not. Else everything from the first difference on is hidden.
* A system we do not know gets no benefit of the doubt: whatever two dialects read differently is
  hidden, and text in double quotes is a literal.

Dollar quotes are honoured everywhere, and backticks quote a name everywhere: where a dialect has
no such thing, the text would be in error, and nothing is shown that another dialect would hide.
"""

from __future__ import annotations

import re
from typing import NamedTuple

NAME = "\x01"
"""Stands for a quoted name in the masked text; it cannot come from the user's text."""

_END = "\x02"  # put behind the text: a token that swallows it has no end of its own
_COMMENT = "\n"  # stands for a comment among the pieces
_NESTED_LIMIT = 16  # comments within comments that are followed before the rest is hidden


class Dialect(NamedTuple):
    """What sets one system's lexical rules apart; the defaults are standard SQL."""

    escapes: bool = False  # a backslash escapes in '…'
    double: str = "name"  # "…" is a name, a text, or either, by its place
    brackets: bool = False  # [name]
    hash: str = "sign"  # '#' is a sign, part of a word, or starts a comment
    slashes: bool = False  # '//' starts a comment
    nested: bool = False  # /* /* */ */
    spaced_dashes: bool = False  # '--' is a comment only before a space
    executable: bool = False  # /*! is code */
    carriage: bool = False  # a carriage return ends a line comment
    e_strings: bool = False  # E'…' has escapes
    raw_strings: bool = False  # r'…' has none
    q_strings: bool = False  # q'[…]'
    triple: bool = False  # '''…'''
    money: bool = False  # $12.50 is a number
    known: bool = True


_POSTGRES = Dialect(nested=True, carriage=True, e_strings=True)
_MYSQL = Dialect(escapes=True, double="text", hash="comment", spaced_dashes=True, executable=True)
_SPARK = Dialect(escapes=True, double="text", nested=True, raw_strings=True)
_TRINO = Dialect()
_TSQL = Dialect(double="either", brackets=True, hash="word", nested=True, money=True)
_ORACLE = Dialect(hash="word", q_strings=True)
_BIGQUERY = Dialect(escapes=True, double="text", hash="comment", triple=True)

UNKNOWN = Dialect(
    double="text",
    hash="comment",
    slashes=True,
    nested=True,
    executable=True,
    e_strings=True,
    money=True,
    known=False,
)

DIALECTS: dict[str, Dialect] = {
    "aws.athena": Dialect(double="either"),  # its DDL is Hive's, where "…" is a text
    "aws.redshift": _POSTGRES._replace(escapes=True),
    "azure.sql": _TSQL,
    "azure.synapse": _TSQL,
    "databricks": _SPARK,
    "dremio": Dialect(slashes=True),
    "duckdb": _POSTGRES,
    "gcp.bigquery": _BIGQUERY,
    "mariadb": _MYSQL,
    "microsoft.sql_server": _TSQL,
    "mysql": _MYSQL,
    "oracle": _ORACLE,
    "oracle.db": _ORACLE,
    "postgresql": _POSTGRES,
    "presto": _TRINO,
    "snowflake": Dialect(escapes=True, slashes=True),
    "spark": _SPARK,
    "sqlite": Dialect(double="either", brackets=True),  # an unknown "name" is a text there
    "trino": _TRINO,
}


class _Reading(NamedTuple):
    pieces: list[str]  # two a match: plain text, and what stands for the thing that ended it
    names: list[str]
    comments: list[str]
    whole: bool  # nothing was left open at the end of the text; only known beside ends


_PATTERNS: dict[tuple[Dialect, bool], re.Pattern[str]] = {}

# Typographic quotes come from pasted text. No system takes them for quotes, but people do.
_PASTED = "\u2018-\u201f\u00ab\u00bb\u2039\u203a\u00b4\uff02\uff07"
_FREE = r"(?<![\w$])"  # not glued to a word


def _string(quote: str, *, escapes: bool) -> str:
    """A quoted run in which the quote may be doubled; without an end it runs to the end."""
    if escapes:
        body = rf"[^{quote}\\]*(?:(?:\\.|{quote}{quote})[^{quote}\\]*)*"
    else:
        body = rf"[^{quote}]*(?:{quote}{quote}[^{quote}]*)*"
    return rf"{quote}{body}(?:{quote}|\Z)"


def _tripled(quote: str) -> str:
    body = rf"[^{quote}\\]*(?:(?:\\.|{quote}(?!{quote}{quote}))[^{quote}\\]*)*"
    return rf"{quote * 3}{body}(?:{quote * 3}|\Z)"


def _literals(dialect: Dialect, *, escapes: bool) -> str:
    text = _string("'", escapes=escapes)
    if dialect.double == "text":
        text = f"(?:{text}|{_string(chr(34), escapes=escapes)})"
    q_quote = rf"(?:(?<={_FREE}[qQ])|(?<={_FREE}[nN][qQ]))'"
    found = [r"0[xX][0-9a-fA-F_]+\w*|[0-9](?:[eE][+-](?=[0-9])|[\w.])*"]
    if not dialect.known:
        # '''…''' and q'[…]' end elsewhere in other dialects, and [it's] is a name in some.
        found += ["'''.*", '""".*', q_quote + ".*"]
        found += [r"""\[[^\[\]'"]*['"][^\]'"]*\].*""", r"\[[^\[\]]*\Z"]
        # '--x', '#' and '//' are comments to some: what else the line holds then matters.
        # To some, a carriage return ends a comment.
        found += [r"""(?:--(?!\s)|\#|//)[^\n]*['"`$\r/].*""", r"--[^\r\n]*\r(?!\n).*"]
    if dialect.triple:
        found += [_tripled("'"), _tripled('"')]
    if dialect.e_strings:
        escaped = _string("'", escapes=True)
        found.append(rf"(?<={_FREE}[eE]){escaped}(?:\s+{escaped})*")
    if dialect.raw_strings:
        found += [rf"(?<={_FREE}[rR]){quote}[^{quote}]*(?:{quote}|\Z)" for quote in "'\""]
    if dialect.q_strings:
        pairs = "|".join(rf"\{a}.*?(?:\{b}'|\Z)" for a, b in ("[]", "()", "{}", "<>"))
        found.append(rf"{q_quote}(?:{pairs}|(?P<mark>\S).*?(?:(?P=mark)'|\Z))")
    else:
        found.append("(?P<mark>(?!))")  # so that the groups are the same ones everywhere
    found.append(rf"{text}(?:\s+{text})*")  # strings side by side are one string
    found.append(rf"{_FREE}(?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?:(?P=tag)|\Z)")
    if dialect.money:
        found.append(rf"{_FREE}\$[0-9]+(?:,[0-9]{{3}})*(?:\.[0-9]*)?")
    if not dialect.slashes:
        found.append(rf"(?<=:)//[^\s{_END}]*")  # an address that was never quoted
    found.append(rf"[{_PASTED}][^{_PASTED}]*[{_PASTED}]?")
    return "|".join(found)


def _comments(dialect: Dialect) -> str:
    line = r"[^\r\n]*" if dialect.carriage else r"[^\n]*"
    found = [(r"--(?=[\s\x00-\x1f]|\Z)" if dialect.spaced_dashes else "--") + line]
    if dialect.hash == "comment":
        found.append(r"\#" + line)
    if dialect.slashes:
        found.append("//" + line)
    if dialect.nested:
        # To its end; or, where another comment opens in it, with everything that follows.
        inner = r"[^*/]*(?:(?:\*(?!/)|/(?!\*))[^*/]*)*"
        found.append(rf"/\*{inner}(?:\*/|(?=/\*).*|\Z)")
    else:
        found.append(r"/\*[^*]*(?:\*(?!/)[^*]*)*(?:\*/|\Z)")
    return "|".join(found)


def _compile(dialect: Dialect, *, escapes: bool) -> re.Pattern[str]:
    """The one regular expression of a dialect under one reading of backslashes.

    Its groups: plain text, literal (with two helpers inside), quoted name, comment, other sign.
    An alternative that has begun ends at the latest with the text, so that nothing is tried
    twice and time grows with the length of the text, no faster.
    """
    special = rf"'\"`0-9$/\-\x00-\x08\x0e-\x1f\x7f\ud800-\udfff{_PASTED}"
    names = [_string("`", escapes=False)]
    if dialect.double != "text":
        names.append(_string('"', escapes=escapes and dialect.double == "either"))
    if dialect.brackets:
        names.append(r"\[[^\]]*(?:\]\][^\]]*)*(?:\]|\Z)")
    if dialect.brackets or not dialect.known:
        special += r"\["
    if dialect.hash == "comment":
        special += r"\#"
    pattern = re.compile(
        rf"([^{special}]*(?:(?<=[\w$])[0-9]+[^{special}]*)*)"
        rf"(?:({_literals(dialect, escapes=escapes)})"
        rf"|({'|'.join(names)})"
        rf"|({_comments(dialect)})"
        r"|(\$[\w$]*|[-/#\[])"
        r"|[\s\S]|\Z)",
        re.DOTALL,
    )
    _PATTERNS[dialect, escapes] = pattern
    return pattern


# What may be glued to the opening quote of a string and belongs to it.
_PREFIX = re.compile(r"(?<![\w$])(?:[eEnNxXbBrR]|[rR][bB]|[bB][rR]|[nN]?[qQ]|[uU]&|_\w+)\Z")
_FOREIGN = re.compile(r"[^\x00-\x7f\w]+")
_FOREIGN_NUMBER = re.compile(r"(?<!\w)(?![0-9])\d\w*")
_NUMBERED = re.compile(rf"(?<![\w{NAME}?)\]])[.:@]\?")  # '.5', and the parameters ':1' and '@1'
_EDGE = re.compile(r"/\*|\*/")


def mask(text: str, dialect: Dialect, *, cut: bool = False) -> tuple[str, list[str], list[str]]:
    """Hide every literal of the text; ``cut`` says that the text went on beyond its end.

    Returns the masked text (single spaces, ``?`` for a literal, NAME for each quoted name), the
    quoted names in order, with their quotes, and the comments in order, with their signs.
    """
    text += _END
    ends: list[int] | None = [] if "\\'" in text or '\\"' in text else None
    reading = _read(text, dialect, dialect.escapes, ends)
    if ends is not None:
        reading = _weigh(text, dialect, reading, ends, cut=cut)
    masked = "".join(reading.pieces)
    if not masked.isascii():
        masked = _FOREIGN_NUMBER.sub("?", _FOREIGN.sub(" ", masked))
    if "  " in masked or not masked.isprintable():
        masked = " ".join(masked.split())
    else:
        masked = masked.strip()
    if ".?" in masked or ":?" in masked or "@?" in masked:
        masked = _NUMBERED.sub("?", masked)
    if "??" in masked:
        masked = re.sub(r"\?+", "?", masked)  # the parameter '?1'
    return masked, reading.names, [comment.rstrip(_END) for comment in reading.comments]


def _weigh(text: str, dialect: Dialect, own: _Reading, ends: list[int], *, cut: bool) -> _Reading:
    """Choose between the two readings of a backslash before a quote."""
    other_ends: list[int] = []
    other = _read(text, dialect, not dialect.escapes, other_ends)
    if ends == other_ends:
        return own
    sure = dialect.known and _holds(own, cut=cut) and not _holds(other, cut=cut)
    pairs = enumerate(zip(ends, other_ends, strict=False))
    agreed = next((at for at, (one, two) in pairs if one != two), None)
    if sure or agreed is None:
        return own
    pieces = own.pieces[: 2 * agreed + 1]
    names = own.names[: pieces[1::2].count(NAME)]
    comments = own.comments[: pieces[1::2].count(_COMMENT)]
    return _Reading([*pieces, "?"], names, comments, whole=False)


def _holds(reading: _Reading, *, cut: bool) -> bool:
    """What was opened was closed (as far as can be seen), and no backslash stands alone."""
    return (cut or reading.whole) and not any("\\" in piece for piece in reading.pieces)


def _read(text: str, dialect: Dialect, escapes: bool, ends: list[int] | None) -> _Reading:
    """Walk over the text once. ``ends`` takes the place of each match, to compare readings by."""
    pattern = _PATTERNS.get((dialect, escapes)) or _compile(dialect, escapes=escapes)
    pieces: list[str] = []
    names: list[str] = []
    comments: list[str] = []
    add = pieces.append
    matches: list[tuple[str, ...]] = []
    for _ in range(_NESTED_LIMIT):
        matches = pattern.findall(text)
        if ends is not None:
            ends.extend(match.end() - len(text) for match in pattern.finditer(text))
        rest: str | None = None
        for plain, literal, _mark, _tag, name, comment, kept in matches:
            if literal:
                add(_PREFIX.sub("", plain) if plain and plain[-1] not in " (,=" else plain)
                add("?")
            elif name:
                add(plain)
                add(NAME)
                names.append(name)
            elif comment:
                add(plain)
                if comment.startswith("/*"):
                    if _doubtful(comment, dialect):
                        add("?")
                        return _Reading(pieces, names, comments, whole=False)
                    rest = _beyond(comment, dialect)
                add(_COMMENT)
                comments.append(comment[: -len(rest)] if rest else comment)
            else:
                add(plain)
                add(kept or " ")
        if not rest:
            whole = ends is None or not any(map(_open, matches[-2:]))
            return _Reading(pieces, names, comments, whole)
        text = rest
    add("")
    add("?")
    return _Reading(pieces, names, comments, whole=False)


def _doubtful(comment: str, dialect: Dialect) -> bool:
    """Whether servers would disagree on where this comment ends."""
    if not dialect.known and "/*" in comment[2:]:
        return True
    # MySQL runs what is in '/*! … */': a quote in it may hide the closing sign.
    code = dialect.executable and comment.startswith(("/*!", "/*M!"))
    return code and any(sign in comment for sign in "'\"`\\#-")


def _beyond(comment: str, dialect: Dialect) -> str | None:
    """What follows a comment that has others inside, where comments nest."""
    if not dialect.nested or "/*" not in comment[2:]:
        return None
    depth = 0
    for edge in _EDGE.finditer(comment):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return comment[edge.end() :]
    return None


def _open(match: tuple[str, ...]) -> bool:
    """Whether the last thing in the text swallowed the sign behind it."""
    _plain, literal, _mark, _tag, name, comment, _kept = match
    block = comment if comment.startswith("/*") else ""
    return literal.endswith(_END) or name.endswith(_END) or block.endswith(_END)
