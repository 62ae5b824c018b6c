"""Model names: `[scheme://][host/][namespace/]model[:tag]`, and where a reference wants the model to run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from corectl.errors import BadRequest, Forbidden

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

# A part never starts with a dot, so that none of them can be "." or ".." in a path.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_LONGEST = 1024

Source = Literal["local", "cloud", ""]


class ModelName(msgspec.Struct, frozen=True):
    """A complete model name. Equality is by spelling; compare `key` to ignore upper and lower case."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """The name that `text` spells, with defaults for the parts it leaves out; a scheme is read over.

        Raises `BadRequest`. A separator with nothing beside it (`m:`, `/m`) is an error, not a default.
        """
        if len(text) > _LONGEST:
            raise BadRequest("invalid model name")
        _, rest = split_scheme(text)
        path, slash, last = rest.rpartition("/")
        model, colon, tag = last.partition(":")
        host, namespace = DEFAULT_HOST, DEFAULT_NAMESPACE
        if slash:
            front, second_slash, namespace = path.rpartition("/")
            host = front if second_slash else DEFAULT_HOST
        return cls._checked(host, namespace, model, tag if colon else DEFAULT_TAG)

    @classmethod
    def from_path(cls, parts: Sequence[str]) -> ModelName:
        """The name that a manifest path `host/namespace/model/tag` stands for. Raises `BadRequest`."""
        if len(parts) != 4:
            raise BadRequest("invalid model name")
        return cls._checked(*parts)

    @classmethod
    def _checked(cls, host: str, namespace: str, model: str, tag: str) -> ModelName:
        rules = ((_HOST, host), (_NAMESPACE, namespace), (_MODEL, model), (_MODEL, tag))
        if not all(rule.fullmatch(part) for rule, part in rules):
            raise BadRequest("invalid model name")
        return cls(host, namespace, model, tag)

    @property
    def short(self) -> str:
        """The form for people: without the default host and namespace, always with the tag."""
        if self.host != DEFAULT_HOST:
            return self.full
        if self.namespace != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def full(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def relative_path(self) -> str:
        """`host/namespace/model/tag`, as manifests are stored."""
        return f"{self.host}/{self.namespace}/{self.model}/{self.tag}"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What two spellings of one name have in common."""
        return (self.host.casefold(), self.namespace.casefold(), self.model.casefold(), self.tag.casefold())


class Reference(msgspec.Struct, frozen=True):
    """What a client asked for: a name and, where it said so, the side that runs it.

    `base` is the client's text without the suffix that named the side: the name that a cloud knows.
    """

    name: ModelName
    source: Source
    base: str


def split_scheme(text: str) -> tuple[str, str]:
    """The lower-case scheme in front of `://` (empty when there is none) and the rest."""
    scheme, separator, rest = text.partition("://")
    if separator and _SCHEME.fullmatch(scheme):
        return scheme.lower(), rest
    return "", text


def parse_reference(text: str) -> Reference:
    """The name and side that `text` asks for (`:cloud`, `-cloud` on a tag, `:local`). Raises `BadRequest`."""
    base, source = split_source(text)
    return Reference(ModelName.parse(base), source, base)


def own_name(text: str) -> ModelName:
    """The name of a model that is to be made here: `:local` only says where. Raises `BadRequest`.

    Raises `Forbidden` for one that every request would look for in a cloud.
    """
    reference = parse_reference(text)
    if reference.source == "cloud":
        raise Forbidden(
            f"{text[:_LONGEST]!r} names a model in Ollama's cloud, not one that is here; use another tag"
        )
    return reference.name


def split_source(text: str) -> tuple[str, Source]:
    """A text without the suffix that names a side, and the side. Raises `BadRequest` for one that names both."""
    base, source = _split_source(text)
    if source and {source, _split_source(base)[1]} == {"local", "cloud"}:
        raise BadRequest(f'use either :local or :cloud, not both: "{text[:_LONGEST]}"')
    return base, source


def _split_source(text: str) -> tuple[str, Source]:
    path, slash, last = text.rpartition("/")
    front, colon, tag = last.rpartition(":")
    lower = tag.lower()
    if not colon:
        return text, ""
    if lower == "cloud":
        return path + slash + front, "cloud"
    if lower == "local":
        return path + slash + front, "local"
    if lower.endswith("-cloud") and lower != "-cloud":
        return text[: -len("-cloud")], "cloud"
    return text, ""
