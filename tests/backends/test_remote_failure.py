"""Errors of remote servers, as their client's client should see them."""

from __future__ import annotations

import json

import pytest

from corectl.remote.backend import RemoteServer
from corectl.secret import Secret
from corectl_remote.failure import broken, refusal, spoken

KEY = "sk-very-secret"
SERVER = RemoteServer(name="lab", url="http://h:1", key=Secret(KEY))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": "no such model"}, "no such model"),
        ({"error": {"message": "no such model", "code": 404}}, "no such model"),
        ({"message": "no such model", "type": "x"}, "no such model"),
        ({"detail": "no such model"}, "no such model"),
        ({"error": {"error": {"message": "deep"}}}, "deep"),
        ({"error": ["a"]}, "status 400"),
        ({}, "status 400"),
        ([1], "status 400"),
        ("a text", "a text"),
    ],
)
def test_the_text_wherever_it_is(body: object, text: str) -> None:
    assert (
        refusal(SERVER, 400, json.dumps(body).encode()).message == f"remote server lab (http://h:1): {text}"
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"plain words", "plain words"),
        (b"<html><h1>Bad gateway</h1></html>", "status 400"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", "status 400"),
        (b"[" * 100_000, "status 400"),
        (b'{"error": "' + b"x" * 5000 + b'"}', "x" * 500),
        (b'{"error": "two\\nlines\\u0000\\u001b[31m"}', "two lines [31m"),
    ],
)
def test_bodies_that_nobody_expects(body: bytes, text: str) -> None:
    if body.startswith(b"["):
        assert len(refusal(SERVER, 400, body).message) < 600
    else:
        assert refusal(SERVER, 400, body).message == f"remote server lab (http://h:1): {text}"


@pytest.mark.parametrize(
    ("status", "ours", "code"),
    [
        (400, 400, "bad_request"),
        (404, 404, "not_found"),
        (413, 413, "too_large"),
        (422, 422, "remote_error"),
        (429, 429, "remote_error"),
        (501, 501, "not_supported"),
        (503, 503, "busy"),
        # Those that speak of us, or of the server, and not of the client.
        (401, 502, "remote_error"),
        (403, 502, "remote_error"),
        (408, 502, "remote_error"),
        (499, 502, "remote_error"),
        (500, 502, "remote_error"),
        (504, 502, "remote_error"),
        (302, 502, "remote_error"),
        (204, 502, "remote_error"),
    ],
)
def test_statuses(status: int, ours: int, code: str) -> None:
    error = refusal(SERVER, status, b'{"error": "why"}')
    assert (error.status, error.code) == (ours, code)


def test_a_key_that_is_missing_is_asked_for() -> None:
    without = RemoteServer(name="lab", url="http://h:1")
    assert "it may want a key, see remote_keys" in refusal(without, 401, b"{}").message
    assert "check its key" in refusal(SERVER, 401, b"{}").message


def test_a_server_that_gives_back_the_key_gives_it_to_nobody() -> None:
    for body in ({"error": f"bad key {KEY}"}, {"error": {"message": KEY}}, KEY):
        for status in (400, 401, 500):
            assert KEY not in refusal(SERVER, status, json.dumps(body).encode()).message
    assert KEY not in refusal(SERVER, 400, KEY.encode()).message
    assert KEY not in broken(SERVER, {"message": KEY}).message
    assert KEY not in spoken(SERVER, {"error": "x" * 495 + KEY}), "not even a part that is left by the cut"


def test_errors_in_a_stream() -> None:
    assert broken(SERVER, "it broke").message == "remote server lab (http://h:1): it broke"
    assert broken(SERVER, {"message": "it broke"}).message.endswith(": it broke")
    assert broken(SERVER, 5).message.endswith(": it failed")
