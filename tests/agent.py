"""A model that walks an agent's whole loop: it calls the first tool that it is given, and with a result it is done.

Its template leaves the conversation out, and shows the model three times what to say; a small one says it once more.
"""

from __future__ import annotations

from tests.conftest import MODEL, Server
from tests.frontends.conftest import create

AGENT = "agent"
CITY = "Paris"
DONE = "Hello there, all is done."

_ASKED = "<|im_start|>user\nWhat do you do?<|im_end|>\n<|im_start|>assistant\n"
_CALL = f"""\
{_ASKED}<tool_call>
{{"name": "{{{{ (index $.Tools 0).Function.Name }}}}", "arguments": {{"city": "{CITY}"}}}}
</tool_call><|im_end|>
"""
_TEXT = f"{_ASKED}{DONE}<|im_end|>\n"

TEMPLATE = (
    "{{- $answered := false }}"
    "{{- range .Messages }}{{ range .ToolCalls }}{{ end }}"
    '{{- if eq .Role "tool" }}{{ $answered = true }}{{ end }}{{ end }}'
    "{{- if and .Tools (not $answered) }}" + 3 * _CALL + "{{- else }}" + 3 * _TEXT + "{{- end }}" + _ASKED
)


def create_agent(server: Server) -> None:
    """Gives a server the model, which is greedy whatever the request says of the temperature."""
    create(server, AGENT, **{"from": MODEL}, template=TEMPLATE, parameters={"top_k": 1, "num_thread": 1})
