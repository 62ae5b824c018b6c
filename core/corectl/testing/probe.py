"""The conformance suite for hardware probes."""

from __future__ import annotations

import os
import time
from typing import get_args

import pytest

from corectl.deadline import Deadline
from corectl.hardware.device import DetailedProbe, Device, DeviceKind, HardwareProbe
from corectl.testing.suite import Suite

SECONDS = 0.5
"""Processor time that a probe may take; it is asked before each load."""


class ProbeSuite(Suite):
    """Everything that a hardware probe promises, on the machine that the tests run on. A subclass gives `probe`."""

    kind = "hardware probe"

    def probe(self) -> HardwareProbe:
        raise NotImplementedError

    def subject(self) -> str:
        return self.probe().name

    def _devices(self) -> list[Device]:
        return Deadline("devices()").call(self.probe().devices)

    def test_devices(self) -> None:
        """What it reports is sound: ids are unique, sizes possible, and what cannot be used says why and what to do."""
        devices = self._devices()
        assert len({device.id for device in devices}) == len(devices), "two devices have one id"
        for device in devices:
            assert device.id and device.name and device.kind in get_args(DeviceKind), device
            assert 0 <= device.memory_free <= device.memory_total, device
            assert device.memory_total > 0 or device.unusable, device
            assert device.cores >= 0 and device.swap >= 0, device
            assert not set(device.also) - set(get_args(DeviceKind)) and device.kind not in device.also, device
            if device.unusable and not device.hidden:
                assert device.remedy, (
                    f"{device.name} cannot be used ({device.unusable}), and there is no remedy"
                )

    def test_repeated(self) -> None:
        """Asked again, it finds the same devices, and it leaves the process as it was."""
        environment = dict(os.environ)
        first, second = self._devices(), self._devices()
        assert [device.id for device in first] == [device.id for device in second]
        assert dict(os.environ) == environment, "it changes environment variables"

    def test_speed(self) -> None:
        """It is quick, in particular where its hardware is absent."""
        self._devices()
        before = time.process_time()
        self._devices()
        spent = time.process_time() - before
        assert spent < SECONDS, f"it took {spent:.2f} s of processor time"

    def test_silence(self, capfd: pytest.CaptureFixture[str]) -> None:
        """It prints nothing, and neither do the libraries that it asks."""
        capfd.readouterr()
        self._devices()
        assert capfd.readouterr() == ("", "")

    def test_details(self) -> None:
        """What else it tells people are texts."""
        probe = self.probe()
        if isinstance(probe, DetailedProbe):
            found = Deadline("details()").call(probe.details)
            assert all(isinstance(text, str) and text for item in found.items() for text in item)
