"""Request bodies: bounded in size and time, decoded with errors that name the field."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from corectl.errors import BadRequest, Canceled, CorectlError, TooLarge, TooSlow
from corectl.server import body as body_module
from corectl.server.body import DRAIN_FACTOR, decode, read_body, stream_body
from corectl.server.encodings import MAX_FRAMES
from corectl.server.nesting import MAX_DEPTH, too_deep


class Sender:
    """A client that sends these parts, and then leaves or is done. Counts what was taken from it."""

    def __init__(self, parts: Iterable[bytes], *, leaves: bool = False) -> None:
        parts = list(parts)
        self.headers: dict[str, str] = {}
        self.taken = 0
        self._messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": part, "more_body": leaves or number < len(parts)}
            for number, part in enumerate(parts, 1)
        ]
        if leaves:
            self._messages.append({"type": "http.disconnect"})

    async def receive(self) -> dict[str, Any]:
        message = self._messages[self.taken]
        self.taken += 1
        return message


def read(sender: Any, limit: int = 100) -> bytes:
    return asyncio.run(read_body(sender, limit))


def test_parts_are_put_together() -> None:
    assert read(Sender([b"ab", b"", b"c"])) == b"abc"
    assert read(Sender([b""])) == b""


def test_the_limit_is_the_last_size_that_passes() -> None:
    assert read(Sender([b"x" * 60, b"x" * 40])) == b"x" * 100
    for parts in ([b"x" * 101], [b"x" * 60, b"x" * 41]):
        with pytest.raises(TooLarge, match="larger than 100 bytes"):
            read(Sender(parts))


def test_a_body_that_is_too_large_is_read_on_for_a_while_only() -> None:
    """A client that is still sending would not see the answer."""
    few = Sender([b"x" * 100] * DRAIN_FACTOR)
    with pytest.raises(TooLarge):
        read(few)
    assert few.taken == DRAIN_FACTOR
    endless = Sender([b"x" * 100] * 1000)
    with pytest.raises(TooLarge):
        read(endless)
    assert endless.taken == DRAIN_FACTOR + 1


class Deep(msgspec.Struct):
    value: Any = None


def nested(depth: int, filler: str = "") -> bytes:
    return f'{{"filler":"{filler}","value":{"[" * depth}{"]" * depth}}}'.encode()


@pytest.mark.parametrize(
    "filler", ["", "x" * 2**17, '\\"' + "]" * 1000, "[" * 1000], ids=["", "long", "closing", "opening"]
)
def test_what_is_nested_too_deeply_is_refused_on_every_stack(filler: str) -> None:
    """What a thread with a short stack could read could not be written where the stack is longer."""
    assert decode(nested(MAX_DEPTH - 1, filler), Deep).value is not None
    for depth in (MAX_DEPTH, 960, 100_000):
        with pytest.raises(BadRequest, match="malformed JSON: nested too deeply"):
            decode(nested(depth, filler), Deep)


def test_a_text_without_an_end_is_looked_at_once() -> None:
    """Begun anew at each of its quotes, as many steps as the square of its length would never end."""
    text = b"[" * (MAX_DEPTH + 1) + b'"' + b'\\"' * 2**21
    assert too_deep(text)
    with pytest.raises(BadRequest):
        decode(text, Deep)


def test_a_client_that_leaves() -> None:
    with pytest.raises(Canceled):
        read(Sender([b"half"], leaves=True))


def test_a_client_that_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "STALL_SECONDS", 0.01)

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def read() -> None:
        async for _ in stream_body(receive):
            pass

    with pytest.raises(TooSlow, match="nothing more of the request body came for"):
        asyncio.run(read())


def test_a_message_without_a_body() -> None:
    async def receive() -> Any:
        return {"type": "http.request"}

    async def story() -> list[bytes]:
        return [part async for part in stream_body(receive)]

    assert asyncio.run(story()) == []


class Inner(msgspec.Struct, kw_only=True):
    role: str


class Body(msgspec.Struct, kw_only=True):
    model: str = ""
    count: int = 1
    inner: list[Inner] = []
    debug: bool = msgspec.field(default=False, name="_debug")
    anything: Any = None


def test_a_good_body() -> None:
    assert decode(b'{"model": "m", "count": 2, "_debug": true}', Body) == Body(model="m", count=2, debug=True)


def test_keys_match_without_regard_to_case() -> None:
    assert decode(b'{"MODEL": "m", "Count": 2, "_DEBUG": true}', Body) == Body(model="m", count=2, debug=True)


def test_unknown_keys_nulls_and_what_follows_are_left_alone() -> None:
    assert decode(b'{"model": null, "x": 1, "count": 3} trailing {', Body) == Body(count=3)
    assert decode(b'  {"count": 3}\n{"count": 4}', Body) == Body(count=3)
    assert decode(b"null", Body) == Body()


def test_a_byte_order_mark_is_read_over() -> None:
    assert decode(b'\xef\xbb\xbf{"count": 3}', Body) == Body(count=3)


@pytest.mark.parametrize("body", [b"", b" \n\t"])
def test_no_body(body: bytes) -> None:
    with pytest.raises(BadRequest) as found:
        decode(body, Body)
    assert found.value.message == "missing request body"


@pytest.mark.parametrize(
    "body", [b"{", b'{"a": }', b"model=m", b"\x00", b'{"a" 1}', b"{'a': 1}", b"\xff\xfe"]
)
def test_no_json(body: bytes) -> None:
    with pytest.raises(BadRequest, match="malformed JSON"):
        decode(body, Body)


@pytest.mark.parametrize("rest", [b"", b" trailing", b"\xff"])
def test_a_number_that_no_float_can_hold_is_refused_whatever_else_is_forgiven(rest: bytes) -> None:
    with pytest.raises(BadRequest, match="out of range"):
        decode(b'{"anything": 1e400}' + rest, Body)


@pytest.mark.parametrize(
    "item", [b'"k%d":0,', b'"k%d"\t\n: 0,', b'"options":{"k%d":0},'], ids=["plain", "spaced", "nested"]
)
def test_a_body_that_would_become_too_many_objects(item: bytes) -> None:
    body = b"{" + b"".join(item % number for number in range(300_000)) + b'"model":"m"}'
    with pytest.raises(TooLarge, match="too many members"):
        decode(body, Body)
    with pytest.raises(TooLarge, match="too many members"):
        decode(b'{"format":[' + b"0," * 4_000_001 + b"0]}", Body)


def test_a_large_text_is_read() -> None:
    text = "time: 10:00, level: info\\n" * 50_000
    assert decode(msgspec.json.encode({"model": text}), Body).model == text


@pytest.mark.parametrize("body", [b"[]", b"1", b'"a"', b"true"])
def test_json_that_is_no_object(body: bytes) -> None:
    with pytest.raises(BadRequest, match="must be a JSON object"):
        decode(body, Body)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"count": "2"}', "$.count"),
        (b'{"model": 1}', "$.model"),
        (b'{"_debug": 1}', "$._debug"),
        (b'{"inner": [{"role": "a"}, {}]}', "$.inner[1]"),
    ],
)
def test_a_wrong_type_names_its_field(body: bytes, field: str) -> None:
    with pytest.raises(BadRequest) as found:
        decode(body, Body)
    assert field in found.value.message


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_is_an_error_like_any_other(opening: bytes) -> None:
    for body in (opening * 200_000, b'{"anything": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"):
        with pytest.raises(BadRequest):
            decode(body, Body)


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_a_typed_error(body: bytes) -> None:
    try:
        assert isinstance(decode(body, Body), Body)
    except CorectlError as exc:
        assert exc.status == 400


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(("model", "Count", "inner", "x", "anything")), VALUES))
def test_any_json_object_gives_a_value_or_a_typed_error(value: dict[str, Any]) -> None:
    try:
        assert isinstance(decode(json.dumps(value).encode(), Body), Body)
    except CorectlError as exc:
        assert exc.status == 400


def compressed(data: bytes, encoding: str = "zstd") -> Sender:
    sender = Sender([data[:7], data[7:]])
    sender.headers["content-encoding"] = encoding
    return sender


def test_bodies_may_be_compressed() -> None:
    body = b'{"model": "m"}'
    assert read(compressed(zstandard.compress(body), "ZSTD")) == body
    assert read(compressed(zstandard.compress(body) * 2)) == body * 2, "several frames"
    assert read(compressed(body, "identity")) == body


def test_what_a_compressed_body_becomes_is_bounded() -> None:
    bomb = zstandard.compress(b" " * 2**26)
    assert len(bomb) < 10_000
    with pytest.raises(TooLarge):
        read(compressed(bomb), 10_000)
    wide = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    with pytest.raises(BadRequest, match="zstd"):
        far = zstandard.ZstdCompressor(compression_params=wide).compressobj()
        read(compressed(far.compress(b"{}") + far.flush()))


@pytest.mark.parametrize("left_out", [1, 5, 12])
@pytest.mark.parametrize("before", [b"", zstandard.compress(b" ")])
def test_a_compressed_body_that_is_cut_is_said_to_be_cut(before: bytes, left_out: int) -> None:
    whole = before + zstandard.compress(b'{"model": "m"}' * 1000)
    assert len(read(compressed(whole), 20_000)) >= 14_000
    with pytest.raises(BadRequest, match="is cut"):
        read(compressed(whole[:-left_out]), 20_000)


def test_many_frames_are_refused() -> None:
    frame = zstandard.compress(b"")
    assert read(compressed(frame * MAX_FRAMES), 20_000) == b""
    with pytest.raises(BadRequest, match="frames"):
        read(compressed(frame * (MAX_FRAMES + 1)), 20_000)


@pytest.mark.parametrize(("data", "encoding"), [(b"{}", "zstd"), (b"{}", "gzip"), (b"{}", "zstd, gzip")])
def test_other_encodings_are_refused(data: bytes, encoding: str) -> None:
    with pytest.raises(BadRequest):
        read(compressed(data, encoding))
