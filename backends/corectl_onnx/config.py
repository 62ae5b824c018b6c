"""What `genai_config.json` says of a model, and the part of it that ONNX Runtime GenAI may see.

The file is hostile: its session options can load a library, write files, or hold addresses of memory. So the library
never reads it. It reads one that is written here, with values that were checked and options that do no harm.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec

from corectl.errors import BadModelFile, NotSupported
from corectl.model.files import ModelFiles, check_file_name

NAME = "genai_config.json"
MAX_BYTES = 1 << 20

Size = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Number = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]
Text = Annotated[str, msgspec.Meta(max_length=256)]
T = TypeVar("T")

_SESSION = frozenset(
    (
        *("log_id", "log_severity_level", "log_verbosity_level", "graph_optimization_level"),
        *("intra_op_num_threads", "inter_op_num_threads", "enable_cpu_mem_arena", "enable_mem_pattern"),
        *("session.intra_op.allow_spinning", "session.inter_op.allow_spinning", "session.disable_prepacking"),
        *(
            "session.intra_op.spin_duration_us",
            "session.intra_op.spin_backoff_max",
            "session.force_spinning_stop",
        ),
        *("session.set_denormal_as_zero", "session.disable_cpu_ep_fallback", "session.use_env_allocators"),
        "session.use_device_allocator_for_initializers",
    )
)
"""Session options that a model may set."""

_PROVIDERS = {
    "cuda": frozenset(
        (
            *("enable_cuda_graph", "enable_skip_layer_norm_strict_mode", "gpu_mem_limit", "use_tf32"),
            *("arena_extend_strategy", "cudnn_conv_algo_search", "do_copy_in_default_stream", "prefer_nhwc"),
        )
    ),
    "dml": frozenset(("enable_graph_capture",)),
    "qnn": frozenset(
        (
            *("backend_type", "htp_performance_mode", "htp_graph_finalization_optimization_mode", "htp_arch"),
            *("enable_htp_shared_memory_allocator", "enable_htp_fp16_precision", "qnn_context_priority"),
            *("offload_graph_io_quantization", "rpc_control_latency", "soc_model", "vtcm_mb"),
        )
    ),
    "openvino": frozenset(
        (
            "device_type",
            "enable_causallm",
            "precision",
            "num_of_threads",
            "num_streams",
            "disable_dynamic_shapes",
        )
    ),
}
"""Options that a model may set for an execution provider, by its name in small letters."""

_FORMAT = re.compile(r"[^%]*(%d)?[^%]*")
"""Names are formats of C, into which the number of a layer is written."""

_OTHERS = ("encoder", "embedding", "vision", "speech", "draft", "joiner")
"""Parts of models that do more than go on with a text."""

_SHORT_ROPE = {"phi3": 4096, "phimoe": 4096, "phi3small": 8192}
"""Tokens up to which models of these types rotate in one way. Beyond, all of the context is rotated in another; then
what was computed before is of no use, and there is no going on in pieces."""


class SlidingWindow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    window_size: Number = 0
    pad_value: Number = 0
    alignment: Text = "right"
    slide_key_value_cache: bool = True
    slide_inputs: bool = True
    layers: list[Number] = []
    cache_slack: Number = 0


class Decoder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    filename: Text
    hidden_size: Size
    num_hidden_layers: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    num_attention_heads: Size
    num_key_value_heads: Size
    head_size: Size
    inputs: dict[Text, Text] = {}
    outputs: dict[Text, Text] = {}
    layer_types: list[Text] = []
    conv_cache_size: Number = 0
    sliding_window: SlidingWindow | None = None
    session_options: dict[str, Any] = {}
    run_options: dict[str, Any] | None = None
    pipeline: list[Any] = []
    shared_initializers: list[Any] = []


class Model(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.-]{1,64}$")]
    vocab_size: Size
    context_length: Size
    decoder: Decoder
    eos_token_id: Number | list[Number]
    bos_token_id: Number = 0
    pad_token_id: Number = 0


class Search(msgspec.Struct, frozen=True, kw_only=True):
    past_present_share_buffer: bool = False


class GenaiConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The checked file. Lengths are in tokens."""

    model: Model
    search: Search = Search()

    @property
    def context_length(self) -> int:
        """The longest sequence that can be computed in pieces."""
        return min(self.model.context_length, _SHORT_ROPE.get(self.model.type, self.model.context_length))

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a text."""
        found = self.model.eos_token_id
        return tuple(found) if isinstance(found, list) else (found,)

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that the model was made for, in small letters; none for the CPU."""
        given = self.model.decoder.session_options.get("provider_options", [])
        return tuple(name.lower() for entry in given for name in entry if name.lower() != "cpu")

    def for_library(self, *, threads: int, accelerated: bool) -> dict[str, Any]:
        """What the library reads. With `accelerated` the model's execution providers compute, else the CPU alone."""
        decoder = self.model.decoder
        given = {key: value for key, value in decoder.session_options.items() if key != "provider_options"}
        options = {
            # What goes wrong is in the error as well.
            "log_severity_level": 4,
            # Microseconds that threads wait for the next operator before they give up their cores. The library's own
            # value is longer than a step has pauses, and takes the cores from those who are to go on.
            "session.intra_op.spin_duration_us": "50",
            **given,
            "intra_op_num_threads": threads,
            "provider_options": decoder.session_options.get("provider_options", []) if accelerated else [],
        }
        model = msgspec.to_builtins(self.model)
        model["decoder"]["session_options"] = options
        return {
            "model": model,
            "search": {"past_present_share_buffer": self.search.past_present_share_buffer},
        }


def read_config(files: ModelFiles) -> GenaiConfig:
    """The file of a model. Raises `BadModelFile`, and `NotSupported` for models that are more than a text's."""
    data = files.read(NAME, MAX_BYTES)
    parts = _decoded(data, dict[str, msgspec.Raw])
    others = set(_decoded(bytes(parts.get("model", b"{}")), dict[str, msgspec.Raw])) & set(_OTHERS)
    if others:
        raise NotSupported(
            f"{NAME}: the model has the parts {', '.join(sorted(others))}; this version loads those for text alone"
        )
    config = _decoded(data, GenaiConfig)
    _check(config.model, files)
    return config


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadModelFile(f"{NAME} is damaged: {exc}") from exc


def _check(model: Model, files: ModelFiles) -> None:
    decoder, window = model.decoder, model.decoder.sliding_window
    if decoder.pipeline or decoder.shared_initializers:
        raise NotSupported(
            f"{NAME}: models whose decoder is in several files cannot be loaded by this version"
        )
    if decoder.run_options:
        raise NotSupported(f"{NAME}: run_options cannot be set by a model")
    if window is not None and window.slide_inputs:
        raise NotSupported(
            f"{NAME}: models that read windows of their input cannot be loaded by this version"
        )
    check_file_name(decoder.filename)
    if decoder.filename not in files.named:
        raise BadModelFile(f"{NAME} names a file {decoder.filename!r} that the model does not have")
    for name in (*decoder.inputs.values(), *decoder.outputs.values()):
        if not _FORMAT.fullmatch(name):
            raise BadModelFile(f"{NAME} has a name with a format that cannot be: {name!r}")
    if not all(0 <= token < model.vocab_size for token in GenaiConfig(model=model).ends):
        raise BadModelFile(f"{NAME}: eos_token_id is no token of the vocabulary")
    _check_options(decoder.session_options)


def _check_options(options: dict[str, Any]) -> None:
    """Raises for a session option that may do harm, or is not known."""
    for key, value in options.items():
        if key == "provider_options":
            _check_providers(value)
        elif key not in _SESSION or not isinstance(value, str | int | bool):
            raise BadModelFile(f"{NAME}: a model cannot set the session option {key[:64]!r}")


def _check_providers(given: object) -> None:
    try:
        entries = msgspec.convert(given, list[dict[str, dict[str, Any]]])
    except msgspec.ValidationError as exc:
        raise BadModelFile(f"{NAME}: provider_options: {exc}") from exc
    for entry in entries:
        for provider, options in entry.items():
            known = _PROVIDERS.get(provider.lower(), frozenset())
            for key, value in options.items():
                if key not in known or not isinstance(value, str) or len(value) > 64:
                    raise BadModelFile(
                        f"{NAME}: a model cannot set the option {key[:64]!r} of the provider {provider[:64]!r}"
                    )
