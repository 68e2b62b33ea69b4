"""Images whose content is in and whose names can move: gathered, so that names move rarely."""

from __future__ import annotations

import time

from ocimirror.copy.image import Image
from ocimirror.stores.store import Store

_WAIT_S = 1.0


class Ready:
    """What waits for its name, a batch for each store.

    A layout replaces its index.json for up to 64 names or a second at once; an image is reported
    after that. A registry names one image at a time, at once.
    """

    def __init__(self) -> None:
        self._batches: dict[Store, list[Image]] = {}
        self._since = 0.0

    def __bool__(self) -> bool:
        return bool(self._batches)

    def add(self, image: Image) -> list[Image]:
        """Take in an image; return its store's batch where that is full."""
        if not self._batches:
            self._since = time.monotonic()
        destination = image.request.destination
        batch = self._batches.setdefault(destination, [])
        batch.append(image)
        return self._taken(destination) if len(batch) >= destination.names_at_once else []

    def due_s(self) -> float | None:
        """Return how long names may wait still; None where none do."""
        return max(0.0, self._since + _WAIT_S - time.monotonic()) if self._batches else None

    def take(self) -> list[list[Image]]:
        """Return every batch; nothing waits any more."""
        return [self._taken(destination) for destination in list(self._batches)]

    def _taken(self, destination: Store) -> list[Image]:
        return sorted(self._batches.pop(destination), key=lambda image: image.number)
