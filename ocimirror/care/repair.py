"""repair: what is damaged or missing in a layout is fetched again, and its index mended."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ocimirror.care.verify import check
from ocimirror.copy.naming import name_in_a_layout
from ocimirror.copy.outcome import Options, Outcome, Reporter, Request, Silent
from ocimirror.copy.pipeline import copy
from ocimirror.copy.places import Places, parse_location
from ocimirror.copy.push import parse_target, pushed
from ocimirror.errors import (
    DamagedLayout,
    IntegrityError,
    NotFound,
    OciMirrorError,
    RemoteError,
    Unsupported,
    UsageError,
)
from ocimirror.fault import Fault
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest, digest_or_none
from ocimirror.model.graph import Seen, attestation_of
from ocimirror.model.manifest import MAX_SIZE_BYTES
from ocimirror.model.mediatype import OCTET_STREAM
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Location, Reference
from ocimirror.stores.bydigest import proven
from ocimirror.stores.entry import Entry
from ocimirror.stores.layout.exclusive import Mended, Mending
from ocimirror.stores.layout.index import LayoutIndex
from ocimirror.stores.layout.layout import Layout
from ocimirror.stores.layout.layoutfile import mend_layout_file
from ocimirror.stores.layout.mending import Names, with_described
from ocimirror.stores.layout.referrerslist import remade
from ocimirror.stores.layout.writable import was_damaged
from ocimirror.stores.reach import ignore, reach
from ocimirror.stores.store import Source


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was done, and what is left to do; a dry run leaves all of it.

    Attributes:
        index: what came of index.json.
        outcomes: of the images that were fetched again.
        faults: those that are left.
        unnamed: images that have no name since index.json was damaged.
        dropped: entries that stood for nothing that is there, and are gone from index.json.
    """

    index: Mended
    outcomes: list[Outcome]
    faults: list[Fault]
    unnamed: list[Digest] = field(default_factory=list)
    dropped: Sequence[str] = ()


def repair(
    path: str,
    origin: str,
    places: Places,
    options: Options,
    reporter: Reporter | None = None,
    *,
    rebuild_index: bool = False,
    known: Iterable[tuple[Reference, Descriptor]] = (),
) -> Repaired:
    """Verify a layout and copy each image that has faults again, by digest; names stay.

    Args:
        path: the layout's directory.
        origin: a layout, an archive, or `docker://HOST[/PREFIX]` where repositories are called as
            `push` calls them; empty: the registry that each image's name says.
        places: the stores of this run.
        options: how to copy. Everything is hashed, and nothing is added: no referrers.
        reporter: told of each image.
        rebuild_index: add what no entry reaches, also if index.json is valid.
        known: what images are called at their sources, as a lock file knows it, with the platforms
            that were asked for.

    Raises:
        DamagedLayout: index.json is damaged and was not mended.
        UsageError: `origin` is no place to fetch from.
        Interrupted: stopped; what was fetched until then stays.
    """
    options = replace(options, deep=True, referrers=False, allow_foreign=True)
    origins = _Origins(path, origin, places)
    names = origins.names()
    for reference, root in known:
        name = name_in_a_layout(reference.readable())
        names.setdefault(root.digest, []).append((name, root))
    mending = _mend_index(path, places, names, rebuild_index, dry_run=options.dry_run)
    location = Location("oci", path)
    destination = places.present_layout(path, dry_run=options.dry_run)
    whole = partial(places.source, location)
    faults = _check(whole(), options)
    described = not options.dry_run and _describe(destination, faults)
    if described:
        faults = _check(whole(), options)
    if not options.dry_run and _remake_lists(destination, faults):
        faults = _check(whole(), options)
    outcomes: list[Outcome] = []
    requests: list[Request] = []
    for entry in _with_faults(destination, faults, options.stop):
        request = _request(entry, destination, origins)
        if request.source is destination:
            outcomes.append(_failed(request, reporter or Silent()))
        else:
            requests.append(request)
    outcomes += copy(requests, options, reporter)
    if requests and not options.dry_run:
        faults = _check(whole(), options)
    unnamed = _unnamed(destination) if was_damaged(path) else []
    if was_damaged(path):
        faults = [*faults, *_lost(destination, options.stop)]
    index = "rebuilt" if described else mending.index
    return Repaired(index, outcomes, faults, unnamed, mending.dropped)


def _check(source: Source, options: Options) -> list[Fault]:
    return check(source[""], jobs=options.jobs, stop=options.stop).faults


def _mend_index(
    path: str, places: Places, names: Names, rebuild: bool, *, dry_run: bool
) -> Mending:
    if not dry_run:
        places.remember(path)
        mend_layout_file(path)
    with Layout(path, wait=places.wait) as layout:
        try:
            known = layout.index()
        except DamagedLayout:
            if dry_run:
                raise
        else:
            may_name = bool(names) and was_damaged(layout.path)
            if dry_run or not (rebuild or known.unreadable or may_name):
                return Mending("kept")
    with places.exclusive_layout(path) as exclusive:
        return exclusive.mend_index(names, rebuild=rebuild)


def _unnamed(layout: Layout) -> list[Digest]:
    """Return the roots without a name; what is about another image needs none."""
    entries = layout.entries()
    named = {entry.descriptor.digest for entry in entries if entry.name}
    found = dict.fromkeys(
        entry.descriptor.digest
        for entry in entries
        if entry.descriptor.digest not in named and not _has_subject(layout, entry)
    )
    return sorted(found)


def _lost(layout: Layout, stop: threading.Event | None) -> list[Fault]:
    """Return the damaged files that no entry reaches, and that may have been manifests."""
    seen: set[Seen] = set()
    reached: set[str] = set()
    for entry in layout.entries():
        for manifest in reach(layout, entry.descriptor, seen, ignore, stop):
            reached |= {str(each.digest) for each in (manifest.descriptor, *manifest.blobs)}
    reached |= {str(digest) for digest, *_ in seen}
    faults = []
    for path, text in layout.blob_files():
        digest = digest_or_none(text)
        size = layout.size_of(digest) if digest and text not in reached else None
        if digest is None or size is None or size > MAX_SIZE_BYTES or not digest.verifiable:
            continue
        try:
            with layout.fetch(Descriptor(OCTET_STREAM, digest, size)) as stream:
                stream.read_all(MAX_SIZE_BYTES)
        except IntegrityError as error:
            message = f"{error.message}; it may have been an image"
            faults.append(Fault("corrupt", text, path, "", message, 5))
    return faults


def _has_subject(layout: Layout, entry: Entry) -> bool:
    try:
        return layout.read_manifest(entry.descriptor).subject is not None
    except (IntegrityError, NotFound, Unsupported):
        return False


def _describe(layout: Layout, faults: Sequence[Fault]) -> bool:
    """Correct entries whose media type or size is not that of their content. Whether any was."""
    faulty = {fault.digest for fault in faults if fault.kind not in ("stray", "missing")}

    def edit(current: LayoutIndex) -> tuple[bytes | None, bool]:
        right: dict[Digest, Descriptor] = {}
        for entry in current.entries:
            digest = entry.descriptor.digest
            if str(digest) in faulty and digest not in right:
                manifest = proven(layout, digest, layout.size_of(digest))
                if manifest is not None:
                    right[digest] = manifest.descriptor
        return with_described(current, right) if right else None, bool(right)

    return bool(faulty) and layout.edit_index(edit)


def _remake_lists(layout: Layout, faults: Sequence[Fault]) -> bool:
    """Make lists of referrers that are damaged anew: nobody else has them. Whether there were."""
    damaged = {fault.digest for fault in faults if fault.kind != "stray"}

    def edit(current: LayoutIndex) -> tuple[bytes | None, bool]:
        lists = remade(layout, damaged)
        new = current.with_names(layout.store_lists(lists)) if lists else None
        return new, bool(lists)

    return bool(damaged) and layout.edit_index(edit)


def _with_faults(
    layout: Layout, faults: Sequence[Fault], stop: threading.Event | None
) -> list[Entry]:
    """Return the entries that lead to content with a fault."""
    faulty = {fault.digest for fault in faults if fault.kind != "stray"}
    if not faulty:
        return []
    entries = layout.entries()
    seen: set[Seen] = set()
    above: dict[Seen | Digest, list[Seen]] = {}  # (who names a manifest, or a blob)
    not_read: set[Seen] = set()
    for entry in entries:

        def failed(error: OciMirrorError, named: Descriptor, entry: Entry = entry) -> None:
            not_read.add((named.digest, named.size, entry.platforms))
            ignore(error, named)

        for manifest in reach(layout, entry.descriptor, seen, failed, stop):
            parent = manifest.digest, manifest.descriptor.size, entry.platforms
            for blob in manifest.blobs:
                above.setdefault(blob.digest, []).append(parent)
            for child in manifest.manifests:
                above.setdefault((child.digest, child.size, entry.platforms), []).append(parent)
    led = {key for key in seen | not_read if str(key[0]) in faulty}
    unread: list[Seen | Digest] = [*led]
    unread += [key for key in above if isinstance(key, Digest) and str(key) in faulty]
    while unread:
        new = [key for key in above.pop(unread.pop(), ()) if key not in led]
        led.update(new)
        unread += new
    roots = ((entry, entry.descriptor) for entry in entries)
    return [entry for entry, root in roots if (root.digest, root.size, entry.platforms) in led]


def _request(entry: Entry, layout: Layout, origins: _Origins) -> Request:
    """Return what to copy; from the layout itself where nobody knows the place to copy from."""
    digest = entry.descriptor.digest
    source, shown = origins.of(entry, layout) or (layout, "")
    into = Location("oci", layout.path, entry.name, None if entry.name else digest)
    return Request(
        source, str(digest), layout, "", shown or str(into), str(into), _held(layout, entry)
    )


def _held(layout: Layout, entry: Entry) -> tuple[Platform, ...]:
    """Return a sparse image's platforms, with those that other images brought."""
    if not entry.platforms:
        return ()
    try:
        children = layout.read_manifest(entry.descriptor).manifests
    except (IntegrityError, NotFound):
        return entry.platforms
    present = [
        child.platform
        for child in children
        if child.platform and attestation_of(child) is None and layout.exists(child)
    ]
    return tuple(dict.fromkeys((*entry.platforms, *present)))


def _failed(request: Request, reporter: Reporter) -> Outcome:
    error = NotFound(
        f"{request.shown_destination}: its name does not say which registry it came from",
        advice="Name a place that has it: --from LAYOUT, ARCHIVE or docker://HOST[/PREFIX].",
    )
    outcome = Outcome(request, error=error)
    reporter.finished(outcome)
    return outcome


class _Origins:
    """Where to fetch the content of an entry: one place for all, or the registry of its name."""

    def __init__(self, path: str, text: str, places: Places) -> None:
        self._places = places
        self._registry: tuple[str, str] | None = None
        self._place: tuple[Source, Location] | None = None
        self._known: list[Reference] | None = None
        if text.startswith("docker://"):
            self._registry = parse_target(text.removeprefix("docker://").rstrip("/"))
        elif text:
            location = parse_location(text)
            if location.read_name:
                raise UsageError(f"--from {location}: a whole layout or archive, without a NAME")
            if location.scheme == "oci" and Path(location.path).resolve() == Path(path).resolve():
                raise UsageError(f"--from {location} is the layout that is to be repaired")
            self._place = places.source(location), location

    def names(self) -> dict[Digest, list[tuple[str, Descriptor]]]:
        """Return what a layout or archive calls its images."""
        names: dict[Digest, list[tuple[str, Descriptor]]] = {}
        if self._place is not None:
            for entry in self._place[0].entries():
                if entry.name:
                    found = names.setdefault(entry.descriptor.digest, [])
                    found.append((entry.name, entry.descriptor))
        return names

    def of(self, entry: Entry, layout: Layout) -> tuple[Source, str] | None:
        """Return a source that may have an entry's root, and how the root is called there.

        What has no name is looked for in every repository that the layout knows.
        """
        digest = entry.descriptor.digest
        if self._place is not None:
            source, location = self._place
            return source, str(replace(location, digest=digest))
        named = entry.reference()
        known = [named] if named else self._repositories(layout)
        found = dict.fromkeys(
            replace(place, digest=digest) for reference in known for place in self._at(reference)
        )
        candidates = list(found if named else {replace(place, tag=""): None for place in found})
        if not candidates:
            return None
        *others, reference = candidates
        reference = next((other for other in others if self._has(other)), reference)
        return self._places.repository(reference), str(Location("docker", reference=reference))

    def _repositories(self, layout: Layout) -> list[Reference]:
        """Return each repository of a layout's names once."""
        if self._known is None:
            names = [named for e in layout.entries() if (named := e.reference())]
            self._known = list(dict.fromkeys(replace(n, tag="", digest=None) for n in names))
        return self._known

    def _at(self, reference: Reference) -> list[Reference]:
        if self._registry is None:
            return [reference]
        return [pushed(reference, *self._registry, keep_host=keep) for keep in (False, True)]

    def _has(self, reference: Reference) -> bool:
        try:
            self._places.repository(reference).resolve(str(reference.digest))
        except RemoteError:
            return False
        return True
