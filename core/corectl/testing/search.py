"""The conformance suite for search providers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

from corectl.errors import BadRequest, CorectlError
from corectl.search.provider import PageFetcher, SearchProvider
from corectl.testing.suite import Suite, optional

T = TypeVar("T")

SECONDS = 30.0
"""After so long a search has failed."""

QUERIES = ("why is the sky blue", "日本語 🦙", "a" * 5000, '"; DROP TABLE pages; --', "a\x00b\nc")
NO_ADDRESSES = (
    "",
    "no address",
    "ftp://example.com/a",
    "file:///etc/passwd",
    "http://",
    "javascript:alert(1)",
)


class SearchSuite(Suite):
    """Everything that a search provider promises.

    A subclass gives `provider`; one that asks a service is given a stand-in for it, or is known to reach it. `address`
    is a page that it fetches, if it does.
    """

    kind = "search provider"

    address = ""

    def provider(self) -> SearchProvider:
        raise NotImplementedError

    def subject(self) -> str:
        return self.provider().name

    def _play(self, story: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def limited() -> T:
            async with asyncio.timeout(SECONDS):
                return await story()

        return asyncio.run(limited())

    def test_search(self) -> None:
        """A query finds pages with a title, an address and a text, at most as many as were asked for."""
        for most in (1, 3, 10):
            found = self._play(lambda most=most: self.provider().search(QUERIES[0], most))  # type: ignore[misc]
            assert 1 <= len(found) <= most, f"{len(found)} pages for {most}"
            for page in found:
                assert page.title and page.content, page
                address = urlsplit(page.url)
                assert address.scheme in ("http", "https") and address.netloc, page.url

    def test_strange_queries(self) -> None:
        """Any text is a query: there is an answer, or a typed error."""
        for query in QUERIES[1:]:
            try:
                found = self._play(lambda query=query: self.provider().search(query, 2))  # type: ignore[misc]
            except CorectlError as exc:
                assert exc.message
            else:
                assert len(found) <= 2

    def test_cancelling(self) -> None:
        """A search that nobody waits for any more ends at once."""

        async def story() -> None:
            task = asyncio.ensure_future(self.provider().search(QUERIES[0], 1))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=SECONDS / 2)
            assert task.done(), "it goes on"

        self._play(story)

    def _fetches_nothing(self) -> None:
        assert not isinstance(self.provider(), PageFetcher), "it has fetch"

    @optional(_fetches_nothing)
    def test_fetching(self) -> None:
        """A page is fetched as text with its links; what is no address of the web is refused."""
        provider = self.provider()
        assert isinstance(provider, PageFetcher)
        assert self.address, "give the suite the address of a page"
        page = self._play(lambda: provider.fetch(self.address))
        assert page.title and page.content
        assert all(urlsplit(link).scheme in ("http", "https") for link in page.links), page.links
        for address in NO_ADDRESSES:
            with pytest.raises(BadRequest):
                self._play(lambda address=address: provider.fetch(address))  # type: ignore[misc]
