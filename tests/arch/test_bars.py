"""What is claimed of ocimirror under faults, and that each claim has a test that says so.

A test says it with `@pytest.mark.bar("R14")`; `grep -rn '"R14"' tests` finds it.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

FAULTS = {
    "R01": "SIGKILL at any moment of a pull: the layout is valid, the next run finishes",
    "R02": "SIGINT, SIGTERM, SIGHUP: stopped within 5 seconds, no temporary file",
    "R03": "power loss at any step: valid, and what was reported is there",
    "R04": "a full disk: exit 8, bytes needed and free, valid",
    "R05": "an error of write, sync, close or rename: exit 8, never synced again",
    "R06": "a directory that cannot be written: found out before any transfer",
    "R07": "twenty runs into one layout: all succeed, every tag is there",
    "R09": "gc beside a pull: it waits or exits 7, and removes nothing that is needed",
    "R10": "the lock of a killed process needs no cleaning",
    "R11": "what dead writers left is removed, what living ones write is not",
    "R12": "an index.json that another tool tore: refused, repaired from index.json.prev",
    "R13": "a bit that flipped in a stored blob: found, never sent, repaired",
    "R14": "a body that is cut, with a length and without: resumed",
    "R15": "a body that does not end: given up one byte past its size",
    "R16": "a byte that is corrupted on the way: fetched once more, then exit 5",
    "R17": "a reset at any byte: the rest is asked for",
    "R18": "200 in answer to a range: begun again, twice at most",
    "R19": "another range than was asked for: begun again",
    "R20": "416 with a false length: not waited for",
    "R21": "a body that trickles: given up",
    "R22": "a server that falls silent: given up, and the run goes on",
    "R23": "no such host, refused, untrusted: one clear line, no insecure fallback",
    "R24": "a burst of 5xx: tried again with backoff, a bounded number of times",
    "R25": "429 with Retry-After in seconds, as a date, absurd or none: the host is left alone",
    "R26": "a token that ends in the middle: renewed",
    "R27": "a token service that is down: said to be that, exit 3",
    "R28": "credentials that are revoked in the middle: two attempts at most",
    "R29": "a tag that moves in the middle: the old image or the new one",
    "R30": "content that vanishes from the source: exit 4, the old image stays",
    "R31": "a destination that refuses: exit 4 with its words, the others go on",
    "R32": "an immutable tag of the same digest: success, no PUT",
    "R33": "a destination that misses what it said it had: pushed again, once",
    "R34": "an upload session that is lost: begun again, a bounded number of times",
    "R35": "a mount that is refused or becomes an upload: uploaded",
    "R36": "a signed URL that has ended: the registry gives a new one, and it is resumed",
    "R37": "a redirect elsewhere, and a challenge from there: no secret is sent",
    "R38": "hostile realms, locations, links and redirects: refused",
    "R39": "lists of tags without end, in circles, with a million: bounded memory",
    "R41": "bombs of manifests: bounded in depth and number, each read once",
    "R42": "hostile names: never raw on a terminal",
    "R43": "links, FIFOs and devices in a layout: refused",
    "R44": "hostile archives: refused, nothing written",
    "R45": "content that somebody encoded on the way: refused by name",
    "R46": "large blobs: memory does not grow with them",
    "R48": "HEAD that is refused, or leaves something out: confirmed by GET",
    "R49": "referrers by API, by tag, refused, or false: the right set",
    "R50": "two writers of one fallback tag: merged in at most five rounds",
    "R51": "secrets: in no message, log or report",
    "R52": "a push that was killed: the next one sends what is not there",
}
QUIRKS = {
    "hub-head-first": "Docker Hub counts GET of manifests, not HEAD",
    "hub-rate-headers": "Docker Hub's limits change: they are read from its headers",
    "hub-request-rate": "Docker Hub limits all requests of an address",
    "hub-429-on-head": "Docker Hub answers 429 to HEAD too",
    "hub-names": "docker.io, index.docker.io, library/",
    "ghcr-patch-4-mib": "GHCR takes chunks of 4 MiB at most",
    "gar-no-chunks": "Google's registries take no chunks",
    "ecr-helper": "ECR's passwords come from a helper, anew each run",
    "ecr-blob-redirect": "ECR redirects blobs to S3, which refuses our Authorization",
    "ecr-referrers-405": "ECR refuses manifests with a subject",
    "ecr-immutable": "ECR refuses the same digest under an immutable tag",
    "ecr-empty-put": "ECR fails at a closing PUT without content",
    "ecr-no-repository": "ECR wants the repository made first",
    "no-digest-header": "ECR and Red Hat leave out Docker-Content-Digest",
    "acr-429": "ACR answers 429 to tokens and manifests",
    "acr-pages": "ACR's pages are short",
    "quay-mount-from": "older Quay refuses mount without from",
    "quay-no-oci-subject": "Quay left out OCI-Subject for some pushes",
    "quay-delete-scope": "Quay gives no token that may delete",
    "quay-stall": "Quay's CDN stalls in the middle of a blob",
    "harbor-mount-400": "Harbor answers 400 to a mount from an odd repository",
    "harbor-head-412": "Harbor answers 412 to HEAD",
    "harbor-immutable-412": "Harbor answers 412 for an immutable tag",
    "harbor-head-length": "Harbor's HEAD and GET differ in length",
    "gitlab-short-tokens": "GitLab's tokens end in the middle of a push",
    "gitlab-fallback-alias": "GitLab answers the fallback tag with the image itself",
    "artifactory-head": "Artifactory's HEAD has no digest and a generic type",
    "artifactory-scope": "Artifactory leaves out the scope, and refuses POST for tokens",
    "artifactory-cookies": "JFrog's cloud sets cookies",
    "artifactory-patch": "some Artifactory set-ups want PATCH",
    "nexus-head-404": "Nexus answers 404 to HEAD and 200 to GET",
    "distribution-416": "docker-registry announces the whole blob's length with a 416",
    "distribution-stale-session": "docker-registry answers 404 to an old upload location",
    "distribution-sha512": "docker-registry answers a sha512 upload with a sha256 digest",
    "distribution-ambiguous": "a manifest with manifests and layers is refused",
    "distribution-replicas": "replicas without a shared secret lose each other's uploads",
    "no-referrers-api": "docker-registry has no referrers API",
    "zot-docker-types": "zot refuses Docker's types unless it is told to take them",
    "zot-same-digest": "what has the same digest is not fetched again",
    "k8s-range-400": "registry.k8s.io answered 400 or 200 to a range",
    "signed-url-ends": "a signed URL ends in the middle of a download",
    "slow-other-end": "a slow destination is no silent source",
}
CLAIMED = FAULTS | QUIRKS


@functools.cache
def marked() -> dict[str, list[str]]:
    """Return the tests that name each claim."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for function in ast.parse(path.read_bytes()).body:
            for call in getattr(function, "decorator_list", ()):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.bar":
                    for name in call.args:
                        found.setdefault(ast.literal_eval(name), []).append(function.name)  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("name", CLAIMED)
def test_what_is_claimed_has_a_test(name: str) -> None:
    assert marked().get(name), CLAIMED[name]


def test_a_test_names_only_what_is_claimed() -> None:
    assert set(marked()) - set(CLAIMED) == set()
