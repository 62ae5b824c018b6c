"""What a search provider is: something that finds pages on the web, and may fetch one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """One page that was found: its title, its address, and the part of its text that answers the query."""

    title: str
    url: str
    content: str


class WebPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page that was fetched: its title, its text without markup, and the absolute addresses that it links to."""

    title: str
    content: str
    links: tuple[str, ...] = ()


class SearchProvider(Protocol):
    """Finds pages; see `corectl.hookspecs.corectl_search_providers` for when it is called."""

    @property
    def name(self) -> str: ...

    async def search(self, query: str, max_results: int) -> Sequence[SearchResult]:
        """At most `max_results` pages (at least 1), the best first. Raises `corectl.errors.CorectlError`."""
        ...


@runtime_checkable
class PageFetcher(Protocol):
    """What a search provider may be besides: something that fetches one page."""

    async def fetch(self, url: str) -> WebPage:
        """Raises `BadRequest` for an address that is none or that it does not fetch, and other `CorectlError`s."""
        ...
