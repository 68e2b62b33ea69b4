"""Platforms, and when one matches what was asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ocimirror.errors import InvalidReference, UsageError

_PART = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_DEFAULT_VARIANT = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
_MACHINES = {"armv7l": "arm/v7", "armv6l": "arm/v6", "armv8l": "arm/v7", "i686": "386"}
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}


@dataclass(frozen=True, slots=True)
class Platform:
    """The platform of an index entry (image-spec image-index.md)."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Parse `OS/ARCH[/VARIANT]` as a person writes it.

        Raises:
            InvalidReference: another shape.
        """
        parts = text.lower().split("/")
        if not 2 <= len(parts) <= 3 or not all(_PART.fullmatch(part) for part in parts):
            raise InvalidReference(f"not a platform: {text!r} (want OS/ARCH or OS/ARCH/VARIANT)")
        system, architecture, variant = parts[0], parts[1], parts[2] if len(parts) == 3 else ""
        return cls(system, _ALIASES.get(architecture, architecture), variant)

    @classmethod
    def of_machine(cls, machine: str, system: str = "linux") -> Platform:
        """Return what a machine runs, by its name in uname(2) or in Go; empty for the usual one."""
        name = machine.lower() or "amd64"
        return cls.parse(f"{system}/{_MACHINES.get(name, name)}")

    def matches(self, offered: Platform) -> bool:
        """Whether what an index offers is what this one asks for, as containerd decides it.

        `arm` means `arm/v7`, `arm64` `arm64/v8` and `amd64` `amd64/v1`; os.version is not compared.
        """
        return self._normal() == offered._normal()

    def _normal(self) -> tuple[str, str, str]:
        architecture = _ALIASES.get(self.architecture, self.architecture)
        variant = self.variant or _DEFAULT_VARIANT.get(architecture, "")
        return self.os, architecture, variant

    def __str__(self) -> str:
        text = f"{self.os}/{self.architecture}"
        return f"{text}/{self.variant}" if self.variant else text


WITHOUT_ATTESTATIONS = Platform("none", "attestations")
"""Beside other platforms: their attestations are not wanted, or not there. Matches nothing."""


def parsed(platforms: Sequence[Platform | str]) -> tuple[Platform, ...]:
    """Return platforms, of which a program may give some as text.

    Raises:
        UsageError: one text instead of a list, or no platform.
    """
    if isinstance(platforms, str):
        raise UsageError(f"platforms are a list, as [{platforms!r}], and not one text")
    return tuple(Platform.parse(each) if isinstance(each, str) else each for each in platforms)


def sparse_text(name: str, platforms: Sequence[Platform]) -> str:
    """Return one line that says what a mirror has of an image that is not whole."""
    held = [str(platform) for platform in platforms if platform != WITHOUT_ATTESTATIONS]
    without = " without attestations" if WITHOUT_ATTESTATIONS in platforms else ""
    return (
        f"{name} is sparse: only {', '.join(held) or 'a part'}{without} is here; clients that want"
        " every platform of it (ctr 2.3, skopeo --all) fail with 404"
    )


def joined(held: tuple[Platform, ...], added: tuple[Platform, ...]) -> tuple[Platform, ...]:
    """Return the platforms of a sparse image once more have come; none means all of them."""
    if not held or not added:
        return ()
    known, new = set(held), set(added)
    if new - {WITHOUT_ATTESTATIONS} <= known and WITHOUT_ATTESTATIONS in new - known:
        return held
    if known - {WITHOUT_ATTESTATIONS} <= new and WITHOUT_ATTESTATIONS in known - new:
        held = tuple(platform for platform in held if platform != WITHOUT_ATTESTATIONS)
    return tuple(dict.fromkeys((*held, *added)))
