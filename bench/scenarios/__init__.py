"""What is measured side by side: a table for each."""

from __future__ import annotations

from bench.kit import Scenario
from bench.scenarios import (
    cold_load,
    company,
    first_token,
    open_streams,
    protocols,
    remote,
    reuse,
    server_cpu,
    throughput,
)

SCENARIOS: tuple[Scenario, ...] = (
    throughput.ONE,
    throughput.EIGHT,
    company.SCENARIO,
    reuse.SECOND_TURN,
    reuse.SHARED_PROMPT,
    first_token.SCENARIO,
    cold_load.SCENARIO,
    server_cpu.SCENARIO,
    protocols.SCENARIO,
    open_streams.SCENARIO,
    remote.SCENARIO,
)
