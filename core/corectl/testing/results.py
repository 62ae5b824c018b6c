"""What suites have found, and the file in which it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

State = Literal["passes", "cannot", "fails", "not run"]

_WORST: tuple[State, ...] = ("fails", "cannot", "passes", "not run")


class Outcome(msgspec.Struct, frozen=True):
    """What became of one check. `why` says why not."""

    state: State
    why: str = ""


class Subject(msgspec.Struct, kw_only=True):
    """What was found about one plugin's object, by capability."""

    kind: str
    name: str
    details: str = ""
    outcomes: dict[str, Outcome] = {}

    def add(self, capability: str, outcome: Outcome) -> None:
        """Takes in an outcome; of several checks of one capability the worst counts."""
        known = self.outcomes.get(capability, outcome)
        self.outcomes[capability] = min(known, outcome, key=lambda item: _WORST.index(item.state))


class Results(msgspec.Struct):
    """By kind and name, in alphabetical order."""

    subjects: list[Subject] = []

    def subject(self, kind: str, name: str) -> Subject:
        """The entry of a subject, made when it is first asked for."""
        found = next((item for item in self.subjects if (item.kind, item.name) == (kind, name)), None)
        if found is None:
            found = Subject(kind=kind, name=name)
            self.subjects.append(found)
            self.subjects.sort(key=lambda item: (item.kind, item.name))
        return found

    def update(self, found: Results) -> None:
        """Takes in what a later run has found; what it did not run stays as it was."""
        for new in found.subjects:
            old = self.subject(new.kind, new.name)
            old.details = new.details or old.details
            for capability, outcome in new.outcomes.items():
                if outcome.state != "not run" or capability not in old.outcomes:
                    old.outcomes[capability] = outcome


def read_results(path: Path) -> Results:
    """What a file has; nothing if there is none."""
    return msgspec.json.decode(path.read_bytes(), type=Results) if path.exists() else Results()


def write_results(path: Path, results: Results) -> None:
    text = msgspec.json.format(msgspec.json.encode(results), indent=2)
    path.write_bytes(text + b"\n")
