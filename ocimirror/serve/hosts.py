"""hosts: settings that make engines ask a mirror for images of the original names.

Nothing is written anywhere: what comes out are files to put in place, each with where it goes and
what makes the engine read it. Names stay what they are, `docker.io/library/alpine`; the engine asks
the mirror for `library/alpine`, or `docker.io/library/alpine` where it keeps the host in the path.
podman and CRI-O do not say which registry they mean, so that a layout's images are asked for with
the host in the path: without it they could get the image of another registry.

Spec: containerd docs/hosts.md, dockerd reference (registry-mirrors), containers-registries.conf(5),
k3s and RKE2 private registry configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ocimirror.errors import UsageError
from ocimirror.model.platform import sparse_text
from ocimirror.model.reference import DOCKER_HUB
from ocimirror.serve.mirrors import Contents, Mirror, Wishes

EngineName = Literal["containerd", "docker", "podman", "cri-o", "k3s", "rke2"]
# (containerd and those built on it send `ns=HOST`.)
_WITHOUT_NS: frozenset[EngineName] = frozenset({"podman", "cri-o"})
_HUB_SERVER = "registry-1.docker.io"
_CONTAINERD_DIRECTORY = "/etc/containerd/certs.d"


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


def hosts(
    mirror: Mirror,
    engines: Sequence[EngineName],
    wishes: Wishes,
    contents: Contents,
) -> HostsSettings:
    """Return the settings of each engine.

    Args:
        contents: what the mirror holds, as far as it is known.

    Raises:
        UsageError: an engine has no way to say that, or could get the image of another registry.
    """
    files: list[SettingsFile] = []
    notes = [clash.text() for clash in contents.clashes]
    notes += [sparse_text(name, platforms) for name, platforms in contents.sparse.items()]
    notes += contents.unreadable
    for engine in dict.fromkeys(engines):
        at = mirror
        if engine in _WITHOUT_NS and wishes.host_in_path:
            at = replace(mirror, keep_host=True)
        if contents.clashes and not at.keep_host and (engine in _WITHOUT_NS or mirror.prefix):
            raise _ambiguous(engine, mirror, contents)
        made, told = _MAKERS[engine](engine, at, wishes)
        told += _registry_notes(engine, at, wishes)
        files += made
        notes += [note for note in told if note not in notes]
    return HostsSettings(tuple(files), tuple(notes))


def _ambiguous(engine: EngineName, mirror: Mirror, contents: Contents) -> UsageError:
    paths = ", ".join(clash.repository for clash in contents.clashes[:5])
    count = len(contents.clashes)
    why = "sends no registry" if engine in _WITHOUT_NS else "names no registry below a path"
    return UsageError(
        f"{engine} {why}, and several registries have {paths}"
        + (f" and {count - 5} more" if count > 5 else ""),
        advice="Use --keep-host, with a mirror that ocimirror serve, or push --keep-host, provides."
        if mirror.prefix
        else "Leave --no-keep-host out, and serve the layout with ocimirror serve.",
    )


def _registry_notes(engine: EngineName, mirror: Mirror, wishes: Wishes) -> list[str]:
    """Return what to do so that a request that names no registry gets no other one's image."""
    others = [registry for registry in wishes.registries if registry != DOCKER_HUB]
    if engine in _WITHOUT_NS and others and not mirror.keep_host:
        return [
            f"{engine}: its requests name no registry, so the mirror cannot tell"
            f" {others[0]}/NAME from {DOCKER_HUB}/NAME; use --keep-host if that is a difference"
        ]
    if engine == "docker" and others and DOCKER_HUB in wishes.registries:
        return [
            "docker: it asks a registry-mirror without naming a registry; start the mirror as"
            " ocimirror serve --only docker.io, so that it gives no image of another registry"
        ]
    return []


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
