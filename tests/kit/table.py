"""The tables of what each backend can do, made from what the suites have found."""

from __future__ import annotations

from pathlib import Path

from corectl.testing import BackendSuite, RemoteSuite, Suite
from corectl.testing.results import Outcome, Subject, read_results

FOUND = Path(__file__).parent / "conformance.json"
"""Written by `pytest tests/kit --corectl-conformance tests/kit/conformance.json`."""

SUITES: tuple[type[Suite], ...] = (BackendSuite, RemoteSuite)
UNKNOWN = Outcome("not run", "has not been run")


def known(suite: type[Suite]) -> list[Subject]:
    """What has been found about all that a suite is for."""
    return [subject for subject in read_results(FOUND).subjects if subject.kind == suite.kind]


def conformance_tables(kind: str) -> str:
    """What passes, what each of a kind cannot do and why, and what the capabilities mean."""
    (suite,) = [suite for suite in SUITES if suite.kind == kind]
    found = known(suite)
    names = [f"`{subject.name}`" for subject in found]
    rows = [f"| Capability | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    reasons: list[str] = []
    for capability in suite.capabilities():
        cells = [_cell(subject, capability, reasons) for subject in found]
        rows.append(f"| {capability} | {' | '.join(cells)} |")
    run = [f"- `{subject.name}`: {subject.details}" for subject in found if subject.details]
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    meanings = ["| Capability | What is checked |", "|---|---|"]
    meanings += [f"| {name} | {' '.join(text.split())} |" for name, text in suite.capabilities().items()]
    parts = [rows]
    parts += [["Why not:"], notes] if notes else []
    parts += [["What was run:"], run] if run else []
    return "\n" + "\n\n".join("\n".join(part) for part in (*parts, meanings)) + "\n\n"


def _cell(subject: Subject, capability: str, reasons: list[str]) -> str:
    outcome = subject.outcomes.get(capability, UNKNOWN)
    if outcome.state == "passes":
        return "yes"
    reason = f"`{subject.name}`: {outcome.why}"
    if reason not in reasons:
        reasons.append(reason)
    word = {"cannot": "no"}.get(outcome.state, outcome.state)
    return f"{word} ({reasons.index(reason) + 1})"
