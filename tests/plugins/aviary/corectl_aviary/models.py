"""The model format, a line of text, and the registry: names below `aviary/` for the models in this package."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from corectl.errors import BadModelFile
from corectl.model.files import ModelFiles, read_small
from corectl.model.formats import ModelDescription
from corectl.model.manifest import CONFIG_TYPE, Layer, Manifest, MediaType, ModelConfig
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord, StoredLayer

MAGIC = b"AVIARY "
CONFIG = ModelConfig(
    model_format="aviary", model_family="aviary", parser="aviary", capabilities=("completion", "tools")
)
TEMPLATE = (
    "{% for message in messages %}{{ message.content }}{% for call in message.tool_calls %}"
    "<|fetch|>{{ call.function.name }}<|with|>{{ call.function.arguments }}<|done|>{% endfor %} {% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}>"
)


def phrase(path: Path) -> bytes:
    """What a model says. Raises `BadModelFile`."""
    data = read_small(path, 1000)
    if not data.startswith(MAGIC):
        raise BadModelFile(f"{path.name} is no bird")
    return data.removeprefix(MAGIC).strip()


class AviaryFormat:
    name = "aviary"

    def claims(self, files: ModelFiles) -> bool:
        try:
            return bool(phrase(files.weights))
        except (BadModelFile, OSError):
            return False

    def describe(self, files: ModelFiles) -> ModelDescription:
        phrase(files.weights)
        return ModelDescription(
            architecture="aviary", capabilities=("completion", "tools"), chat_template=TEMPLATE
        )


class AviaryModels:
    name = "aviary"

    def list(self) -> Iterable[ModelRecord]:
        return [_record(path) for path in sorted(Path(__file__).parent.glob("*.bird"))]

    def find(self, name: ModelName) -> ModelRecord | None:
        return next((record for record in self.list() if record.name.key == name.key), None)


def _record(path: Path) -> ModelRecord:
    data, config = path.read_bytes(), msgspec.json.encode(CONFIG)
    weights = Layer(media_type=MediaType.MODEL, digest=_digest(data), size=len(data))
    config_layer = Layer(media_type=CONFIG_TYPE, digest=_digest(config), size=len(config))
    manifest = msgspec.json.encode(Manifest(config=config_layer, layers=(weights,)))
    layer = StoredLayer(media_type=MediaType.MODEL, digest=weights.digest, size=weights.size, path=path)
    return ModelRecord(
        name=ModelName.parse(f"aviary/{path.stem}"),
        digest=hashlib.sha256(manifest).hexdigest(),
        size=weights.size + config_layer.size,
        modified_at=datetime.fromtimestamp(path.stat().st_mtime, UTC),
        config=CONFIG,
        layers=(layer,),
        origin="registry aviary",
    )


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
