"""The replies of the native API. Durations are integer nanoseconds; values that are empty are left out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Response

from corectl.messages import Finish, Logprob, Notice, Rendered, TokenLogprob
from corectl.model.record import ModelRecord
from corectl.server.context import Clock, ContextFit, context_fit

JSON = "application/json; charset=utf-8"

_encoder = msgspec.json.Encoder()
_encode, _encode_lines = _encoder.encode, _encoder.encode_lines


Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class TopLogprob(msgspec.Struct, omit_defaults=True):
    token: str
    logprob: float
    bytes: list[int] = []


class WireLogprob(TopLogprob, omit_defaults=True):
    top_logprobs: list[TopLogprob] = []


class Remote(msgspec.Struct, frozen=True):
    """A model on another server: what it is called there, and the server's address."""

    model: str
    host: str

    @classmethod
    def of(cls, record: ModelRecord) -> Remote:
        return cls(record.config.remote_model, record.config.remote_host)


class Metrics(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What final chunks have in common: whose they are, the figures, and what is to be said of it.

    `prompt_cached_count`, `context_fit` and `warnings` are additions of ours.
    """

    model: str
    created_at: Moment
    remote_model: str = ""
    remote_host: str = ""
    done_reason: str = ""
    context: list[int] = []
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_cached_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    context_fit: ContextFit | None = None
    warnings: list[Notice] = []


class VersionReply(msgspec.Struct):
    """`version` is the level of the API, `corectl` that of the program."""

    version: str
    corectl: str


class DebugInfo(msgspec.Struct, omit_defaults=True):
    """The `_debug_info` of a request with `_debug_render_only`."""

    rendered_template: str
    image_count: int = 0


def now() -> datetime:
    """The time of `created_at`; it is written in UTC, as RFC 3339 has it."""
    return datetime.now(UTC)


def local_time(moment: datetime) -> str:
    """A time with this machine's offset, as `modified_at` and `expires_at` have it."""
    return moment.astimezone().isoformat()


def metrics(finish: Finish, clock: Clock, remote: Remote | None) -> dict[str, Any]:
    """The figures, as values for a struct that is derived from `Metrics`."""
    usage = finish.usage
    where = {"remote_model": remote.model, "remote_host": remote.host} if remote else {}
    return {
        **where,
        "done_reason": finish.reason,
        "context": list(finish.context),
        "total_duration": time.monotonic_ns() - clock.started,
        "load_duration": clock.load,
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_cached_count": usage.cached_tokens,
        "prompt_eval_duration": usage.prompt_ns,
        "eval_count": usage.output_tokens,
        "eval_duration": usage.output_ns,
        # A server of another kind says nothing of its context.
        "context_fit": context_fit(finish.fit, clock) if finish.fit.num_ctx else None,
        "warnings": list(finish.notices),
    }


def debug_info(prompt: Rendered) -> DebugInfo:
    return DebugInfo(prompt.text, prompt.images)


def wire_logprobs(found: Iterable[Logprob]) -> list[WireLogprob]:
    return [
        WireLogprob(
            item.chosen.token, item.chosen.logprob, list(item.chosen.bytes_), [_top(top) for top in item.top]
        )
        for item in found
    ]


def _top(item: TokenLogprob) -> TopLogprob:
    return TopLogprob(item.token, item.logprob, list(item.bytes_))


def encode(value: Any) -> bytes:
    return _encode(value)


def line(value: Any) -> bytes:
    """A value as one line of a stream."""
    return _encode_lines((value,))


def reply(value: Any, *, media_type: str = JSON, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    return Response(_encode(value), media_type=media_type, status_code=200, headers=headers)
