"""The environment of runner processes: the server's, and what an engine's memory needs."""

from __future__ import annotations

from collections.abc import Mapping

TUNABLES = "GLIBC_TUNABLES"
"""The variable with settings of glibc, `name=value` and colons between them. Other C libraries do not look at it."""

HUGE_PAGES = "glibc.malloc.hugetlb"
"""At 1, glibc asks for huge pages wherever it gets memory (2.35 and later), and the kernel gives them if it can."""


def runner_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """For the server, which starts a runner; what somebody has set already stays.

    An engine reads hundreds of megabytes for each token, and each page of them has to be found. In pages of 4 KiB a
    large key-value pool takes longer to be touched for the first time than all else of a load.
    """
    tunables = inherited.get(TUNABLES, "")
    if HUGE_PAGES in tunables:
        return dict(inherited)
    return {**inherited, TUNABLES: ":".join(filter(None, (tunables, f"{HUGE_PAGES}=1")))}
