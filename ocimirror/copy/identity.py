"""Which digests of an image are the original ones, in words."""

from __future__ import annotations

from ocimirror.model.descriptor import Descriptor
from ocimirror.model.manifest import Manifest
from ocimirror.stores.entry import is_synthesised


def note_on_identity(root: Manifest, *, verified: bool = False) -> list[str]:
    """Return what a user has to know of a manifest that was made without the original; else none.

    Args:
        root: what a name stands for, with the annotations of its entry.
        verified: the config and the layers were hashed in this run.
    """
    if not is_synthesised(root.descriptor):
        return []
    return [
        f"image ID {root.blobs[0].digest}: original" + (", verified" if verified else ""),
        f"manifest digest {root.digest}: NEW, the manifest is synthesised and will not equal the"
        " registry's",
    ]


def notes_on_docker(root: Descriptor, manifest: Manifest, name: str) -> list[str]:
    """Return what of an image a docker-archive keeps, and what is lost.

    Args:
        root: what was asked for.
        manifest: the one image manifest of it that is in the archive.
        name: its full reference, empty for none.
    """
    config = manifest.blobs[0].digest
    notes = [f"image ID {config}: kept"]
    if config.algorithm != "sha256":
        notes = [f"config {config}: its bytes are kept, and docker knows them by another image ID"]
    if root.digest != manifest.digest:
        notes.append(f"index {root.digest}: lost, with the other platforms")
    notes.append(f"manifest digest {manifest.digest}: lost")
    notes.append("signatures, SBOMs and attestations: lost")
    return notes if name else [*notes, "tag: none, since the image has no name with a tag"]


def notes_on_restored(root: Descriptor, manifest: Manifest, originals: str) -> list[str]:
    """Return which identities an image got back.

    Args:
        root, manifest: the original ones.
        originals: the location that has them.
    """
    what = f"index {root.digest}, " if root.digest != manifest.digest else ""
    return [
        f"image ID {manifest.blobs[0].digest}: original",
        f"{what}manifest {manifest.digest}: original, proved and restored from {originals}",
    ]
