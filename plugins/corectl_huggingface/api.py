"""Requests to the hub: what it is asked, whom the token is shown to, and what its refusals mean."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import httpx

from corectl.errors import Busy, CorectlError, Forbidden, NotFound, RemoteError, Unauthorized
from corectl.registry.remote import Location
from corectl.transfer.client import Answer, ask, shown
from corectl.transfer.following import REDIRECTS, next_location, same_origin
from corectl.transfer.peers import Peers
from corectl_huggingface.listing import MAX_BYTES, Listing, RepoFile, read_listing

REVISION = "main"
MAX_REDIRECTS = 5
MAX_FILE = 32 << 20
"""Bytes of a file that is not fetched in parts. The hub keeps larger ones than 10 MB elsewhere."""

MAX_WORDS = 1 << 16
"""Bytes of what the hub says beside a status."""

FILE_SECONDS = 300.0


class Hub:
    """Asks about one repository. Methods raise `NotFound`, `Unauthorized`, `Forbidden`, `Busy` and `RemoteError`."""

    def __init__(self, http: httpx.AsyncClient, endpoint: str, token: str, repository: str) -> None:
        """`repository` is `<owner>/<name>`. The token is shown to the endpoint's origin only."""
        self._http, self._base, self._token, self._repository = http, endpoint, token, repository
        self._home = httpx.URL(endpoint)

    @property
    def headers(self) -> Mapping[str, str]:
        """What proves to the endpoint who is there."""
        return {"authorization": f"Bearer {self._token}"} if self._token else {}

    def address(self, commit: str, path: str) -> str:
        """Where a file is fetched. The hub redirects from there to where large ones lie."""
        return f"{self._base}/{self._repository}/resolve/{commit}/{quote(path)}"

    async def listing(self) -> Listing:
        """The newest revision."""
        url = f"{self._base}/api/models/{self._repository}/revision/{REVISION}?blobs=true"
        answer = await self._get(url, limit=MAX_BYTES, beyond=False)
        return read_listing(answer.body)

    async def read(self, commit: str, file: RepoFile) -> bytes:
        """A whole file. Nothing but its length is checked."""
        if file.size > MAX_FILE:
            raise RemoteError(f"{file.path} of the repository is larger than {MAX_FILE} bytes")
        # Redirects and refusals have bodies of their own.
        answer = await self._get(self.address(commit, file.path), limit=file.size + MAX_WORDS)
        if len(answer.body) != file.size:
            raise RemoteError(f"{file.path} of the repository is not as long as Hugging Face says")
        return answer.body

    async def check_access(self, commit: str, file: RepoFile) -> None:
        """Raises what fetching the file would raise, before much else has been fetched."""
        answer = await ask(self._http, "HEAD", self.address(commit, file.path), headers=self.headers)
        if answer.status not in REDIRECTS:
            self._check(answer, own=True)

    async def _get(self, url: str, *, limit: int, beyond: bool = True) -> Answer:
        """The answer at the end of redirects, which lead away from the hub only if `beyond`."""
        location, peers = Location(url=url, headers=self.headers), Peers(self._http)
        for _ in range(MAX_REDIRECTS):
            answer = await ask(
                *(self._http, "GET", location.url),
                headers=location.headers,
                limit=limit,
                seconds=FILE_SECONDS,
                peers=peers,
            )
            own = same_origin(httpx.URL(location.url), self._home)
            if answer.status not in REDIRECTS:
                self._check(answer, own=own)
                return answer
            target = answer.headers.get("location", "")
            location = next_location(location, target, allow_http=self._home.scheme == "http")
            if not beyond and not same_origin(httpx.URL(location.url), self._home):
                raise RemoteError(f'"{shown(url)}" redirects to another host, and is not followed')
        raise RemoteError(f'"{shown(url)}" redirects more than {MAX_REDIRECTS} times')

    def _check(self, answer: Answer, *, own: bool) -> None:
        """Raises for an answer that is no success; `own` is whether it comes from the hub itself."""
        if answer.status == 200:
            return
        if own:
            raise self._refusal(answer)
        # In whose words is not for the hub to choose.
        raise RemoteError(f"a file of {self._repository} cannot be fetched: status {answer.status}")

    def _refusal(self, answer: Answer) -> CorectlError:
        status, code = answer.status, answer.headers.get("x-error-code", "")
        if status in (401, 403) and code == "GatedRepo":
            page = f"{self._base}/{self._repository}"
            if not self._token:
                return Unauthorized(
                    f"{self._repository} is gated: accept its terms at {page}, and set HF_TOKEN where the server runs"
                )
            return Forbidden(
                f"{self._repository} is gated: accept its terms at {page} with the account of HF_TOKEN"
            )
        if status == 401 and not self._token:
            # To strangers the hub does not say which of the two it is.
            return Unauthorized(
                f"file does not exist, or {self._repository} is private: "
                "for a private repository set HF_TOKEN where the server runs"
            )
        if status == 401:
            return Unauthorized("Hugging Face does not know the token in HF_TOKEN")
        if status == 403:
            return Forbidden(f"{self._repository} is not for the token in HF_TOKEN: {_said(answer)}")
        if status == 404:
            return NotFound("file does not exist")
        if status == 429:
            return Busy("Hugging Face gets too many requests from here; try again later, or set HF_TOKEN")
        return RemoteError(f"{status}: {_said(answer)}")


def _said(answer: Answer) -> str:
    text = answer.headers.get("x-error-message", "")[:500]
    return text if text and text.isprintable() else answer.text
