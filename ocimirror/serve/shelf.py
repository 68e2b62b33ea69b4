"""What is on offer: the layouts, as they were when they were last looked at."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from ocimirror.errors import (
    DamagedLayout,
    InvalidReference,
    LocalStorageError,
    NotFound,
    OciMirrorError,
)
from ocimirror.model.clash import find_clashes
from ocimirror.model.descriptor import Descriptor
from ocimirror.model.digest import Digest
from ocimirror.model.platform import Platform
from ocimirror.model.reference import (
    Reference,
    check_repository,
    is_attachment_tag,
    is_host,
    is_tag,
)
from ocimirror.stores.attached import cosign_saved, may_be_referrers_list
from ocimirror.stores.disk.files import Identity
from ocimirror.stores.entry import Entry
from ocimirror.stores.layout.directory import LayoutDirectory
from ocimirror.stores.layout.layoutfile import LAYOUT_FILE

logger = logging.getLogger(__name__)
MAX_DEPTH = 8
_MOST_DIRECTORIES = 100_000
_MOST_SAID = 20


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ServedLayout:
    """One layout as its index.json had it.

    Attributes:
        source: the directory, the same one in every version of it.
        called: the repository of entries that have a tag and name none; empty for none.
        version: which index.json it was.
        left_out: a sentence about each entry that cannot be read.
    """

    source: LayoutDirectory
    called: str
    version: Identity
    entries: tuple[Entry, ...]
    left_out: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The directory."""
        return self.source.path

    @property
    def current(self) -> bool:
        """Whether its index.json is still the same."""
        try:
            return self.source.version() == self.version
        except OciMirrorError:
            return False


@dataclass(eq=False)
class Repository:
    """One repository of one registry; `registry` is empty for tags that name none.

    Attributes:
        tags: the root of each tag, with the layout that has it, sorted by tag.
        layouts: those that hold it, in their order.
    """

    registry: str
    name: str
    tags: dict[str, tuple[ServedLayout, Descriptor]] = field(default_factory=dict)
    layouts: list[ServedLayout] = field(default_factory=list)

    @cached_property
    def versions(self) -> list[str]:
        """Tags of images, the highest version first, as people count: v10 above v9."""
        return sorted((t for t in self.tags if not is_attachment_tag(t)), key=counted, reverse=True)


def warn_of_new(lines: Sequence[str], known: Collection[str] = ()) -> None:
    """Log the lines that are not known yet: some of them, and how many more there are."""
    new = [line for line in lines if line not in known]
    for line in new[:_MOST_SAID]:
        logger.warning("%s", line)
    if len(new) > _MOST_SAID:
        logger.warning("and %d more of that kind", len(new) - _MOST_SAID)


def counted(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts texts with their numbers as numbers."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


class Snapshot:
    """All layouts at one moment; nothing in it changes.

    Where two layouts have a tag, the first one's is served.
    """

    def __init__(self, layouts: Sequence[ServedLayout]) -> None:
        self.layouts = tuple(layouts)
        self.conflicts: list[str] = []
        self.sparse: dict[str, tuple[Platform, ...]] = {}
        """What is held of images that are not whole, by their names."""
        found: dict[tuple[str, str], Repository] = {}
        media_types: dict[Digest, str] = {}
        for layout in layouts:
            self.conflicts += layout.left_out
            for entry in layout.entries:
                media_types.setdefault(entry.descriptor.digest, entry.descriptor.media_type)
                self._add(found, layout, entry)
            self._add_cosign_tags(found, layout)
        self.media_types: Mapping[Digest, str] = MappingProxyType(media_types)
        """What the layouts say of their roots."""
        for repository in found.values():
            repository.tags = dict(sorted(repository.tags.items()))
        self.repositories: Mapping[tuple[str, str], Repository] = MappingProxyType(found)
        """By (registry, name), in the order of the layouts."""
        by_name: dict[str, list[Repository]] = {}
        for repository in found.values():
            by_name.setdefault(repository.name, []).append(repository)
        self.by_name: Mapping[str, Sequence[Repository]] = MappingProxyType(by_name)
        self.clashes = find_clashes(found)
        hosts = dict.fromkeys(registry for registry, _ in found if registry)
        self.folders: Mapping[str, str] = {host.replace(":", "_"): host for host in hosts}
        """Hosts by their form in a path."""

    def _add(
        self, found: dict[tuple[str, str], Repository], layout: ServedLayout, entry: Entry
    ) -> None:
        listing = may_be_referrers_list(entry.tag, entry.descriptor)
        if listing and entry.reference() is None:
            return  # (a list of referrers, which the API has, is no image)
        reference = entry.reference() or _by_directory(layout, entry.tag)
        if reference is None:
            if entry.name:
                what = f"{layout.path}: {entry.name} says no repository, nor does its directory"
                self.conflicts.append(f"{what}; it is served by digest only")
            return
        key = reference.registry, reference.repository
        repository = found.setdefault(key, Repository(*key))
        if layout not in repository.layouts[-1:]:
            repository.layouts.append(layout)
        if reference.tag:
            kept = repository.tags.setdefault(reference.tag, (layout, entry.descriptor))
            if entry.platforms and kept[1] is entry.descriptor:
                self.sparse[str(reference)] = entry.platforms
            if kept[1].digest != entry.descriptor.digest:
                self.conflicts.append(
                    f"{reference} is {kept[1].digest} in {kept[0].path}, which is served, and"
                    f" {entry.descriptor.digest} in {layout.path}"
                )

    def _add_cosign_tags(
        self, found: dict[tuple[str, str], Repository], layout: ServedLayout
    ) -> None:
        """Give what `cosign save` wrote its tags, beside each name of its image."""
        saved = list(cosign_saved(layout.entries))
        held: dict[Digest, set[tuple[str, str]]] = {image: set() for image, _ in saved}
        for entry in layout.entries if saved else ():
            reference = entry.reference() or _by_directory(layout, entry.tag)
            if reference is not None and entry.descriptor.digest in held:
                held[entry.descriptor.digest].add((reference.registry, reference.repository))
        for image, (tag, descriptor) in saved:
            for repository in (found[key] for key in held[image] if key in found):
                repository.tags.setdefault(tag, (layout, descriptor))


class Shelf:
    """Layouts, and trees of layouts, that are looked at again when they may have changed.

    Args:
        paths: layout directories; one without an oci-layout file is searched for layouts below.

    Raises:
        NotFound: there is no such directory.
        DamagedLayout: a layout that was named cannot be read. (One in a tree is left out, with a
            warning.)
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = [os.path.abspath(path) for path in paths]
        self._kept: dict[str, ServedLayout] = {}
        self._refused: dict[str, Identity | None] = {}
        for path in self._paths:
            if not os.path.isdir(path):
                raise NotFound(f"there is no directory {path}")
            if _is_layout(path):
                self._kept[path] = _read(LayoutDirectory(path), os.path.basename(path))
        self.snapshot = Snapshot(())
        self.refresh()

    def refresh(self, force: bool = False) -> bool:
        """Look at every layout again; return whether something changed.

        Args:
            force: read them, also where their files look unchanged.

        `snapshot` is replaced as a whole. What is torn or damaged stays as it was served before,
        with one warning. Not to be called by two threads at once.
        """
        kept: dict[str, ServedLayout] = {}
        for path, called in self._found():
            if path not in kept:
                current = self._looked_at(path, called, force)
                if current is not None:
                    kept[path] = current
        layouts = [*kept.values()]
        changed = layouts != [*self.snapshot.layouts]
        self._kept = kept
        if changed:
            snapshot = Snapshot(layouts)
            warn_of_new(snapshot.conflicts, self.snapshot.conflicts)
            self.snapshot = snapshot
        return changed

    def _found(self) -> Iterator[tuple[str, str]]:
        """Yield (path, repository of bare tags) of each layout, also of one that was named once."""
        for path in self._paths:
            if path in self._kept or _is_layout(path):
                yield path, os.path.basename(path)
            else:
                yield from _below(path)

    def _looked_at(self, path: str, called: str, force: bool) -> ServedLayout | None:
        before = self._kept.get(path)
        source = before.source if before else LayoutDirectory(path)
        version: Identity | None = None
        try:
            version = source.version()
            if before is not None and version == before.version and not force:
                self._refused.pop(path, None)
                return before
            if version == self._refused.get(path) and not force:
                return before
            read = _read(source, called)
        except OciMirrorError as error:
            if path not in self._refused or self._refused[path] != version:
                kept = "what it held before is served" if before else "it is not served"
                logger.warning("%s; %s", error.message, kept)
            self._refused[path] = version
            return before
        self._refused.pop(path, None)
        return read


def _by_directory(layout: ServedLayout, tag: str) -> Reference | None:
    """Return what a tag without a repository is called: like the directory of its layout.

    A first directory that can only be a host (`registry.example.com`, `registry_5000`) is one.
    """
    first, _, rest = layout.called.partition("/")
    host = re.sub(r"_([0-9]{1,5})$", r":\1", first)
    try:
        if rest and is_host(host):
            return Reference.parse(f"{host}/{rest}:{tag}") if is_tag(tag) else None
        return Reference("", check_repository(layout.called), tag) if is_tag(tag) else None
    except InvalidReference:
        return None


def _is_layout(path: str) -> bool:
    return os.path.isfile(os.path.join(path, LAYOUT_FILE))


def _below(top: str) -> Iterator[tuple[str, str]]:
    """Yield the layouts below a directory, sorted; links are not followed."""
    for seen, (path, directories, files) in enumerate(os.walk(top)):
        inside = os.path.relpath(path, top)
        if LAYOUT_FILE in files:
            directories.clear()
            yield path, inside
        elif inside.count(os.sep) + 1 >= MAX_DEPTH or seen > _MOST_DIRECTORIES:
            directories.clear()
        else:
            directories.sort()


def _read(source: LayoutDirectory, called: str) -> ServedLayout:
    try:
        source.check()
        version = source.version()  # (before it is read: what changes now is seen later)
        index = source.read_index()
    except LocalStorageError as error:
        raise DamagedLayout(error.message) from error
    left_out = tuple(row.told for row in index.unreadable)
    return ServedLayout(source, called, version, index.entries, left_out)
