"""The table of what each backend can do, made from what the suites have found."""

from __future__ import annotations

from pathlib import Path

from corectl.testing import BackendSuite
from corectl.testing.results import Outcome, Subject, read_results

FOUND = Path(__file__).parent / "conformance.json"
"""Written by `pytest tests/kit --corectl-conformance tests/kit/conformance.json`."""

UNKNOWN = Outcome("not run", "has not been run")


def backends() -> list[Subject]:
    return [subject for subject in read_results(FOUND).subjects if subject.kind == BackendSuite.kind]


def backends_table() -> str:
    """What passes, what each backend cannot do and why, and what the capabilities mean."""
    found = backends()
    names = [f"`{subject.name}`" for subject in found]
    rows = [f"| Capability | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    reasons: list[str] = []
    for capability in BackendSuite.capabilities():
        cells = [_cell(subject, capability, reasons) for subject in found]
        rows.append(f"| {capability} | {' | '.join(cells)} |")
    engines = [f"- `{subject.name}`: {subject.details or 'not run'}" for subject in found]
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    meanings = ["| Capability | What is checked |", "|---|---|"]
    meanings += [
        f"| {name} | {' '.join(text.split())} |" for name, text in BackendSuite.capabilities().items()
    ]
    parts = [rows, ["What was run:"], engines, *([["Why not:"], notes] if notes else []), meanings]
    return "\n" + "\n\n".join("\n".join(part) for part in parts) + "\n\n"


def _cell(subject: Subject, capability: str, reasons: list[str]) -> str:
    outcome = subject.outcomes.get(capability, UNKNOWN)
    if outcome.state == "passes":
        return "yes"
    reason = f"`{subject.name}`: {outcome.why}"
    if reason not in reasons:
        reasons.append(reason)
    word = {"cannot": "no"}.get(outcome.state, outcome.state)
    return f"{word} ({reasons.index(reason) + 1})"
