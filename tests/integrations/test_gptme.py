"""gptme, which speaks OpenAI's Chat Completions."""

from __future__ import annotations

from tests.integrations.installing import Installer
from tests.integrations.kit import Client


def test_it_walks_the_loop(installer: Installer, client: Client) -> None:
    package = installer.pypi("gptme==0.35.1")
    output = client.run(
        package,
        *(
            "gptme",
            "--non-interactive",
            "--tools",
            "shell",
            "--model",
            f"local/{client.model}",
            "Run echo hi.",
        ),
        OPENAI_BASE_URL=f"{client.url}/v1",
        OPENAI_API_KEY="corectl",
    )
    client.walked(output, calls=2)
    client.keep("gptme", package.version, page="gptme")
