"""Hostile and broken requests: each gets a 4xx that says what is wrong, soon, and changes nothing."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corectl.messages import LoadOptions, SamplingOptions
from tests.conftest import DATA, GREEDY, MODEL, Server

SOON = 5.0
"""Seconds; each takes far less where nothing else runs."""

EMBEDDER = (DATA / "tinybert.gguf").read_bytes()
ABSENT = f"sha256:{'a' * 64}"
HUGE = b"9" * 10_000
LONG = "a" * 100_000


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one stored model and the blobs that the tests create from."""
    running = Server(tmp_path_factory.mktemp("victim"))
    digest = _upload(running, EMBEDDER)
    body = {"model": "tinybert", "files": {"m.gguf": digest}, "stream": False}
    assert running.client.post("/api/create", json=body).status_code == 200
    for data in DAMAGED.values():
        _upload(running, data)
    yield running
    assert running.stop() == 0, running.log
    assert "Traceback" not in running.log


def _upload(server: Server, data: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert server.client.post(f"/api/blobs/{digest}", content=data).status_code in (200, 201)
    return digest


def _store(server: Server) -> dict[str, tuple[bytes, int]]:
    """Every file of the store: bytes and time of change."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns)
        for path in server.models.rglob("*")
        if path.is_file()
    }


def _send(
    server: Server, method: str, path: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """Bytes as they are, past all checks of a client library; status and body of the reply."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def _refused(server: Server, method: str, path: str, body: bytes, *, status: int = 400) -> str:
    """Sends what must be refused, and checks all that must hold whatever it was; the error's text."""
    before, started = _store(server), time.monotonic()
    got, text = _send(server, method, path, body)
    spent = time.monotonic() - started
    assert got == status, text[:300]
    error = json.loads(text)
    assert list(error) == ["error"] and error["error"]
    assert spent < SOON
    assert _store(server) == before
    assert server.client.get("/api/version").status_code == 200
    return str(error["error"])


def _generate(fields: bytes) -> bytes:
    return b'{"model": "%s", "prompt": "x", %s}' % (MODEL.encode(), fields)


MALFORMED = {
    "half an object": b'{"model": ',
    "single quotes": b"{'model': 'x'}",
    "binary": b"\x00\x01\x02\xff\xfe",
    "invalid UTF-8": b'{"model": "\xff\xfe", "prompt": "x"}',
    "UTF-16": '{"model": "x"}'.encode("utf-16"),
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep field": _generate(b'"format": ' + b"[" * 50_000 + b"]" * 50_000),
    "a string": b'"model"',
    "a list": b"[1, 2]",
    "NaN": b"NaN",
    "NaN to keep": _generate(b'"keep_alive": NaN'),
    "infinite to keep": _generate(b'"keep_alive": Infinity'),
    "NaN option": _generate(b'"options": {"temperature": NaN}'),
}


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/api/embed", "/api/show", "/api/create"])
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_json(victim: Server, path: str, body: bytes) -> None:
    error = _refused(victim, "POST", path, body)
    assert "JSON" in error or "$" in error or "UTF-8" in error or "utf-8" in error
    assert len(error) < 1000


WRONG = {
    "huge number": (b'"keep_alive": ' + HUGE, "keep_alive"),
    "huge option": (b'"options": {"num_ctx": %s}' % HUGE, "options"),
    "huge count": (b'"top_logprobs": ' + HUGE, "top_logprobs"),
    "endless temperature": (b'"options": {"temperature": 1e999}', "options"),
    "endless num_predict": (b'"options": {"num_predict": 1e999}', "options"),
    "num_ctx": (b'"options": {"num_ctx": 1e30}', "num_ctx"),
    "token": (b'"context": [9223372036854775808]', "context"),
    "fraction": (b'"context": [1.5]', "context"),
    "keep_alive": (b'"keep_alive": "' + HUGE + b'"', "duration"),
    "keep_alive with unit": (b'"keep_alive": "' + HUGE + b'h"', "duration"),
    "many stops": (b'"options": {"stop": [%s]}' % b",".join([b'"x"'] * 1000), "stop"),
    "long stop": (b'"options": {"stop": ["%s"]}' % (b"x" * 10_000), "stop"),
    "template": (b'"template": "%s"' % (b"{{ if .Prompt }}" * 5000), "template"),
    "format": (b'"format": 5', "format"),
    "top_logprobs": (b'"top_logprobs": 1000', "top_logprobs"),
}


@pytest.mark.parametrize(("fields", "named"), WRONG.values(), ids=WRONG)
def test_values_out_of_range_are_named(victim: Server, fields: bytes, named: str) -> None:
    assert named in _refused(victim, "POST", "/api/generate", _generate(fields))


FRACTIONS = ("true", '"7"', "[7]", "{}", "1e400", "-1e39", "1e39", str(10**400))
INTEGERS = (*FRACTIONS, "-9999999999999999999", "9223372036854775808")
BAD_OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("num_ctx", "num_batch", "num_thread"), ("2147483648", "-1", "-2147483648", *INTEGERS)),
    "main_gpu": ("2147483648", "-1", *INTEGERS),
    **dict.fromkeys(("num_gpu", "num_keep", "repeat_last_n"), ("2147483648", "-2", *INTEGERS)),
    **dict.fromkeys(("num_predict", "top_k"), ("2147483648", "-2147483648", *INTEGERS)),
    "seed": INTEGERS,
    "temperature": ("-0.1", *FRACTIONS),
    **dict.fromkeys(("top_p", "min_p", "typical_p"), ("-0.1", "1.1", *FRACTIONS)),
    "repeat_penalty": ("0", "-1", *FRACTIONS),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), FRACTIONS),
    "use_mmap": ("0", "1", '"true"', "[true]", "{}"),
    "logit_bias": (
        *('"1"', "7", "true", "[]", "[1]", '{"x": 1}', '{"-1": 1}', '{"1": null}', '{"1": "2"}', '{"1": []}'),
        *('{"1": true}', '{"1": 100.1}', '{"1": -1e9}', '{"99999999999999999999": 1}'),
        json.dumps({str(token): 1 for token in range(5000)}),
    ),
    "backend": ("7", "true", "[]", "{}", json.dumps("x" * 65)),
    "stop": (
        '"x"',
        "7",
        "true",
        "{}",
        "[7]",
        "[null]",
        "[[]]",
        json.dumps(["x"] * 10_000),
        json.dumps([LONG]),
    ),
}


def test_every_option_has_its_bad_values() -> None:
    assert BAD_OPTIONS.keys() == {*LoadOptions.__struct_fields__, *SamplingOptions.__struct_fields__}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options_are_named(victim: Server, name: str) -> None:
    for value in BAD_OPTIONS[name]:
        for path, body in (
            ("/api/generate", '{"model": "%s", "prompt": "x", "options": {"%s": %s}}'),
            ("/api/chat", '{"model": "%s", "messages": [{"role": "user"}], "options": {"%s": %s}}'),
            ("/api/embed", '{"model": "%s", "input": "x", "options": {"%s": %s}}'),
        ):
            error = _refused(victim, "POST", path, (body % (MODEL, name, value)).encode())
            # What is no number of JSON is no option yet.
            assert f'"{name}"' in error or "options" in error, (path, value[:40], error)
            assert len(error) < 500


EXTREMES: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("num_ctx", "num_batch", "num_thread", "num_gpu", "main_gpu"), (2**31 - 1, 0)),
    **dict.fromkeys(("num_keep", "repeat_last_n", "top_k"), (2**31 - 1, -1)),
    "num_predict": (2**31 - 1, -(2**31) + 1),
    "seed": (2**63 - 1, -(2**63) + 1),
    **dict.fromkeys(("temperature", "repeat_penalty"), (3.4e38,)),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), (3.4e38, -3.4e38)),
    **dict.fromkeys(("top_p", "min_p", "typical_p"), (0.0, 1.0)),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_values_are_served_or_refused(victim: Server, name: str) -> None:
    """The limits of the model, the machine and the contract hold; no engine is brought down."""
    for value in EXTREMES[name]:
        options = {"num_ctx": 8, "num_predict": 4, "num_thread": 1, "seed": 1, name: value}
        body = {"model": MODEL, "prompt": "Count.", "raw": True, "stream": False, "options": options}
        status, text = _send(victim, "POST", "/api/generate", json.dumps(body).encode())
        answer = json.loads(text)
        if status == 200:
            assert answer["done"] and answer["eval_count"] <= 10 * answer["context_fit"]["num_ctx"]
        else:
            assert status == 400 and name in answer["error"], text[:300]
    assert victim.generate(options={**GREEDY, "num_predict": 2})["done"]


@pytest.mark.parametrize(
    "value", [5, True, ["a"], {"a": 1}, "x" * 257, LONG], ids=lambda value: str(value)[:12]
)
def test_a_cache_salt_that_is_none(victim: Server, value: Any) -> None:
    for path, body in (
        ("/api/generate", {"model": MODEL, "prompt": "x"}),
        ("/api/chat", {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}),
    ):
        assert "cache_salt" in _refused(
            victim, "POST", path, json.dumps({**body, "cache_salt": value}).encode()
        )


def test_a_context_above_the_ceiling(tmp_path: Path) -> None:
    server = Server(tmp_path, CORECTL_MAX_CONTEXT="128")
    for num_ctx in (129, 2**31 - 1):
        error = _refused(server, "POST", "/api/generate", _generate(b'"options": {"num_ctx": %d}' % num_ctx))
        assert "num_ctx" in error and "128" in error
    reply = server.generate(options={**GREEDY, "num_ctx": 128, "num_predict": 2})
    assert reply["context_fit"]["num_ctx"] == 128
    assert server.stop() == 0


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "..", "/etc/passwd", "a/../b", "a//b", "a:", ":a", "a:b:c", "a b", "a\0b", "a\nb", ".a"),
        *("%2e%2e/x", "a\\b", "\u00e4", "\U0001f999", "a/b/c/d/e", "a@b", LONG, f"{LONG}:{LONG}", "-x"),
    ],
    ids=lambda name: ascii(name)[:20],
)
def test_names_that_are_none(victim: Server, name: str) -> None:
    for method, path, body in (
        ("POST", "/api/generate", {"model": name, "prompt": "x"}),
        ("POST", "/api/show", {"model": name}),
        ("DELETE", "/api/delete", {"model": name}),
        ("POST", "/api/create", {"model": name, "from": "tinybert"}),
        ("POST", "/api/create", {"model": "made", "from": name}),
        ("POST", "/api/copy", {"source": "tinybert", "destination": name}),
    ):
        error = _refused(victim, method, path, json.dumps(body).encode())
        assert "invalid" in error, (path, error[:200])


def test_models_that_are_not_there(victim: Server) -> None:
    for method, path, body in (
        ("POST", "/api/generate", {"model": "nope", "prompt": "x"}),
        ("POST", "/api/chat", {"model": "nope", "messages": []}),
        ("POST", "/api/embed", {"model": "nope", "input": "x"}),
        ("POST", "/api/show", {"model": "nope"}),
        ("DELETE", "/api/delete", {"model": "nope"}),
        ("POST", "/api/copy", {"source": "nope", "destination": "x"}),
    ):
        assert "nope" in _refused(victim, method, path, json.dumps(body).encode(), status=404)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"model": MODEL, "prompt": "\ud800", "options": {**GREEDY, "num_predict": 1}}),
        ("/api/chat", {"model": MODEL, "messages": [{"role": "\udfff", "content": "x"}], "think": "\ud800"}),
        ("/api/show", {"model": "tinybert", "system": "\ud800"}),
        ("/api/copy", {"source": "\ud800", "destination": "x"}),
        ("/api/generate", {"model": "\ud800:cloud:local"}),
        ("/api/create", {"model": "made", "from": "\ud800"}),
    ],
)
def test_half_characters_are_no_error_of_the_server(victim: Server, path: str, body: dict[str, Any]) -> None:
    before, started = _store(victim), time.monotonic()
    status, text = _send(victim, "POST", path, json.dumps({**body, "stream": False}).encode())
    assert status < 500, text[:300]
    assert status == 200 or json.loads(text)["error"]
    assert time.monotonic() - started < SOON * 4
    assert _store(victim) == before


def _damaged() -> dict[str, bytes]:
    """Files that say they are models, and are not."""
    version = struct.Struct("<I")
    count = struct.Struct("<Q")
    return {
        "empty": b"",
        "text": b"this is no model\n" * 100,
        "zip": b"PK\x03\x04" + bytes(1000),
        "magic only": b"GGUF",
        "half a header": EMBEDDER[:2000],
        "half the weights": EMBEDDER[: len(EMBEDDER) // 2],
        "all but a byte": EMBEDDER[:-1],
        "version 99": EMBEDDER[:4] + version.pack(99) + EMBEDDER[8:],
        "too many tensors": EMBEDDER[:8] + count.pack(2**63) + EMBEDDER[16:],
        "too many keys": EMBEDDER[:16] + count.pack(2**64 - 1) + EMBEDDER[24:],
        "a key without end": EMBEDDER[:24] + count.pack(2**62) + EMBEDDER[32:],
        "zeros": b"GGUF" + version.pack(3) + bytes(10_000),
        "other byte order": b"FUGG" + EMBEDDER[4:],
    }


DAMAGED = _damaged()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_files_that_are_no_models(victim: Server, data: bytes, stream: bool) -> None:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    body = {"model": "bad", "files": {"m.gguf": digest}, "stream": stream}
    before, started = _store(victim), time.monotonic()
    status, text = _send(victim, "POST", "/api/create", json.dumps(body).encode())
    # A stream has said "parsing GGUF" before it knows.
    last = json.loads(text.splitlines()[-1])
    assert status == (200 if stream else 400)
    assert list(last) == ["error"] and last["error"]
    assert "Traceback" not in last["error"] and str(victim.models) not in last["error"]
    assert time.monotonic() - started < SOON
    assert _store(victim) == before


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "x",
        "sha256:",
        "sha256:zz",
        ABSENT.upper(),
        ABSENT[:-1],
        ABSENT + "a",
        f"sha1:{'a' * 40}",
        "../../x",
    ],
)
def test_digests_that_are_none(victim: Server, digest: str) -> None:
    body = {"model": "bad", "files": {"m.gguf": digest}, "stream": False}
    assert _refused(victim, "POST", "/api/create", json.dumps(body).encode()) == "invalid digest format"


@pytest.mark.parametrize("digest", ["x", "sha256:zz", "%2e%2e", "%00", "sha256:" + "a" * 5000])
def test_digests_that_are_none_in_a_path(victim: Server, digest: str) -> None:
    assert _refused(victim, "POST", f"/api/blobs/{digest}", b"data") == "invalid digest format"


def test_bytes_that_have_another_digest(victim: Server) -> None:
    assert "digest mismatch" in _refused(victim, "POST", f"/api/blobs/{ABSENT}", b"data")


@pytest.mark.parametrize("name", ["../m.gguf", "/m.gguf", "a/../../m.gguf", "..", "C:\\m.gguf", "a\0.gguf"])
def test_files_outside(victim: Server, name: str) -> None:
    digest = f"sha256:{hashlib.sha256(EMBEDDER).hexdigest()}"
    body = {"model": "bad", "files": {name: digest}, "stream": False}
    assert _refused(victim, "POST", "/api/create", json.dumps(body).encode()) == "file path must be relative"


@pytest.mark.parametrize(
    "fields",
    [
        {"parameters": {"temperature": float("nan")}},
        {"info": {"context_length": float("inf")}},
        {"info": {"context_length": float("nan")}},
        {"template": "{{ end }}"},
        {"license": {"a": 1}},
        {"requires": LONG},
    ],
    ids=str,
)
def test_creations_that_make_no_sense(victim: Server, fields: dict[str, Any]) -> None:
    body = {"model": "bad", "from": "tinybert", "stream": False, **fields}
    _refused(victim, "POST", "/api/create", json.dumps(body).encode())


def test_a_number_that_is_infinite_only_when_read(victim: Server) -> None:
    body = b'{"model": "bad", "from": "tinybert", "stream": false, "info": {"context_length": 1e999}}'
    assert "info" in _refused(victim, "POST", "/api/create", body)


def test_a_body_of_a_hundred_megabytes(victim: Server) -> None:
    error = _refused(victim, "POST", "/api/generate", b" " * 100_000_000, status=413)
    assert "request body is larger than" in error and "max_body" in error


def test_a_prompt_beyond_all_bounds(victim: Server) -> None:
    body = json.dumps({"model": MODEL, "prompt": "x" * 30_000_000, "stream": False, "options": GREEDY})
    assert "too large" in _refused(victim, "POST", "/api/generate", body.encode())


@pytest.mark.parametrize(
    "host", ["evil.example.com", "\xff.com", "a" * 5000, "8.8.8.8", "localhost@evil.com"]
)
def test_a_foreign_host(victim: Server, host: str) -> None:
    before = _store(victim)
    body = json.dumps({"model": "tinybert"}).encode()
    assert _send(victim, "DELETE", "/api/delete", body, {"Host": host}) == (403, b"")
    assert _store(victim) == before


def test_a_store_with_strange_files(tmp_path: Path) -> None:
    """What is no manifest is passed over; a model beside it works."""
    folder = tmp_path / "models" / "manifests" / "registry.ollama.ai" / "library"
    for name, data in (("a", b""), ("b", b"{"), ("c", b"\xff" * 100), ("d", b"[" * 100_000)):
        (folder / name).mkdir(parents=True)
        (folder / name / "latest").write_bytes(data)
    (folder / "e").mkdir()
    os.mkfifo(folder / "e" / "latest")
    server = Server(tmp_path)
    started = time.monotonic()
    models = server.client.get("/api/tags").json()["models"]
    assert [model["name"] for model in models] == [f"{MODEL}:latest"]
    for name in "abcde":
        reply = server.client.post("/api/show", json={"model": name})
        assert 400 <= reply.status_code < 500 and reply.json()["error"], (name, reply.text)
    assert time.monotonic() - started < SOON
    assert server.stop() == 0
