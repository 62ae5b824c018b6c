"""The conformance suite for local registries."""

from __future__ import annotations

import re

from corectl.deadline import Deadline
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord
from corectl.registry.base import LocalRegistry
from corectl.testing.suite import Suite, optional

STRANGE = ("no-such-model", "no-such-model:tag", "a" * 80, "host.example/library/no-such-model")


class RegistrySuite(Suite):
    """Everything that a local registry promises. A subclass gives `registry`, which offers a model at least."""

    kind = "registry"

    def registry(self) -> LocalRegistry:
        raise NotImplementedError

    def subject(self) -> str:
        return self.registry().name

    def _records(self) -> list[ModelRecord]:
        registry = self.registry()
        return Deadline("list()").call(lambda: list(registry.list()))

    def _offers_nothing(self) -> None:
        assert self._records() == []

    @optional(_offers_nothing)
    def test_listing(self) -> None:
        """Each model on offer has files that are there, with the sizes that it says, and says where it comes from."""
        records = self._records()
        assert records, "it offers nothing here; say why in `cannot`"
        assert len({record.name.key for record in records}) == len(records), "one name twice"
        for record in records:
            assert re.fullmatch("[0-9a-f]{64}", record.digest), record.digest
            assert record.origin and record.origin != "store", "a model says which registry offers it"
            assert record.layers and record.weights is not None
            for layer in record.layers:
                assert re.fullmatch("sha256:[0-9a-f]{64}", layer.digest), layer.digest
                assert layer.path.is_file() and layer.path.stat().st_size == layer.size, layer
            assert record.size >= sum(layer.size for layer in record.layers)

    @optional(_offers_nothing)
    def test_finding(self) -> None:
        """A model on offer is found by its name, in upper and lower case, and is always the same."""
        for record in self._records():
            name = record.name
            for text in (name.short, name.short.upper(), name.full):
                found = self.registry().find(ModelName.parse(text))
                assert found is not None, f"{text} is not found"
                assert (found.digest, found.name.key) == (record.digest, record.name.key)

    def test_unknown_names(self) -> None:
        """A name that it does not offer is None, and no error."""
        for text in STRANGE:
            found = Deadline("find()").call(self.registry().find, ModelName.parse(text))
            assert found is None, f"{text} is {found}"
