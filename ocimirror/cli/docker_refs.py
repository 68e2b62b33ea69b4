"""docker-refs show and restore: the digests in Docker's reference store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ocimirror.cli import output
from ocimirror.cli.options import Seconds, Settings, dry_run, option, settings_from, shared, waiting
from ocimirror.errors import Interrupted
from ocimirror.model.codec import to_document, to_json

if TYPE_CHECKING:
    from ocimirror.engines.docker.refs import Found, Shown, ShownImage, Where
    from ocimirror.engines.docker.restore import Restoration, RestoredImage

F = TypeVar("F", bound=Callable[..., Any])


@click.group("docker-refs", short_help="Show, and put back, the digests that Docker lost.")
def docker_refs_command() -> None:
    """Show, and put back, the digests that Docker lost.

    An image that came by `docker load` has no digest in a Docker with a graphdriver: it keeps
    names by digest in repositories.json, which only pull and push write. Docker calls that file
    internal; it is read only when dockerd starts. (With the containerd store no digest is lost.)

    \b
    Examples:
      ocimirror docker-refs show ./layout
      ocimirror docker-refs restore ./layout --restart-docker
    """


def _finding_docker(command: F) -> F:
    """Add the options that say where Docker is."""
    for add in (
        option(
            "--pid-file",
            metavar="FILE",
            default="",
            help="Where dockerd writes its process id, if not /var/run/docker.pid.",
        ),
        option(
            "--driver",
            metavar="NAME",
            default="",
            help="The storage driver, where --data-root has several.",
        ),
        option(
            "--data-root",
            metavar="DIRECTORY",
            default="",
            help="Docker's data root, as /var/lib/docker; without, the daemon is asked.",
        ),
        option(
            "--host",
            metavar="SOCKET",
            default="",
            help="The daemon to ask, as `docker -H` takes it.",
        ),
    ):
        command = add(command)
    return command


def _where(options: dict[str, Any]) -> Where:
    from ocimirror.engines.docker.refs import Where

    return Where(*(options.pop(name) for name in ("host", "data_root", "driver", "pid_file")))


# --- show ---------------------------------------------------------------------------------------


@docker_refs_command.command("show", short_help="List names, digests and image IDs in Docker.")
@click.argument("layouts", metavar="[LAYOUT]...", nargs=-1)
@_finding_docker
@waiting
@shared
def show_command(layouts: tuple[str, ...], **options: Any) -> int:
    """List the images in Docker with their tags and digests.

    What a LAYOUT knows to be an image's digest, and Docker does not, is listed as lost.

    \b
    Examples:
      ocimirror docker-refs show
      ocimirror docker-refs show ./layout --json
      ocimirror docker-refs show ./layout --data-root /var/lib/docker
    """
    from ocimirror.engines.docker.refs import show

    where = _where(options)
    settings = settings_from(options, writes=False)
    with settings.places() as places:
        shown = show(where, [path.removeprefix("oci:") for path in layouts], places)
    if settings.json:
        output.document("docker-refs", 0, {"action": "show", **_shown_document(shown)})
        return 0
    for image in shown.images:
        _shown_lines(image)
    for key in shown.unread:
        output.line(f"note: Docker does not read the name {key!r}", aside=True)
    for note in shown.notes:
        output.line(f"note: {note}", aside=True)
    if any(image.lost for image in shown.images):
        output.line("note: `ocimirror docker-refs restore` puts back what is lost", aside=True)
    return 0


def _found_document(found: Found) -> dict[str, object]:
    return {
        "data_root": found.root.data_root,
        "driver": found.root.driver,
        "path": found.root.path,
        "running": bool(found.in_use),
    }


def _shown_document(shown: Shown) -> dict[str, object]:
    return {
        **_found_document(shown.found),
        "images": [
            {
                "image_id": str(image.image_id),
                "present": image.present,
                "tags": [str(name) for name in image.names if not name.reference.digest],
                "digests": [str(name) for name in image.names if name.reference.digest],
                "lost": [{"name": str(lost.name), "layout": lost.layout} for lost in image.lost],
            }
            for image in shown.images
        ],
        "unread": list(shown.unread),
        "notes": shown.notes,
    }


def _shown_lines(image: ShownImage) -> None:
    output.line(f"{image.image_id}{'' if image.present else '  (not in Docker)'}")
    for name in sorted(image.names, key=lambda name: (bool(name.reference.digest), str(name))):
        output.line(f"  {'digest' if name.reference.digest else 'tag   '}  {name}")
    for lost in image.lost:
        output.line(f"  lost    {lost.name}  (known to {lost.layout})")


# --- restore ------------------------------------------------------------------------------------


@docker_refs_command.command(
    "restore", short_help="Put lost digests back, as a layout proves them.", no_args_is_help=True
)
@click.argument("layout")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@option(
    "--restart-docker",
    is_flag=True,
    help="Stop Docker, write, start it, and check; without, Docker has to be stopped already.",
)
@option(
    "--stop-command",
    metavar="COMMAND",
    default="",
    help="How to stop Docker; else systemctl, where systemd runs. No shell is involved.",
)
@option("--start-command", metavar="COMMAND", default="", help="How to start it; it must return.")
@option(
    "--docker-timeout",
    type=Seconds(1, 3600),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How long Docker may take to stop, and to start.",
)
@_finding_docker
@dry_run
@waiting
@shared
def restore_command(
    layout: str,
    names: tuple[str, ...],
    restart_docker: bool,
    stop_command: str,
    start_command: str,
    docker_timeout: float,
    **options: Any,
) -> int:
    """Put back the digests of images in Docker, as far as LAYOUT proves them.

    For each image of the layout, or each NAME, that Docker has: every byte of the layout's image
    is hashed, down to the config, whose digest is Docker's image ID, and to the unpacked layers.
    Then the names by digest of index and manifest are added to repositories.json. A digest that
    stands for another image is never moved (exit 9). The old file is kept beside the new one as
    repositories.json.ocimirror-TIME, and put back where Docker does not start.

    Stopping Docker stops its containers, unless live-restore is set. Upstream calls the file
    internal (moby#49386): no promise of theirs covers this.

    \b
    Examples:
      ocimirror docker-refs restore ./layout --dry-run
      ocimirror docker-refs restore ./layout --restart-docker
      ocimirror docker-refs restore ./layout docker.io/library/alpine:3.19 --restart-docker
      ocimirror docker-refs restore ./layout --data-root /var/lib/docker
    """
    from ocimirror.engines.docker.daemon import Service
    from ocimirror.engines.docker.restore import How, restore

    where = _where(options)
    planned = options.pop("dry_run")
    settings = settings_from(options, writes=True)
    service = Service(stop_command, start_command) if restart_docker and not planned else None
    how = How(service, planned, docker_timeout, settings.stop)
    with settings.places() as places:
        try:
            done = restore(layout.removeprefix("oci:"), names, where, how, places)
        except Interrupted as error:
            return _interrupted(error, settings)
    code = output.exit_code_of([i.error.exit_code for i in done.images if i.error is not None])
    if settings.json:
        output.document("docker-refs", code, _restored_document(done, planned))
    else:
        _restored_lines(done, settings)
    return code


def _interrupted(error: Interrupted, settings: Settings) -> int:
    code = 128 + settings.signal
    output.complain(error)
    if settings.json:
        output.document("docker-refs", code, {"error": to_document(error)})
    return code


def _restored_document(done: Restoration, planned: bool) -> dict[str, object]:
    return {
        "action": "restore",
        "dry_run": planned,
        "path": done.root.path,
        "backup": done.backup or None,
        "restarted": done.restarted,
        "images": [
            {
                "name": image.name,
                "status": image.status,
                "digests": [
                    {"name": str(name), "image_id": str(name.image_id)} for name in image.added
                ],
                "notes": image.notes,
                "error": to_json(image.error),
            }
            for image in done.images
        ],
        "notes": done.notes,
    }


def _restored_lines(done: Restoration, settings: Settings) -> None:
    for image in done.images:
        if image.error is not None:
            output.complain(image.error, image.name)
        elif not settings.quiet:
            _restored_image_lines(image)
    if settings.quiet:
        return
    if done.backup:
        output.line(f"the old file is {done.backup}")
    for note in done.notes:
        output.line(f"note: {note}")
    if done.backup or any(image.status == "planned" for image in done.images):
        from ocimirror.engines.docker.restore import UNSUPPORTED_UPSTREAM

        output.line(f"note: {UNSUPPORTED_UPSTREAM}")


def _restored_image_lines(image: RestoredImage) -> None:
    output.line(f"{image.status}  {image.name}")
    for name in image.added:
        output.line(f"  {name}  {name.image_id}")
    for note in image.notes:
        output.line(f"  note: {note}")
