"""Checks of what changes a model's weights: adapters, and quantising."""

from __future__ import annotations

import msgspec
import pytest

from corectl.errors import BadModelFile, LoadFailed
from corectl.jobs.messages import Quantization
from corectl.jobs.processes import Jobs
from corectl.model.files import ModelFiles
from corectl.runner.engine import Engine, ModelSpec, Quantizer, Sampled
from corectl.testing.backend.base import BackendChecks
from corectl.testing.child import Subject
from corectl.testing.drive import draw, tokens_of
from corectl.testing.plugins import plugin_of
from corectl.testing.suite import optional

SMALL = 1e-4
"""Natural logarithms. An adapter that changes no probability by more changes nothing."""


def _says_that_it_applies_no_adapters(
    suite: BackendChecks, corectl_engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert not suite.backend().availability().adapters, "availability().adapters says that it does"


def _is_no_quantizer(
    suite: BackendChecks, corectl_usable: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert not isinstance(suite.backend(), Quantizer), "it has `quantize`"


def load_with_damaged_adapter(subject: Subject) -> None:
    """In a child: the adapter's file is cut short already."""
    (adapter,) = subject.model.adapters
    try:
        subject.load().close()
    except (LoadFailed, BadModelFile) as exc:
        assert adapter.name in exc.message, f"{exc.message!r} does not name {adapter.name}"
    else:
        raise AssertionError("half an adapter was applied")


class ChangeChecks(BackendChecks):
    @optional(_says_that_it_applies_no_adapters)
    def test_adapters(self, corectl_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> None:
        """A model's adapter changes what it answers; one that is cut short is refused with its name."""
        assert self.backend().availability().adapters, "availability().adapters does not say so"
        model = self.wanted(self.adapted(tmp_path_factory), "adapters")
        (adapter,) = model.adapters
        engine = self.backend().load(model, self.placement, lambda fraction: None)
        try:
            pairs = [
                (self.draw(corectl_engine, text, 8), self.draw(engine, text, 8))
                for text in self.texts(engine)
            ]
        finally:
            engine.close()
        assert any(_differ(plain, changed) for plain, changed in pairs), "the adapter changes nothing"
        data = adapter.read_bytes()
        half = tmp_path_factory.mktemp("half") / adapter.name
        half.write_bytes(data[: len(data) // 2])
        named = {name: half if path == adapter else path for name, path in model.adapter_named.items()}
        damaged = msgspec.structs.replace(model, adapters=(half,), adapter_named=named)
        self.in_child(load_with_damaged_adapter, damaged)

    @optional(_is_no_quantizer)
    def test_quantizing(self, corectl_usable: None, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Weights become smaller, and the model still answers."""
        backend = self.backend()
        assert isinstance(backend, Quantizer)
        names = backend.quantizations
        assert names and len({name.lower() for name in names}) == len(names)
        smallest = self.quantization or names[0]
        source = self.wanted(self.unquantized(tmp_path_factory), "weights to quantise")
        folder = tmp_path_factory.mktemp("quantized")
        plugin = plugin_of("corectl_backends", backend.name)
        files = ModelFiles(weights=source.weights, named=source.named)
        job = Quantization(plugin=plugin, backend=backend.name, files=files, target=smallest, folder=folder)
        steps: list[tuple[int, int]] = []
        Jobs().run(job, lambda completed, total: steps.append((completed, total)))
        assert all(completed <= total for completed, total in steps) and steps == sorted(steps)
        named = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        largest = max(named.values(), key=lambda path: path.stat().st_size)
        several = named if len(named) > 1 else {}
        made = ModelSpec(format=source.format, weights=largest, named=several)
        assert sum(path.stat().st_size for path in made.paths) < sum(
            path.stat().st_size for path in source.paths
        )
        engine = backend.load(made, self.placement, lambda fraction: None)
        try:
            assert len(draw(engine, self.texts(engine)[0], 4)) == 4
        finally:
            engine.close()


def _differ(first: list[Sampled], second: list[Sampled]) -> bool:
    ours, theirs = ({item.token: item.logprob for item in run[0].top} for run in (first, second))
    gaps = [abs(logprob - theirs[token]) for token, logprob in ours.items() if token in theirs]
    return max(gaps, default=0.0) > SMALL or tokens_of(first) != tokens_of(second)
