"""A model format that cannot keep others from being asked, or a request waiting for ever."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from corectl.deadline import Deadline, Overdue, described
from corectl.errors import BadModelFile, CorectlError, LoadFailed
from corectl.model.files import ModelFiles
from corectl.model.formats import DetailedFormat, ModelDescription, ModelDetails, ModelFormat

T = TypeVar("T")

log = logging.getLogger(__name__)


class BoundedFormat:
    """Asks the model format of a plugin. For worker threads; see `corectl.model.formats.ModelFormat`."""

    def __init__(self, kind: ModelFormat) -> None:
        self._kind = kind
        self._deadline = Deadline(f"model format {kind.name}")

    @property
    def name(self) -> str:
        return self._kind.name

    def claims(self, files: ModelFiles) -> bool:
        """Whether these files are its own. One that fails to say does not claim them."""
        try:
            return bool(self._deadline.call(self._kind.claims, files))
        except Exception:
            log.exception("model format %s does not say whether it claims files", self.name)
            return False

    def describe(self, files: ModelFiles) -> ModelDescription:
        """Raises `BadModelFile`, and `LoadFailed` where it takes too long."""
        return self._asked(self._kind.describe, files)

    def details(self, files: ModelFiles) -> ModelDetails:
        """Empty where the plugin tells none. Raises as `describe`."""
        kind = self._kind
        return self._asked(kind.details, files) if isinstance(kind, DetailedFormat) else ModelDetails()

    def _asked(self, question: Callable[[ModelFiles], T], files: ModelFiles) -> T:
        try:
            return self._deadline.call(question, files)
        except Overdue as exc:
            log.error("%s; models of this format cannot be used until it does", exc)
            raise LoadFailed(str(exc)) from exc
        except (CorectlError, OSError):
            raise
        except Exception as exc:
            log.exception("model format %s cannot describe a model", self.name)
            raise BadModelFile(f"the model cannot be read as {self.name}: {described(exc)}") from exc
