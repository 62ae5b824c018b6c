"""`python -m corectl_llamacpp`: what ggml has found here, as one line of JSON."""

from __future__ import annotations

import sys

import msgspec

from corectl_llamacpp.build import installed

if __name__ == "__main__":
    build = installed()
    if build is None:
        sys.exit("llama-cpp-python is not installed")

    from corectl_llamacpp import ggml
    from corectl_llamacpp.seen import Seen

    ggml.start(build.folders)
    devices = tuple(msgspec.structs.replace(device, token=0) for device in ggml.devices())
    sys.stdout.write(f"{msgspec.json.encode(Seen(devices, ggml.features())).decode()}\n")
