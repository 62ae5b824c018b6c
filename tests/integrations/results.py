"""What clients were tried, with what result: a file for each, which a table of the documentation is made from."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

FOLDER = Path(__file__).resolve().parents[2] / "docs/integrations/results"
VARIABLE = "CORECTL_KEEP_RESULTS"
"""If this is set, runs write into the documentation."""

_PROTOCOLS = {
    "/api/": "Ollama",
    "/v1/chat/completions": "OpenAI Chat",
    "/v1/completions": "OpenAI Completions",
    "/v1/embeddings": "OpenAI Embeddings",
    "/v1/responses": "OpenAI Responses",
    "/v1/messages": "Anthropic Messages",
}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One client that has passed. `routes` are all that it asked, such as `POST /api/chat`.

    `page` is the page about it, without folder and suffix.
    """

    client: str
    page: str
    version: str
    routes: list[str]
    offline: bool
    date: str

    def write(self) -> None:
        if not os.environ.get(VARIABLE):
            return
        FOLDER.mkdir(exist_ok=True)
        name = re.sub(r"[^a-z0-9]+", "-", self.client.lower()).strip("-")
        text = msgspec.json.format(msgspec.json.encode(self), indent=2)
        (FOLDER / f"{name}.json").write_bytes(text + b"\n")

    @property
    def protocols(self) -> list[str]:
        return [
            name for path, name in _PROTOCOLS.items() if any(f" {path}" in route for route in self.routes)
        ]


def results() -> list[Result]:
    """All of them, by name."""
    found = [msgspec.json.decode(file.read_bytes(), type=Result) for file in FOLDER.glob("*.json")]
    return sorted(found, key=lambda result: result.client.lower())


def table() -> str:
    """The table of the page about integrations."""
    rows = ["| Client | Version | Protocol | Routes | Tried |", "|---|---|---|---|---|"]
    for result in results():
        routes = ", ".join(f"`{route}`" for route in result.routes)
        where = "" if result.offline else ", not alone on loopback"
        cells = (
            f"[{result.client}]({result.page}.md)",
            result.version,
            ", ".join(result.protocols),
            routes,
            f"{result.date}{where}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"
