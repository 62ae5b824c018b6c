"""Models on other servers as records, like those of this machine, but without files."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256

import msgspec

from corectl.model.manifest import ModelConfig
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord
from corectl.remote.backend import RemoteEntry, RemoteServer


def record_of(server: RemoteServer, entry: RemoteEntry, name: ModelName, since: datetime) -> ModelRecord:
    """A model of a server by its name here. `since` is its time where the server gives none."""
    stub = ModelRecord(
        name=name,
        digest=entry.digest or sha256(f"{server.url}\n{entry.id}".encode()).hexdigest(),
        size=0,
        modified_at=entry.modified_at or since,
        config=ModelConfig(remote_host=server.url, remote_model=entry.id),
        layers=(),
        origin=f"remote server {server.label}",
    )
    return described(stub, entry)


def described(record: ModelRecord, entry: RemoteEntry) -> ModelRecord:
    """A record with what its server says of the model, where it does not say it itself."""
    config = record.config
    said = {
        "model_format": entry.format,
        "model_family": entry.family,
        "model_families": (entry.family,) if entry.family else None,
        "model_type": entry.parameter_size,
        "file_type": entry.quantization,
        "context_length": entry.context_length,
        "embedding_length": entry.embedding_length,
        "capabilities": entry.capabilities,
    }
    missing = {key: value for key, value in said.items() if not getattr(config, key)}
    return msgspec.structs.replace(record, config=msgspec.structs.replace(config, **missing))
