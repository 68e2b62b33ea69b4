"""One image of a run: what is asked, what is known of it, how far it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from ocimirror.copy.attachments import attachment_name
from ocimirror.copy.outcome import Outcome, Request
from ocimirror.copy.plan import Plan
from ocimirror.copy.walk import Walk
from ocimirror.model.manifest import Manifest
from ocimirror.stores.index import sparse


@dataclass(slots=True, eq=False)
class Image:
    """One request under way."""

    number: int
    request: Request
    outcome: Outcome
    started: float = field(default_factory=time.monotonic)
    walk: Walk | None = None
    plan: Plan | None = None
    waiting: int = 0  # tasks of the present step that have not come back
    level: int = 0
    done: bool = False

    @property
    def the_plan(self) -> Plan:
        """The plan, in the steps that have one."""
        assert self.plan is not None  # noqa: S101 - a programming error, not input
        return self.plan

    def names(self) -> list[tuple[str, Manifest]]:
        """Return what is named when all is in: attachments, then the root, last of all.

        The root of a sparse copy is named with the platforms that it holds.
        """
        new_name, plan = self.request.new_name, self.the_plan
        names = [(attachment_name(new_name, tag), found) for tag, found in plan.attachments]
        if new_name:
            platforms = self.request.platforms if plan.absent else ()
            root = replace(plan.root, descriptor=sparse(plan.root.descriptor, platforms))
            names.append((new_name, root))
        return names
