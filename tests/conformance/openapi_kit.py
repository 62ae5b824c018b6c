"""The documents of a server's frontends, as Schemathesis and our own checks take them."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import jsonschema
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import booleans
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.conftest import Server

Document = dict[str, Any]

FAULTY = ("/api/pull", "/api/push")
"""What answers 500 where a registry is to blame, as clients of that API know it."""


def no_failure(ctx: Any, response: Any, case: Any) -> None:
    """Other errors above 500 are part of what is declared: what is not supported is one."""
    assert response.status_code != 500 or case.operation.path in FAULTY, response.text[:1000]


CHECKS = [
    no_failure,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
STREAMS = ("application/x-ndjson", "text/event-stream")
_REF = "#/components/schemas/"


def fetched(server: Server, frontend: str) -> Document:
    """A frontend's document, made strict: replies have no member and no status that is not declared."""
    reply = server.client.get(f"/openapi/{frontend}.json")
    assert reply.status_code == 200 and reply.headers["content-type"] == "application/json"
    return _strict(reply.json())


def _strict(document: Document) -> Document:
    document = copy.deepcopy(document)
    asked, answered = set[str](), set[str]()
    for _, _, operation in operations(document):
        del operation["responses"]["default"]
        answered |= _reachable(document, operation["responses"])
        asked |= _reachable(document, operation.get("requestBody"))
    for name in answered - asked:
        document["components"]["schemas"][name]["additionalProperties"] = False
    return document


def _reachable(document: Document, part: Any) -> set[str]:
    """The names of all schemas that a part of a document leads to."""
    found, left = set[str](), [part]
    while left:
        names = set(_names(left.pop())) - found
        found |= names
        left += [document["components"]["schemas"][name] for name in names]
    return found


def _names(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"].removeprefix(_REF)
        for value in part.values():
            yield from _names(value)
    elif isinstance(part, list):
        for value in part:
            yield from _names(value)


def operations(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def check_reply(document: Document, method: str, path: str, reply: Any) -> str:
    """Fails unless a reply, and all pieces of one that is streamed, are as its operation says; its media type."""
    declared = document["paths"][path][method]["responses"]
    assert str(reply.status_code) in declared, (path, reply.status_code, reply.text[:300])
    content = declared[str(reply.status_code)].get("content")
    if content is None:
        assert reply.content == b"", (path, reply.text[:300])
        return ""
    media_type = str(reply.headers["content-type"]).partition(";")[0]
    described = content[media_type]
    if media_type in STREAMS:
        pieces = pieces_of(media_type, reply.content)
        assert pieces, (path, reply.text[:300])
        for piece in pieces:
            validate(document, described["x-item-schema"], piece)
    elif media_type == "application/json":
        validate(document, described["schema"], json.loads(reply.content))
    return media_type


def pieces_of(media_type: str, body: bytes) -> list[Any]:
    """The JSON of each line, or of the data of each event but the `[DONE]` at the end. Fails for any other text."""
    if media_type == "application/x-ndjson":
        assert body.endswith(b"\n")
        return [json.loads(line) for line in body.splitlines()]
    found = []
    events = body.decode().removesuffix("\n\n").split("\n\n")
    for number, event in enumerate(events):
        fields = dict(line.split(": ", 1) for line in event.split("\n") if not line.startswith(":"))
        if fields == {"data": "[DONE]"}:
            assert number == len(events) - 1
        elif fields:
            data = json.loads(fields["data"])
            assert "event" not in fields or fields["event"] == data["type"]
            found.append(data)
    return found


def validate(document: Document, schema: dict[str, Any], value: Any) -> None:
    """Fails unless a value is as a schema of the document says."""
    whole = {**schema, "components": document["components"]}
    validator = jsonschema.Draft202012Validator(
        whole, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    assert error is None, f"{error.message}\nin {json.dumps(value)[:500]}"


def attack(
    server: Server,
    document: Document,
    mode: GenerationMode,
    tame: Any,
    *,
    examples: int,
    seed: bool = True,
) -> dict[str, Counter[int]]:
    """Sends requests to each operation, as many as `examples`, and checks each reply; how often each status came.

    `tame` changes a case before it is sent: it names models that there are, keeps answers short, and is told whether
    it is to be streamed, which would be left to chance. Without `seed` the requests are others each time.
    """
    counts: dict[str, Counter[int]] = {}
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(result, Ok), result.err()
        operation = result.ok()
        counts[operation.label] = statuses = Counter[int]()
        send = _sender(server, document, tame, statuses)
        attacking = given(case=operation.as_strategy(generation_mode=mode), stream=booleans())(
            settings(
                max_examples=examples,
                derandomize=seed,
                database=None,
                deadline=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            )(send)
        )
        # Some operations have nothing that could be wrong.
        with suppress(*(Unsatisfiable,) if mode is GenerationMode.NEGATIVE else ()):
            attacking()
    return counts


def _sender(server: Server, document: Document, tame: Any, statuses: Counter[int]) -> Any:
    """Sends one case and checks the reply."""

    def send(case: Any, stream: bool) -> None:
        tame(case, stream)
        reply = case.call(base_url=server.url)
        statuses[reply.status_code] += 1
        case.validate_response(reply, checks=CHECKS)
        media_type = reply.headers.get("content-type", [""])[0].partition(";")[0]
        if media_type in STREAMS:
            content = case.operation.definition.raw["responses"]["200"]["content"][media_type]
            for piece in pieces_of(media_type, reply.content):
                validate(document, content["x-item-schema"], piece)

    return send
