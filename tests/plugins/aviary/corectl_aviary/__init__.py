"""Somebody else's plugin, which has one of everything. Its one model repeats a phrase, to the letter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from corectl import hookimpl
from corectl.cli.offered import CliCommand
from corectl.hardware.device import Device, HardwareProbe
from corectl.model.formats import ModelFormat
from corectl.output.dialect import Dialect
from corectl.output.family import FamilyDialect
from corectl.output.syntax import CallSyntax
from corectl.registry.base import LocalRegistry
from corectl.runner import engine
from corectl.server.frontend import Frontend

from .models import AviaryFormat, AviaryModels, phrase

if TYPE_CHECKING:
    import click
    from litestar import Router

    from corectl.server.services import Services

corectl_api = 1


class AviaryBackend:
    name = "aviary"
    formats = ("aviary",)

    def availability(self) -> engine.Availability:
        return engine.Availability(variant="cpu", version="1.2.3")

    def estimate(self, model: engine.ModelSpec, shape: engine.CacheShape) -> engine.MemoryEstimate:
        return engine.MemoryEstimate(layers=(engine.LayerMemory(weights=model.weights.stat().st_size),))

    def load(
        self, model: engine.ModelSpec, placement: engine.Placement, progress: Callable[[float], None]
    ) -> engine.Engine:
        from corectl.runner.logits import LogitsEngine

        from .model import Parrot

        progress(1.0)
        return LogitsEngine(Parrot(phrase(model.weights), placement))


class AviaryProbe:
    name = "aviary"

    def devices(self) -> list[Device]:
        perch = Device(
            id="perch-0",
            kind="vulkan",
            name="Perch",
            memory_total=64,
            memory_free=64,
            unusable="a bird sits on it",
            remedy="shoo it away",
        )
        return [perch]


class AviaryFrontend:
    name = "aviary"

    def routers(self, services: Services) -> Sequence[Router]:
        from .routes import routers

        return routers(services)


CALLS = CallSyntax(
    open="<|fetch|>", before="", between="<|with|>", separator="<|and|><|fetch|>", close="<|done|>"
)


def make_command() -> click.Command:
    import click

    from corectl.cli.client import connect

    @click.command(help="List the birds of the server that the environment names")
    def birds() -> None:
        for model in connect().get("/api/tags")["models"]:
            if model["name"].startswith("aviary/"):
                click.echo(model["name"].removeprefix("aviary/"))

    return birds


@hookimpl
def corectl_model_formats() -> list[ModelFormat]:
    return [AviaryFormat()]


@hookimpl
def corectl_registries() -> list[LocalRegistry]:
    return [AviaryModels()]


@hookimpl
def corectl_hardware_probes() -> list[HardwareProbe]:
    return [AviaryProbe()]


@hookimpl
def corectl_backends() -> list[engine.Backend]:
    return [AviaryBackend()]


@hookimpl
def corectl_dialects() -> list[Dialect]:
    return [FamilyDialect(name="aviary", telltales=("<|fetch|>", "<|with|>"), calls=CALLS)]


@hookimpl
def corectl_frontends() -> list[Frontend]:
    return [AviaryFrontend()]


@hookimpl
def corectl_cli_commands() -> list[CliCommand]:
    return [CliCommand(name="birds", help="List birds", make=make_command)]
