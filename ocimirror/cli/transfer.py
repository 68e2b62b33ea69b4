"""pull, push and copy."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ocimirror.cli import output
from ocimirror.cli.options import (
    Settings,
    copying,
    layout_argument,
    linking,
    option,
    settings_from,
    shared,
)

if TYPE_CHECKING:
    from ocimirror.copy.outcome import Options, Outcome, Reporter
    from ocimirror.copy.places import Places
    from ocimirror.model.platform import Platform
    from ocimirror.stores.profiles import Profile

_MAX_IMAGES_FILE_BYTES = 64 * 1024 * 1024


@click.command("pull", no_args_is_help=True)
@click.argument("images", metavar="IMAGE... LAYOUT", nargs=-1, required=True)
@option(
    "--images-file",
    metavar="FILE",
    help="One reference a line, # begins a comment; - is standard input.",
)
@linking
@copying
@shared
def pull_command(images: tuple[str, ...], images_file: str | None, **options: Any) -> int:
    """Pull images into an OCI layout directory, byte for byte.

    The directory is made if it is absent; images are added to what is there. Every platform and
    manifest is kept as the registry has it.

    \b
    Examples:
      ocimirror pull alpine:3.19 ./layout
      ocimirror pull registry.k8s.io/pause:3.9 quay.io/org/app@sha256:... ./layout
      ocimirror pull alpine:3.19 ./layout --platform linux/arm64
      kubeadm config images list | ocimirror pull --images-file - ./layout
    """
    from ocimirror.copy.pull import pull
    from ocimirror.model.reference import Reference

    *texts, layout = images
    if images_file is not None:
        texts += _lines(images_file)
    if not texts:
        raise click.UsageError("no image given: pull IMAGE... LAYOUT, or --images-file FILE")
    references = [Reference.parse(text.removeprefix("docker://")) for text in texts]
    directory = layout_argument(layout)
    settings, copy_options, platforms = _prepare(options)
    return _run(
        "pull",
        settings,
        len(references),
        lambda places, reporter: pull(
            references, directory, places, copy_options, reporter, platforms=platforms
        ),
    )


@click.command(
    "push", short_help="Push the images of a layout to a registry.", no_args_is_help=True
)
@click.argument("layout")
@click.argument("registry", metavar="REGISTRY[/PREFIX]")
@option(
    "--image", "images", metavar="NAME", multiple=True, help="Push only this image (repeatable)."
)
@option(
    "--keep-host",
    is_flag=True,
    help="Put the source host before the repository (host:5000 as host_5000).",
)
@copying
@shared
def push_command(
    layout: str, registry: str, images: tuple[str, ...], keep_host: bool, **options: Any
) -> int:
    """Push the images of a layout to REGISTRY[/PREFIX]/<repository>:<tag>.

    \b
    Examples:
      ocimirror push ./layout registry.example.com:5000
      ocimirror push ./layout registry.example.com/mirror --keep-host
      ocimirror push ./layout 127.0.0.1:5000 --image docker.io/library/alpine:3.19
    """
    from ocimirror.copy.push import push

    directory = layout_argument(layout)
    settings, copy_options, platforms = _prepare(options)
    return _run(
        "push",
        settings,
        len(images),
        lambda places, reporter: push(
            directory,
            registry.removeprefix("docker://").rstrip("/"),
            images,
            places,
            copy_options,
            reporter,
            keep_host=keep_host,
            platforms=platforms,
        ),
    )


@click.command("copy", no_args_is_help=True)
@click.argument("source")
@click.argument("destination")
@option(
    "--profile",
    type=click.Choice(["any", "docker", "containerd", "podman"]),
    help="The engine that an oci-archive: is for: which names are in it, and a manifest.json.",
)
@linking
@option(
    "--with",
    "originals",
    metavar="LOCATION",
    help="Restore an image whose manifest was made (docker-archive:) from where the original is.",
)
@copying
@shared
def copy_command(
    source: str,
    destination: str,
    profile: Profile | None,
    originals: str | None,
    **options: Any,
) -> int:
    """Copy one image from any location to any location.

    Locations: docker://HOST/REPOSITORY[:TAG][@DIGEST], oci:DIRECTORY[:NAME],
    oci-archive:FILE[:NAME], docker-archive:FILE[:REFERENCE], or a path. A destination without a
    name keeps the source's.

    \b
    Examples:
      ocimirror copy docker://alpine:3.19 docker://registry.example.com/alpine
      ocimirror copy docker://alpine:3.19 oci-archive:alpine.tar
      ocimirror copy docker://alpine:3.19 oci-archive:alpine.tar --profile docker
      ocimirror copy oci:./layout:alpine:3.19 docker-archive:- | docker load
      ocimirror copy docker-archive:saved.tar oci:./layout --with docker://alpine:3.19
      ocimirror copy oci:./layout:alpine:3.19 docker://127.0.0.1:5000/library/alpine:3.19
    """
    from ocimirror.copy.locations import copy
    from ocimirror.copy.places import parse_location
    from ocimirror.errors import UsageError

    ends = parse_location(source), parse_location(destination)
    kept = None if originals is None else parse_location(originals)
    to_stdout = ends[1].is_archive and ends[1].path == "-"
    if to_stdout and options["json"]:
        raise UsageError("an archive on standard output leaves no room there for --json")
    if options["link_from"] and ends[1].scheme != "oci":
        raise UsageError(f"--link-from: {ends[1]} is no layout directory to make links in")
    settings, copy_options, platforms = _prepare(options)
    return _run(
        "copy",
        settings,
        1,
        lambda places, reporter: copy(
            *ends,
            places,
            copy_options,
            reporter,
            platforms=platforms,
            profile=profile,
            originals=kept,
        ),
        aside=to_stdout,
    )


def _prepare(options: dict[str, Any]) -> tuple[Settings, Options, tuple[Platform, ...]]:
    from ocimirror.copy.outcome import Options
    from ocimirror.errors import UsageError
    from ocimirror.model.platform import Platform

    settings = settings_from(options, writes=True)
    platforms = tuple(Platform.parse(text) for text in options["platform"])
    if options["sparse"] == "child" and len(platforms) != 1:
        raise UsageError("--sparse child names one manifest, so it needs exactly one --platform")
    copy_options = Options(
        jobs=settings.jobs,
        retries=settings.retries,
        deep=options["deep"],
        referrers=options["referrers"],
        replace_signatures=options["replace_signatures"],
        allow_foreign=options["allow_foreign"],
        sparse=options["sparse"],
        dry_run=options["dry_run"],
        stop=settings.stop,
    )
    return settings, copy_options, platforms


def _run(
    command: str,
    settings: Settings,
    images: int,
    work: Callable[[Places, Reporter], list[Outcome]],
    *,
    aside: bool = False,
) -> int:
    from ocimirror.cli.progress import progress_for

    started = time.monotonic()
    progress = progress_for(
        images,
        json=settings.json,
        quiet=settings.quiet,
        bars=settings.progress,
        show=partial(output.outcome_line, aside=aside),
    )
    with settings.places() as places, progress:
        outcomes = work(places, progress)
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    code = 128 + settings.signal if settings.signal else 0
    code = code or output.exit_code_of([error.exit_code for error in errors])
    seconds = time.monotonic() - started
    if settings.json:
        documents = [output.outcome_document(outcome) for outcome in outcomes]
        totals = output.totals(outcomes, seconds)
        output.document(command, code, {"images": documents, "totals": totals})
    elif len(outcomes) > 1 and (errors or not settings.quiet):
        output.summary(outcomes, seconds)
    return code


def _lines(path: str) -> list[str]:
    from ocimirror.stores.disk.files import read_input

    if path == "-":
        raw = sys.stdin.buffer.read(_MAX_IMAGES_FILE_BYTES + 1)
    else:
        raw = read_input(path, "--images-file", _MAX_IMAGES_FILE_BYTES)
    if len(raw) > _MAX_IMAGES_FILE_BYTES:
        raise click.UsageError(f"--images-file is larger than {_MAX_IMAGES_FILE_BYTES} bytes")
    try:
        text = raw.decode("utf-8-sig")  # (editors of Windows write a mark of the byte order)
    except UnicodeDecodeError as error:
        raise click.UsageError(f"--images-file {path} is not UTF-8: {error}") from error
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line]
