"""The files of skopeo sync and regsync, translated; what does not fit is named, never guessed.

An entry that would mirror something else than it did is left out, and a note says why.
"""

from __future__ import annotations

from typing import NamedTuple

from ocimirror.errors import UsageError
from ocimirror.sync import regsync, skopeo, yamlfile
from ocimirror.sync.drafts import Draft, Note, pairs
from ocimirror.sync.yamlfile import Findings


class Translation(NamedTuple):
    """A configuration that `config.load` reads, and what it does not say.

    The text holds whatever passwords the other file held.
    """

    tool: str
    text: str
    notes: tuple[Note, ...]


def translate(text: str, name: str, to: str = "") -> Translation:
    """Translate the YAML file of `skopeo sync` or of regsync.

    Args:
        text: the file.
        name: what it is called in errors.
        to: where images go, for skopeo's files, which do not say it: `HOST[/PREFIX]`, as on
            skopeo's command line, or a destination with `{fields}`.

    Raises:
        InvalidConfiguration: the file is no YAML, or has duplicate keys or tags.
        UsageError: it is neither tool's, or nothing in it can be carried over.
    """
    findings = Findings()
    node = yamlfile.parse(text, name, findings, aliases=True)
    findings.complete(name)
    draft = Draft()
    top = pairs(node)
    if "sync" in top:
        tool = "regsync"
        if to:
            raise UsageError("a regsync file says where images go: --to is for skopeo's")
        regsync.translate(top, draft)
    elif any(skopeo.is_registry(value) for value in top.values()):
        tool = "skopeo"
        skopeo.translate(top, draft, to)
    elif "mirrors" in top:
        raise UsageError(f"{name} is ocimirror's own already")
    else:
        raise UsageError(f"{name} is neither a file for skopeo sync --src yaml nor regsync's")
    if draft.empty:
        reasons = "; ".join(str(note) for note in draft.notes[:5])
        raise UsageError(f"nothing in {name} can be carried over: {reasons or 'it has no images'}")
    return Translation(tool, draft.render(), tuple(sorted(draft.notes)))
