"""Whom a session with the hub shows the token, where it lets itself be led, and what it says of a refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from corectl.errors import (
    BadRequest,
    Busy,
    CorectlError,
    Forbidden,
    NotFound,
    RemoteError,
    Unauthorized,
)
from corectl.transfer import peers
from corectl_huggingface.registry import HuggingFace
from tests.plugins.hub_kit import TOKEN, Hub
from tests.plugins.hub_session_kit import FOLDER, GGUF, pull
from tests.registry.host import Answer, Asked, Host, plain


def test_a_repository_that_is_not_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unauthorized, match=r"file does not exist, or o/m is private.*HF_TOKEN"):
        pull("hf.co/o/m")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(NotFound, match=r"^file does not exist$"):
        pull("hf.co/o/m")


def test_private_repositories_need_a_token(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.add("o/m", {**GGUF, "system": b"Be."}, private=True)
    with pytest.raises(Unauthorized):
        pull("hf.co/o/m")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(Unauthorized, match="does not know the token"):
        pull("hf.co/o/m")
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(f"{TOKEN}\n")
    pulled = pull("hf.co/o/m")
    (location,) = pulled.locations.values()
    assert location.headers == {"authorization": f"Bearer {TOKEN}"}


def test_gated_repositories_say_what_to_do(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("o/m", GGUF, gated=True)
    with pytest.raises(Unauthorized, match=rf"accept its terms at {hub.url}/o/m, and set HF_TOKEN"):
        pull("hf.co/o/m")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    pull("hf.co/o/m")

    def not_accepted(asked: Asked, further: Callable[[Asked], Answer]) -> Answer:
        return plain(403, b"", x_error_code="GatedRepo") if "/resolve/" in asked.path else further(asked)

    hub.host.layers.append(not_accepted)
    with pytest.raises(Forbidden, match=rf"accept its terms at {hub.url}/o/m with the account"):
        pull("hf.co/o/m")


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (
            plain(403, x_error_message="Access to this resource is disabled."),
            Forbidden,
            "resource is disabled",
        ),
        (plain(429), Busy, "too many requests"),
        (plain(500, b"oh\x1b[2J no"), RemoteError, r"500: oh \[2J no"),
        (plain(204), RemoteError, "204"),
    ],
)
def test_other_refusals(hub: Hub, answer: Answer, kind: type[CorectlError], text: str) -> None:
    hub.host.layers.append(lambda asked, further: answer)
    with pytest.raises(kind, match=text):
        pull("hf.co/o/m")


def test_the_token_is_for_the_endpoint_only(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files may be redirected elsewhere as well; what the hub says itself comes from the hub."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add("o/m", {**FOLDER, "tokenizer.json": b"0" * 2**17, "modules.json": b" " * 2**17 + b"[]"})
    pull("hf.co/o/m")
    assert hub.cdn.count("GET") == 1
    assert hub.cdn.received("authorization") == []
    assert set(hub.host.received("authorization")) == {f"Bearer {TOKEN}"}
    with Host(lambda asked: plain(200, b"{}")) as other:
        hub.host.layers.append(lambda asked, further: plain(302, location=f"{other.url}/api/models/o/m"))
        with pytest.raises(RemoteError, match="is not followed"):
            pull("hf.co/o/m")
        assert other.asked == []


def test_other_hosts_are_neither_quoted_nor_inside(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("o/m", {**FOLDER, "modules.json": b" " * 2**17 + b"[]"})
    hub.cdn.layers.append(lambda asked, further: plain(418, b"secret"))
    with pytest.raises(RemoteError, match=r"fetched: status 418$"):
        pull("hf.co/o/m")
    # As if the hub had a public address.
    port = int(hub.url.rpartition(":")[2])
    monkeypatch.setattr(peers, "_is_inside", lambda stream: stream.get_extra_info("server_addr")[1] != port)
    asked = len(hub.cdn.asked)
    with pytest.raises(RemoteError, match="not on the internet; it is not followed"):
        pull("hf.co/o/m")
    assert len(hub.cdn.asked) == asked


@pytest.mark.parametrize(
    "location", ["", "ftp://example.com/x", "http://u:p@127.0.0.1/", "http://[", "/again"]
)
def test_redirects_that_lead_nowhere(hub: Hub, location: str) -> None:
    hub.host.layers.append(lambda asked, further: plain(302, location=location))
    with pytest.raises(RemoteError, match="redirects"):
        pull("hf.co/o/m")


@pytest.mark.usefixtures("hub_environment")
def test_hosts_and_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HuggingFace().hosts == ("hf.co", "huggingface.co")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example:8443/hub/")
    assert HuggingFace().hosts == ("hf.co", "huggingface.co", "mirror.example:8443")
    for wrong in (
        "mirror.example",
        "ftp://mirror.example",
        "http://",
        "https://u:p@mirror.example",
        "https://[",
    ):
        monkeypatch.setenv("HF_ENDPOINT", wrong)
        assert HuggingFace().hosts == ("hf.co", "huggingface.co")
        with pytest.raises(BadRequest, match="HF_ENDPOINT"):
            pull("hf.co/o/m")


@pytest.mark.parametrize("token", ["hf_a b", "hf_\x7f", "hf_\u00e9", "x" * 513])
def test_tokens_that_cannot_be_sent(hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(BadRequest, match="HF_TOKEN") as raised:
        pull("hf.co/o/m")
    assert token not in raised.value.message and hub.host.asked == []
