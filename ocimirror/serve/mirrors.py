"""Where engines find images by their original names, and what is there: the values of `hosts`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ocimirror.copy.places import Places
from ocimirror.copy.push import parse_target
from ocimirror.errors import UsageError
from ocimirror.model.clash import Clash, find_clashes
from ocimirror.model.platform import Platform
from ocimirror.model.reference import Reference, check_registry
from ocimirror.stores.entry import platforms_of
from ocimirror.stores.layout.partial import held


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where engines are to look.

    Attributes:
        scheme: `https` or `http`.
        host: with its port.
        prefix: a path that all repositories there are below; empty for none.
        keep_host: repositories there begin with the source host, as `push --keep-host` makes them.
        ca_file: on the engine's machine, the certificate authority that signed the mirror's
            certificate; empty where the system trusts it.
    """

    scheme: str
    host: str
    prefix: str = ""
    keep_host: bool = False
    ca_file: str = ""

    @property
    def url(self) -> str:
        """Scheme and host."""
        return f"{self.scheme}://{self.host}"

    def path_for(self, registry: str) -> str:
        """Return what a registry's repositories are below; empty where names are the same."""
        parts = [self.prefix, registry.replace(":", "_") if self.keep_host else ""]
        return "/".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the settings are to do.

    Attributes:
        registries: those whose images are looked for at the mirror; empty for every registry,
            where the engine can be told so.
        fallback: ask the registry itself for what the mirror does not give.
        digest_only: ask the mirror by digest only, and the registry itself what a tag stands for.
        host_in_path: engines that do not tell the mirror which registry they mean ask it for
            HOST/REPOSITORY.
    """

    registries: tuple[str, ...]
    fallback: bool = False
    digest_only: bool = False
    host_in_path: bool = False

    @property
    def asks_registry(self) -> bool:
        """Whether the registry itself is asked for anything."""
        return self.fallback or self.digest_only


@dataclass(frozen=True, slots=True)
class Contents:
    """What a mirror holds.

    Attributes:
        registries: whose images, sorted.
        clashes: repositories of one path in several registries.
        sparse: the platforms that are held of images that are not whole, by their names.
        unreadable: why entries of an index.json cannot be read; they are left out.
    """

    registries: tuple[str, ...] = ()
    clashes: tuple[Clash, ...] = ()
    sparse: Mapping[str, tuple[Platform, ...]] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()


def parse_mirror(
    text: str, *, plain_http: Iterable[str] = (), keep_host: bool = False, ca_file: str = ""
) -> Mirror:
    """Parse `[https://|http://]HOST[:PORT][/PREFIX]`.

    Args:
        text: without a scheme it is https, or http where `plain_http` names the host.
        plain_http: hosts.
        keep_host: see Mirror.
        ca_file: see Mirror.

    Raises:
        UsageError: anything else.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme not in ("http", "https"):
        raise UsageError(f"a mirror is reached over http:// or https://, not {scheme}://")
    host, prefix = parse_target((rest if separator else text).rstrip("/"))
    if not separator:
        scheme = "http" if host in {check_registry(name) for name in plain_http} else "https"
    if ca_file and (not ca_file.startswith("/") or not ca_file.isprintable()):
        raise UsageError(f"{ca_file!r} is no absolute path on the engine's machine")
    return Mirror(scheme, host, prefix, keep_host, ca_file if scheme == "https" else "")


def read_contents(layouts: Sequence[str], places: Places) -> Contents:
    """Return what layouts hold, as far as settings depend on it.

    Raises:
        UsageError: a layout has no image whose name says a registry.
    """
    references: list[Reference] = []
    sparse: dict[str, tuple[Platform, ...]] = {}
    unreadable: list[str] = []
    for path in layouts:
        layout = places.layout(path)
        named = [
            (entry, reference) for entry in layout.images() if (reference := entry.reference())
        ]
        if not named:
            raise UsageError(f"{path} has no image with a registry in its name")
        references += [reference for _, reference in named]
        unreadable += [row.told for row in layout.index().unreadable]
        # (Other tools' layouts do not say it: a look at the children does.)
        roots = ((str(r), platforms_of(held(layout, e.descriptor))) for e, r in named)
        sparse.update({name: platforms for name, platforms in roots if platforms})
    return Contents(
        tuple(sorted({reference.registry for reference in references})),
        find_clashes((reference.registry, reference.repository) for reference in references),
        sparse,
        tuple(unreadable),
    )
