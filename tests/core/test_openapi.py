"""Documents are made of what routes declare, and of nothing else."""

from __future__ import annotations

from typing import Annotated, Any

import jsonschema
import msgspec
import pytest
from litestar import Litestar, Router, get, head, post

from corectl.server.fields import NEEDED, NOT_EMPTY, among
from corectl.server.openapi import declared, document
from corectl.server.operation import NDJSON, RUNNING, Operation, Stream


class Question(msgspec.Struct):
    text: Annotated[str | None, NEEDED] = None
    more: Annotated[list[str], NOT_EMPTY] = []
    how: Annotated[str, among("well", "badly")] = "well"
    limit: Annotated[int, msgspec.Meta(ge=1)] = 1


class Answer(msgspec.Struct, omit_defaults=True):
    text: str
    seconds: float = 0


class Piece(msgspec.Struct):
    text: str


class Fault(msgspec.Struct):
    problem: str


ASK = Operation(
    summary="Answers",
    body=Question,
    reply=(Answer, Piece),
    stream=Stream(NDJSON, (Piece, Fault)),
    fails=RUNNING,
    headers={"x-limit": Annotated[int, msgspec.Meta(ge=0)]},
)
UPLOAD = Operation(summary="Takes bytes", body=bytes, statuses=(201,))
NAMED = Operation(summary="Says a name", reply=str, fails=(404,))


def made(*handlers: Any, **opt: Any) -> dict[str, Any]:
    # Its own logging would be in force for every test that follows.
    app = Litestar(
        [Router("/x", route_handlers=handlers, opt={"frontend": "x", **opt})],
        openapi_config=None,
        logging_config=None,
    )
    return document("x", declared(app).get("x", []))


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    @post("/ask", operation=ASK)
    async def ask() -> None: ...

    @post("/upload/{number:int}", operation=UPLOAD)
    async def upload() -> None: ...

    @get("/named/{name:path}", operation=NAMED)
    async def named() -> None: ...

    @head("/named/{name:path}", operation=NAMED)
    async def named_head() -> None: ...

    @get("/silent")
    async def silent() -> None: ...

    return made(ask, upload, named, named_head, silent, failure=Fault)


def test_routes_that_say_nothing_are_left_out(whole: dict[str, Any]) -> None:
    assert whole["openapi"] == "3.1.0"
    said = {(method, path) for path, methods in whole["paths"].items() for method in methods}
    assert said == {
        ("post", "/x/ask"),
        ("post", "/x/upload/{number}"),
        ("get", "/x/named/{name}"),
        ("head", "/x/named/{name}"),
    }


def test_an_operation(whole: dict[str, Any]) -> None:
    ask = whole["paths"]["/x/ask"]["post"]
    assert (ask["operationId"], ask["summary"]) == ("post_x_ask", "Answers")
    assert ask["requestBody"]["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/Question"}}
    }
    header = {"type": "integer", "minimum": 0}
    assert ask["parameters"] == [{"name": "x-limit", "in": "header", "required": False, "schema": header}]
    piece, answer, fault = ({"$ref": f"#/components/schemas/{name}"} for name in ("Piece", "Answer", "Fault"))
    assert ask["responses"]["200"]["content"] == {
        "application/json": {"schema": {"anyOf": [answer, piece]}},
        NDJSON: {"x-item-schema": {"anyOf": [piece, fault]}},
    }
    errors = set(ask["responses"]) - {"200"}
    assert errors == {"400", "403", "404", "408", "413", "500", "501", "502", "503", "default"}
    assert all(
        ask["responses"][status]["content"] == {"application/json": {"schema": fault}} for status in errors
    )


def test_texts_bytes_and_parameters(whole: dict[str, Any]) -> None:
    upload = whole["paths"]["/x/upload/{number}"]["post"]
    assert list(upload["requestBody"]["content"]) == ["application/octet-stream"]
    assert upload["parameters"][0]["schema"] == {"type": "integer"}
    assert "content" not in upload["responses"]["201"] and "200" not in upload["responses"]
    named = whole["paths"]["/x/named/{name}"]
    assert named["get"]["responses"]["200"]["content"] == {"text/plain": {"schema": {"type": "string"}}}
    assert "requestBody" not in named["get"] and "400" not in named["get"]["responses"]


def test_a_head_has_no_bodies(whole: dict[str, Any]) -> None:
    replies = whole["paths"]["/x/named/{name}"]["head"]["responses"]
    assert {"200", "404"} <= replies.keys()
    assert not any("content" in reply for reply in replies.values())


def test_what_is_checked_later_is_said_all_the_same(whole: dict[str, Any]) -> None:
    schema = {**whole["components"]["schemas"]["Question"], "components": whole["components"]}
    right = jsonschema.Draft202012Validator(schema).is_valid
    assert right({"text": "x", "more": ["y"], "how": "badly", "limit": 2})
    for wrong in (
        {},
        {"text": None},
        {"text": "x", "more": []},
        {"text": "x", "how": "so"},
        {"text": "x", "limit": 0},
    ):
        assert not right(wrong), wrong
    # None of this is part of reading.
    assert msgspec.json.decode(b'{"more": [], "how": "so"}', type=Question) == Question(None, [], "so")


def test_errors_have_the_core_s_form_where_nothing_is_said() -> None:
    @get("/a", operation=Operation(summary="A"))
    async def handler() -> None: ...

    found = made(handler)
    assert found["components"]["schemas"].keys() == {"Failure"}
    assert found["paths"]["/x/a"]["get"]["responses"]["200"] == {"description": "OK"}


def test_a_type_that_cannot_be_described() -> None:
    class Odd(msgspec.Struct):
        value: Question | Answer

    @get("/a", operation=Operation(summary="A", reply=Odd))
    async def handler() -> None: ...

    with pytest.raises(TypeError, match="must be tagged"):
        made(handler)


def test_a_declaration_of_any_type_can_be_mounted() -> None:
    """Litestar copies what a router has, and some types cannot be copied."""
    kind = Annotated[int, msgspec.Meta(extra_json_schema={"examples": [1]})]

    @get("/a", operation=Operation(summary="A", reply=kind))
    async def handler() -> None: ...

    reply = made(handler)["paths"]["/x/a"]["get"]["responses"]["200"]
    assert reply["content"]["application/json"]["schema"] == {"examples": [1], "type": "integer"}
