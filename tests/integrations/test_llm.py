"""llm with llm-ollama, which speaks Ollama's API."""

from __future__ import annotations

from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import DONE

_TOOL = '''
import subprocess

def bash(command: str, description: str) -> str:
    """Run a command of the shell."""
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout
'''


def test_it_walks_the_loop(installer: Installer, client: Client) -> None:
    package = installer.pypi("llm==0.36", "llm-ollama==0.19.1")
    (client.work / "tools.py").write_text(_TOOL)
    output = client.run(
        package,
        *("llm", "-m", f"ollama/{client.model}", "--functions", "tools.py", "--tools-debug", "Run echo hi."),
        OLLAMA_HOST=client.url,
    )
    client.walked(output, calls=2)
    logged = client.run(package, "llm", "logs", OLLAMA_HOST=client.url)
    assert "bash" in logged and DONE in logged
    client.keep("llm", f"{package.version} with llm-ollama 0.19.1", page="llm")
