"""The command line: a client of the server over HTTP, except for `serve`, which is the server.

Nothing heavy is imported here or by the modules that define commands: `corectl --help` has to be instant, at least
where nobody has installed plugins that may add commands.
"""

from __future__ import annotations


def main() -> None:
    """The console script. Ends the process with 0, or with 1 after one `Error: ...` line on stderr."""
    import sys

    from corectl.cli.root import run

    sys.exit(run(sys.argv[1:]))
