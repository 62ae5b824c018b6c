"""How a model's prompts are rendered: which of its templates counts."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from corectl.config import Settings
from corectl.errors import BadRequest, NotSupported
from corectl.messages import Template
from corectl.model.bounded import BoundedFormat
from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription, ModelDetails
from corectl.model.manifest import MediaType, ModelConfig
from corectl.model.record import StoredLayer
from corectl.plugins import PluginHost
from corectl.prompt.renderers import RENDERERS
from corectl.remote.backend import RemoteServer
from corectl.scheduler.scheduler import Scheduler
from corectl.scheduler.state import Model
from corectl.server.services import Services
from corectl.store.catalog import Catalog
from corectl.transfer.service import Transfers
from corectl_safetensors import Safetensors
from tests.core import stories
from tests.core.create_kit import Bench
from tests.core.remote_fake import FakeBackend, FakeHost, make, stub

GO = "{{ .Prompt }}!"
GO_TOOLS = "{{ .Tools }}{{ range .Messages }}{{ .Content }}{{ end }}"
GO_ROUND = '{{ .Tools }}{{ range .Messages }}{{ .ToolCalls }}{{ if eq .Role "tool" }}{{ .Content }}{{ end }}{{ end }}'
GO_FILL = "{{ .Prompt }}{{ .Suffix }}"
JINJA = "{{ messages[-1].content }}"
JINJA_TOOLS = "{{ tools }}" + JINJA
JINJA_ROUND = JINJA_TOOLS + "{{ messages[0].tool_calls }}{% if messages[0].role == 'tool' %}x{% endif %}"
JINJA_THINKS = JINJA_TOOLS + "{{ messages[0].content.split('</think>') }}"
BARE = "{{ .Prompt }}"


@pytest.fixture
def services(tmp_path: Path) -> Services:
    plugins = PluginHost()
    plugins.policies["default"] = stories.Policy()
    scheduler = Scheduler(Settings(), plugins)
    catalog = Catalog(tmp_path)
    return Services(
        settings=Settings(),
        plugins=plugins,
        catalog=catalog,
        scheduler=scheduler,
        transfers=Transfers(Settings(), {}, catalog),
    )


def test_details_of_what_is_not_gguf(services: Services, bench: Bench) -> None:
    bench.create("folder", files=bench.checkpoint())
    bench.create("file", files={"m.gguf": bench.upload()})
    services.plugins.formats["safetensors"] = BoundedFormat(Safetensors())
    found = services.details(bench.get("folder"))
    assert [(tensor.name, tensor.type, tensor.shape) for tensor in found.tensors] == [
        ("w", "F16", (2, 2))
    ] * 2
    assert found.metadata["llama.context_length"] == 64
    assert services.details(bench.get("file")) == ModelDetails()
    services.plugins.formats["safetensors"] = BoundedFormat(Plain())
    assert services.details(bench.get("folder")) == ModelDetails()


class Plain:
    """A format that tells no details."""

    name = "safetensors"

    def claims(self, files: ModelFiles) -> bool:
        return True

    def describe(self, files: ModelFiles) -> ModelDescription:
        return ModelDescription(architecture="a")


def model(
    folder: Path, *, go: str = "", jinja: str = "", config: ModelConfig | None = None, name: str = "m"
) -> Model:
    """A model with these templates."""
    made = stories.make_model(folder, name)
    layers: tuple[StoredLayer, ...] = ()
    if go:
        path = folder / "template"
        path.write_text(go)
        layers = (StoredLayer(media_type=MediaType.TEMPLATE, digest="sha256:0", size=len(go), path=path),)
    record = msgspec.structs.replace(made.record, layers=layers, config=config or ModelConfig())
    description = msgspec.structs.replace(made.description, chat_template=jinja)
    return msgspec.structs.replace(made, record=record, description=description)


@pytest.mark.parametrize(
    ("go", "jinja", "expected"),
    [
        (GO, JINJA, GO),
        ("", JINJA, JINJA),
        ("", "", BARE),
        # The one that can do more, unless it loses the results of calls.
        (GO, JINJA_TOOLS, JINJA_TOOLS),
        (GO_TOOLS, JINJA_TOOLS, GO_TOOLS),
        (GO_TOOLS, JINJA_THINKS, JINJA_THINKS),
        (GO_ROUND, JINJA_THINKS, GO_ROUND),
        # Of two that can do the same, the one that renders the results of calls.
        (GO_TOOLS, JINJA_ROUND, JINJA_ROUND),
        (GO_ROUND, JINJA_ROUND, GO_ROUND),
        ("{{ broken", JINJA_TOOLS, JINJA_TOOLS),
    ],
)
def test_the_template_in_force(
    services: Services, tmp_path: Path, go: str, jinja: str, expected: str
) -> None:
    found = services.template(model(tmp_path, go=go, jinja=jinja))
    assert found == Template(kind="jinja" if expected == jinja else "go", text=expected)


def test_a_parser_and_harmony_keep_the_template(services: Services, tmp_path: Path) -> None:
    harmony = GO + "<|start|><|end|>"
    for go, config in (
        (GO, ModelConfig(parser="qwen3")),
        (harmony, ModelConfig(model_family="gptoss")),
    ):
        assert services.template(model(tmp_path, go=go, jinja=JINJA_TOOLS, config=config)).text == go


def test_the_user_may_decide(services: Services, tmp_path: Path) -> None:
    both = model(tmp_path, go=GO, jinja=JINJA_TOOLS)
    for wanted, expected in ((True, GO), (False, JINJA_TOOLS)):
        settings = msgspec.structs.replace(services.settings, go_template=wanted)
        assert msgspec.structs.replace(services, settings=settings).template(both).text == expected


def test_a_suffix_needs_a_go_template(services: Services, tmp_path: Path) -> None:
    both = model(tmp_path, go=GO_FILL, jinja=JINJA_ROUND + JINJA_THINKS)
    assert services.template(both).kind == "jinja"
    assert services.template(both, suffix=True) == Template(kind="go", text=GO_FILL)
    assert services.template(model(tmp_path, jinja=JINJA), suffix=True).kind == "jinja"


def test_past_thoughts_are_hidden_for_the_families_that_want_it(services: Services, tmp_path: Path) -> None:
    for name, family, hides in (
        ("m", "qwen3", True),
        ("m", "qwen3moe", True),
        ("deepseek-r1", "qwen2", True),
        ("m", "llama", False),
    ):
        made = model(tmp_path, go=GO, config=ModelConfig(model_family=family), name=name)
        assert services.template(made).hides_past_thoughts is hides


def test_a_renderer(services: Services, tmp_path: Path) -> None:
    config = ModelConfig(renderer="qwen3-coder")
    own = services.template(model(tmp_path, go=GO, jinja=JINJA, config=config))
    assert own == Template(kind="jinja", text=JINJA)
    built_in = services.template(model(tmp_path, go=GO, config=config))
    assert built_in.kind == "jinja" and "<function=" in built_in.text


@pytest.mark.parametrize("renderer", RENDERERS)
def test_every_renderer_has_a_template_or_says_that_it_has_none(
    services: Services, tmp_path: Path, renderer: str
) -> None:
    made = model(tmp_path, go=GO, config=ModelConfig(renderer=renderer))
    if RENDERERS[renderer]:
        assert "messages" in services.template(made).text
    else:
        with pytest.raises(NotSupported, match=rf"{renderer}.*TEMPLATE"):
            services.template(made)


def test_an_unknown_renderer(services: Services, tmp_path: Path) -> None:
    with pytest.raises(BadRequest) as caught:
        services.template(model(tmp_path, go=GO, config=ModelConfig(renderer="x")))
    assert caught.value.message == 'unknown renderer "x"'


def test_the_way_to_a_new_server_is_made_on_a_worker_thread(services: Services) -> None:
    """A plugin may take seconds for it, and all would wait."""
    threads: list[int] = []

    class Backend(FakeBackend):
        def connect(self, server: RemoteServer) -> FakeHost:
            threads.append(threading.get_ident())
            return FakeHost(server)

    remotes = make({"fake": Backend()}, remote_hosts=("h", "i"))
    its = msgspec.structs.replace(services, remotes=remotes)

    async def story() -> None:
        first, second = stub("http://h:1"), stub("http://i:1")
        await its.model(first)
        await remotes.described(second)
        assert len(threads) == 2 and threading.get_ident() not in threads
        there = await its.reading(first, threading.get_ident)
        assert there == threading.get_ident(), "what is known takes no way to another thread and back"
        await its.model(second)
        assert len(threads) == 2

    stories.play(story())
