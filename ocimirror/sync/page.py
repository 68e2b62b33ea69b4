"""The report of a sync as one page for people: no scripts, nothing fetched, dark where they like.

(It is here, and not beside the report, because it is made with the markup of `serve`, which
escapes every text.)
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence

from ocimirror.copy.outcome import ImageResult
from ocimirror.model.codec import time_text
from ocimirror.model.digest import Digest
from ocimirror.model.failure import Failure
from ocimirror.model.readable import duration, size
from ocimirror.serve.markup import STYLE, Content, Html, element, join, table
from ocimirror.sync.report import STATUSES, Entry, Report, Totals, status_of

ROWS = 1000
SAME = 3
_FAILED = ("image or entry", "error", "why")
_WORST = {code: place for place, code in enumerate((5, 6, 8, 9, 3, 4))}
_MEANINGS = {
    0: "everything asked for is done",
    3: "some images are not done; trying again may help",
    4: "some images failed; trying again will not help",
    5: "an integrity violation was found: look at once",
    6: "refused by trust policy: look at once",
    8: "a local storage fault: free space",
    9: "a destination did not keep an image as it was",
}
_STYLE = (
    STYLE
    + """
:root { --bad: #b3261e; --good: #1a7f37; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #6cc786; } }
.bad { color: var(--bad); } .good { color: var(--good); }
.verdict { font-size: 1.0625rem; font-weight: 550; }
.facts { display: flex; flex-wrap: wrap; gap: .75rem 2.25rem; margin: 1.25rem 0 0; }
.facts div { display: flex; flex-direction: column; }
.facts b { font-size: 1.375rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.facts span { color: var(--soft); font-size: .8125rem; }
td .soft { font-size: .8125rem; }
td .way { display: block; } td .way.soft { font-weight: 400; }
time { white-space: nowrap; }
td code { display: inline-block; max-width: 11.5rem; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; vertical-align: bottom; user-select: all; -webkit-user-select: all; }
@media (min-width: 40.01rem) { td:has(.way) { min-width: 22rem; } }
"""
)
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def page(report: Report) -> str:
    """Return the page: what failed and why, tag moves, what changed, entries, what was left out.

    A table shows at most a thousand rows, and says how many more there are.
    """
    title = f"{_kind(report)} of {_when(report)}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content=f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'",
        ),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Html(_STYLE)),
    )
    what = "report of a dry run" if report.dry_run else "report of a sync"
    brand = element("span", "ocimirror", element("small", what), class_="brand")
    sections = (
        _summary(report),
        _failures(report),
        _moves(report),
        _gone(report),
        _clashes(report),
        _changes(report),
        _entries(report),
        _waiting(report),
        _attrition(report),
    )
    body = element(
        "body",
        element("header", brand),
        element("main", *sections),
        element("footer", "Digests are those of the sources: no byte of an image is changed."),
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en")


def _kind(report: Report) -> str:
    return "Dry run" if report.dry_run else "Sync"


def _when(report: Report) -> str:
    return time_text(report.started)[:16].replace("T", " ") + " UTC"


def _summary(report: Report) -> Html:
    totals = report.totals()
    code = report.exit_code
    verdict = f"{_MEANINGS.get(code, 'it did not end well')} (exit {code})"
    failed = sum(entry.error is not None for entry in report.entries)
    facts = [("entries failed", str(failed))] if failed else []
    facts += [("images", str(totals.images))]
    facts += [(s, str(totals.statuses[s])) for s in STATUSES if totals.statuses[s]]
    facts += [("bytes to copy" if report.dry_run else "bytes copied", size(totals.bytes_copied))]
    facts += [("in all", duration(report.seconds))] if report.ended else []
    return join(
        element("h1", f"{_kind(report)} of ", element("time", _when(report))),
        element("p", report.config, class_="soft") if report.config else "",
        element("p", verdict, class_="verdict bad" if code else "verdict good"),
        element(
            "div",
            *(element("div", element("b", told), element("span", name)) for name, told in facts),
            class_="facts",
        ),
    )


def _failures(report: Report) -> Html:
    """The worst first; of many of one kind in one entry, a few are shown and the others folded."""
    found = sorted(_failed(report), key=lambda one: _WORST.get(one[3].exit_code, len(_WORST)))
    kinds: dict[tuple[str, str], list[tuple[Content, ...]]] = {}
    for name, source, target, failure in found[:ROWS]:
        code = element("span", failure.code, class_="bad")
        row = _way(source, target), code, _reason(failure)
        kinds.setdefault((name, failure.code), []).append(row)
    shown = [row for rows in kinds.values() for row in rows[:SAME]]
    folded = [
        element(
            "details",
            element("summary", f"{len(rows) - SAME} more of {name}: {code}"),
            table(_FAILED, rows[SAME:], "- tight -"),
        )
        for (name, code), rows in kinds.items()
        if len(rows) > SAME
    ]
    section = _section("Failed", _FAILED, shown, len(shown), "- tight -")
    return join(section, *folded, _more(len(found)))


def _failed(report: Report) -> Iterator[tuple[str, str, str, Failure]]:
    for entry in report.entries:
        if entry.error is not None:
            yield entry.name, entry.source, "", entry.error
    for image in report.images:
        if image.error is not None:
            yield image.entry, image.source, image.destination, image.error


def _reason(failure: Failure) -> Html:
    advice = failure.diagnostics.partition("\n")[2]
    again = "trying again may help" if failure.retryable else "trying again will not help"
    notes = [again, *([f"at the {failure.side}"] if failure.side else [])]
    soft = f"{advice} " if advice else ""
    return join(failure.message, " ", element("span", f"{soft}({', '.join(notes)})", class_="soft"))


def _moves(report: Report) -> Html:
    found = list(report.moves)
    rows = [
        (_way(i.source, i.destination), _digest(i.previous), _digest(i.digest))
        for i in found[:ROWS]
    ]
    return _section("Tags that moved", ("image", "from", "to"), rows, len(found))


def _gone(report: Report) -> Html:
    rows = [(gone.source, _digest(gone.digest)) for gone in report.gone[:ROWS]]
    title = "Gone from the source; what was copied stays until it is pruned"
    return _section(title, ("image", "digest"), rows, len(report.gone))


def _clashes(report: Report) -> Html:
    found = report.clashes
    rows = [(clash.text(),) for clash in found[:ROWS]]
    return _section("Repositories of one path in several registries", ("clash",), rows, len(found))


def _changes(report: Report) -> Html:
    found = [i for i in report.images if i.status in ("copied", "planned") and not i.goes]
    rows: list[tuple[Content, ...]] = [
        (
            _way(image.source, image.destination),
            _digest(image.digest),
            size(image.bytes.total or image.bytes.copied),
            *(() if report.dry_run else _taken(image)),
        )
        for image in found[:ROWS]
    ]
    if report.dry_run:
        columns: tuple[str, ...] = ("image", "digest", "size")
        return _section("To be copied", columns, rows, len(found), "- - number")
    columns = ("image", "digest", "size", "copied", "attachments", "took")
    return _section("Copied", columns, rows, len(found), "- - number number number number")


def _taken(image: ImageResult) -> tuple[str, str, str]:
    """Return what it took: bytes, attachments, time."""
    return size(image.bytes.copied), str(image.referrers or ""), duration(image.seconds)


def _entries(report: Report) -> Html:
    totals = report.totals_by_entry()
    used = [s for s in STATUSES if any(counted.statuses[s] for counted in totals.values())]
    rows = [_entry(entry, totals[entry.name], used) for entry in report.entries[:ROWS]]
    columns = ("entry", "what came of it", *used, "bytes", "last success")
    kinds = "- tight " + "number " * (len(used) + 1) + "tight"
    return _section("Entries", columns, rows, len(report.entries), kinds)


def _entry(entry: Entry, totals: Totals, used: Iterable[str]) -> tuple[Content, ...]:
    status = status_of(entry, totals)
    return (
        entry.name,
        element("span", status, class_="bad" if status == "failed" else False),
        *(str(totals.statuses[name] or "") for name in used),
        size(totals.bytes_copied),
        time_text(entry.last_success) if entry.last_success else "never",
    )


def _waiting(report: Report) -> Html:
    deferred = [image for image in report.images if image.status == "deferred"]
    pruned = [image for image in report.images if image.goes]
    return join(
        _listed("Deferred: there was no time left", deferred),
        _listed("To be pruned" if report.dry_run else "Pruned: gone from the source", pruned),
    )


def _listed(title: str, found: Sequence[ImageResult]) -> Html:
    rows = [(_way(i.source, i.destination), _digest(i.digest or i.previous)) for i in found[:ROWS]]
    return _section(title, ("image", "digest"), rows, len(found))


def _attrition(report: Report) -> Html:
    if not report.attrition:
        return join()
    rows = [(d.source, d.filter, d.reason) for d in report.attrition[:ROWS]]
    count = len(report.attrition)
    return element(
        "details",
        element("summary", f"Tags that are not mirrored, and which filter says so: {count}"),
        table(("tag", "filter", "why"), rows, "- tight -"),
        _more(count),
    )


def _section(
    title: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[Content, ...]],
    count: int,
    kinds: str = "",
) -> Html:
    if not rows:
        return join()
    return join(element("h2", title), table(columns, rows, kinds), _more(count))


def _more(count: int) -> Html:
    if count <= ROWS:
        return join()
    return element("p", f"and {count - ROWS} more; --json has all of them", class_="soft")


def _way(source: str, target: str) -> Html:
    shown = element("span", source, class_="way")
    return (
        join(shown, element("span", f"→\N{NO-BREAK SPACE}{target}", class_="way soft"))
        if target
        else shown
    )


def _digest(digest: Digest | None) -> Html:
    if digest is None:
        return join()
    return element("code", str(digest), title=str(digest))
