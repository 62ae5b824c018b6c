"""Jobs in processes of their own: what they make and say, and every way in which they may end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corectl.errors import (
    BadModelFile,
    Canceled,
    CorectlError,
    LoadFailed,
    NotSupported,
    OutOfMemory,
)
from corectl.jobs.heard import LONGEST, MOST
from corectl.jobs.messages import AdapterConversion, Conversion, Made, MadeFile, encode
from corectl.jobs.processes import TAIL, Jobs
from corectl.model.files import ModelFiles
from tests.core.create_kit import digest
from tests.core.fake import write_distribution
from tests.core.job_plugin import Told

ROOT = Path(__file__).parents[2]
SOON = 60


class Shop:
    """Runs jobs that behave as told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs = Jobs()
        self.steps: list[tuple[int, int]] = []

    def job(self, name: str = "told", **how: Any) -> Conversion:
        place = self.root / name
        (place / "result").mkdir(parents=True)
        weights = place / "told.json"
        weights.write_bytes(msgspec.json.encode(Told(**how)))
        files = ModelFiles(weights=weights)
        return Conversion(plugin="obedient", converter="obedient", files=files, folder=place / "result")

    def run(self, **how: Any) -> Made:
        return self.jobs.run(self.job(**how), lambda *step: self.steps.append(step))

    def pid(self, name: str = "told") -> int:
        """Of the process that does the job, once it does."""
        path = self.root / name / "pid"
        until(lambda: path.exists() and bool(path.read_text()))
        return int(path.read_text())


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """Whether there is no such process, or only what its parent has not asked for yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    plugins = {"corectl": {"obedient": "tests.core.job_plugin"}}
    write_distribution(tmp_path / "site", "job-plugin", plugins)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{ROOT}")
    return Shop(tmp_path)


def test_what_is_made_is_told_with_its_digests(shop: Shop) -> None:
    made = shop.run(files={"b": "two", "sub/a": "one"}, steps=3)
    assert made.files == (
        MadeFile("b", digest(b"two"), 3),
        MadeFile("sub/a", digest(b"one"), 3),
    )
    assert shop.steps[0] == (1, 3) and shop.steps[-1] == (3, 3)


def test_modules_of_the_folder_that_the_server_was_started_in_are_not_imported(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "untrusted"
    folder.mkdir()
    (folder / "msgspec.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(folder)
    assert shop.run(files={"a": "x"}).files == (MadeFile("a", digest(b"x"), 1),)


def test_an_adapter_is_told_its_base(shop: Shop) -> None:
    job = shop.job()
    base = shop.root / "base"
    base.write_text("base")
    adapter = AdapterConversion(
        plugin=job.plugin,
        converter=job.converter,
        adapter=ModelFiles(weights=base),
        base=ModelFiles(weights=base),
        folder=job.folder,
    )
    assert shop.jobs.run(adapter, lambda *step: None).files == (MadeFile("adapter", digest(b"basebase"), 8),)


def test_what_libraries_print_is_no_message(shop: Shop) -> None:
    made = shop.run(prints='{"type": "failed", "code": "x", "message": "no"}\n' * 3, files={"a": "x"})
    assert [file.name for file in made.files] == ["a"]


def test_what_a_converter_warns_of_is_told_once_and_not_endlessly(shop: Shop) -> None:
    made = shop.run(warns=["odd", "odd", "x" * 10_000, *map(str, range(100))], files={"a": "x"})
    assert [notice.message for notice in made.notices[:3]] == ["odd", "x" * LONGEST, "0"]
    assert len(made.notices) == MOST
    assert {notice.code for notice in made.notices} == {"conversion_warning"}


def test_steps_come_at_most_ten_times_a_second(shop: Shop) -> None:
    shop.run(steps=20000, files={"a": "x"})
    assert shop.steps[-1] == (20000, 20000) and len(shop.steps) < 2000


@pytest.mark.parametrize("kind", [BadModelFile, NotSupported, OutOfMemory])
def test_a_typed_error_comes_back_as_what_it_was(shop: Shop, kind: type[CorectlError]) -> None:
    with pytest.raises(kind, match=r"^as told$") as caught:
        shop.run(error=kind.code)
    assert type(caught.value) is kind


def test_a_full_disk_is_said_without_a_path(shop: Shop) -> None:
    with pytest.raises(CorectlError, match="no space left on device") as caught:
        shop.run(full=True)
    assert str(shop.root) not in caught.value.message


def test_any_other_error_is_told_by_its_last_line(shop: Shop) -> None:
    with pytest.raises(LoadFailed, match=r"converts broke off \(exit status 1\): ValueError: not as told"):
        shop.run(raises=True)


@pytest.mark.parametrize(("number", "said"), [(signal.SIGKILL, "memory"), (signal.SIGSEGV, "SIGSEGV")])
def test_a_process_that_is_killed_says_by_what(shop: Shop, number: int, said: str) -> None:
    with pytest.raises(LoadFailed, match=said):
        shop.run(complains="working\n", kills=number)


def test_nothing_made_is_an_error(shop: Shop) -> None:
    with pytest.raises(LoadFailed, match="has written no file"):
        shop.run()


def test_a_process_that_says_much_is_not_held_up_and_not_remembered(shop: Shop) -> None:
    with pytest.raises(LoadFailed) as caught:
        shop.run(complains="x" * 5_000_000, kills=signal.SIGKILL)
    assert len(caught.value.message) < TAIL + 200


def test_one_at_a_time_and_the_others_are_told(shop: Shop) -> None:
    first = shop.job("first", hangs=True)
    failed: list[Exception] = []

    def hang() -> None:
        try:
            shop.jobs.run(first, lambda *step: None)
        except CorectlError as exc:
            failed.append(exc)

    thread = threading.Thread(target=hang)
    thread.start()
    pid = shop.pid("first")
    waiting = threading.Event()
    made: list[Made] = []
    second = shop.job("second", files={"a": "x"})
    other = threading.Thread(
        target=lambda: made.append(shop.jobs.run(second, lambda *step: None, waiting=waiting.set))
    )
    other.start()
    assert waiting.wait(SOON) and not (shop.root / "second" / "pid").exists()
    os.kill(pid, signal.SIGTERM)
    thread.join(SOON)
    other.join(SOON)
    assert isinstance(failed[0], LoadFailed) and made


def test_closing_ends_the_job_and_those_that_wait(shop: Shop) -> None:
    ended: list[str] = []

    def run(name: str) -> None:
        try:
            shop.jobs.run(shop.job(name, hangs=True), lambda *step: None)
        except Canceled as exc:
            ended.append(exc.message)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("first", "second")]
    threads[0].start()
    pid = shop.pid("first")
    threads[1].start()
    shop.jobs.close()
    for thread in threads:
        thread.join(SOON)
    assert ended == ["the server is stopping"] * 2
    assert is_gone(pid)
    with pytest.raises(Canceled):
        shop.run()


PARENT = """
import sys, threading
from corectl.jobs.messages import decode_job
from corectl.jobs.processes import Jobs
job = decode_job(sys.stdin.buffer.read())
Jobs().run(job, lambda *step: None)
"""


def test_a_job_ends_with_a_server_that_is_killed(shop: Shop) -> None:
    job = shop.job(hangs=True)
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE)
    assert parent.stdin is not None
    parent.stdin.write(encode(job))
    parent.stdin.close()
    pid = shop.pid()
    parent.kill()
    parent.wait(SOON)
    until(lambda: is_gone(pid))
