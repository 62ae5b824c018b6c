"""A dialect that cannot keep others from being asked."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Final

from corectl.deadline import Deadline
from corectl.messages import Template
from corectl.output.dialect import Dialect, OutputReader, OutputRequest, OutputShape

log = logging.getLogger(__name__)

_REMEMBERED: Final = 16


class BoundedDialect:
    """Asks the dialect of a plugin, once for each template, whether it claims it. One that fails to say does not.

    All dialects are asked about the template of every model, so one of them could stop all of them. What follows is
    asked only of the one that is used.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._deadline = Deadline(f"dialect {dialect.name}")
        self._claims: OrderedDict[Template, bool] = OrderedDict()

    @property
    def name(self) -> str:
        return self._dialect.name

    @property
    def aliases(self) -> tuple[str, ...]:
        return self._dialect.aliases

    def claims(self, template: Template) -> bool:
        if template not in self._claims:
            self._claims[template] = self._ask(template)
            if len(self._claims) > _REMEMBERED:
                self._claims.popitem(last=False)
        return self._claims[template]

    def _ask(self, template: Template) -> bool:
        try:
            return bool(self._deadline.call(self._dialect.claims, template))
        except Exception:
            log.exception("dialect %s does not say whether it claims a template", self.name)
            return False

    def shape(self, request: OutputRequest) -> OutputShape:
        return self._dialect.shape(request)

    def reader(self, request: OutputRequest) -> OutputReader:
        return self._dialect.reader(request)
