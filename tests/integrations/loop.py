"""The model of these tests: SmolLM2 with a template that walks any agent through its loop.

The template leaves the conversation out. As long as no tool has answered, it shows the model how the first known tool
that the request declares is called; afterwards, and where there is none, it shows the last word. A small model says it
once more. So a client of 20,000 tokens of instructions costs 200, and every run is the same.
"""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import MODEL, Server
from tests.frontends.conftest import create

LOOP = "clientloop"
FULL_NAME = f"{LOOP}:latest"
THINKER = "clientthinks:latest"
"""One that thinks before it speaks or calls."""
DONE = "Hello there, all is done."

SAID = "said.txt"
"""What the tool leaves in the folder where the client works."""
COMMAND = f"echo hi | tee {SAID}"

TOOLS: dict[str, dict[str, Any]] = {
    "exec_command": {"cmd": COMMAND},  # Codex
    "shell": {"command": COMMAND},  # Goose
    "Bash": {"command": COMMAND, "description": "Say hi"},  # Claude Code, Continue
    "bash": {"command": COMMAND},  # opencode, pi
    "run_shell_command": {"command": COMMAND, "is_background": False},  # Qwen Code
    "execute_command": {"command": COMMAND, "requires_approval": False},  # Roo Code
    "run_commands": {"commands": [COMMAND]},  # Cline
    "Execute": {  # Droid
        "summary": "Say hi to everybody",
        "command": COMMAND,
        "riskLevelReason": "It writes a file.",
        "riskLevel": "low",
    },
    "calculator": {"input": "6 * 7"},  # n8n
    "get_weather": {"city": "Paris"},  # frameworks
}
"""What each known tool is called with."""

_THOUGHT = "<think>\nWhat is to be done?\n</think>\n\n"
_ASKED = "<|im_start|>user\nWhat do you do?<|im_end|>\n<|im_start|>assistant\n"


def template(tools: dict[str, dict[str, Any]], *, thinks: bool = False) -> str:
    """A template that has the model call one of these tools, the first that is declared, and then say `DONE`."""
    thought = _THOUGHT if thinks else ""
    choices = "".join(
        f'{{{{- if and (not $call) (eq .Function.Name "{name}") }}}}'
        f"{{{{ $call = {_quoted(json.dumps({'name': name, 'arguments': arguments}))} }}}}{{{{ end }}}}"
        for name, arguments in tools.items()
    )
    call = f"{_ASKED}{thought}<tool_call>\n{{{{ $call }}}}\n</tool_call><|im_end|>\n"
    text = f"{_ASKED}{thought}{DONE}<|im_end|>\n"
    return (
        '{{- $answered := false }}{{- $call := "" }}'
        "{{- range .Messages }}{{ range .ToolCalls }}{{ end }}"
        + ("{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}" if thinks else "")
        + '{{- if eq .Role "tool" }}{{ $answered = true }}{{ end }}{{ end }}'
        "{{- range .Tools }}" + choices + "{{- end }}"
        "{{- if and $call (not $answered) }}" + 3 * call + "{{- else }}" + 3 * text + "{{- end }}" + _ASKED
    )


def _quoted(text: str) -> str:
    """Text as a string of the template language."""
    return json.dumps(text)


def create_loop(
    server: Server, name: str = LOOP, tools: dict[str, dict[str, Any]] = TOOLS, *, thinks: bool = False
) -> None:
    """Gives a server such a model. It is greedy whatever the request says of the temperature.

    The number of threads decides the order of sums, and follows the load of the machine unless it is given.
    """
    made = template(tools, thinks=thinks)
    create(server, name, **{"from": MODEL}, template=made, parameters={"top_k": 1, "num_thread": 1})
