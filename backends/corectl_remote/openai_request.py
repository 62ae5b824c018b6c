"""A completion in the words of OpenAI's protocol, and in those that some servers have added to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from corectl.messages import ChatPrompt, Completion, Grammar, Message, Notice, RawPrompt, TextPrompt
from corectl.prompt.images import in_order
from corectl.prompt.turns import called_function, with_call_ids
from corectl_remote.wire import Api, Target, given_load, given_sampling

STANDARD = {
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "num_predict": "max_tokens",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "logit_bias": "logit_bias",
}
"""Options that every server takes, and what they are called there."""

ADDED: dict[str, dict[str, str]] = {
    "vllm": {"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repetition_penalty"},
    "llamacpp": {name: name for name in ("top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n")},
}
"""And those that a server takes besides, by what it says to own its models."""

_IMAGES = {"/9j/": "jpeg", "iVBOR": "png", "R0lG": "gif", "UklG": "webp", "Qk": "bmp"}
"""How images begin in base64."""


class OpenAiRequest:
    """One completion: its `path`, its `body`, and `notices` of what does not reach the model.

    `owner` is who owns the models, as the server says. Raises `NotSupported` for what would change the question.
    """

    def __init__(self, api: Api, target: Target, request: Completion, *, owner: str) -> None:
        self._api = api
        self._owner = owner
        self.notices: list[Notice] = []
        self.path, words = self._prompt(request)
        self.body = {
            "model": target.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            **words,
        }
        self._add_options(target, request)
        if request.grammar is not None:
            self.body |= self._grammar(request.grammar)
        if request.logprobs:
            self._add_logprobs(request.top_logprobs)
        self._add_rest(request)

    @property
    def _chat(self) -> bool:
        return self.path == "/chat/completions"

    def _prompt(self, request: Completion) -> tuple[str, dict[str, Any]]:
        prompt = request.prompt
        if request.context:
            raise self._api.cannot("takes no tokens of earlier replies; leave out context")
        if isinstance(prompt, ChatPrompt):
            return "/chat/completions", self._conversation(request, prompt)
        if prompt.images:
            raise self._api.cannot("takes images in chats only")
        if isinstance(prompt, RawPrompt):
            return "/completions", {"prompt": prompt.text}
        return "/completions", self._filling(prompt)

    def _filling(self, prompt: TextPrompt) -> dict[str, Any]:
        if prompt.template.text:
            raise self._api.cannot("renders prompts with templates of its own; leave out template")
        if prompt.system:
            self.notices.append(self._api.ignored("system"))
        return {"prompt": prompt.prompt, "suffix": prompt.suffix}

    def _conversation(self, request: Completion, prompt: ChatPrompt) -> dict[str, Any]:
        if prompt.template.text:
            self.notices.append(self._api.ignored("template"))
        thoughts = self._owner in ADDED
        words: dict[str, Any] = {
            "messages": [_message(message, thoughts=thoughts) for message in with_call_ids(prompt.messages)]
        }
        if prompt.tools:
            words |= {"tools": prompt.tools, **_choice(request)}
        return words | self._think(prompt.think)

    def _think(self, think: bool | str | None) -> dict[str, Any]:
        if think is None:
            return {}
        words: dict[str, Any] = {}
        if self._owner in ADDED:
            words["chat_template_kwargs"] = {"enable_thinking": think is not False}
        if isinstance(think, str):
            # There is no word for more than a lot.
            words["reasoning_effort"] = "high" if think == "max" else think
        elif not words:
            self.notices.append(self._api.ignored("think"))
        return words

    def _add_options(self, target: Target, request: Completion) -> None:
        names = STANDARD | ADDED.get(self._owner, {})
        given = given_load(target.options) | given_sampling(request.sampling)
        for option, value in given.items():
            if option in ("seed", "num_predict") and value < 0:
                continue  # a new seed each time, and no limit: nobody needs to be told
            if option in names:
                self.body[names[option]] = value
            else:
                self.notices.append(self._api.ignored(option))

    def _grammar(self, grammar: Grammar) -> dict[str, Any]:
        """Refused where it would be passed over: nobody could rely on the form of the reply."""
        schema = msgspec.Raw(grammar.text.encode() if grammar.kind == "schema" else b'{"type":"object"}')
        if grammar.kind not in ("json", "schema"):
            if grammar.kind == "gbnf" and self._owner == "llamacpp":
                return {"grammar": grammar.text}
            raise self._api.cannot(f"has no grammars ({grammar.kind}); leave out grammar")
        if not self._chat and self._owner == "llamacpp":
            return {"json_schema": schema}
        if not self._chat and self._owner != "vllm":
            raise self._api.cannot("enforces a format in chats only; leave out format, or raw")
        if grammar.kind == "json":
            return {"response_format": {"type": "json_object"}}
        named = {"name": "reply", "strict": True, "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": named}}

    def _add_logprobs(self, top: int) -> None:
        self.body |= {"logprobs": True, "top_logprobs": top} if self._chat else {"logprobs": top}

    def _add_rest(self, request: Completion) -> None:
        if request.think_budget >= 0:
            self.notices.append(self._api.ignored("think_budget"))
        if request.cache_salt and self._owner == "vllm":
            self.body["cache_salt"] = request.cache_salt
        elif request.cache_salt:
            self.notices.append(self._api.ignored("cache_salt"))


def _choice(request: Completion) -> dict[str, Any]:
    choice = request.tool_choice
    words: dict[str, Any] = {} if choice.parallel else {"parallel_tool_calls": False}
    if choice.name:
        return words | {"tool_choice": {"type": "function", "function": {"name": choice.name}}}
    return words | ({"tool_choice": choice.mode} if choice.mode != "auto" else {})


def _message(message: Message, *, thoughts: bool) -> dict[str, Any]:
    words: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        words["content"] = [
            _image(message.images[piece]) if isinstance(piece, int) else {"type": "text", "text": piece}
            for piece in in_order(message.content, len(message.images))
            # What only stood between a text and the place of an image is not worth a part.
            if isinstance(piece, int) or piece.strip("\n")
        ]
    if message.tool_calls:
        words["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.role == "tool":
        words["tool_call_id"] = message.tool_call_id
    if message.thinking and thoughts:
        words["reasoning_content"] = message.thinking
    return words


def _image(data: str) -> dict[str, Any]:
    kind = next((kind for begin, kind in _IMAGES.items() if data.startswith(begin)), "png")
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call that the model has made; its arguments are a text here."""
    function = called_function(call)
    arguments = msgspec.json.encode(function.get("arguments") or {}).decode()
    named = {"name": function.get("name"), "arguments": arguments}
    return {"id": call["id"], "type": "function", "function": named}
