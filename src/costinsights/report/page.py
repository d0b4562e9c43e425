"""Reports as a page of HTML that stands alone: one file, no script, nothing that is fetched."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from costinsights.report.layout import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from costinsights.report.render import Section

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #8884; text-align: left;
         overflow-wrap: anywhere; }
th { font-weight: 600; opacity: .7; }
.right { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.total td { font-weight: 600; border-top: 2px solid #8888; border-bottom: 0; }
footer { opacity: .7; font-size: .85rem; }
"""


def page(title: str, sections: Iterable[Section]) -> str:
    """Return a page with a table for each section; every text in it is shown and does nothing."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        # Whatever may be wrong with the escaping: a browser runs and fetches nothing here.
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_shown(title)}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{_shown(title)}</h1>",
    ]
    for section in sections:
        parts += _section(section)
    parts += ["</body>", "</html>"]
    return "\n".join(parts) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield f"<h2>{_shown(section.title)}</h2>"
    yield "<table>"
    heads = [_cell("th", column.name, right=column.right) for column in section.columns]
    yield f"<thead><tr>{''.join(heads)}</tr></thead>"
    yield "<tbody>"
    for number in range(len(section.columns[0].cells)):
        cells = [
            _cell("td", column.cells[number].text, right=column.right) for column in section.columns
        ]
        kind = ' class="total"' if number >= section.items else ""
        yield f"<tr{kind}>{''.join(cells)}</tr>"
    yield "</tbody>"
    yield "</table>"
    yield "<footer>"
    for line in section.footer:
        yield f"<div>{_shown(line)}</div>"
    yield "</footer>"


def _cell(tag: str, text: str, *, right: bool) -> str:
    kind = ' class="right"' if right else ""
    return f"<{tag}{kind}>{_shown(text)}</{tag}>"


def _shown(text: str) -> str:
    return escape(visible(text))
