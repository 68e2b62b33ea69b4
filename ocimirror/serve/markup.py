"""HTML that cannot be broken out of: every text is escaped unless it is Html already."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape

from ocimirror.shown import printable


class Html(str):
    """Text that is markup, made by the functions here only."""

    __slots__ = ()


Content = Html | str


def join(*parts: Content) -> Html:
    """Return parts one after the other; what is not Html is shown as it is written."""
    return Html("".join(p if isinstance(p, Html) else escape(printable(p)) for p in parts))


def element(name: str, /, *children: Content, **attributes: str | bool) -> Html:
    """Return an element.

    Args:
        name: from our own code, never from outside.
        attributes: a trailing underscore is left out, others become hyphens; False leaves one
            out, True gives it no value.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{escape(printable(value))}"')
        for key, value in attributes.items()
        if value is not False
    )
    if name in ("input", "meta", "br"):
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def table(columns: tuple[str, ...], rows: Sequence[tuple[Content, ...]], kinds: str = "") -> Html:
    """Return a table; on a narrow screen each row becomes a block with the columns' names.

    Args:
        kinds: one class a column, separated by spaces; `-` for none.
    """
    classes: list[str | bool] = [k if k != "-" else False for k in kinds.split()]
    classes += [False] * (len(columns) - len(classes))
    head = (
        element("th", title, scope="col", class_=c)
        for title, c in zip(columns, classes, strict=True)
    )
    body = (
        element(
            "tr",
            *(
                element("td", element("div", cell), class_=c, data_label=title)
                for title, c, cell in zip(columns, classes, row, strict=True)
            ),
        )
        for row in rows
    )
    return element("table", element("thead", element("tr", *head)), element("tbody", *body))


def code(text: str) -> Html:
    """Return text to copy: one click selects all of it."""
    return element("code", text, class_="copy")


STYLE = """
:root { color-scheme: light dark;
  --ink: #1b1f24; --soft: #5c6672; --line: #dfe3e8; --paper: #fff; --tint: #f5f7f9;
  --link: #0b57a4; --note: #8a4b00; --focus: #0b57a4; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e4e7eb; --soft: #98a2ae; --line: #2c333b; --paper: #14171b; --tint: #1c2127;
  --link: #7fb7f2; --note: #e8b266; --focus: #7fb7f2; } }
* { box-sizing: border-box; }
html { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  -webkit-text-size-adjust: 100%; }
body { margin: 0; color: var(--ink); background: var(--paper); }
header, main, footer { width: min(64rem, 100% - 3rem); margin: 0 auto; }
header { display: flex; flex-wrap: wrap; gap: .75rem 2rem; align-items: center;
  padding-top: 1.25rem; padding-bottom: 1.25rem; border-bottom: 1px solid var(--line); }
header .brand { font-weight: 650; letter-spacing: -.01em; color: inherit; }
header .brand small { font-weight: 400; font-size: .875rem; color: var(--soft);
  margin-left: .6rem; letter-spacing: 0; }
form { display: flex; gap: .5rem; margin: 0 0 0 auto; flex: 0 1 24rem; min-width: 0; }
input, button { font: inherit; color: inherit; border: 1px solid var(--line);
  border-radius: .4rem; padding: .4rem .75rem; background: var(--paper); min-width: 0; }
input { flex: 1; }
button { background: var(--tint); cursor: pointer; }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
main { padding-top: 2rem; padding-bottom: 3rem; }
footer { color: var(--soft); font-size: .8125rem; padding-top: 1rem; padding-bottom: 2rem;
  border-top: 1px solid var(--line); }
h1 { font-size: 1.625rem; line-height: 1.25; font-weight: 650; letter-spacing: -.015em;
  margin: 0 0 .5rem; overflow-wrap: anywhere; }
h1 .host, td .host { color: var(--soft); font-weight: 400; }
h2 { font-size: 1.0625rem; font-weight: 650; margin: 2.25rem 0 .5rem; }
p { margin: .35rem 0; max-width: 56rem; }
.soft { color: var(--soft); }
.note { color: var(--note); }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
code, pre { font: .8125rem/1.6 ui-monospace, "SF Mono", SFMono-Regular, Menlo, Consolas,
  "DejaVu Sans Mono", monospace; }
.copy { user-select: all; -webkit-user-select: all; overflow-wrap: anywhere; cursor: copy; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .3rem 1.5rem;
  margin: 1rem 0 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; margin: .75rem 0 0; }
th { text-align: left; font-weight: 500; font-size: .8125rem; color: var(--soft); }
th, td { padding: .5rem 1.25rem .5rem 0; border-bottom: 1px solid var(--line);
  vertical-align: baseline; }
th:last-child, td:last-child { padding-right: 0; }
td div { overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.tight { white-space: nowrap; }
.digest { width: 56%; max-width: 0; }
.digest div { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.commands { background: var(--tint); border: 1px solid var(--line); border-radius: .5rem;
  margin: .75rem 0 0; padding: .35rem 1rem; }
.commands dl { margin: 0; gap: 0 1.25rem; align-items: baseline; }
.commands dt, .commands dd { padding: .35rem 0; font-size: .875rem; }
.commands dd .soft { display: block; font-size: .8125rem; }
.pages { display: flex; gap: 1.5rem; margin: 1.25rem 0 0; color: var(--soft); }
details { margin-top: 1.25rem; }
summary { cursor: pointer; color: var(--soft); }
@media (max-width: 40rem) {
  header, main, footer { width: calc(100% - 2rem); }
  form { flex: 1 0 100%; margin: 0; }
  h1 { font-size: 1.375rem; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody, tr, td { display: block; width: 100%; max-width: none; }
  tr { padding: .75rem 0; border-bottom: 1px solid var(--line); }
  td { display: grid; grid-template-columns: 6.5rem minmax(0, 1fr); gap: .75rem; border: 0;
    align-items: baseline;
    padding: .15rem 0; text-align: left; white-space: normal; }
  td:has(> div:empty) { display: none; }
  td.number { text-align: left; }
  td.digest { width: 100%; max-width: none; }
  td::before { content: attr(data-label); color: var(--soft); font-size: .8125rem; }
  td:first-child { display: block; font-weight: 550; padding-bottom: .25rem; }
  td:first-child::before { content: none; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dt { font-size: .8125rem; margin-top: .5rem; }
  .commands dt { padding-bottom: 0; margin-top: .25rem; }
  .commands dd { padding-top: 0; }
}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def document(title: str, asked: str, *main: Content) -> bytes:
    """Return a whole page.

    Args:
        title: for the window.
        asked: what the search field holds.
    """
    brand = element(
        "a", "ocimirror", element("small", "read-only registry"), class_="brand", href="/"
    )
    search = element(
        "form",
        element(
            "input",
            type="search",
            name="q",
            value=asked,
            placeholder="Find an image or a tag",
            aria_label="Find an image or a tag",
            autocapitalize="off",
            autocomplete="off",
            spellcheck="false",
        ),
        element("button", "Find", type="submit"),
        method="get",
        action="/",
        role="search",
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(STYLE)),
    )
    body = element(
        "body",
        element("header", brand, search),
        element("main", *main),
        element("footer", "Digests are those of the original registries: nothing is changed here."),
    )
    return ("<!doctype html>\n" + element("html", head, body, lang="en")).encode()
