"""Layers for hosts that do what happens to hosts, and what hostile ones do."""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Callable, Iterable, Iterator

from tests.registry.host import Answer, Asked, Cut, Handler, Host, Layer, plain


def only(when: Callable[[Asked], bool], layer: Layer) -> Layer:
    """A layer for some requests."""
    return lambda asked, further: layer(asked, further) if when(asked) else further(asked)


def blobs(layer: Layer, digest: str = "sha256:") -> Layer:
    """A layer for downloads of blobs, or of one blob."""
    return only(lambda asked: asked.method == "GET" and asked.is_blob and digest in asked.route, layer)


def manifests(layer: Layer) -> Layer:
    """A layer for requests about manifests."""
    return only(lambda asked: "/manifests/" in asked.route, layer)


def in_turn(*layers: Layer) -> Layer:
    """One layer for each of the first requests; put `blobs` around it, not inside, to count those of blobs."""
    left = iter(layers)
    lock = threading.Lock()

    def turn(asked: Asked, further: Handler) -> Answer:
        with lock:
            layer = next(left, None)
        return layer(asked, further) if layer else further(asked)

    return turn


def times(count: int, layer: Layer) -> Layer:
    """The same layer for so many of the first requests."""
    return in_turn(*[layer] * count)


def changed(change: Callable[[Asked, Answer], Iterable[bytes]]) -> Layer:
    """Replaces the bodies of good answers, without a word about it in the headers."""

    def layer(asked: Asked, further: Handler) -> Answer:
        answer = further(asked)
        good = answer.status in (200, 206)
        return Answer(answer.status, answer.headers, change(asked, answer)) if good else answer

    return layer


def cutting(after: int) -> Layer:
    """Closes the connection when so many bytes of a body have been sent."""

    def cut(asked: Asked, answer: Answer) -> Iterator[bytes]:
        yield from _first(answer.body, after)
        raise Cut

    return changed(cut)


def stalling(after: int) -> Layer:
    """Sends so many bytes of a body, and then nothing until the host is closed."""

    def stall(asked: Asked, answer: Answer) -> Iterator[bytes]:
        yield from _first(answer.body, after)
        asked.host.closing.wait()
        raise Cut

    return changed(stall)


def slow(seconds: float, piece: int = 64 * 2**10) -> Layer:
    """Waits before each piece of a body, or until the host is closed."""

    def wait(asked: Asked, answer: Answer) -> Iterator[bytes]:
        for part in answer.body:
            for start in range(0, len(part), piece):
                if asked.host.closing.wait(seconds):
                    raise Cut
                yield part[start : start + piece]

    return changed(wait)


def gated(gate: threading.Event, after: int = 64 * 2**10) -> Layer:
    """Gives the first bytes of a body, and the others once the gate is open, or the host is closed."""

    def wait(asked: Asked, answer: Answer) -> Iterator[bytes]:
        given = 0
        for part in answer.body:
            head = part[: max(0, after - given)]
            given += len(head)
            if head:
                yield head
            if len(head) < len(part):
                while not gate.wait(0.05):
                    if asked.host.closing.is_set():
                        raise Cut
                yield part[len(head) :]

    return changed(wait)


def flipping(at: int = 0) -> Layer:
    """Changes one byte of a blob, in whatever range it is asked for."""

    def flip(asked: Asked, answer: Answer) -> Iterator[bytes]:
        found = re.match(r"bytes (\d+)-", answer.header("content-range") or "bytes 0-")
        position = int(found[1]) if found else 0
        for part in answer.body:
            if position <= at < position + len(part):
                index = at - position
                part = part[:index] + bytes([part[index] ^ 1]) + part[index + 1 :]
            position += len(part)
            yield part

    return changed(flip)


def without_ranges(asked: Asked, further: Handler) -> Answer:
    """Answers requests for a range with all of the bytes and a 200."""
    del asked.headers["range"]
    answer = further(asked)
    answer.headers = answer.without("accept-ranges")
    return answer


def failing(status: int, body: bytes = b"", **headers: str) -> Layer:
    """Answers with this, whatever was asked."""
    return lambda asked, further: plain(status, body, **headers)


def redirecting(to: Host | str, status: int = 307) -> Layer:
    """Sends requests to the same path of another host."""
    url = to if isinstance(to, str) else to.url
    return lambda asked, further: plain(status, location=url + asked.path)


def serving(path: str, body: bytes, type: str = "application/json") -> Layer:
    """Answers GET and HEAD of one path with these bytes."""

    def layer(asked: Asked, further: Handler) -> Answer:
        if asked.route == path and asked.method in ("GET", "HEAD"):
            return plain(200, body, content_type=type)
        return further(asked)

    return layer


def endless(asked: Asked, further: Handler) -> Answer:
    """A body that never ends."""

    def zeros() -> Iterator[bytes]:
        piece = b" " * 65536
        while not asked.host.closing.is_set():
            yield piece

    return Answer(200, [("content-type", "application/json")], zeros())


def gzip_bomb(size: int) -> Layer:
    """A small body that unpacks to so many bytes, said to be packed as HTTP allows it."""
    packed = gzip.compress(b" " * size)
    return failing(200, packed, content_encoding="gzip", content_type="application/json")


def _first(body: Iterable[bytes], count: int) -> Iterator[bytes]:
    for part in body:
        if count <= 0:
            return
        yield part[:count]
        count -= len(part)
