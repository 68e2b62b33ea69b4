"""Every tag of a repository, page after page, bounded.

Spec: distribution-spec, listing tags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocimirror.errors import MalformedManifest, RegistryUnavailable
from ocimirror.model import strictjson
from ocimirror.model.reference import is_tag
from ocimirror.stores.registry import answers
from ocimirror.stores.registry.messages import Response

if TYPE_CHECKING:
    from ocimirror.stores.registry.repository import RegistryRepository

MAX_PAGE_BYTES = 16 * 1024 * 1024
MAX_PAGES = 20_000
PAGE_SIZE = 1000


def list_tags(repository: RegistryRepository) -> list[str]:
    """Return every tag once, in the order of the registry.

    Raises:
        NotFound: there is no such repository.
        RegistryUnavailable: what came is no list, or it has no end.
    """
    tags: dict[str, None] = {}
    seen: set[str] = set()
    page, size = f"tags/list?n={PAGE_SIZE}", PAGE_SIZE
    for _ in range(MAX_PAGES):
        response = repository.send("GET", page)
        if response.status in (400, 413) and not seen and size > 50:
            # Quay and distribution 3 refuse a page that is longer than they like.
            response.drain()
            size //= 2
            page = f"tags/list?n={size}"
            continue
        if response.status != 200:
            raise response.failure()
        tags.update(dict.fromkeys(_tags_of(response)))
        target = answers.next_page(response.headers)
        if not target:
            return list(tags)
        page = repository.host.policy.follow(response.url, target, "next page")
        if page in seen:
            raise RegistryUnavailable(f"{response}: its pages of tags go round in a circle")
        seen.add(page)
    raise RegistryUnavailable(f"{repository.location}: more than {MAX_PAGES} pages of tags")


def _tags_of(response: Response) -> list[str]:
    raw = response.read_all(MAX_PAGE_BYTES)
    try:
        listed = strictjson.loads(raw, f"{response}").get("tags")
    except MalformedManifest as error:
        raise RegistryUnavailable(error) from error
    if listed is None:  # distribution answers null for a repository without tags
        return []
    if not isinstance(listed, list):
        raise RegistryUnavailable(f"{response}: it holds no list of tags")
    return [tag for tag in listed if isinstance(tag, str) and is_tag(tag)]
