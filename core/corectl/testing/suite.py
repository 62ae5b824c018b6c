"""What all suites share: one test method for each capability, and what becomes of a capability that a plugin lacks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, ParamSpec

P = ParamSpec("P")

PREFIX = "test_"


class Suite:
    """The base of all suites. Each method `test_...` checks one capability, and is named after it.

    A subclass that is a test class says what is checked. What the plugin cannot do is in `cannot`: the capability's
    name (the method's, with spaces), and why not. The check is then another one: the plugin must refuse with a typed
    error, or say that it has no such thing. Nothing is left out silently.
    """

    kind: ClassVar[str] = ""
    """What plugins call it, such as `backend`."""

    cannot: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for capability, reason in cls.cannot.items():
            check = getattr(cls, PREFIX + capability.replace(" ", "_"), None)
            if check is None:
                raise TypeError(f"{cls.__name__}.cannot: there is no capability {capability!r}")
            if not getattr(check, "optional", False):
                raise TypeError(f"{cls.__name__}.cannot: every {cls.kind} must have {capability!r}")
            if not reason.strip():
                raise TypeError(f"{cls.__name__}.cannot: say why there is no {capability!r}")

    def subject(self) -> str:
        """The name of what is checked, as users know it."""
        raise NotImplementedError

    def details(self) -> str:
        """What else the results say of it, such as a version."""
        return ""

    @classmethod
    def capabilities(cls) -> dict[str, str]:
        """Each capability that is checked, in order, and what it promises."""
        found = {}
        for base in reversed(cls.__mro__):
            for name, check in vars(base).items():
                if name.startswith(PREFIX) and callable(check):
                    found[capability_of(name)] = (check.__doc__ or "").strip().split("\n\n")[0]
        return found


def capability_of(method: str) -> str:
    """The capability that a test method checks."""
    return method.removeprefix(PREFIX).replace("_", " ")


def optional(absent: Callable[..., None]) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Marks the check of a capability that a plugin may lack.

    For a suite that names the capability in `cannot`, `absent` is called instead, with the same arguments. It fails
    unless the plugin says that it has no such thing, or refuses it with a typed error.
    """

    def mark(check: Callable[P, None]) -> Callable[P, None]:
        capability = capability_of(check.__name__)

        @functools.wraps(check)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            suite = args[0]
            assert isinstance(suite, Suite)
            (absent if capability in suite.cannot else check)(*args, **kwargs)

        run.optional = True  # type: ignore[attr-defined]
        return run

    return mark
