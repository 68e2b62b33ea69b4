"""config check, schema and import: the configuration file of a sync."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ocimirror.cli import output
from ocimirror.cli.options import extra, option, settings_from, shared
from ocimirror.errors import InvalidConfiguration
from ocimirror.model.codec import to_document
from ocimirror.model.readable import span
from ocimirror.model.reference import DOCKER_HUB

if TYPE_CHECKING:
    from ocimirror.sync.config import Age, Config, Mirror, RegistrySettings, TagRules


@click.group("config", short_help="Check, describe and import the configuration of a sync.")
def config_command() -> None:
    """Check, describe and import the configuration of a sync.

    \b
    Examples:
      ocimirror config check nightly.yaml
      ocimirror config schema > ocimirror.schema.json
      ocimirror config import regsync.yaml > nightly.yaml
    """


# --- check --------------------------------------------------------------------------------------


@config_command.command("check", short_help="Say what a file means, or all that is wrong with it.")
@click.argument("file")
@shared
def check_command(file: str, **options: Any) -> int:
    """Say what a configuration means, or all that is wrong with it.

    Nothing is asked of any registry. ${NAME} in values is taken from the environment.

    \b
    Examples:
      ocimirror config check nightly.yaml
      ocimirror config check nightly.yaml --json
    """
    with extra("config", "sync"):
        from ocimirror.sync.config import load

    settings = settings_from(options, writes=False)
    try:
        config = load(Path(file), os.environ)
    except InvalidConfiguration as error:
        if not settings.json:
            raise
        output.complain(error)
        faults = [finding._asdict() for finding in error.findings]
        told = {"action": "check", "error": to_document(error), "faults": faults}
        output.document("config", error.exit_code, told)
        return error.exit_code
    if settings.json:
        output.document("config", 0, {"action": "check", **_document(config)})
    elif not settings.quiet:
        _lines(config)
    return 0


def _lines(config: Config) -> None:
    for mirror in config.mirrors:
        targets = ", ".join(map(str, mirror.targets))
        output.line(f"{mirror.where}  {mirror.source} -> {targets}")
        one_image = mirror.source.tag or mirror.source.digest
        told = [*([] if one_image else _rules(mirror.tags)), *_rest(mirror)]
        if told:
            output.line(f"  {'; '.join(told)}")
        if mirror.source.wildcard and mirror.source.registry == DOCKER_HUB:
            output.line(
                "  note: Docker Hub has no catalogue, so that this will fail: name each one"
            )
    for host, settings in config.registries.items():
        output.line(f"{host}: {'; '.join(_settings(settings))}")
    counts = len(config.mirrors), len(config.registries), len(config.files)
    output.line("entries: {}, registries: {}, files: {}".format(*counts))


def _settings(settings: RegistrySettings) -> list[str]:
    """Return what is said of a registry, without its password."""
    told = [
        ("plain_http", settings.plain_http),
        (f"ca_file {settings.ca_file}", settings.ca_file),
        (f"mirrors {', '.join(mirror.prefix for mirror in settings.mirrors)}", settings.mirrors),
        (f"max_concurrency {settings.max_concurrency}", settings.max_concurrency),
        (
            f"requests_per_second {settings.requests_per_second or 0:g}",
            settings.requests_per_second,
        ),
        (f"auth file {settings.auth_file}", settings.auth_file),
        (f"username {settings.username}", settings.username),
    ]
    return [text for text, there in told if there]


def _rules(tags: TagRules) -> list[str]:
    """Return the rules in the order in which they apply."""
    if tags.explicit:
        named = [tag if digest is None else f"{tag}@{digest}" for tag, digest in tags.explicit]
        return [f"tags {', '.join(named)}"]
    told = [
        (f"include {', '.join(tags.include)}", tags.include),
        (f"exclude {', '.join(tags.exclude)}", tags.exclude),
        (f"regex {tags.regex}", tags.regex),
        (f"semver {tags.semver}", tags.semver),
        (f"min_age {_age(tags.min_age)}", tags.min_age),
        (f"max_age {_age(tags.max_age)}", tags.max_age),
    ]
    rules = [text for text, there in told if there]
    if tags.newest:
        rules.append(f"newest {tags.newest.count} by {tags.newest.by}")
    return rules


def _age(age: Age | None) -> str:
    return f"{span(age.age.total_seconds())} since {age.by}" if age else ""


def _rest(mirror: Mirror) -> list[str]:
    """Return what is not as it is without being said."""
    prune = mirror.prune
    told = [
        (f"platforms {', '.join(map(str, mirror.platforms))}", mirror.platforms),
        (f"sparse {mirror.sparse}", mirror.sparse != "fail"),
        ("no referrers", not mirror.referrers),
        (f"priority {mirror.priority}", mirror.priority),
    ]
    if prune:
        grace = span(prune.grace.total_seconds())
        told.append((f"prune at most {prune.max_delete} after {grace}", True))
    return [text for text, there in told if there]


def _document(config: Config) -> dict[str, object]:
    return {
        "files": list(config.files),
        "mirrors": [_mirror_document(mirror) for mirror in config.mirrors],
        "registries": {
            host: _registry_document(settings) for host, settings in config.registries.items()
        },
    }


def _mirror_document(mirror: Mirror) -> dict[str, object]:
    tags, prune = mirror.tags, mirror.prune
    return {
        "where": mirror.where,
        "from": str(mirror.source),
        "to": [str(target) for target in mirror.targets],
        "tags": {
            "explicit": [
                {"tag": tag or None, "digest": str(digest) if digest else None}
                for tag, digest in tags.explicit
            ],
            "include": list(tags.include),
            "exclude": list(tags.exclude),
            "regex": tags.regex or None,
            "semver": tags.semver or None,
            "min_age": _age_document(tags.min_age),
            "max_age": _age_document(tags.max_age),
            "newest": {"count": tags.newest.count, "by": tags.newest.by} if tags.newest else None,
        },
        "platforms": [str(platform) for platform in mirror.platforms],
        "sparse": mirror.sparse,
        "referrers": mirror.referrers,
        "priority": mirror.priority,
        "prune": {"max_delete": prune.max_delete, "grace": prune.grace.total_seconds()}
        if prune
        else None,
    }


def _age_document(age: Age | None) -> dict[str, object] | None:
    return {"age": age.age.total_seconds(), "by": age.by} if age else None


def _registry_document(settings: RegistrySettings) -> dict[str, object]:
    """Return a registry's settings without its password."""
    return {
        "plain_http": settings.plain_http,
        "ca_file": str(settings.ca_file) if settings.ca_file else None,
        "mirrors": [mirror.prefix for mirror in settings.mirrors],
        "max_concurrency": settings.max_concurrency,
        "requests_per_second": settings.requests_per_second,
        "auth_file": str(settings.auth_file) if settings.auth_file else None,
        "username": settings.username or None,
    }


# --- schema -------------------------------------------------------------------------------------


@config_command.command("schema", short_help="Print the JSON Schema of the file, for editors.")
def schema_command() -> None:
    """Print the JSON Schema (draft 2020-12) of a configuration file, for editors.

    \b
    Examples:
      ocimirror config schema > ocimirror.schema.json
      sed -i '1i # yaml-language-server: $schema=ocimirror.schema.json' nightly.yaml
    """
    with extra("config", "sync"):
        from ocimirror.sync.config import schema

    output.foreign_document(schema())


# --- import -------------------------------------------------------------------------------------


@config_command.command("import", short_help="Translate a file of skopeo sync or regsync.")
@click.argument("file")
@option(
    "--to",
    metavar="DESTINATION",
    default="",
    help="Where images go: HOST[/PREFIX], as on skopeo's command line, or with {repository}.",
)
@shared
def import_command(file: str, to: str, **options: Any) -> int:
    """Print a file of `skopeo sync` or regsync as a configuration of ours.

    What it cannot carry over is named on standard error and in comments. A file of skopeo does not
    say where images go: --to does. Passwords are carried over as they are.

    \b
    Examples:
      ocimirror config import regsync.yaml > nightly.yaml
      ocimirror config import sync.yaml --to mirror.example.com/base > nightly.yaml
      ocimirror config import sync.yaml --to 'oci:/srv/mirror/{registry}/{repository}'
    """
    with extra("config", "sync"):
        from ocimirror.sync.importing import translate
        from ocimirror.sync.yamlfile import read

    settings = settings_from(options, writes=False)
    translation = translate(read(Path(file)), file, to)
    if settings.json:
        notes = [{"line": note.line, "text": note.text} for note in translation.notes]
        content = {"action": "import", "tool": translation.tool, "notes": notes}
        output.document("config", 0, {**content, "config": translation.text})
        return 0
    sys.stdout.write(translation.text)
    for note in () if settings.quiet else translation.notes:
        output.line(f"note: {file}, {note}", aside=True)
    return 0
