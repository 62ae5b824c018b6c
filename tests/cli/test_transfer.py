"""`pull` and `push`: what is asked for, and what is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from corectl.cli.progress import Progress

if TYPE_CHECKING:
    from tests.cli.conftest import FakeServer, Result

    Corectl = Callable[..., Result]

WEIGHTS = {"status": "pulling 6a0746a1ec1a", "digest": "sha256:6a0746a1ec1a", "total": 4_700_000_000}
STEPS: list[dict[str, Any]] = [
    {"status": "pulling manifest"},
    WEIGHTS,
    {**WEIGHTS, "completed": 2_100_000_000},
    {**WEIGHTS, "completed": 4_700_000_000},
    {"status": "pulling 4fa551d4f938", "digest": "sha256:4fa551d4f938", "total": 12, "completed": 12},
    {"status": "verifying sha256 digest"},
    {"status": "writing manifest"},
    {"status": "success"},
]


def test_pull(server: FakeServer, corectl: Corectl) -> None:
    server.reply("POST /api/pull", STEPS)
    result = corectl("pull", "llama3.2")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == [
        "pulling manifest",
        "pulling 6a0746a1ec1a: 100% 4.7 GB",
        "pulling 4fa551d4f938: 100% 12 B",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert server.bodies("POST /api/pull") == [{"model": "llama3.2", "insecure": False, "stream": True}]


def test_create_shows_what_it_pulls_and_what_it_quantises(
    server: FakeServer, corectl: Corectl, tmp_path: Path
) -> None:
    (tmp_path / "Modelfile").write_text("FROM llama3.2\n")
    quantizing = {"status": "quantizing F16 model to Q4_K_M", "digest": "0000000000000000000", "total": 2000}
    making = [{**quantizing, "completed": 1000}, {**quantizing, "completed": 2000}, {"status": "success"}]
    server.reply("POST /api/create", [*STEPS[:-1], *making])
    result = corectl("create", "small", "-f", str(tmp_path / "Modelfile"), "-q", "q4_K_M")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == [
        "gathering model components",
        "pulling manifest",
        "pulling 6a0746a1ec1a: 100% 4.7 GB",
        "pulling 4fa551d4f938: 100% 12 B",
        "verifying sha256 digest",
        "writing manifest",
        "quantizing F16 model to Q4_K_M: 100% 2 KB",
        "success",
    ]


def test_an_insecure_registry_must_be_asked_for(server: FakeServer, corectl: Corectl) -> None:
    for command in ("pull", "push"):
        server.reply(f"POST /api/{command}", [{"status": "success"}])
        assert corectl(command, "--insecure", "http://127.0.0.1:5000/a/b").code == 0
        (body,) = server.bodies(f"POST /api/{command}")
        assert body == {"model": "http://127.0.0.1:5000/a/b", "insecure": True, "stream": True}


@pytest.mark.parametrize("command", ["pull", "push"])
def test_an_error_ends_it(server: FakeServer, corectl: Corectl, command: str) -> None:
    text = "pull model manifest: file does not exist"
    server.reply(f"POST /api/{command}", [{"status": "pulling manifest"}, {"error": text}])
    result = corectl(command, "nope")
    assert (result.code, result.out, result.err) == (1, "", f"pulling manifest\nError: {text}\n")


def test_a_stream_that_breaks_off_is_an_error(server: FakeServer, corectl: Corectl) -> None:
    server.reply("POST /api/pull", STEPS[:4])
    result = corectl("pull", "llama3.2")
    assert result.code == 1
    assert result.err.endswith("Error: the server ended its reply before the model was complete\n")


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("me/mine", "https://ollama.com/me/mine"),
        ("me/mine:small", "https://ollama.com/me/mine:small"),
        ("registry.example/me/mine", ""),
    ],
)
def test_push_says_where_the_model_is(server: FakeServer, corectl: Corectl, name: str, page: str) -> None:
    server.reply("POST /api/push", [{"status": "retrieving manifest"}, {"status": "success"}])
    result = corectl("push", name)
    assert (result.code, result.err) == (0, "retrieving manifest\nsuccess\n")
    assert result.out == (f"\nYou can find your model at:\n\n\t{page}\n" if page else "")


def test_push_to_somebody_elses_namespace(server: FakeServer, corectl: Corectl) -> None:
    server.reply("POST /api/push", [{"error": "push access denied to resource"}])
    server.reply("POST /api/me", {"error": "unauthorized", "signin_url": "https://hub.example/connect"}, 401)
    assert corectl("push", "you/mine").err == (
        "Error: you are not authorized to push to this namespace, "
        "create the model under a namespace you own\n\n"
        "If your account does not know this server's key yet, open:\n    https://hub.example/connect\n"
    )
    assert corectl("push", "registry.example/you/mine").err == "Error: push access denied to resource\n"


def test_more_transfers_than_the_terminal_has_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "5")
    shown = Progress()
    for number in range(10):
        shown.transfer(f"pulling {number}", 100, 100)
    for _ in range(2):
        shown._draw()
        up, _, drawn = capsys.readouterr().err.rpartition("\x1b[J")
        assert [line.partition(":")[0] for line in drawn.splitlines()] == [
            f"pulling {at}" for at in range(6, 10)
        ]
    assert up == "\x1b[4A\r"
    shown._draw(whole=True)
    assert capsys.readouterr().err.count("\n") == 10


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is there when a transfer goes on says nothing about how fast it is."""
    now = [100.0]
    monkeypatch.setattr("corectl.cli.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    shown = Progress()
    shown.transfer("pulling 6a0746a1ec1a", 4_700_000_000, 2_000_000_000)
    now[0] += 2
    shown.transfer("pulling 6a0746a1ec1a", 4_700_000_000, 2_100_000_000)
    shown._draw()
    bar = capsys.readouterr().err.rpartition("\x1b[J")[2]
    assert bar == "pulling 6a0746a1ec1a:  45% ▕███████          ▏2.1 GB/4.7 GB    50 MB/s      52s\n"
    shown.transfer("pulling 6a0746a1ec1a", 4_700_000_000, 4_700_000_000)
    shown._draw()
    bar = capsys.readouterr().err.rpartition("\x1b[J")[2]
    assert bar.startswith("pulling 6a0746a1ec1a: 100% ▕█████") and bar.endswith("█▏ 4.7 GB\n")
