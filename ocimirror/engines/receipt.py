"""What an engine kept of an image's identity, one word for each part of it, with the evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Tag = Literal["kept", "lost", "moved", "not_applicable"]
Index = Literal["kept", "lost", "not_applicable"]
Kept = Literal["kept", "lost", "synthesised"]
Config = Literal["kept", "differs_by_design", "lost"]
Part = Literal["tag", "index", "manifest", "config"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The identity of one image in one engine, as the engine itself told it.

    Attributes:
        image: the full name.
        engine: docker, containerd, podman or cri; `version` as it states it.
        store: graphdriver, containerd or containers-storage.
        route: how it came there; empty where nothing was loaded.
        tag: whether the name stands for this image; moved: for another one.
        index: whether the image is found by, or holds, the digest of its index.
        manifest: whether the engine has the manifest of each kept platform under its digest;
            synthesised: it had none, and one was made when the image was saved.
        config: whether the image ID is the config's digest; where the engine names images by
            another digest and holds the config, it differs by design.
        kept: platforms that can be run; `asked`: those that should.
        evidence: what was asked, and the answer.
        notes: what the reader may do about it.
        hashed: what was hashed of what the engine gives back; empty if that was not asked for.
    """

    image: str
    engine: str
    version: str
    store: str
    tag: Tag
    index: Index
    manifest: Kept
    config: Config
    kept: tuple[str, ...]
    asked: tuple[str, ...]
    evidence: tuple[str, ...]
    route: str = ""
    notes: tuple[str, ...] = ()
    hashed: str = ""
    unchanged: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing was lost."""
        return not self.failing(PARTS)

    def failing(self, required: Iterable[Part]) -> Sequence[str]:
        """Return what of the required parts, and of the platforms, the engine did not keep.

        The image's own name is always required: if it has no tag, that is the digest.
        """
        required = dict.fromkeys(required)
        if self.tag == "not_applicable":
            required["manifest" if self.index == "not_applicable" else "index"] = None
        lost = [
            f"{part} {getattr(self, part)}"
            for part in required
            if getattr(self, part) in ("lost", "moved", "synthesised")
        ]
        return [*lost, *(f"platform {platform} lost" for platform in self.missing)]

    @property
    def missing(self) -> Sequence[str]:
        """Platforms that should be there and are not, as often as they should."""
        return list((Counter(self.asked) - Counter(self.kept)).elements())
