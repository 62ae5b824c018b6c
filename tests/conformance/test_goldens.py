"""Replies that Ollama gave to recorded requests, and ours to the same requests.

`tests/data/goldens.jsonl` holds the models to create, then requests and replies in the order in which they were sent;
some depend on earlier ones. Compared are status, content type, the headers that browsers act on, the shape of JSON
(every recorded key is there with a value of the same kind; more keys are welcome), the first and the last line of a
stream, the order of its events where they have names, and the texts that clients match on. What a model wrote is not
compared: builds of an engine differ.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import DATA, Server, smollm2
from tests.forms import Forms
from tests.registry import small
from tests.registry.docker import DockerRegistry
from tests.registry.served import transfer_server

CLIENT_ERROR = "a client's mistake is a 4xx, not a 500"
OWN_WORDS = "same status; the text says what is wrong instead of quoting the error of a program behind"
NO_EMBEDDINGS = "same status; the text says which kind of model to use instead of a program's flag"

ACCEPTED = {
    **dict.fromkeys(
        (
            *("gen_template_bad", "gen_context_bad_tokens", "gen_opt_wrongtype_numpredict"),
            *("gen_opt_stop_string", "gen_opt_stop_bad_elem", "gen_format_badstring", "gen_format_number"),
            *("gen_format_array", "chat_opt_wrongtype", "create_files_missing_blob"),
            *("create_files_baddigest", "create_quantize_quantized", "create_quantize_bad"),
            *("create_quantize_field_quantization", "create_license_num", "emb_bert_legacy_long"),
            *("pull_insecure_false_nostream", "push_missing"),
        ),
        CLIENT_ERROR,
    ),
    **dict.fromkeys(
        (
            *("gen_image_nonvision", "gen_ctx_small_truncate_false", "chat_truncate_false"),
            *("create_adapter_missing", "gen_format_badschema_stream", "chat_toolargs_string"),
            "push_missing_stream",
        ),
        OWN_WORDS,
    ),
    **dict.fromkeys(("embed_string", "embed_list_with_empty", "embed_dims", "embed_dims_neg"), NO_EMBEDDINGS),
    "embed_too_long_trunc_false": "same status; after the same words the text says how long the input is",
    "gen_template_unknown_field": "an unknown field renders as nothing, where Go has '<no value>'",
    **dict.fromkeys(("quant_q4_0", "quant_q5_K_M"), "more types can be quantised to"),
    "quant_q4_K_M_stream": "quantising is a step that one sees, however short it is",
    **dict.fromkeys(
        ("v1_chat_stop_num", "v1_chat_stop_listnum"), "a stop string that is none is refused, not passed over"
    ),
    **dict.fromkeys(
        (
            *("v1_resp", "v1_resp_stream", "v1_resp_messages", "v1_resp_instructions"),
            "v1_resp_tools_stream",
        ),
        "what was cut is incomplete",
    ),
    **dict.fromkeys(
        ("v1_resp_prev", "v1_resp_conversation", "v1_resp_noinput"), "what was said before is not passed over"
    ),
    "v1_comp_list": "several prompts are taken",
    "signout_post": "nobody can be signed in: a client's mistake",
    "push_badname": "a name that is none is refused with a 400, before anything is streamed",
    "pull_cloud": "what runs in Ollama's cloud only is refused before anything is sent",
    "v1_msg_stop": "the stop reason of a stop sequence is the documented one",
}
"""Recorded cases that are answered otherwise, and why. A case that no longer differs must leave this table."""

LINES = [json.loads(line) for line in (DATA / "goldens.jsonl").read_text("utf-8").splitlines()]
MODELS = [line["setup"] for line in LINES if "setup" in line]
CASES = {line["name"]: line for line in LINES if "name" in line}

MATCHED = {
    *("error", "done_reason", "role", "status", "format", "family", "quantization_level", "parameter_size"),
    *("rendered_template", "city", "type", "stop_reason"),
}
"""Keys whose values clients match on."""

UNSAID = {".error.param", ".error.code"}
"""Keys that were always null, and in which ours say what is wrong."""

LIBRARY_TEXT = re.compile(
    r"invalid character|unexpected EOF|cannot unmarshal|strconv|illegal base64|dial tcp|tls: "
)
"""Wordings of libraries for JSON and for networks, which no client matches on."""

INFERENCE = {"/api/generate", "/api/chat", "/api/embed", "/api/embeddings"}


def _weights(name: str, folder: Path) -> bytes:
    if name == "tinybert":
        return (DATA / "tinybert.gguf").read_bytes()
    if name == "smol2l":
        return Forms(smollm2(), folder).gguf(layers=2).read_bytes()
    return smollm2().read_bytes()


def _create_models(server: Server) -> None:
    for setup in MODELS:
        body = {key: value for key, value in setup.items() if key != "weights"}
        if "weights" in setup:
            data = _weights(setup["weights"], server.folder)
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            assert server.client.post(f"/api/blobs/{digest}", content=data).status_code in (200, 201)
            body["files"] = {f"{setup['weights']}.gguf": digest}
        reply = server.client.post("/api/create", json={**body, "stream": False})
        assert reply.json() == {"status": "success"}, reply.text


def _send(server: Server, request: dict[str, Any], registry: str) -> httpx.Response:
    request = json.loads(json.dumps(request).replace(small.RECORDED, registry))
    body, path = request["body"], request["path"]
    content: bytes | None = None
    if isinstance(body, dict) and "__bytes_latin1__" in body:
        content = body["__bytes_latin1__"].encode("latin-1")
    elif isinstance(body, str):
        content = body.encode()
    elif isinstance(body, dict):
        # One engine thread: several that wait for one another crawl when the machine does something else.
        if path in INFERENCE and isinstance(body.get("options", {}), dict):
            body = {**body, "options": {**body.get("options", {}), "num_thread": 1}}
        content = json.dumps(body).encode()
    return server.client.request(request["method"], path, content=content, headers=request["headers"])


@pytest.fixture(scope="module")
def replies(
    tmp_path_factory: pytest.TempPathFactory, registry: DockerRegistry
) -> Iterator[dict[str, httpx.Response]]:
    """Our replies to all cases, sent in their order. As when they were recorded, the world is out of reach."""
    proxy = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    server = transfer_server(tmp_path_factory.mktemp("goldens"), **proxy)
    _create_models(server)
    with small.small_registry(registry, smollm2(), DATA / "tinybert.gguf") as host:
        yield {name: _send(server, case["request"], host.netloc) for name, case in CASES.items()}
    assert server.stop() == 0, server.log


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, dict):
        return "object"
    # Go writes a list that never was made as null.
    return "string" if isinstance(value, str) else "array"


def _masked(text: str) -> str:
    """Without what differs from one run to another: digests, the registry's port, and where the store lies."""
    text = re.sub(r"127\.0\.0\.1:\d+", "<registry>", text)
    return re.sub(r"[0-9a-f]{12,64}", "<hex>", re.sub(r"\S*/(blobs|manifests)/", r"<store>/\1/", text))


def _matters(path: str, text: str) -> bool:
    return path.rpartition(".")[2] in MATCHED and not LIBRARY_TEXT.search(text)


def _compare(recorded: Any, ours: Any, path: str) -> Iterator[str]:
    if recorded is None and path in UNSAID:
        return
    if _kind(recorded) != _kind(ours):
        yield f"{path}: recorded {_kind(recorded)}, got {_kind(ours)}"
    elif isinstance(recorded, dict):
        for key, value in recorded.items():
            if key in ours:
                yield from _compare(value, ours[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}: missing"
    elif isinstance(recorded, list) and recorded:
        if ours:
            yield from _compare(recorded[0], ours[0], f"{path}[0]")
        else:
            yield f"{path}: empty"
    elif isinstance(recorded, str) and _matters(path, recorded) and _masked(recorded) != _masked(ours):
        yield f"{path}: recorded {recorded!r}, got {ours!r}"


def _events(text: str) -> list[dict[str, Any]]:
    """Server-sent events as they are recorded: the name, where there is one, and the data."""
    found: list[dict[str, Any]] = []
    for event in filter(None, text.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in event.split("\n"))
        data = fields["data"]
        found.append({**fields, "data": json.loads(data) if data != "[DONE]" else data})
    return found


def _order(chunks: list[Any]) -> list[str]:
    """The names of events in their order; any number of one name in a row counts once."""
    return [name for name, _ in itertools.groupby(chunk.get("event", "") for chunk in chunks)]


def _compare_lines(recorded: list[Any], ours: list[Any]) -> Iterator[str]:
    if not ours:
        yield "nothing was streamed"
        return
    yield from _compare(recorded[0], ours[0], "first")
    yield from _compare(recorded[-1], ours[-1], "last")
    if _order(recorded) != _order(ours):
        yield f"events: recorded {_order(recorded)}, got {_order(ours)}"
    wanted, got = (
        {_masked(line["status"]) for line in side if "status" in line} for side in (recorded, ours)
    )
    if wanted - got:
        yield f"statuses missing: {sorted(wanted - got)}"


def differences(recorded: dict[str, Any], ours: httpx.Response) -> Iterator[str]:
    """What a client would notice."""
    if recorded["status"] != ours.status_code:
        yield f"status: recorded {recorded['status']}, got {ours.status_code} {ours.text[:200]}"
    wanted, got = (
        text.partition(";")[0] for text in (recorded["content_type"], ours.headers.get("content-type", ""))
    )
    if wanted != got and recorded.get("text") != "":
        yield f"content type: recorded {wanted!r}, got {got!r}"
        return
    for name, value in recorded.get("headers", {}).items():
        matters = name.startswith("access-control-") or (name == "allow" and recorded["status"] == 405)
        got_value = ours.headers.get(name, "")
        if name == "access-control-allow-headers":
            # More may be allowed; see docs/compatibility.md.
            matters = not set(value.split(",")) <= set(got_value.split(","))
        if matters and got_value != value:
            yield f"{name}: recorded {value!r}, got {ours.headers.get(name)!r}"
    if "json" in recorded:
        yield from _compare(recorded["json"], ours.json(), "")
    elif "chunks" in recorded:
        named = got == "text/event-stream"
        lines = _events(ours.text) if named else [json.loads(line) for line in ours.text.splitlines()]
        yield from _compare_lines(recorded["chunks"], lines)
    elif recorded["text"] != ours.text:
        yield f"text: recorded {recorded['text']!r}, got {ours.text!r}"


@pytest.mark.parametrize("name", CASES)
def test_recorded_reply(replies: dict[str, httpx.Response], name: str) -> None:
    found = list(differences(CASES[name]["response"], replies[name]))
    if name in ACCEPTED:
        assert found, f"no longer differs: take {name} out of ACCEPTED"
    else:
        assert not found


def test_accepted_deviations_are_recorded_cases_with_a_reason() -> None:
    assert set(ACCEPTED) <= set(CASES)
    assert all(ACCEPTED.values())


def test_the_comparer_notices() -> None:
    """Against a reply that is right: the wrong status, kind, key, text and end of a stream."""
    good = {"status": 200, "content_type": "application/json", "json": {"a": 1, "error": "x"}}

    def reply(status: int, body: Any) -> httpx.Response:
        return httpx.Response(status, json=body)

    assert list(differences(good, reply(200, {"a": 2.5, "error": "x", "more": None}))) == []
    for status, body in (
        (400, {"a": 1, "error": "x"}),
        (200, {"a": "1", "error": "x"}),
        (200, {"error": "x"}),
        (200, {"a": 1, "error": "y"}),
        (200, []),
    ):
        assert len(list(differences(good, reply(status, body)))) == 1
    stream = {"status": 200, "content_type": "application/x-ndjson", "chunks": [{"a": 1}, {"done": True}]}
    headers = {"content-type": "application/x-ndjson"}
    assert (
        list(differences(stream, httpx.Response(200, text='{"a":2}\n{"done":true}\n', headers=headers))) == []
    )
    assert len(list(differences(stream, httpx.Response(200, text='{"a":2}\n', headers=headers)))) == 1
    events = {
        **stream,
        "content_type": "text/event-stream",
        "chunks": [{"event": name, "data": {}} for name in ("a", "b", "c")],
    }

    def sent(*names: str) -> httpx.Response:
        text = "".join(f"event: {name}\ndata: {{}}\n\n" for name in names)
        return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})

    assert list(differences(events, sent("a", "b", "b", "c"))) == []
    assert len(list(differences(events, sent("a", "d", "c")))) == 1
