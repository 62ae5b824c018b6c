"""What is said of NVIDIA GPUs: of a stand-in for the driver's library, loaded as the real one is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import corectl_nvidia
from corectl.hardware.device import Device
from corectl_nvidia import NvidiaProbe, corectl_hardware_probes
from corectl_nvidia.visible import Gpu, unsure, visible

A, B, C = "GPU-aaaa-1", "GPU-abcd-2", "GPU-cccc-3"
MIG = ("MIG-1111", "MIG-1122", "MIG-2222")
COMPILER = shutil.which("cc")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for the driver where Linux has it")

CHILD = """
import sys
from pathlib import Path
import msgspec
from corectl_nvidia import NvidiaProbe
probe = NvidiaProbe(Path(sys.argv[1]))
for line in sys.stdin:
    Path(sys.argv[2]).write_text(line.replace(";", "\\n"))
    print(msgspec.json.encode(probe.devices()).decode())
"""

Ask = Callable[..., list[list[Device]]]


def test_it_is_offered_by_its_name() -> None:
    assert [probe.name for probe in corectl_hardware_probes()] == ["nvidia"]


# A machine without a driver


def test_a_machine_without_cards_says_nothing_and_loads_nothing(tmp_path: Path) -> None:
    loaded = "pynvml" in sys.modules
    assert NvidiaProbe(tmp_path).devices() == []
    assert ("pynvml" in sys.modules) == loaded


def card(root: Path, driver: str) -> Device:
    folder = root / "sys/bus/pci/devices/0000:01:00.0"
    folder.mkdir(parents=True)
    for name, text in {"vendor": "0x10de", "class": "0x030000", "device": "0x2684"}.items():
        (folder / name).write_text(text)
    if driver:
        (folder / "driver").symlink_to(f"../../drivers/{driver}")
    (device,) = NvidiaProbe(root).devices()
    return device


def test_a_card_without_driver_is_said(tmp_path: Path) -> None:
    device = card(tmp_path, "")
    assert (device.id, device.kind, device.name) == ("0000:01:00.0", "cuda", "NVIDIA GPU 2684")
    assert device.unusable == "no driver has taken it" and "modprobe nvidia" in device.remedy


def test_a_card_with_another_driver_is_said(tmp_path: Path) -> None:
    device = card(tmp_path, "nouveau")
    assert device.unusable.startswith("the driver nouveau has it") and "driver nvidia" in device.remedy


def test_a_card_that_a_container_was_not_given_is_said(tmp_path: Path) -> None:
    device = card(tmp_path, "nvidia")
    assert device.unusable == "this container was not given it" and "--gpus all" in device.remedy


# A machine with a driver


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine whose kernel has loaded the driver."""
    sign = tmp_path / "machine/proc/driver/nvidia/version"
    sign.parent.mkdir(parents=True)
    sign.touch()
    return tmp_path / "machine"


def test_a_driver_without_the_binding_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (device,) = NvidiaProbe(root).devices()
    assert device.unusable == "nvidia-ml-py is not installed"
    assert "pip install 'corectl[nvidia]'" in device.remedy and device.kind == "cuda"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-in under the name that the binding loads."""
    if COMPILER is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("nvml.c")
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-Wall", "-o", folder / "libnvidia-ml.so.1", source], check=True
    )
    return folder


@pytest.fixture
def ask(root: Path, tmp_path: Path) -> Ask:
    """Asks the probe in a process of its own, once for each text about GPUs (see `nvml.c`)."""
    pytest.importorskip("pynvml")

    def run(*texts: str, library: Path | None, **variables: str) -> list[list[Device]]:
        said = tmp_path / "gpus"
        kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        own = {"STAND_IN_GPUS": str(said), **({"LD_LIBRARY_PATH": str(library)} if library else {})}
        done = subprocess.run(
            [sys.executable, "-c", CHILD, root, said],
            env={**kept, **own, **variables},
            input="".join(text.replace("\n", ";") + "\n" for text in texts),
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        )
        return [msgspec.json.decode(line, type=list[Device]) for line in done.stdout.splitlines()]

    return run


TWO = f"gpu {A} Fast 1000 900 8 9 0 0\ngpu {B} Old 500 100 3 5 0 0"


def test_a_device_for_each_gpu(library: Path, ask: Ask) -> None:
    ((first, second),) = ask(TWO, library=library)
    assert first == Device(
        id=A,
        kind="cuda",
        name="Fast",
        memory_total=1000,
        memory_free=900,
        driver="600.1, CUDA 12.8",
        architecture="8.9",
    )
    assert second.unusable == "its compute capability 3.5 is below 5.0"
    assert "GTX 750" in second.remedy and second.architecture == "3.5"


def test_a_gpu_that_is_lost_spoils_no_other_and_one_that_has_gone_is_gone(library: Path, ask: Ask) -> None:
    lost = f"gpu {A} X 9 9 8 9 0 15\ngpu {B} Y 9 9 8 9 0 0"
    before, after = ask(lost, f"gpu {B} Y 9 9 8 9 0 0", library=library)
    assert [(device.id, device.unusable) for device in before] == [
        (A, "it has fallen off the bus"),
        (B, ""),
    ]
    assert before[0].remedy and [device.id for device in after] == [B]


def test_a_gpu_without_memory_of_its_own_has_the_machines(library: Path, ask: Ask) -> None:
    (((device),),) = ask(f"gpu {A} Small 0 0 12 1 0 3", library=library)
    assert device.integrated and not device.unusable
    assert 0 < device.memory_free <= device.memory_total


def test_instances_are_devices_of_their_own(library: Path, ask: Ask) -> None:
    divided = f"gpu {A} Big 80 80 9 0 1 4\nmig {MIG[0]} Big-MIG-1g 10 9 0\nmig {MIG[1]} Big 20 20 15\n"
    ((first, second, third),) = ask(divided + f"gpu {B} Big 80 70 9 0 0 0", library=library)
    assert (first.id, first.name, first.memory_total, first.memory_free) == (MIG[0], "Big-MIG-1g", 10, 9)
    assert first.alone and not first.unusable and first.architecture == "9.0"
    assert (second.id, second.name) == (MIG[1], "Big MIG 3") and second.unusable and second.remedy
    assert (third.id, third.alone) == (B, False)


def test_a_gpu_that_is_to_be_divided_but_is_not(library: Path, ask: Ask) -> None:
    (((device),),) = ask(f"gpu {A} Big 80 80 9 0 1 0", library=library)
    assert (device.id, device.name) == (A, "Big")
    assert "there are none" in device.unusable and "nvidia-smi mig -cgi" in device.remedy


@pytest.mark.parametrize(
    ("error", "reason", "remedy"),
    [
        (9, "the driver is not loaded", "modprobe nvidia"),
        (18, "another version than the driver in the kernel", "restart the machine"),
        (4, "may not ask the driver", "chmod"),
        (999, "the driver does not answer: Unknown Error", "nvidia-smi"),
    ],
)
def test_a_driver_that_does_not_answer_is_said(
    error: int, reason: str, remedy: str, library: Path, ask: Ask
) -> None:
    (((device),),) = ask(f"init {error}", library=library)
    assert reason in device.unusable and remedy in device.remedy and device.kind == "cuda"


def test_a_driver_whose_library_is_not_there_is_said(root: Path, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    (((device),),) = ask("", library=tmp_path)
    assert "libnvidia-ml.so.1 is not here" in device.unusable and "--gpus all" in device.remedy


def test_a_machine_that_may_have_the_library_but_has_not_says_nothing(
    root: Path, ask: Ask, tmp_path: Path
) -> None:
    (root / "proc/driver/nvidia/version").unlink()
    (root / "dev").mkdir()
    (root / "dev/dxg").touch()
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    assert ask("", library=tmp_path) == [[]]


def test_the_environment_is_asked(library: Path, ask: Ask) -> None:
    ((first, second),) = ask(TWO, library=library, CUDA_VISIBLE_DEVICES="1")
    assert (first.id, first.hidden) == (B, False)
    assert (second.id, second.hidden) == (A, True)
    assert second.unusable == "CUDA_VISIBLE_DEVICES=1 hides it" and A in second.remedy


@pytest.mark.parametrize(
    ("names", "order", "kinds", "expected"),
    [
        *(("1", None, "AB", True), ("1", "FASTEST_FIRST", "AB", True), ("GPU-a, 0", None, "AB", True)),
        *(("1", "PCI_BUS_ID", "AB", False), ("1", None, "AA", False), ("0", None, "A", False)),
        *(("GPU-a", None, "AB", False), ("", None, "AB", False), (None, None, "AB", False)),
    ],
)
def test_indices_that_may_mean_others_in_cuda(
    names: str | None, order: str | None, kinds: str, expected: bool
) -> None:
    gpus = [Gpu(f"GPU-{number}", (), kind) for number, kind in enumerate(kinds)]
    assert unsure(gpus, names, order) is expected


def test_an_uncertain_order_is_said_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("pynvml")
    gpus = [Gpu(id, (device(id),), id) for id in (A, B)]
    monkeypatch.setattr(corectl_nvidia, "ask", lambda nvml: gpus)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    probe = NvidiaProbe(root)
    assert probe.details() == {}
    for _ in range(2):
        assert [it.id for it in probe.devices() if not it.hidden] == [B]
    (said,) = probe.details().values()
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in said and caplog.text.count(said) == 1
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    probe.devices()
    assert probe.details() == {}


def device(id: str) -> Device:
    return Device(id=id, kind="cuda", name=id, memory_total=1, memory_free=1)


def shown(gpus: list[Gpu], names: str | None) -> list[str]:
    found = visible(gpus, names)
    every = {device.id for gpu in gpus for device in gpu.devices}
    assert {device.id for device in found} == every and len(found) == len(every)
    assert all(bool(device.unusable) == device.hidden == bool(device.remedy) for device in found)
    return [device.id for device in found if not device.hidden]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        *((None, [A, B, C]), ("", []), ("-1", []), ("1", [B]), ("2, 0", [C, A]), ("0,7,1", [A])),
        *((C, [C]), ("GPU-c", [C]), ("GPU-a", []), ("GPU-x,0", []), ("0,0,1", [A]), ("none", [])),
        *(("²", []), ("9" * 5000, []), (",", []), ("0,", [A])),
    ],
)
def test_visible_devices(names: str | None, expected: list[str]) -> None:
    assert shown([Gpu(id, (device(id),)) for id in (A, B, C)], names) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        *((None, [*MIG, B]), ("0", list(MIG)), (A, list(MIG)), ("1,0", [B, *MIG])),
        *(
            (MIG[1], [MIG[1]]),
            ("MIG-2,MIG-111", [MIG[2], MIG[0]]),
            ("MIG-11", []),
            (f"{MIG[0]},{MIG[0]}", [MIG[0]]),
        ),
    ],
)
def test_visible_instances(names: str | None, expected: list[str]) -> None:
    assert shown([Gpu(A, tuple(map(device, MIG))), Gpu(B, (device(B),))], names) == expected
