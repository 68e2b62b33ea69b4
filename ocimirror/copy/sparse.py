"""What to do where a destination refuses an index whose children are not all there."""

from __future__ import annotations

import logging
from dataclasses import replace

from ocimirror.copy.outcome import Request, Sparse
from ocimirror.copy.plan import Plan
from ocimirror.errors import SparseRefused
from ocimirror.stores.entry import platforms_of

logger = logging.getLogger(__name__)


def refuse_or_warn_of_sparse(request: Request, plan: Plan, instead: Sparse) -> None:
    """Say before the upload that a registry may refuse what is going to be sent.

    Not where the user said already what to do then.

    Raises:
        SparseRefused: it is known to.
    """
    destination = request.destination
    if not plan.absent or not destination.may_refuse_sparse:
        return
    if destination.refuses_sparse:
        raise SparseRefused(f"{destination.location} refuses an index with absent children")
    if instead != "fail":
        return
    logger.warning(
        "%s: manifests of other platforms (%d) stay absent; a registry may refuse that",
        request.shown_destination,
        len(plan.absent),
    )


def instead_of_sparse(request: Request, plan: Plan, sparse: Sparse) -> tuple[Request, str] | None:
    """Return what to copy instead, and a note for the user; None where nothing else was allowed.

    `full` copies every platform. `child` copies the manifest of the one platform that was asked
    for and gives it the name; its digest is not the index's.

    Spec: distribution-spec, pushing manifests: a registry MAY refuse missing references.
    """
    # (A sparse source has nothing more to give.)
    if sparse == "full" and not platforms_of(plan.root.descriptor):
        note = "the registry refuses an index with absent children: all platforms were copied"
        return replace(request, platforms=()), note
    if sparse == "child" and len(request.platforms) == 1:
        (platform,) = request.platforms
        for child in plan.root.manifests:
            if child.platform is not None and platform.matches(child.platform):
                note = (
                    f"the registry refuses an index with absent children: the name stands for the"
                    f" manifest of {platform}, {child.digest}, not for the index {plan.root.digest}"
                )
                return replace(request, name=str(child.digest), platforms=()), note
    return None
