"""Documents of what is served, one for each frontend: OpenAPI 3.1, made of what its routes say of themselves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Litestar, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from corectl import __version__
from corectl.errors import NotFound
from corectl.server.body import AnyRequest
from corectl.server.failures import Failure
from corectl.server.operation import Operation

Schema = dict[str, Any]

_RAW: dict[Any, tuple[str, Schema]] = {
    str: ("text/plain", {"type": "string"}),
    bytes: ("application/octet-stream", {"type": "string", "format": "binary"}),
}


class Declared(msgspec.Struct, frozen=True):
    """One method of one route. `parameters` are those of its path; `failure` is the type of its errors."""

    method: str
    path: str
    parameters: dict[str, Any]
    operation: Operation
    failure: Any

    def types(self) -> Iterator[Any]:
        """All types that it speaks of."""
        operation = self.operation
        yield from self.parameters.values()
        yield from operation.headers.values()
        for kinds in (operation.body, operation.reply, operation.stream and operation.stream.item):
            yield from _several(kinds)
        yield self.failure


def declared(app: Litestar) -> dict[str, list[Declared]]:
    """What the routes of an application say of themselves, by frontends. Those that say nothing are left out."""
    found: dict[str, list[Declared]] = {}
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        for handler in route.route_handlers:
            if isinstance(handler.opt.get("operation"), Operation):
                found.setdefault(handler.opt["frontend"], []).extend(_declared(route, handler))
    return found


def _declared(route: HTTPRoute, handler: HTTPRouteHandler) -> Iterator[Declared]:
    names = {name: str if kind.type is not int else int for name, kind in route.path_parameters.items()}
    failure = handler.opt.get("failure", Failure)
    for method in sorted(handler.http_methods):
        yield Declared(method, route.path_format, names, handler.opt["operation"], failure)


def document(name: str, routes: list[Declared]) -> Schema:
    """The document of one frontend. Raises `TypeError` for a type that msgspec cannot describe."""
    writer = _Writer([kind for route in routes for kind in route.types()])
    paths: dict[str, Schema] = {}
    for route in sorted(routes, key=lambda route: (route.path, route.method)):
        paths.setdefault(route.path, {})[route.method.lower()] = writer.operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"corectl: {name}", "version": __version__},
        "paths": paths,
        "components": {"schemas": writer.components},
    }


class _Writer:
    """Writes the operations of one document, whose types are described together, so that each has one name."""

    def __init__(self, types: list[Any]) -> None:
        types = [kind for kind in types if kind not in _RAW]
        schemas, self.components = msgspec.json.schema_components(
            types, ref_template="#/components/schemas/{name}"
        )
        for component in self.components.values():
            _mark_needed(component)
        self._schemas = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}

    def operation(self, route: Declared) -> Schema:
        operation = route.operation
        bare = route.method == "HEAD"
        content = {} if bare else self._content(operation.reply)
        if operation.stream is not None:
            # What takes a `schema` as that of the whole, and what as that of each event, differs from tool to tool.
            content[operation.stream.media_type] = {"x-item-schema": self._schema(operation.stream.item)}
        failure = {} if bare else self._content(route.failure)
        body = {"requestBody": {"required": True, "content": self._content(operation.body)}}
        return {
            "operationId": re.sub(r"\W+", "_", f"{route.method.lower()} {route.path}").strip("_"),
            "summary": operation.summary,
            "parameters": [
                *(self._parameter("path", name, kind) for name, kind in route.parameters.items()),
                *(self._parameter("header", name, kind) for name, kind in operation.headers.items()),
            ],
            **({} if operation.body is None else body),
            "responses": {
                **{
                    str(status): _response(HTTPStatus(status).phrase, content)
                    for status in operation.statuses
                },
                **{
                    str(status): _response(HTTPStatus(status).phrase, failure) for status in operation.failing
                },
                "default": _response("any other error", failure),
            },
        }

    def _parameter(self, place: str, name: str, kind: Any) -> Schema:
        return {"name": name, "in": place, "required": place == "path", "schema": self._schema(kind)}

    def _content(self, kinds: Any) -> Schema:
        if kinds is None:
            return {}
        media_type, schema = _RAW.get(kinds) or ("application/json", self._schema(kinds))
        return {media_type: {"schema": schema}}

    def _schema(self, kinds: Any) -> Schema:
        schemas = [_RAW[kind][1] if kind in _RAW else self._schemas[id(kind)] for kind in _several(kinds)]
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _mark_needed(component: Schema) -> None:
    """Makes members required that are `NEEDED`, whatever default their field has; see `corectl.server.fields`."""
    for name, schema in component.get("properties", {}).items():
        if schema.pop("x-needed", False):
            schema.pop("default", None)
            # Null counts as not given.
            if "anyOf" in schema:
                schema["anyOf"] = [one for one in schema["anyOf"] if one != {"type": "null"}]
            component["required"] = [*component.get("required", ()), name]


def _several(kinds: Any) -> tuple[Any, ...]:
    if kinds is None:
        return ()
    return kinds if isinstance(kinds, tuple) else (kinds,)


def _response(text: str, content: Schema) -> Schema:
    return {"description": text, **({"content": content} if content else {})}


def documents_route() -> HTTPRouteHandler:
    """`GET /openapi/{frontend}.json`. A document is made when somebody asks for it first."""
    made: dict[str, bytes] = {}

    @get("/openapi/{name:str}")
    async def get_document(request: AnyRequest) -> Response[bytes]:
        frontend = str(request.path_params["name"]).removesuffix(".json")
        if frontend not in made:
            found = declared(request.app)
            if frontend not in found:
                raise NotFound(
                    f"no such document; there are {', '.join(f'{one}.json' for one in sorted(found))}"
                )
            written = await asyncio.to_thread(document, frontend, found[frontend])
            made[frontend] = msgspec.json.encode(written)
        return Response(made[frontend], media_type="application/json", status_code=200)

    return get_document
