"""xllamacpp's server as a process; run by the Python that has it: MODEL CELLS STREAMS THREADS PORT."""

from __future__ import annotations

import importlib
import signal
import sys


def main() -> None:
    """Serves until it is ended."""
    xllamacpp = importlib.import_module("xllamacpp")
    model, *numbers = sys.argv[1:]
    cells, streams, threads, port = map(int, numbers)
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel, params.kv_unified = cells, streams, True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.port = port
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
