"""history: what a tag stood for, and when."""

from __future__ import annotations

from typing import Any

import click

from ocimirror.cli import output
from ocimirror.cli.options import option, settings_from, shared
from ocimirror.model.codec import time_text, to_document


@click.command("history", short_help="Show what a tag stood for, and when.", no_args_is_help=True)
@click.argument("reference")
@option(
    "--state",
    "path",
    metavar="FILE",
    default="sync.state",
    show_default=True,
    help="What sync keeps beside its CONFIG.",
)
@shared
def history_command(reference: str, path: str, **options: Any) -> int:
    """Show what a tag stood for, and when sync saw it so, the oldest first.

    REFERENCE is a tag that is mirrored, or the tag that it is mirrored to.

    \b
    Examples:
      ocimirror history docker.io/library/alpine:3.19
      ocimirror history registry.example.com/library/alpine:3.19 --json
    """
    from ocimirror.errors import NotFound
    from ocimirror.model.reference import Reference
    from ocimirror.sync.state import State

    asked = Reference.parse(reference.removeprefix("docker://")).readable()
    settings = settings_from(options, writes=False)
    with State(path, read_only=True) as state:
        sources = [asked] if state.history(asked) else state.sources_of(asked.location)
        histories = {str(source.location): state.history(source) for source in sources}
    if not any(histories.values()):
        raise NotFound(f"{path} knows nothing of {asked.location}: no sync has seen it")
    if settings.json:
        images = []
        for source, spans in histories.items():
            seen = [to_document(span, without=("source",)) for span in spans]
            images.append({"source": source, "history": seen})
        output.document("history", 0, {"images": images})
        return 0
    for source, spans in histories.items():
        output.line(source)
        output.line(f"  {'FIRST SEEN':20}  {'LAST SEEN':20}  DIGEST")
        for span in spans:
            times = f"{time_text(span.first_seen)}  {time_text(span.last_seen)}"
            output.line(f"  {times}  {span.digest}")
    return 0
