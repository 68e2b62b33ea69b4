"""References (registry, repository, tag, digest) and locations (scheme and where)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from ocimirror.errors import InvalidReference
from ocimirror.model.digest import Digest, digest_or_none

DOCKER_HUB = "docker.io"
_HUB_ALIASES = {"index.docker.io", "registry-1.docker.io", DOCKER_HUB}
_HOST = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:]+\])"
    r"(?::[0-9]{1,5})?",
    re.ASCII | re.IGNORECASE,
)
# distribution-spec: pulling manifests, <name> and <reference>.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_MAX_NAME = 255
_IMAGE_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


COSIGN_SUFFIXES = (".sig", ".att", ".sbom")
_ATTACHMENT_TAG = re.compile(r"sha(?:256|512)-[0-9a-f]{64}(?:\.sig|\.att|\.sbom)?", re.ASCII)


def attachment_tag(digest: Digest) -> str:
    """Return the tag under which what refers to a manifest is found.

    Spec: distribution-spec, referrers tag schema (algorithm cut to 32, encoded to 64 characters).
    """
    return f"{digest.algorithm[:32]}-{digest.encoded[:64]}"


def is_attachment_tag(tag: str) -> bool:
    """Whether a tag is no version of an image but says what refers to one."""
    return _ATTACHMENT_TAG.fullmatch(tag) is not None


def attachment_tag_in(name: str) -> str:
    """Return the attachment tag that a name is or ends in, as some tools write it; else empty."""
    tag = name.rpartition(":")[2]
    return tag if is_attachment_tag(tag) else ""


def is_referrers_tag(tag: str) -> bool:
    """Whether a tag is where registries without the API keep a list of referrers."""
    return is_attachment_tag(tag) and "." not in tag


def subject_of_tag(tag: str) -> Digest | None:
    """Return the digest that an attachment tag is about; None for sha512, which the tag cuts."""
    algorithm, _, rest = tag.partition("-")
    with suppress(InvalidReference):
        return Digest.parse(f"{algorithm}:{rest.partition('.')[0]}")
    return None


def is_tag(text: str) -> bool:
    """Whether the text fits the tag grammar."""
    return _TAG.fullmatch(text) is not None


def is_repository(text: str) -> bool:
    """Whether the text fits the grammar of repository names."""
    return len(text) <= _MAX_NAME and _REPOSITORY.fullmatch(text) is not None


def check_repository(text: str) -> str:
    """Return the repository name; InvalidReference where it does not fit the grammar."""
    if not is_repository(text):
        raise InvalidReference(f"not a repository name: {text[:300]!r}")
    return text


def check_registry(text: str) -> str:
    """Return the canonical `host[:port]` of a registry; InvalidReference for anything else."""
    if not _HOST.fullmatch(text):
        # (A login may hold a password.)
        shown = f"***@{text.rpartition('@')[2]}" if "@" in text else text
        raise InvalidReference(f"not a registry host: {shown[:300]!r}")
    port = text.rpartition(":")[2] if not text.endswith("]") and ":" in text else ""
    if port and not 0 < int(port) < 65536:
        raise InvalidReference(f"not a registry host: {text[:300]!r} (port)")
    if text.startswith("["):
        try:
            ipaddress.IPv6Address(text[1 : text.index("]")])
        except ValueError as error:
            raise InvalidReference(f"not a registry host: {text[:300]!r} (IPv6)") from error
    host = text.lower()
    if not is_host(host):
        return text  # (`HOST` is one by its capitals only)
    return DOCKER_HUB if host in _HUB_ALIASES else host


def is_host(first: str) -> bool:
    """Whether the first component of a name, before a slash, is a registry and no repository.

    Spec: distribution/reference, splitDockerDomain.
    """
    return bool(re.search(r"[.:\[A-Z]", first)) or first == "localhost"


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised name of an image in a registry; `alpine` is `docker.io/library/alpine`.

    With tag and digest, the digest is what is read and the tag is what is written.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse `[HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]` as Docker does, by full match.

        Raises:
            InvalidReference: anything else; nothing was asked of any registry yet.
        """
        if _IMAGE_ID.fullmatch(text):
            raise InvalidReference(
                f"not an image reference: {text}",
                advice="It looks like the ID of an image; ask for the image by a name.",
            )
        name, has_digest, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if has_digest else None
        if digest and not digest.verifiable:
            raise InvalidReference(
                f"not an image reference: {text[:300]!r} ({digest.algorithm} digests cannot be"
                " verified)",
                advice="A digest in a reference is sha256 or sha512.",
            )
        first, slash, rest = name.partition("/")
        if slash and is_host(first):
            registry, path = check_registry(first), rest
        else:
            registry, path = DOCKER_HUB, name
        repository, _, tag = path.partition(":")
        if ":" in path and not is_tag(tag):
            raise InvalidReference(f"not a tag: {tag[:300]!r} in {text[:300]!r}")
        if registry == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        if len(registry) + 1 + len(repository) > _MAX_NAME or not _REPOSITORY.fullmatch(repository):
            raise InvalidReference(
                f"not an image reference: {text[:300]!r}",
                advice="A reference is [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST], in lower case.",
            )
        return cls(registry, repository, tag, digest)

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def read_name(self) -> str:
        """What is asked of the registry: the digest, else the tag, else `latest`."""
        return str(self.digest or self.tag or "latest")

    @property
    def pinned(self) -> bool:
        """Whether it has a tag and a digest."""
        return bool(self.tag and self.digest)

    @property
    def location(self) -> Location:
        """Where that is, as `docker://HOST/REPOSITORY:TAG`."""
        return Location("docker", reference=self)

    def unpinned(self) -> Reference:
        """Return this reference without the digest, where it has a tag too."""
        return replace(self, digest=None) if self.pinned else self

    def readable(self) -> Reference:
        """Return this reference with the tag `latest` where it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag="latest")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


Scheme = Literal["docker", "oci", "oci-archive", "docker-archive"]
_LOCAL_SCHEMES: tuple[Scheme, ...] = ("oci", "oci-archive", "docker-archive")
_TRAILING_DIGEST = re.compile(r"(.+):@([^@:]+:[^@:]+)", re.DOTALL)


# `registry:5000` may be an image too, `ghcr.io` and `localhost` are none.
_ONLY_A_HOST = re.compile(
    r"(localhost|\[[^/\]]*\]|[^/:@\[]*\.[^/:@\[]*)(:[0-9]*)?/?", re.IGNORECASE
)
_HOST_AND_PORT = re.compile(r"[^/:@\[]+:[0-9]+/?")


def registry_location(text: str) -> str:
    """Return the registry that `docker://HOST[:PORT]` names; empty if it names an image.

    Raises:
        InvalidReference: it is not a registry.
    """
    named = text.removeprefix("docker://")
    if named == text or not (_ONLY_A_HOST.fullmatch(named) or _HOST_AND_PORT.fullmatch(named)):
        return ""
    return check_registry(named.removesuffix("/"))


@dataclass(frozen=True, slots=True)
class Location:
    """Where images are: a scheme of containers-transports(5), the place, and perhaps a name.

    `reference` belongs to docker, `path` to the others; `name` is a full reference or a tag,
    `digest` asks for a root by its digest instead.
    """

    scheme: Scheme
    path: str = ""
    name: str = ""
    digest: Digest | None = None
    reference: Reference | None = None

    @classmethod
    def parse(cls, text: str) -> Location:
        """Parse a location with its scheme, or a path that starts with `/`, `./` or `../`.

        Raises:
            InvalidReference: no scheme we know and no path.
        """
        if text.startswith("docker://"):
            named = text.removeprefix("docker://")
            if _ONLY_A_HOST.fullmatch(named):
                raise InvalidReference(
                    f"{text[:300]!r} names a registry and no repository",
                    advice="Write docker://HOST/REPOSITORY:TAG;"
                    " `ocimirror list docker://HOST` lists its repositories.",
                )
            return cls("docker", reference=Reference.parse(named))
        for scheme in _LOCAL_SCHEMES:
            if text.startswith(f"{scheme}:"):
                return cls._local(scheme, text.removeprefix(f"{scheme}:"), text)
        if text.startswith(("/", "./", "../")) or text in (".", ".."):
            return cls._local("oci", text, text)
        raise InvalidReference(
            f"not a location: {text[:300]!r}",
            advice="Write docker://HOST/REPOSITORY:TAG, oci:DIRECTORY[:NAME],"
            " oci-archive:FILE[:NAME], docker-archive:FILE[:REFERENCE], or a path that starts with"
            " /, ./ or ../.",
        )

    @classmethod
    def _local(cls, scheme: Scheme, rest: str, text: str) -> Location:
        by_digest = _TRAILING_DIGEST.fullmatch(rest)
        if by_digest:
            path, digest, name = by_digest[1], Digest.parse(by_digest[2]), ""
        else:
            path, _, name = rest.partition(":")
            digest = None
        if not path or "\0" in path:
            raise InvalidReference(f"no path in {text[:300]!r}")
        if ":" in path:
            raise InvalidReference(f"a path with a colon cannot be written: {text[:300]!r}")
        return cls(scheme, path, name, digest)

    @property
    def is_archive(self) -> bool:
        """Whether the place is one file, which may be standard input or output."""
        return self.scheme in ("oci-archive", "docker-archive")

    @property
    def read_name(self) -> str:
        """The name or digest that is asked of the place, empty for "the only image"."""
        if self.reference is not None:
            return self.reference.read_name
        return str(self.digest or self.name)

    def __str__(self) -> str:
        if self.reference is not None:
            return f"docker://{self.reference}"
        name = f":@{self.digest}" if self.digest else f":{self.name}" if self.name else ""
        return f"{self.scheme}:{self.path}{name}"


def written_location(text: str) -> Location:
    """Parse a location that we wrote ourselves; InvalidReference for any other spelling."""
    location = Location.parse(text)
    if str(location) != text:
        raise InvalidReference(f"not a destination as it is written: {text[:300]!r}")
    return location


def written_source(text: str) -> Reference:
    """Parse the location of an image in a registry that we wrote ourselves.

    Raises:
        InvalidReference: it is elsewhere, has neither tag nor digest, or is spelled another way.
    """
    reference = Location.parse(text).reference
    if reference is None or str(reference.readable().location) != text:
        raise InvalidReference(f"not a source as docker://HOST/REPOSITORY:TAG: {text[:300]!r}")
    return reference


def spellings(name: str) -> list[str]:
    """Return the name as it is written, and as Docker would normalise it."""
    try:
        reference = Reference.parse(name)
    except InvalidReference:
        return [name]
    return [name, str(reference), str(reference.readable())]


def split_digest(name: str) -> tuple[str, Digest | None]:
    """Split NAME:TAG@DIGEST; a name with one of the two is returned as it is."""
    before, at, after = name.partition("@")
    digest = digest_or_none(after) if at and ":" in before.rpartition("/")[2] else None
    return (before, digest) if digest else (name, None)


def some_of(names: Sequence[str]) -> str:
    """Return the first names for a message, and how many more there are."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(name[:300] for name in names[:20]) + more
