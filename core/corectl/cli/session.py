"""What an interactive session knows: the model, the settings made so far, and the conversation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from corectl.cli.answers import Answer, follow_answer, report
from corectl.cli.client import Client
from corectl.cli.images import take_images
from corectl.cli.progress import Progress
from corectl.cli.text import as_text
from corectl.cli.writer import AnswerWriter

Think = bool | str | None


@dataclass
class Session:
    """One conversation with one model. `info` is what the server shows of the model."""

    client: Client
    model: str
    info: dict[str, Any]
    format: Any = None
    think: Think = None
    keep_alive: int | str | None = None
    hide_thinking: bool = False
    wrap: bool = True
    verbose: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def thinks(self) -> bool:
        """Whether the model can show its thinking."""
        return "thinking" in (self.info.get("capabilities") or [])

    @property
    def sees(self) -> bool:
        """Whether the model can be shown images."""
        return "vision" in (self.info.get("capabilities") or [])

    @property
    def system(self) -> str:
        """The system message of this session, or an empty string."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "system"), "")

    def set_system(self, text: str) -> None:
        """Adds a system message; one that nothing has been said after is replaced."""
        if self.messages and self.messages[-1]["role"] == "system":
            self.messages.pop()
        self.messages.append({"role": "system", "content": text})

    def clear(self) -> None:
        """Forgets the conversation, but not the system message."""
        system = self.system
        self.messages = [{"role": "system", "content": system}] if system else []

    def load(self) -> None:
        """Has the server load the model, so that the first answer need not wait for it."""
        with Progress(transient=True) as progress:
            progress.status("")
            self.client.post("/api/generate", self._body(stream=False))

    def say(self, text: str) -> None:
        """Sends a message, with the images that it names, and prints the answer.

        What came of an interrupted answer stays in the conversation; a message without an answer does not.
        """
        content, images = take_images(text) if self.sees else (text, [])
        message = {"role": "user", "content": as_text(content)}
        self.messages.append({**message, "images": images} if images else message)
        answer = Answer()
        try:
            body = self._body(messages=self.messages, options=self.options)
            writer = AnswerWriter(wrap=self.wrap, hide_thinking=self.hide_thinking)
            follow_answer(self.client.stream("/api/chat", body), writer, answer)
        finally:
            if answer.content:
                reply = {"role": "assistant", "content": answer.content}
                self.messages.append({**reply, "thinking": answer.thinking} if answer.thinking else reply)
            elif not answer.final:
                self.messages.pop()
        report(answer.final, verbose=self.verbose)

    def _body(self, **values: Any) -> dict[str, Any]:
        body = {
            "model": self.model,
            "format": self.format,
            "think": self.think,
            "keep_alive": self.keep_alive,
            **values,
        }
        return {name: value for name, value in body.items() if value is not None}
