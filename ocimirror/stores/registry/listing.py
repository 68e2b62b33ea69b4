"""Every tag of a repository, every repository of a registry: page after page, bounded.

Spec: distribution-spec, listing tags; the catalogue is distribution's, and not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ocimirror.errors import MalformedManifest, NotFound, RegistryUnavailable
from ocimirror.model import strictjson
from ocimirror.model.reference import is_repository, is_tag
from ocimirror.stores.registry import answers
from ocimirror.stores.registry.messages import Access, Response
from ocimirror.stores.registry.url import UrlPolicy

if TYPE_CHECKING:
    from ocimirror.stores.registry.registry import RegistryHost
    from ocimirror.stores.registry.repository import RegistryRepository

MAX_PAGE_BYTES = 16 * 1024 * 1024
MAX_PAGES = 20_000
PAGE_SIZE = 1000

Ask = Callable[[str], Response]


def list_tags(repository: RegistryRepository) -> list[str]:
    """Return every tag once, in the order of the registry.

    Raises:
        NotFound: there is no such repository.
        RegistryUnavailable: what came is no list, or it has no end.
    """
    policy = repository.host.policy
    return _pages(lambda page: repository.send("GET", page), policy, "tags/list", "tags", is_tag)


def list_repositories(host: RegistryHost) -> list[str]:
    """Return every repository that a registry's catalogue names, once, in its order.

    Raises:
        NotFound: the registry has no catalogue, as docker.io and ghcr.io have none.
        AuthenticationFailed: it is not for us.
        RegistryUnavailable: what came is no list, or it has no end.
    """

    def ask(page: str) -> Response:
        return host.send("GET", page, Access())

    try:
        return _pages(ask, host.policy, "/v2/_catalog", "repositories", is_repository)
    except NotFound as error:
        raise NotFound(
            f"{host.registry} has no catalogue: {error.message}",
            advice="Name each repository: what a registry does not list cannot be expanded.",
        ) from error


def _pages(
    ask: Ask, policy: UrlPolicy, first: str, key: str, fits: Callable[[str], bool]
) -> list[str]:
    items: dict[str, None] = {}
    seen: set[str] = set()
    page, size = f"{first}?n={PAGE_SIZE}", PAGE_SIZE
    for _ in range(MAX_PAGES):
        response = ask(page)
        if response.status in (400, 413) and not seen and size > 50:
            # Quay and distribution 3 refuse a page that is longer than they like.
            response.drain()
            size //= 2
            page = f"{first}?n={size}"
            continue
        if response.status != 200:
            raise response.failure()
        items.update(dict.fromkeys(_listed(response, key, fits)))
        target = answers.next_page(response.headers)
        if not target:
            return list(items)
        page = policy.follow(response.url, target, "next page")
        if page in seen:
            raise RegistryUnavailable(f"{response}: its pages of {key} go round in a circle")
        seen.add(page)
    raise RegistryUnavailable(f"{first}: more than {MAX_PAGES} pages of {key}")


def _listed(response: Response, key: str, fits: Callable[[str], bool]) -> list[str]:
    raw = response.read_all(MAX_PAGE_BYTES)
    try:
        listed = strictjson.loads(raw, f"{response}").get(key)
    except MalformedManifest as error:
        raise RegistryUnavailable(error) from error
    if listed is None:  # distribution answers null for a repository without tags
        return []
    if not isinstance(listed, list):
        raise RegistryUnavailable(f"{response}: it holds no list of {key}")
    return [item for item in listed if isinstance(item, str) and fits(item)]
