"""Every tag of a repository, every repository of a registry.

Spec: distribution-spec, listing tags; the catalog is distribution's, and not in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ocimirror.errors import NotFound, RegistryRefused, RegistryUnavailable
from ocimirror.model.reference import is_repository, is_tag
from ocimirror.registry.messages import Access, Response
from ocimirror.registry.pages import PagedList, read_document, read_pages
from ocimirror.registry.parts import Host, Repository
from ocimirror.shown import printable

logger = logging.getLogger(__name__)


def list_tags(repository: Repository) -> list[str]:
    """Return every tag once, in the order of the registry.

    Raises:
        NotFound: the repository does not exist.
        RegistryUnavailable: a page cannot be read, or the list does not end.
    """

    def read(response: Response) -> dict[str, str]:
        document = read_document(response)
        name = document.get("name")
        if name is not None and not _is_name_of(name, repository.name, response):
            raise RegistryUnavailable(
                f"{response}: the answer lists the tags of {printable(str(name)[:300])!r}"
            )
        return _strings(document, "tags", response)

    tags = read_pages(
        PagedList(
            path="tags/list",
            what="tags",
            ask=lambda page: repository.send("GET", page),
            read=read,
            policy=repository.host.policy,
        )
    )
    return _named(tags, is_tag, "tags", f"{repository.location}")


def list_repositories(host: Host) -> list[str]:
    """Return every repository that a registry's catalog names, once, in its order.

    Raises:
        NotFound: the registry has no catalog, as docker.io and ghcr.io have none.
        AuthenticationFailed: these credentials may not read it.
        RegistryUnavailable: a page cannot be read, or the list does not end.
    """

    def read(response: Response) -> dict[str, str]:
        return _strings(read_document(response), "repositories", response)

    try:
        found = read_pages(
            PagedList(
                path="/v2/_catalog",
                what="repositories",
                ask=lambda page: host.send("GET", page, Access()),
                read=read,
                policy=host.policy,
            )
        )
    except (NotFound, RegistryRefused) as error:
        raise NotFound(
            f"{host.registry} has no catalog: {error.message}",
            advice="Name each repository: `ocimirror list docker://HOST/REPOSITORY` lists the tags"
            " of one, and what a registry does not list cannot be expanded.",
        ) from error
    return _named(found, is_repository, "repositories", host.registry)


def _is_name_of(name: object, repository: str, response: Response) -> bool:
    """Whether a page is about a repository; a proxy or a redirect may give it a longer prefix.

    Artifactory and Harbor answer `library/alpine` for `hub/library/alpine`; registry.k8s.io
    redirects `pause` to `k8s-artifacts-prod/images/pause`.
    """
    if not isinstance(name, str) or not name:
        return False
    inner, outer = sorted((name, repository), key=len)
    return outer == inner or outer.endswith(f"/{inner}") or f"/v2/{name}/" in response.url


def _strings(document: Mapping[str, object], key: str, response: Response) -> dict[str, str]:
    """Return the list of strings under a key; an absent list is an error."""
    listed = document.get(key)
    if listed is None and key in document:
        return {}  # (distribution writes null when all tags are deleted)
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise RegistryUnavailable(
            f"{response}: the answer holds no list of {key}",
            advice="Something other than a registry may have answered, such as a proxy.",
        )
    return dict.fromkeys(listed, "")


def _named(
    found: Mapping[str, str], fits: Callable[[str], bool], what: str, where: str
) -> list[str]:
    """Return what can be asked for; say what cannot, which no client could pull."""
    names = [name for name in found if fits(name)]
    if found and not names:
        raise RegistryUnavailable(f"{where}: the registry lists {len(found)} {what}, none valid")
    odd = len(found) - len(names)
    if odd:
        example = printable(next(name for name in found if not fits(name))[:300])
        logger.warning("%s: invalid %s left out: %d, such as %r", where, what, odd, example)
    return names
