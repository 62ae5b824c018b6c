"""A completion in the words of the native API."""

from __future__ import annotations

from typing import Any

import msgspec

from corectl.messages import ChatPrompt, Completion, Grammar, Notice, RawPrompt, TextPrompt
from corectl_remote.wire import Api, Target, given_load, given_sampling


def target_words(target: Target) -> dict[str, Any]:
    """What all requests for a model have in common."""
    body: dict[str, Any] = {"model": target.model}
    options = given_load(target.options)
    if options:
        body["options"] = options
    if target.keep_alive is not None:
        body["keep_alive"] = target.keep_alive if target.keep_alive != float("inf") else -1
    return body


class NativeRequest:
    """One completion: its `path`, its `body`, and `notices` of what does not reach the model.

    `corectl` says that a corectl is there, which has words for more than an Ollama. Raises `NotSupported`.
    """

    def __init__(self, api: Api, target: Target, request: Completion, *, corectl: bool) -> None:
        self._api = api
        self._corectl = corectl
        self.notices: list[Notice] = []
        self.path, words = self._prompt(request)
        self.body = target_words(target) | words
        self._add_options(request)
        self._add_limits(request)
        self._add_ours(request)

    def _prompt(self, request: Completion) -> tuple[str, dict[str, Any]]:
        prompt = request.prompt
        if isinstance(prompt, RawPrompt):
            return "/api/generate", _some({"prompt": prompt.text, "raw": True, "images": prompt.images})
        if isinstance(prompt, TextPrompt):
            words: dict[str, Any] = {
                "prompt": prompt.prompt,
                "system": prompt.system,
                "suffix": prompt.suffix,
                "template": prompt.template.text,
                "images": prompt.images,
                "think": prompt.think,
            }
            return "/api/generate", _some(words)
        if (plain := _as_generate(request, prompt)) is not None:
            return "/api/generate", plain
        if prompt.template.text:
            self.notices.append(self._api.ignored("template"))
        words = {"messages": prompt.messages, "tools": prompt.tools, "think": prompt.think}
        return "/api/chat", _some(words)

    def _add_options(self, request: Completion) -> None:
        options = self.body.pop("options", {}) | given_sampling(request.sampling)
        for name in ("backend", "logit_bias"):
            if name in options and not self._corectl:
                del options[name]
                self.notices.append(self._api.ignored(name))
        if options:
            self.body["options"] = options

    def _add_limits(self, request: Completion) -> None:
        if request.grammar is not None:
            self.body |= self._grammar(request.grammar)
        if request.logprobs:
            self.body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        # Older servers have no words for what they do anyway.
        self.body |= {name: False for name in ("truncate", "shift") if not getattr(request, name)}

    def _grammar(self, grammar: Grammar) -> dict[str, Any]:
        if grammar.kind == "json":
            return {"format": "json"}
        if grammar.kind == "schema":
            return {"format": msgspec.Raw(grammar.text.encode())}
        if not self._corectl:
            raise self._api.cannot(f"has no grammars ({grammar.kind}); leave out grammar")
        return {"grammar": {grammar.kind: grammar.text}}

    def _add_ours(self, request: Completion) -> None:
        """What an Ollama would pass over in silence: it is refused there, or said to be left out."""
        wanted: dict[str, Any] = {}
        choice = request.tool_choice
        if choice.mode == "none":
            # Whoever must not call a tool need not know any.
            self.body.pop("tools", None)
        elif choice.name:
            wanted["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        elif choice.mode != "auto":
            wanted["tool_choice"] = choice.mode
        if not choice.parallel:
            self.notices.append(self._api.ignored("parallel"))
        if request.think_budget >= 0:
            wanted["think_budget"] = request.think_budget
        if request.cache_salt:
            wanted["cache_salt"] = request.cache_salt
        if self._corectl:
            self.body |= wanted
        elif "tool_choice" in wanted:
            raise self._api.cannot("cannot be told that a tool must be called; leave out tool_choice")
        else:
            self.notices += [self._api.ignored(name) for name in wanted]


def _as_generate(request: Completion, prompt: ChatPrompt) -> dict[str, Any] | None:
    """A chat as the prompt that it was made of: only so the tokens of earlier requests go there and back."""
    roles = [message.role for message in prompt.messages]
    if not request.want_context or roles not in (["user"], ["system", "user"]) or prompt.tools:
        return None
    last = prompt.messages[-1]
    words = {
        "prompt": last.content,
        "system": prompt.messages[0].content if len(roles) > 1 else "",
        "images": last.images,
        "context": request.context,
        "template": prompt.template.text,
        "think": prompt.think,
    }
    return _some(words)


def _some(words: dict[str, Any]) -> dict[str, Any]:
    """Without what is empty. A false `think` says something."""
    return {name: value for name, value in words.items() if value or value is False}
