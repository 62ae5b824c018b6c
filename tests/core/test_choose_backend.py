"""Which backend loads a model does not depend on the order of installation."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import msgspec
import pytest

from corectl.config import Settings
from corectl.errors import NotSupported
from corectl.hardware.device import Device
from corectl.messages import LoadOptions
from corectl.model.name import ModelName
from corectl.runner.engine import Availability, Backend
from corectl.scheduler.backends import Backends, Wanted, wanted_backend

GPU = Device(id="g", kind="rocm", name="a GPU", memory_total=1, memory_free=1)


class Offer(msgspec.Struct, frozen=True):
    name: str
    formats: tuple[str, ...]
    reason: str = ""
    variant: str = "cpu"

    def availability(self) -> Availability:
        if self.reason == "raises":
            raise OSError("no driver")
        return Availability(reason=self.reason, variant=self.variant)

    def estimate(self, *_: Any) -> Any:
        raise NotImplementedError

    def load(self, *_: Any) -> Any:
        raise NotImplementedError


def choose(*offers: Offer, format: str = "gguf", wanted: str = "", devices: tuple[Device, ...] = ()) -> str:
    """The choice, which must be the same for every order of the backends."""
    return decide(*offers, format=format, wanted=wanted, devices=devices)[0]


def decide(
    *offers: Offer, format: str = "gguf", wanted: str = "", devices: tuple[Device, ...] = ()
) -> tuple[str, str]:
    """The choice and its reason."""
    found: set[tuple[str, str]] = set()
    for order in permutations(offers):
        backends = Backends({offer.name: as_backend(offer) for offer in order})
        try:
            choice = backends.choose(format=format, wanted=Wanted(wanted, "--backend"), devices=devices)
            found.add((choice.backend.name, choice.reason))
        except NotSupported as exc:
            found.add((f"error: {exc.message}", ""))
    (only,) = found
    return only


def as_backend(offer: Offer) -> Backend:
    return offer


def test_the_one_that_names_the_format_earliest_wins() -> None:
    assert choose(Offer("a", ("onnx", "gguf")), Offer("z", ("gguf", "onnx"))) == "z"


def test_the_name_decides_between_equals() -> None:
    assert choose(Offer("b", ("gguf",)), Offer("a", ("gguf",)), Offer("c", ("gguf",))) == "a"


def test_one_that_cannot_be_used_is_passed_over() -> None:
    assert choose(Offer("a", ("gguf",), "no GPU"), Offer("b", ("x", "gguf"))) == "b"


def test_one_that_raises_does_not_spoil_the_choice() -> None:
    assert choose(Offer("a", ("gguf",), "raises"), Offer("b", ("gguf",))) == "b"


def test_if_none_can_be_used_each_says_why() -> None:
    offers = (Offer("a", ("gguf",), "raises"), Offer("b", ("gguf",), "pip install b"), Offer("c", ("onnx",)))
    assert choose(*offers) == (
        "error: no backend for gguf models can be used here "
        "(a: availability() raised OSError: no driver; b: pip install b)"
    )


def test_if_none_loads_the_format() -> None:
    assert "no installed backend loads 'gguf' models" in choose(Offer("a", ("onnx",)))
    assert "no installed backend" in choose()


def test_the_user_names_one() -> None:
    assert choose(Offer("a", ("gguf",)), Offer("b", ("x", "gguf")), wanted="b") == "b"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("none", "there is no backend 'none'; installed: a, b, c"),
        ("b", "backend 'b' cannot be used here: no GPU"),
        ("c", "backend 'c' loads onnx models, this one is 'gguf'"),
    ],
)
def test_the_one_named_is_never_replaced_in_silence(wanted: str, message: str) -> None:
    offers = (Offer("a", ("gguf",)), Offer("b", ("gguf",), "no GPU"), Offer("c", ("onnx",)))
    assert message in choose(*offers, wanted=wanted)


def test_a_model_with_an_adapter_goes_to_a_backend_that_applies_it() -> None:
    class Adapting(Offer, frozen=True):
        def availability(self) -> Availability:
            return Availability(adapters=True)

    plain, adapting = as_backend(Offer("a", ("gguf",))), as_backend(Adapting("b", ("gguf",)))
    both, alone = Backends({"a": plain, "b": adapting}), Backends({"a": plain})
    assert both.choose(format="gguf").backend.name == "a"
    assert both.choose(format="gguf", adapters=True).backend.name == "b"
    for backends, wanted in ((both, Wanted("a", "--backend")), (alone, Wanted())):
        with pytest.raises(NotSupported, match="it cannot apply the adapter that the model has"):
            backends.choose(format="gguf", wanted=wanted, adapters=True)


def test_a_name_without_any_backend() -> None:
    assert "installed: none" in choose(wanted="a")


def test_the_one_named_that_raises() -> None:
    assert "no driver" in choose(Offer("a", ("gguf",), "raises"), wanted="a")


def test_an_accelerator_counts_for_all_its_ways() -> None:
    offers = Offer("a", ("gguf",), variant="rocm"), Offer("b", ("x", "gguf"), variant="vulkan")
    both = msgspec.structs.replace(GPU, also=("vulkan",))
    assert choose(*offers, devices=(both,)) == "a"
    assert choose(*offers, devices=(msgspec.structs.replace(both, unusable="too old"),)) == "b"


def test_one_that_computes_on_an_accelerator_that_is_there_comes_first() -> None:
    offers = Offer("a", ("gguf",)), Offer("b", ("x", "gguf"), variant="hip")
    assert choose(*offers) == "a"
    assert decide(*offers, devices=(GPU,)) == ("b", "of those that load gguf, it computes on hip")
    lost = msgspec.structs.replace(GPU, unusable="gone")
    assert choose(*offers, devices=(lost,)) == "a"


def test_each_choice_says_why() -> None:
    assert decide(Offer("a", ("gguf",)), Offer("b", ("x",)))[1] == "the only backend here that loads gguf"
    assert decide(Offer("a", ("gguf",)), Offer("b", ("gguf",)))[1] == "the first of a, b, which load gguf"
    assert decide(Offer("a", ("gguf",)), wanted="a")[1] == "named by the --backend"


def test_a_backend_is_asked_once_what_it_can() -> None:
    class Counting(Offer, frozen=True):
        asked: list[int] = []

        def availability(self) -> Availability:
            self.asked.append(1)
            return Availability()

    offer = Counting("a", ("gguf",))
    backends = Backends({"a": as_backend(offer)})
    for _ in range(3):
        backends.choose(format="gguf")
    assert len(offer.asked) == 1


@pytest.mark.parametrize(
    ("name", "option", "found"),
    [
        ("qwen3:8b", "onnx", Wanted("onnx", 'option "backend"')),
        ("Qwen3:8b", None, Wanted("mlx", "setting for models like 'qwen*' (default)")),
        ("hf.co/me/tiny-ONNX:x", None, Wanted("onnx", "setting for models like '*-onnx:*' (default)")),
        ("me/qwen3", None, Wanted("mlx", "setting for models like 'qwen*' (default)")),
        ("mike/tuned:x", None, Wanted("other", "setting for models like 'mike/tuned' (default)")),
        ("llama", None, Wanted("llamacpp", 'setting "backend" (default)')),
    ],
)
def test_the_most_special_wish_counts(name: str, option: str | None, found: Wanted) -> None:
    settings = Settings(
        backend="llamacpp", backends={"qwen*": "mlx", "*-onnx:*": "onnx", "mike/tuned": "other"}
    )
    assert wanted_backend(settings, ModelName.parse(name), option) == found
    assert wanted_backend(Settings(), ModelName.parse("llama"), None) == Wanted()


def test_what_a_backend_cannot_honour_is_said() -> None:
    class Plain(Offer, frozen=True):
        def availability(self) -> Availability:
            return Availability(ignores=("num_gpu", "use_mmap", "kv_cache_type"))

    choice = Backends({"a": as_backend(Plain("a", ("gguf",)))}).choose(format="gguf")
    settings = Settings(kv_cache_type="q8_0", sources={"kv_cache_type": "OLLAMA_KV_CACHE_TYPE"})
    notices = choice.ignored(LoadOptions(num_gpu=0, num_thread=2), settings)
    assert [notice.message.split(" ")[0] for notice in notices] == ["num_gpu", "kv_cache_type"]
    assert {notice.code for notice in notices} == {"option_ignored"}
    assert choice.ignored(LoadOptions(num_thread=2), Settings()) == ()
