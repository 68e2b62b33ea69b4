"""hosts: settings that make engines ask a mirror for images of the original names.

Nothing is written anywhere: what comes out are files to put in place, each with where it goes and
what makes the engine read it. Names stay what they are, `docker.io/library/alpine`; the engine asks
the mirror for `library/alpine`, or `docker.io/library/alpine` where it keeps the host in the path.

Spec: containerd docs/hosts.md, dockerd reference (registry-mirrors), containers-registries.conf(5),
k3s and RKE2 private registry configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ocimirror.errors import UsageError
from ocimirror.model.reference import DOCKER_HUB, check_registry, is_attachment_tag
from ocimirror.workflows.places import Places
from ocimirror.workflows.push import parse_target

EngineName = Literal["containerd", "docker", "podman", "cri-o", "k3s", "rke2"]
_HUB_SERVER = "registry-1.docker.io"
_CONTAINERD_DIRECTORY = "/etc/containerd/certs.d"


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
    """

    registries: tuple[str, ...]
    fallback: bool = False
    digest_only: bool = False

    @property
    def asks_registry(self) -> bool:
        """Whether the registry itself is asked for anything."""
        return self.fallback or self.digest_only


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """One file.

    Attributes:
        engine: whose it is.
        path: where it goes on the engine's machine.
        content: the file, or where `merge` is set what has to be in it beside what is there.
        purpose: which engine reads it, and for what.
        apply: what makes the engine read it; empty where it does at each pull.
    """

    engine: EngineName
    path: str
    content: str
    purpose: str
    apply: str = ""
    merge: bool = False


@dataclass(frozen=True, slots=True)
class HostsSettings:
    """Files to put in place, and what cannot be said in a file."""

    files: tuple[SettingsFile, ...]
    notes: tuple[str, ...]


_Made = tuple[list[SettingsFile], list[str]]


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


def registries_of(layouts: Sequence[str], places: Places) -> list[str]:
    """Return the registries that images of layouts are named after, sorted.

    Raises:
        UsageError: a layout names none.
    """
    found: set[str] = set()
    for path in layouts:
        names = [name for name in places.layout(path).names() if "/" in name]
        registries = {
            name.partition("/")[0]
            for name in names
            if not is_attachment_tag(name.rpartition(":")[2])
        }
        if not registries:
            raise UsageError(f"{path} has no image with a registry in its name")
        found |= {check_registry(registry) for registry in registries}
    return sorted(found)


def hosts(mirror: Mirror, engines: Sequence[EngineName], wishes: Wishes) -> HostsSettings:
    """Return the settings of each engine.

    Raises:
        UsageError: an engine has no way to say that.
    """
    files: list[SettingsFile] = []
    notes: list[str] = []
    for engine in dict.fromkeys(engines):
        made, told = _MAKERS[engine](engine, mirror, wishes)
        files += made
        notes += [note for note in told if note not in notes]
    return HostsSettings(tuple(files), tuple(notes))


# --- containerd, and Docker's containerd store --------------------------------------------------


def hosts_toml(mirror: Mirror, registry: str, wishes: Wishes) -> str:
    """Return a hosts.toml for a registry; `_default` for every one that has none of its own.

    `server` is asked last. Where it is the mirror too, the registry itself is never asked.
    """
    path = mirror.path_for(registry)
    url = f"{mirror.url}/v2/{path}" if path else mirror.url
    ca = [f"ca = {_quoted(mirror.ca_file)}"] if mirror.ca_file else []
    override = ["override_path = true"] if path else []
    if not wishes.asks_registry:
        server = [f"server = {_quoted(url)}", *ca, *override]
    elif registry == "_default":
        server = []
    else:
        server = [f"server = {_quoted(f'https://{_server_of(registry)}')}"]
    capabilities = '["pull"]' if wishes.digest_only else '["pull", "resolve"]'
    host = [f"[host.{_quoted(url)}]", f"capabilities = {capabilities}", *ca, *override]
    return _text([*server, *([""] if server else []), *host])


def _server_of(registry: str) -> str:
    return _HUB_SERVER if registry == DOCKER_HUB else registry


def _containerd_directory(registry: str) -> str:
    """`host:5000` is `host_5000_` there."""
    host, _, port = registry.rpartition(":")
    return f"{host}_{port}_" if host and port.isdigit() else registry


def _containerd(engine: EngineName, mirror: Mirror, wishes: Wishes) -> _Made:
    if mirror.keep_host and not wishes.registries:
        raise _not_every(engine, "a host in the path is written for each registry")
    config = [
        SettingsFile(
            engine,
            "/etc/containerd/config.toml",
            _text([f"[plugins.{_quoted(plugin)}.registry]", f"config_path = {_quoted(directory)}"]),
            f"containerd {series} (config version {version}), for CRI; ctr and nerdctl need none:"
            f" ctr images pull --hosts-dir {directory}",
            "systemctl restart containerd, once; not with the old [….registry.mirrors] beside it",
            merge=True,
        )
        for series, version, plugin in (
            ("1.x", 2, "io.containerd.grpc.v1.cri"),
            ("2.x", 3, "io.containerd.cri.v1.images"),
        )
        for directory in (_CONTAINERD_DIRECTORY,)
    ]
    files = [
        SettingsFile(
            engine,
            f"{_CONTAINERD_DIRECTORY}/{_containerd_directory(registry)}/hosts.toml",
            hosts_toml(mirror, registry, wishes),
            f"images of {'every other registry' if registry == '_default' else registry}",
        )
        for registry in wishes.registries or ("_default",)
    ]
    return [*config, *files], []


# --- Docker -------------------------------------------------------------------------------------


def _docker(engine: EngineName, mirror: Mirror, wishes: Wishes) -> _Made:
    files: list[SettingsFile] = []
    notes = []
    others = [registry for registry in wishes.registries if registry != DOCKER_HUB]
    hub = DOCKER_HUB in wishes.registries or not wishes.registries
    if hub and mirror.path_for(DOCKER_HUB):
        notes.append(
            "docker: registry-mirrors cannot have a path, so a Docker with a graphdriver cannot use"
            f" {mirror.url} for docker.io; push without --keep-host and PREFIX for it"
        )
    elif hub:
        files.append(
            SettingsFile(
                engine,
                "/etc/docker/daemon.json",
                f'{{"registry-mirrors": [{_quoted(mirror.url)}]}}\n',
                "Docker with either store, for docker.io only; it asks docker.io itself for what"
                " the mirror does not give",
                "systemctl reload docker",
                merge=True,
            )
        )
    if others or not wishes.registries:
        notes.append(
            "docker: a Docker with a graphdriver (all before 29, unless told otherwise) has mirrors"
            " for docker.io only; for other registries: ocimirror load --into docker"
        )
    # (Its certs.d keeps the colon in a directory's name.)
    files += [
        SettingsFile(
            engine,
            f"/etc/docker/certs.d/{registry}/hosts.toml",
            hosts_toml(mirror, registry, wishes),
            f"Docker 28 and later with the containerd store, images of {registry}; others do not"
            " read it",
        )
        for registry in wishes.registries
    ]
    if mirror.ca_file:
        notes.append(
            f"docker: copy {mirror.ca_file} to /etc/docker/certs.d/{mirror.host}/ca.crt; no restart"
        )
    return files, notes


# --- podman, CRI-O ------------------------------------------------------------------------------


def _containers(engine: EngineName, mirror: Mirror, wishes: Wishes) -> _Made:
    if not wishes.registries:
        raise _not_every(engine, "registries.conf has a section for each registry")
    insecure = ["insecure = true"] if mirror.scheme == "http" else []
    lines = []
    for registry in wishes.registries:
        path = mirror.path_for(registry)
        location = f"location = {_quoted(f'{mirror.host}/{path}' if path else mirror.host)}"
        lines += ["", "[[registry]]", f"prefix = {_quoted(registry)}"]
        if wishes.asks_registry:
            digest_only = ["mirror-by-digest-only = true"] if wishes.digest_only else []
            lines += [f"location = {_quoted(registry)}", *digest_only]
            lines += ["", "[[registry.mirror]]", location, *insecure]
        else:
            lines += [location, *insecure]
    notes = []
    if mirror.ca_file:
        notes.append(
            f"{engine}: copy {mirror.ca_file} to /etc/containers/certs.d/{mirror.host}/ca.crt"
        )
    file = SettingsFile(
        engine,
        "/etc/containers/registries.conf.d/50-ocimirror.conf",
        _text(lines[1:]),
        "CRI-O, podman, buildah and skopeo" if engine == "cri-o" else "podman, buildah and skopeo",
        "systemctl reload crio" if engine == "cri-o" else "",
    )
    return [file], notes


# --- k3s, RKE2 ----------------------------------------------------------------------------------


def _rancher(engine: EngineName, mirror: Mirror, wishes: Wishes) -> _Made:
    if mirror.keep_host and not wishes.registries:
        raise _not_every(engine, "a host in the path is written for each registry")
    lines = ["mirrors:"]
    for registry in wishes.registries or ("*",):
        lines += [f"  {_quoted(registry)}:", "    endpoint:", f"      - {_quoted(mirror.url)}"]
        path = mirror.path_for(registry)
        if path:
            lines += ["    rewrite:", f'      "^(.*)$": {_quoted(f"{path}/$1")}']
    if mirror.ca_file:
        lines += ["configs:", f"  {_quoted(mirror.host)}:", "    tls:"]
        lines += [f"      ca_file: {_quoted(mirror.ca_file)}"]
    notes = []
    if not wishes.asks_registry:
        notes.append(
            f"{engine}: it asks the registry itself for what the mirror does not give, unless it"
            " is started with --disable-default-registry-endpoint (releases of 2024 and later)"
        )
    if wishes.digest_only:
        notes.append(f"{engine}: the mirror is asked for tags too; there is no digest-only setting")
    units = ("k3s", "k3s-agent") if engine == "k3s" else ("rke2-server", "rke2-agent")
    file = SettingsFile(
        engine,
        f"/etc/rancher/{engine}/registries.yaml",
        _text(lines),
        f"{'k3s' if engine == 'k3s' else 'RKE2'}, on each node",
        f"systemctl restart {units[0]} on a server, {units[1]} on an agent",
    )
    return [file], notes


_MAKERS: dict[EngineName, Callable[[EngineName, Mirror, Wishes], _Made]] = {
    "containerd": _containerd,
    "docker": _docker,
    "podman": _containers,
    "cri-o": _containers,
    "k3s": _rancher,
    "rke2": _rancher,
}


def _not_every(engine: EngineName, why: str) -> UsageError:
    return UsageError(
        f"{engine} cannot be told to use a mirror for every registry here: {why}",
        advice="Name the registries: ocimirror hosts MIRROR docker.io quay.io, or --layout LAYOUT.",
    )


def _quoted(text: str) -> str:
    """Return a string as TOML, YAML and JSON all write it; the text has no control characters."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
