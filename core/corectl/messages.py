"""What flows between a frontend, the scheduler and a runner: plain values, no behaviour, no wire format.

A frontend decodes its own protocol into one of the requests, and turns the events it gets back into replies.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of a conversation. `role` is lower case: system, user, assistant or tool."""

    role: str
    content: str = ""
    thinking: str = ""
    images: tuple[str, ...] = ()
    tool_calls: tuple[dict[str, Any], ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Options that are fixed when a model is loaded; another value means loading it again. None means: choose.

    `num_ctx` is the longest sequence in tokens, `num_batch` the tokens in one engine call, `num_gpu` the layers to
    offload, `main_gpu` the index of the only device to use, `num_thread` CPU threads, `backend` a backend by its name.
    """

    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int | None = None
    backend: str | None = None


class SamplingOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the next token is chosen, and when to stop. Defaults are the documented ones.

    `seed` below 0 means a new one for each request; `num_predict` below 0 means until the model stops;
    `repeat_last_n` is in tokens (0 off, -1 the whole context); `temperature` 0 takes the likeliest token.
    `logit_bias` is what is added to the logits of tokens, before any sampler.
    """

    seed: int = -1
    num_predict: int = -1
    num_keep: int = 4
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    logit_bias: dict[int, float] = {}


class GivenOptions(SamplingOptions, frozen=True, kw_only=True, omit_defaults=True):
    """Options for a model on another server: `given` names those that request or model have set.

    The others are for that server to choose.
    """

    given: tuple[str, ...] = ()


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt template. `kind` is `jinja` or `go`.

    Where `hides_past_thoughts` is true, `<think>` blocks in the content of earlier turns are left out.
    """

    kind: str
    text: str
    hides_past_thoughts: bool = False


Tool = dict[str, Any]
"""A tool as clients define it: `{"type": "function", "function": {"name", "description", "parameters"}}`."""

Think = bool | str | None
"""Whether a model is to think: on, off, a level (low, medium, high, max), or None where nothing was said."""


class ChatPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="chat", omit_defaults=True):
    """Messages to be rendered by the template, with the tools that the model may call.

    The last `given` messages are those that the client has sent as such, which errors count from 0; the others are the
    server's own.
    """

    template: Template
    messages: tuple[Message, ...]
    given: int = 0
    tools: tuple[Tool, ...] = ()
    think: Think = None


class TextPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="text", omit_defaults=True):
    """One prompt to be rendered by the template as prompt, system and suffix variables (fill-in-the-middle).

    `images` are base64, as in a message.
    """

    template: Template
    prompt: str
    system: str = ""
    suffix: str = ""
    images: tuple[str, ...] = ()
    think: Think = None


class RawPrompt(msgspec.Struct, frozen=True, kw_only=True, tag="raw", omit_defaults=True):
    """Text for the model as it is: no template. `images` are base64, as in a message."""

    text: str
    images: tuple[str, ...] = ()


Prompt = ChatPrompt | TextPrompt | RawPrompt


class Grammar(msgspec.Struct, frozen=True, kw_only=True):
    """What the content of a reply must match.

    `kind` is `json` (any JSON value that is an object; `text` is empty), `schema` (`text` is a JSON Schema), `regex`,
    `lark` or `gbnf` (`text` is the expression or grammar).
    """

    kind: str
    text: str = ""


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`mode` is `auto` (the model decides), `none`, or `required` (at least one call).

    With a `name` the call must be of that tool. Without `parallel` there is one call at most.
    """

    mode: str = "auto"
    name: str = ""
    parallel: bool = True


class Completion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request to generate text.

    `context` are tokens of an earlier reply that go in front. `truncate` lets oldest messages (or the middle of a
    prompt) be dropped when the prompt is longer than the context; `shift` lets the oldest half be dropped when the
    output fills it. `want_context` asks for all tokens at the end. `top_logprobs` alternatives are 0 to 20 a token.
    `parser` names the dialect that the output is read with (empty: the template's). `think_budget` is the most tokens
    of a thought, below 0 without limit. What was computed for a prompt is used again only for requests with the same
    `cache_salt`. `num_ctx` is the longest sequence in tokens, at most the model's context; 0 means that.
    """

    prompt: Prompt
    sampling: SamplingOptions
    parser: str = ""
    grammar: Grammar | None = None
    tool_choice: ToolChoice = ToolChoice()
    think_budget: int = -1
    context: tuple[int, ...] = ()
    truncate: bool = True
    shift: bool = True
    logprobs: bool = False
    top_logprobs: int = 0
    want_context: bool = False
    render_only: bool = False
    cache_salt: str = ""
    num_ctx: int = 0


class Embedding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="embedding"):
    """A request for one vector per input. `dimensions` above 0 cuts each vector, which is then normalised again.

    With a `template` (a Go template), an input is what it makes of the text.
    """

    inputs: tuple[str, ...]
    template: str = ""
    truncate: bool = True
    dimensions: int = 0


class Rerank(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="rerank"):
    """A request for how relevant each document is to the query. `truncate` lets pairs that are too long be cut."""

    query: str
    documents: tuple[str, ...]
    truncate: bool = True


class Tokenize(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="tokenize"):
    """A request for the tokens of a text; control tokens are read. `add_special` adds those that a model wants."""

    text: str
    add_special: bool = False


class Detokenize(msgspec.Struct, frozen=True, kw_only=True, tag="detokenize"):
    """A request for the text of tokens."""

    tokens: tuple[int, ...]


Question = Embedding | Rerank | Tokenize | Detokenize
"""A request that has one answer."""


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A token's text, its natural-log probability before any sampler, and its bytes."""

    token: str
    logprob: float
    bytes_: bytes


class Logprob(msgspec.Struct, frozen=True, array_like=True):
    """The chosen token and the likeliest alternatives, best first."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]


class ToolCallDelta(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a tool call. The call `index` (from 0) has its `id` and `name` in its first piece.

    `arguments` is a piece of JSON text; all pieces of a call together are one JSON object. `done` is true in the last.
    A call that ends without it turned out to be none: the text that it was read from comes as content.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    done: bool = False


class Delta(msgspec.Struct, frozen=True, array_like=True, tag="delta"):
    """What one step added to a stream: content, thought, and pieces of tool calls."""

    text: str
    logprobs: tuple[Logprob, ...] = ()
    thinking: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something that went another way than the client may think. `code` is stable and machine-readable."""

    code: str
    message: str


class Fit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was done to make the request fit its context: tokens and messages that were dropped, shifts made.

    `num_ctx` is the effective context in tokens.
    """

    num_ctx: int
    dropped_messages: int = 0
    dropped_tokens: int = 0
    shifts: int = 0


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """A completion's first event: its prompt has been rendered and fitted, and is about to be computed."""

    prompt_tokens: int
    fit: Fit


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and nanoseconds. `prompt_ns` covers the prefill, `output_ns` from its end to the last token.

    `cached_tokens` are those of the prompt that an earlier request had left behind, and that were not computed again.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prompt_ns: int = 0
    output_tokens: int = 0
    output_ns: int = 0


class Finish(msgspec.Struct, frozen=True, kw_only=True, tag="finish"):
    """The end of a stream. `reason` is `stop` or `length`; `context` all tokens, where asked for.

    `stop` is the stop string that ended the output, if one of the request's or the model's own did here.
    """

    reason: str
    usage: Usage
    fit: Fit
    context: tuple[int, ...] = ()
    notices: tuple[Notice, ...] = ()
    stop: str = ""


class Rendered(msgspec.Struct, frozen=True, kw_only=True, tag="rendered"):
    """The prompt, for a request that only wanted to see it: what it comes to when it has been made to fit.

    `text` is from before tokens were cut from its middle, `images` is the number of images in it.
    """

    text: str
    prompt_tokens: int
    fit: Fit
    images: int = 0


class Vectors(msgspec.Struct, frozen=True, kw_only=True, tag="vectors"):
    """The answer to an `Embedding`: L2-normalised vectors in the order of the inputs; tokens read in all.

    `data` are the vectors one after another, each of `size` 32-bit floats in this machine's byte order.
    """

    data: bytes
    size: int
    prompt_tokens: int
    dropped_tokens: int = 0


class Scores(msgspec.Struct, frozen=True, kw_only=True, tag="scores"):
    """The answer to a `Rerank`: relevance from 0 to 1 in the order of the documents; tokens read in all."""

    scores: tuple[float, ...]
    prompt_tokens: int
    dropped_tokens: int = 0


class Tokens(msgspec.Struct, frozen=True, kw_only=True, tag="tokens"):
    """The answer to a `Tokenize`."""

    tokens: tuple[int, ...]


class Text(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """The answer to a `Detokenize`. Bytes that are no UTF-8 are U+FFFD."""

    text: str


Answer = Rendered | Vectors | Scores | Tokens | Text
"""What a runner answers to a request that is not streamed."""

Event = Started | Delta | Finish | Answer
"""What a runner answers: to a completion `Started`, any number of `Delta`, and `Finish`; else one of the others."""
