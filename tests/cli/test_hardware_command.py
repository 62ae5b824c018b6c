"""`corectl hardware`: how a machine reads. The probes and backends are the tests'; no server is there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from corectl import deadline
from corectl.hardware.device import Device
from corectl.plugins import PluginHost
from corectl.runner.engine import Availability

if TYPE_CHECKING:
    from tests.cli.conftest import Result

    Corectl = Callable[..., Result]

GB = 10**9
CPU = Device(
    id="cpu", kind="cpu", name="Fast 9000", memory_total=32 * GB, memory_free=20 * GB, architecture="x86_64"
)
FAST = Device(
    id="GPU-1",
    kind="cuda",
    name="NVIDIA Big",
    memory_total=80 * GB,
    memory_free=79 * GB,
    driver="600.1",
    architecture="9.0",
)
OLD = Device(
    id="GPU-2",
    kind="rocm",
    name="AMD Old",
    memory_total=8 * GB,
    memory_free=8 * GB,
    driver="amdgpu",
    architecture="gfx803",
    also=("vulkan",),
    unusable="ROCm does not support gfx803 here",
    remedy="use Vulkan",
)


class Probe:
    def __init__(self, name: str, *devices: Device) -> None:
        self.name = name
        self._devices = list(devices)

    def devices(self) -> list[Device]:
        return self._devices


class Knowing(Probe):
    def details(self) -> dict[str, str]:
        return {"usable cores": "8", "memory bandwidth": "40.0 GB/s"}


class Broken(Knowing):
    def devices(self) -> list[Device]:
        raise OSError("no driver")


class Unknowing(Probe):
    def details(self) -> dict[str, str]:
        raise OSError("no such file")


class Hanging(Probe):
    def details(self) -> dict[str, str]:
        time.sleep(2)
        return {}


class Backend:
    formats = ("gguf",)

    def __init__(self, name: str, variant: str = "", version: str = "", reason: str = "") -> None:
        self.name = name
        self._said = Availability(variant=variant, version=version, reason=reason)

    def availability(self) -> Availability:
        if not (self._said.variant or self._said.reason):
            raise RuntimeError("no library")
        return self._said


class Explaining(Backend):
    def details(self) -> dict[str, str]:
        return {"built to use": "AVX2", "remedy": "build it again"}


class Speechless(Backend):
    def details(self) -> dict[str, str]:
        raise OSError("no library")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has these probes and backends, and no others."""

    def there_are(*offers: Any) -> None:
        def load(settings: Any) -> PluginHost:
            host = PluginHost()
            for offer in offers:
                kind: dict[str, Any] = host.probes if isinstance(offer, Probe) else host.backends
                kind[offer.name] = offer
            return host

        monkeypatch.setattr(PluginHost, "load", load)

    monkeypatch.delenv("OLLAMA_LLM_LIBRARY", raising=False)
    return there_are


def lines(result: Result) -> list[str]:
    assert result.code == 0, result.err
    return [line.rstrip() for line in result.out.splitlines()]


def test_a_machine(machine: Callable[..., None], corectl: Corectl) -> None:
    machine(
        Knowing("host", CPU),
        Probe("nvidia", FAST),
        Probe("amd", OLD),
        Backend("one", variant="cuda", version="1.2"),
        Backend("two", variant="vulkan", version="3"),
        Backend("three", reason="three is not installed; type: pip install three"),
    )
    assert lines(corectl("hardware")) == [
        "DEVICE    KIND    NAME          ARCHITECTURE    MEMORY    FREE     DRIVER    PROBE",
        "GPU-2     rocm    AMD Old       gfx803          8 GB      8 GB     amdgpu    amd",
        "    not used: ROCm does not support gfx803 here",
        "    remedy: use Vulkan",
        "    can still be used by: vulkan",
        "cpu       cpu     Fast 9000     x86_64          32 GB     20 GB              host",
        "GPU-1     cuda    NVIDIA Big    9.0             80 GB     79 GB    600.1     nvidia",
        "",
        "  Host",
        "    usable cores        8",
        "    memory bandwidth    40.0 GB/s",
        "",
        "BACKEND    VERSION    COMPUTES ON    DEVICES",
        "one        1.2        cuda           cpu, GPU-1",
        "three",
        "    not usable here: three is not installed; type: pip install three",
        "two        3          vulkan         GPU-2, cpu",
        "    not GPU-1: the backend that is installed computes on vulkan, not on cuda",
        "    remedy: install a build of the backend for cuda",
    ]


def test_what_else_is_said_of_a_device(machine: Callable[..., None], corectl: Corectl) -> None:
    integrated = Device(
        id="metal", kind="metal", name="GPU", memory_total=1, memory_free=1, integrated=True, alone=True
    )
    machine(Probe("apple", integrated))
    shown = lines(corectl("hardware"))
    assert shown[2:4] == ["    shares the machine's memory", "    does not compute together with others"]


def test_what_backends_know_besides(machine: Callable[..., None], corectl: Corectl) -> None:
    machine(Probe("host", CPU), Explaining("one", variant="cpu"), Speechless("two", variant="cpu"))
    shown = lines(corectl("hardware"))
    assert shown[-7:] == [
        "",
        "  One",
        "    built to use    AVX2",
        "    remedy          build it again",
        "",
        "  Two",
        "    failed    OSError: no library",
    ]
    first, second = json.loads(corectl("hardware", "--json").out)["backends"]
    assert first["facts"]["built to use"] == "AVX2" and second["devices"] == ["cpu"]


def test_a_machine_without_gpus(machine: Callable[..., None], corectl: Corectl) -> None:
    machine(Probe("host", CPU), Probe("nvidia"))
    assert "No GPU was found. These probes were asked: host, nvidia" in lines(corectl("hardware"))
    machine()
    assert "No GPU was found. These probes were asked: none" in lines(corectl("hardware"))


def test_what_fails_is_named_and_spoils_nothing(
    machine: Callable[..., None], corectl: Corectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "SECONDS", 0.2)
    machine(
        Broken("a"),
        Unknowing("b", FAST),
        Hanging("c", CPU),
        Backend("bad"),
        Backend("good", variant="cuda"),
    )
    shown = lines(corectl("hardware"))
    failed = "failed, so what it knows of may be there and is not used"
    assert f"The probe a {failed}: OSError: no driver" in shown
    assert f"The probe b {failed}: OSError: no such file" in shown
    assert f"The probe c {failed}: hardware probe c did not return within 0.2 seconds" in shown
    assert "    not usable here: availability() raised RuntimeError: no library" in shown
    assert any(line.startswith("good") and line.endswith("GPU-1, cpu") for line in shown)


def test_the_operators_choice(
    machine: Callable[..., None], corectl: Corectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(Probe("host", CPU), Probe("nvidia", FAST), Backend("one", variant="cuda"))
    monkeypatch.setenv("OLLAMA_LLM_LIBRARY", "cpu")
    shown = lines(corectl("hardware"))
    assert "    not GPU-1: the setting llm_library asks for cpu" in shown
    assert "    remedy: leave out OLLAMA_LLM_LIBRARY" in shown


def test_json(machine: Callable[..., None], corectl: Corectl) -> None:
    machine(Knowing("host", CPU), Probe("amd", OLD), Broken("x"), Backend("one", variant="hip"))
    found = json.loads(corectl("hardware", "--json").out)
    first, second = found["devices"]
    assert (first["id"], first["unusable"], first["remedy"]) == ("GPU-2", OLD.unusable, OLD.remedy)
    assert (first["also"], first["found_by"], second["memory_free"]) == (["vulkan"], "amd", 20 * GB)
    assert found["failures"] == {"x": "OSError: no driver"}
    assert found["facts"] == {"host": {"usable cores": "8", "memory bandwidth": "40.0 GB/s"}}
    (backend,) = found["backends"]
    assert backend["devices"] == ["cpu"]
    assert backend["unused"] == [{"id": "GPU-2", "reason": OLD.unusable, "remedy": OLD.remedy}]


def test_this_machine(corectl: Corectl) -> None:
    """With the built-in plugins, and no server."""
    found = json.loads(corectl("hardware", "--json").out)
    assert [device["found_by"] for device in found["devices"] if device["kind"] == "cpu"] == ["host"]
    assert found["failures"] == {} and "memory bandwidth" in found["facts"]["host"]
    for device in found["devices"]:
        assert bool(device["unusable"]) == bool(device["remedy"])
