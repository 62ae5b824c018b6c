"""Conversations: commands, what is sent, and the line editor on a fake terminal."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from corectl.cli.client import Client
from corectl.cli.failure import ServerError
from corectl.cli.history import LIMIT, history_path, load_history, save_history
from corectl.cli.host import parse_host
from corectl.cli.repl import converse
from corectl.cli.session import Session
from corectl.cli.slash import SlashCommands, is_open, unquote
from corectl.cli.writer import AnswerWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import FakeServer

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def session(server: FakeServer) -> Iterator[Session]:
    server.reply("POST /api/generate", {"done": True})
    server.reply("POST /api/chat", [chunk("Hi"), chunk(" you"), chunk("", done=True)])
    client = Client(parse_host(server.address))
    yield Session(client, "smol", {"parameters": "stop    x", "capabilities": ["completion"]})
    client.close()


@pytest.fixture
def commands(session: Session) -> SlashCommands:
    return SlashCommands(session)


def chunk(content: str, **fields: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": content}, **fields}


@pytest.mark.parametrize(
    ("line", "out"),
    [
        ("/set parameter num_ctx 64", "Set parameter 'num_ctx' to '64'"),
        ("/set parameter stop a b", "Set parameter 'stop' to 'a, b'"),
        ("/set parameter top_k x", 'Couldn\'t set parameter: "invalid int value [x]"'),
        ("/set parameter zork 1", "Couldn't set parameter: \"unknown parameter 'zork'\""),
        ("/set system Be brief.", "Set system message."),
        ("/set wordwrap", "Set 'wordwrap' mode."),
        ("/set nowordwrap", "Set 'nowordwrap' mode."),
        ("/set format json", "Set format to 'json' mode."),
        ("/set format xml", "Invalid or missing format. For 'json' mode use '/set format json'"),
        ("/set noformat", "Disabled format."),
        ("/set verbose", "Set 'verbose' mode."),
        ("/set quiet", "Set 'quiet' mode."),
        ("/set think", "Set 'think' mode."),
        ("/set think high", "Set 'think' mode to 'high'."),
        ("/set nothink", "Set 'nothink' mode."),
        ("/set zork", "Unknown command '/set zork'. Type /? for help"),
        ("/zork", "Unknown command '/zork'. Type /? for help"),
        ("/clear", "Cleared session context"),
        ("/show license", "No license was specified for this model."),
        ("/show system", "No system message was specified for this model."),
        ("/show template", "No prompt template was specified for this model."),
        ("/show parameters", "Model defined parameters:\n  stop    x\n"),
        ("/load", "Usage:\n  /load <modelname>"),
        ("/save a:b:c:d/", "error: The model name 'a:b:c:d/' is invalid"),
    ],
)
def test_commands(commands: SlashCommands, capsys: Capture, line: str, out: str) -> None:
    assert commands.run(line)
    assert capsys.readouterr().out == out + "\n"


@pytest.mark.parametrize("line", ["/bye", "/exit", " /bye "])
def test_leaving(commands: SlashCommands, line: str) -> None:
    assert not commands.run(line)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("/?", 'Use """ to begin a multi-line message.'),
        ("/help set", "/set system <string>"),
        ("/? show", "/show modelfile"),
        ("/? shortcuts", "Ctrl + k"),
        ("/set", "/set parameter ..."),
        ("/set parameter", "/set parameter num_ctx <int>"),
        ("/show", "/show info"),
    ],
)
def test_help_goes_to_stderr(commands: SlashCommands, capsys: Capture, line: str, part: str) -> None:
    commands.run(line)
    out, err = capsys.readouterr()
    assert out == ""
    assert part in err


def test_settings_are_sent(commands: SlashCommands, server: FakeServer, capsys: Capture) -> None:
    for line in ("/set parameter temperature 0.5", "/set format json", "/set system S", "/set system T"):
        commands.run(line)
    commands.session.say("hello")
    assert server.bodies("POST /api/chat") == [
        {
            "model": "smol",
            "format": "json",
            "messages": [{"role": "system", "content": "T"}, {"role": "user", "content": "hello"}],
            "options": {"temperature": 0.5},
        }
    ]
    assert commands.session.messages[-1] == {"role": "assistant", "content": "Hi you"}
    assert capsys.readouterr().out.endswith("Hi you\n\n")


def test_shown_parameters(commands: SlashCommands, capsys: Capture) -> None:
    commands.run("/set parameter stop a b")
    capsys.readouterr()
    commands.run("/show parameters")
    assert capsys.readouterr().out.endswith(f"\nUser defined parameters:\n  {'stop':<30} a b\n\n")


def test_thinking_is_remembered(session: Session, server: FakeServer, capsys: Capture) -> None:
    thought = {"message": {"role": "assistant", "content": "", "thinking": "hm"}}
    server.reply("POST /api/chat", [thought, chunk("Yes"), chunk("", done=True)])
    session.say("hello")
    assert session.messages[-1] == {"role": "assistant", "content": "Yes", "thinking": "hm"}
    assert capsys.readouterr().out == "Thinking...\nhm\n...done thinking.\n\nYes\n\n"


def test_a_message_that_failed_is_forgotten(session: Session, server: FakeServer) -> None:
    server.reply("POST /api/chat", {"error": "boom"}, 500)
    with pytest.raises(ServerError, match="500 Internal Server Error: boom"):
        session.say("hello")
    assert session.messages == []


def test_clear_keeps_the_system_message(session: Session) -> None:
    session.set_system("S")
    session.say("hello")
    session.clear()
    assert session.messages == [{"role": "system", "content": "S"}]


def test_load(commands: SlashCommands, server: FakeServer, capsys: Capture) -> None:
    commands.session.say("hello")
    server.reply("POST /api/show", {"error": "no"}, 404)
    commands.run("/load nope")
    assert commands.session.model == "smol"
    server.reply("POST /api/show", {"capabilities": ["thinking"]})
    commands.run("/load other")
    assert (commands.session.model, commands.session.messages, commands.session.thinks) == ("other", [], True)
    assert capsys.readouterr().out.endswith("Couldn't find model 'nope'\nLoading model 'other'\n")


def test_save(commands: SlashCommands, server: FakeServer, capsys: Capture) -> None:
    server.reply("POST /api/create", [{"status": "success"}])
    for line in ("/set system S", "/set parameter seed 1"):
        commands.run(line)
    commands.session.say("hello")
    commands.run("/save mine")
    assert capsys.readouterr().out.endswith("Created new model 'mine'\n")
    assert server.bodies("POST /api/create") == [
        {
            "model": "mine",
            "from": "smol",
            "parameters": {"seed": 1},
            "system": "S",
            "messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Hi you"}],
            "stream": True,
        }
    ]


@pytest.mark.parametrize(
    ("text", "is_more"),
    [
        ("hello", False),
        ('"""', True),
        ('"""one', True),
        ('"""one\ntwo"""', False),
        ('""""""', False),
        ('/set system """one', True),
        ('/set system """one\ntwo"""', False),
        ('say """', False),
    ],
)
def test_open_quotes(text: str, is_more: bool) -> None:
    assert is_open(text) is is_more


def test_unquote() -> None:
    assert unquote('"""one\ntwo""" ') == "one\ntwo"
    assert unquote("plain") == "plain"


def type_keys(session: Session, keys: str) -> None:
    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):
        keyboard.send_text(keys)
        converse(session)


def test_a_conversation(session: Session, server: FakeServer, capsys: Capture) -> None:
    session.info["messages"] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    type_keys(session, 'hello\r/set verbose\r"""one\rtwo"""\rx\x03\x03two\nlines\r/bye\r')
    out = capsys.readouterr().out
    assert out.startswith(">>> a\nb\n\nHi you\n\nSet 'verbose' mode.\nHi you\n\n")
    assert "Use Ctrl + d or /bye to exit." in out
    asked = [body["messages"][-1]["content"] for body in server.bodies("POST /api/chat")]
    assert asked == ["hello", "one\ntwo", "two\nlines"]
    assert load_history(history_path())[:2] == ["hello", "/set verbose"]


def test_ctrl_d_leaves_and_errors_do_not(session: Session, server: FakeServer, capsys: Capture) -> None:
    server.reply("POST /api/chat", {"error": "boom"}, 500)
    type_keys(session, "hello\r\x04")
    assert capsys.readouterr().err.splitlines()[-1] == "Error: 500 Internal Server Error: boom"


def test_history_can_be_off(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_NOHISTORY", "1")
    type_keys(session, "hello\r/bye\r")
    assert not history_path().exists()
    monkeypatch.delenv("OLLAMA_NOHISTORY")
    type_keys(session, "/set nohistory\rsecret\r/bye\r")
    assert "secret" not in load_history(history_path())


def test_history_that_is_turned_on_again_has_what_was_kept_and_nothing_else(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_keys(session, "before\r/bye\r")
    type_keys(session, "/set nohistory\rsecret\r/set history\rafter\r/bye\r")
    kept = load_history(history_path())
    assert "secret" not in kept and kept[0] == "before" and "after" in kept
    monkeypatch.setenv("OLLAMA_NOHISTORY", "1")
    type_keys(session, "secret\r/set history\rlast\r/bye\r")
    kept = load_history(history_path())
    assert "secret" not in kept and kept[0] == "before" and "last" in kept


def test_a_message_that_is_no_utf_8_is_sent_all_the_same(session: Session, server: FakeServer) -> None:
    session.say("caf\udce9")
    assert server.bodies("POST /api/chat")[-1]["messages"][-1]["content"] == "caf\ufffd"


def test_the_history_file(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history"
    save_history(path, [f"line {number}\nmore" for number in range(LIMIT + 5)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_history(path)[0] == "line 5\nmore"
    assert len(load_history(path)) == LIMIT
    path.write_text(json.dumps({"no": "list"}) + "\n")
    assert load_history(path) == []
    path.write_text("broken")
    assert load_history(path) == []


def test_what_came_before_an_interruption_is_kept(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def interrupt(writer: AnswerWriter, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AnswerWriter, "content", interrupt)
    type_keys(session, "hello\r/bye\r")
    assert session.messages == [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Hi"}]
    assert capsys.readouterr().err == ""
