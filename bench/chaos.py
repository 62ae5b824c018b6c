"""Clients that behave badly, and runners that are killed: what a server must survive without losing a request.

The driver is shared by the test and by `python -m bench.soak`. It only knows an address and the server's process.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import psutil

MOOD = 24
"""Requests after which most clients want another model, or another context."""
KILL_EVERY = 60
"""Requests, on average, between two kills of a runner."""
TIMEOUT = 300.0
"""Seconds without a byte after which a request counts as lost."""
REST = 60.0
"""Seconds; so long may runners take to end."""
KILLED = re.compile(r"SIGKILL|signal 9|-9|unexpectedly stopped")


class Model(msgspec.Struct, frozen=True):
    """A model to ask, with a context; or one that embeds."""

    name: str
    num_ctx: int = 0
    embeds: bool = False


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The server from outside: bytes of its process, its open files, and its children."""

    memory: int
    files: int
    children: frozenset[int]


class Tally(msgspec.Struct):
    """How requests went. `lost` ended without an end and without an error; there must be none.

    `left` were given up by their client, `killed` ended with an error that names the kill, `failed` with another one.
    `output_tokens` are of those that `finished`.
    """

    sent: int = 0
    finished: int = 0
    left: int = 0
    killed: int = 0
    kills: int = 0
    output_tokens: int = 0
    failed: Counter[str] = msgspec.field(default_factory=Counter)
    lost: list[str] = msgspec.field(default_factory=list)


class Chaos:
    """Sends requests from several threads until it is told to stop."""

    def __init__(self, url: str, pid: int, models: Sequence[Model], *, seed: int = 1) -> None:
        self._place = urlsplit(url)
        self._process = psutil.Process(pid)
        self._models = models
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._url = url
        self.tally = Tally()

    def run(self, more: Callable[[int], bool], clients: int = 8) -> None:
        """Goes on while `more(requests sent)` says so. Raises what a client's thread raised."""
        with ThreadPoolExecutor(clients) as pool:
            for client in [pool.submit(self._client, more) for _ in range(clients)]:
                client.result()

    def _client(self, more: Callable[[int], bool]) -> None:
        while True:
            with self._lock:
                number = self.tally.sent
                if not more(number):
                    return
                self.tally.sent += 1
                choose = random.Random(self._random.random())
            if choose.random() < 1 / KILL_EVERY:
                self._kill(choose)
            self._request(number, choose)

    def _kill(self, choose: random.Random) -> None:
        """Any runner, in whatever it is doing: loading, computing, or idle."""
        if runners := sorted(self.state().children):
            try:
                os.kill(choose.choice(runners), signal.SIGKILL)
            except ProcessLookupError:
                return
            with self._lock:
                self.tally.kills += 1

    def _request(self, number: int, choose: random.Random) -> None:
        mood = self._models[(number // MOOD) % len(self._models)]
        model = mood if choose.random() < 0.9 else choose.choice(self._models)
        path, body = _body(model, number, choose)
        leave = choose.choice((None, None, None, 0, choose.randrange(1, 12)))
        connection = http.client.HTTPConnection(str(self._place.hostname), self._place.port, timeout=TIMEOUT)
        try:
            connection.request("POST", path, json.dumps(body).encode())
            if leave == 0:
                time.sleep(choose.random() * 0.2)
                self._count(left=True)
                return
            self._read(connection.getresponse(), leave)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            with self._lock:
                self.tally.lost.append(f"{path} {body}: {exc!r}")
        finally:
            connection.close()

    def _read(self, reply: http.client.HTTPResponse, leave: int | None) -> None:
        """Takes a reply to its end, or to the chunk after which the client leaves."""
        last: dict[str, Any] = {}
        for number, line in enumerate(reply, 1):
            last = json.loads(line)
            if number == leave and not last.get("done") and "error" not in last:
                self._count(left=True)
                return
        if "error" in last:
            self._count(error=str(last["error"]))
        elif reply.status == 200 and (last.get("done") or last.get("embeddings")):
            self._count(tokens=last.get("eval_count", 0))
        else:
            raise ValueError(f"status {reply.status}, and no end after {last}")

    def _count(self, *, left: bool = False, error: str = "", tokens: int = 0) -> None:
        with self._lock:
            if left:
                self.tally.left += 1
            elif KILLED.search(error):
                self.tally.killed += 1
            elif error:
                self.tally.failed[error[:200]] += 1
            else:
                self.tally.finished += 1
                self.tally.output_tokens += tokens

    def state(self) -> State:
        children = [child.pid for child in self._process.children() if _lives(child)]
        return State(
            memory=self._process.memory_info().rss,
            files=self._process.num_fds(),
            children=frozenset(children),
        )

    def idle(self) -> dict[str, float]:
        """Waits until nothing is served any more; the metrics then, whether it got there or not."""
        deadline = time.monotonic() + REST
        while True:
            counts = self.metrics()
            if not total(counts, "num_requests_running") or time.monotonic() > deadline:
                return counts
            time.sleep(0.2)

    def rest(self) -> State:
        """Unloads all models and waits until every runner has gone; the state then, whether it got there or not."""
        deadline = time.monotonic() + REST
        with httpx.Client(base_url=self._url, timeout=REST, trust_env=False) as client:
            while time.monotonic() < deadline:
                for entry in client.get("/api/ps").json()["models"]:
                    client.post("/api/generate", json={"model": entry["name"], "keep_alive": 0})
                if not self.state().children:
                    break
                time.sleep(0.2)
        return self.state()

    def metrics(self) -> dict[str, float]:
        """Samples of `/metrics`, by name and labels as they are written."""
        text = httpx.get(f"{self._url}/metrics", timeout=REST, trust_env=False).raise_for_status().text
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}


def total(counts: dict[str, float], name: str) -> float:
    """The sum of a metric over its labels."""
    return sum(value for key, value in counts.items() if key.partition("{")[0] == f"corectl_{name}")


def _lives(child: psutil.Process) -> bool:
    try:
        return bool(child.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _body(model: Model, number: int, choose: random.Random) -> tuple[str, dict[str, Any]]:
    """A request of one of the three kinds, short or longer, streamed or not, by itself or like others."""
    if model.embeds:
        texts = [f"w{choose.randrange(10)}"] * choose.randrange(1, 9)
        return "/api/embed", {"model": model.name, "input": texts}
    options = {"num_ctx": model.num_ctx, "num_predict": choose.randrange(1, 24), "num_thread": 1}
    common = {"model": model.name, "stream": choose.random() < 0.7, "options": options}
    prompt = (
        f"Tell me of {choose.choice(('a fox', 'a crow', f'number {number}'))}."
        + " And more." * choose.randrange(30)
    )
    if choose.random() < 0.5:
        return "/api/generate", {**common, "prompt": prompt, "cache_salt": choose.choice(("", "", "mine"))}
    return "/api/chat", {**common, "messages": [{"role": "user", "content": prompt}]}
