"""What formats say of models, remembered for as long as their files stay as they are."""

from __future__ import annotations

import threading
from collections import OrderedDict

from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription, ModelFormat

_ENTRIES = 256
_MAX_TEMPLATE = 1 << 20
"""Characters. A description with a longer template is asked for again rather than kept."""

Key = tuple[object, ...]


class Descriptions:
    """Asks formats to describe models, and remembers some hundreds of answers. For any thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, ModelDescription] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, kind: ModelFormat, files: ModelFiles) -> ModelDescription:
        """As `kind.describe(files)`. A file counts as another one when its place, size or time of change is another."""
        key = _key(kind, files)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        found = kind.describe(files)
        if len(found.chat_template) <= _MAX_TEMPLATE:
            with self._lock:
                self._known[key] = found
                while len(self._known) > _ENTRIES:
                    self._known.popitem(last=False)
        return found


def _key(kind: ModelFormat, files: ModelFiles) -> Key:
    """Raises `OSError` for a file that is not there."""
    named = sorted({**files.named, "": files.weights}.items())
    states = ((name, path, path.stat()) for name, path in named)
    return (kind.name, *((name, path, state.st_size, state.st_mtime_ns) for name, path, state in states))
