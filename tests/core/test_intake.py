"""What a runner does with a prompt that takes too long to prepare. In processes of their own, as it ends them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from corectl.runner.intake import ALARM

RUN = """
import re, socket, sys, time
from corectl.messages import Completion, RawPrompt, SamplingOptions
from corectl.runner import intake, protocol
from corectl.runner.emitter import Sender

intake.PREPARE_SECONDS = 0.3
server, runner = socket.socketpair()
ended = []

def endless():
    # One call of C code, which gives the interpreter to no other thread.
    re.match("(a+)+$", "a" * 64 + "b")

def prepare(request):
    PREPARING
    return lambda: ended.append(request.id)

intake.Intake(
    runner,
    Sender(runner),
    prepare=prepare,
    cancel=lambda id: None,
    share=lambda share: None,
    step_seconds=lambda: 0.0,
    shutdown=lambda: None,
).start()
for id in (1, 2):
    request = Completion(prompt=RawPrompt(text="x"), sampling=SamplingOptions())
    server.sendall(protocol.frame(protocol.Complete(id, request)))
while len(ended) < 2:
    time.sleep(0.01)
# Longer than the limit, after all of them.
time.sleep(0.6)
print("well")
"""


JOINING = """
import socket, threading, time
from corectl.messages import Completion, RawPrompt, SamplingOptions
from corectl.runner import intake, protocol
from corectl.runner.emitter import Sender

server, runner = socket.socketpair()
preparing, gone = threading.Event(), threading.Event()
prepared = []

def prepare(request):
    preparing.set()
    gone.wait()
    time.sleep(0.2)
    prepared.append(request.id)
    return lambda: print("delivered")

found = intake.Intake(
    runner,
    Sender(runner),
    prepare=prepare,
    cancel=lambda id: None,
    share=lambda share: None,
    step_seconds=lambda: 0.0,
    shutdown=gone.set,
)
found.start()
for id in (1, 2, 3):
    request = Completion(prompt=RawPrompt(text="x"), sampling=SamplingOptions())
    server.sendall(protocol.frame(protocol.Complete(id, request)))
preparing.wait()
server.close()
found.join()
print(prepared)
"""


def run(preparing: str) -> subprocess.CompletedProcess[str]:
    program = RUN.replace("PREPARING", preparing)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_process_that_cannot_be_interrupted_is_ended_and_its_log_says_where() -> None:
    done = run("endless()")
    assert done.returncode == -ALARM and done.stdout == ""
    assert "in endless" in done.stderr and "in prepare" in done.stderr


@pytest.mark.parametrize("preparing", ["time.sleep(0.01)", "ended.append(request.id); raise ValueError"])
def test_the_time_is_over_with_the_prompt(preparing: str) -> None:
    assert run(preparing).stdout == "well\n"


def test_when_the_server_is_gone_what_is_being_prepared_is_the_last() -> None:
    done = subprocess.run(
        [sys.executable, "-c", JOINING], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[1]\n"), done.stderr
