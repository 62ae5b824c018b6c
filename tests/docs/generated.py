"""The parts of the documentation that are made from the code. `python -m tests.docs.generated` writes them anew.

A generated part stands between `<!-- generated: WHAT -->` and `<!-- end -->`.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
from pathlib import Path
from typing import Any

from corectl import config, hookspecs
from corectl.cli.root import run
from corectl.scaffold.project import package_name, project
from tests.docs.blocks import PAGES
from tests.integrations import results
from tests.kit.table import conformance_tables

TUTORIAL_NAME = "babble"
"""The plugin that the tutorial makes."""

_SECTION = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def settings_table() -> str:
    """The table of all settings."""
    defaults = config.Settings()
    rows = ["| Setting | Variables | Default | Meaning |", "|---|---|---|---|"]
    for setting in config.SETTINGS:
        variables = ", ".join(f"`{name}`" for name in setting.variables) or "none"
        default = _shown(getattr(defaults, setting.name))
        rows.append(f"| `{setting.name}` | {variables} | {default} | {setting.help} |")
    return "\n".join(rows) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, Path):
        home = Path.home()
        return f"`~/{value.relative_to(home)}`" if value.is_relative_to(home) else f"`{value}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return (
        f"`{value:g}`"
        if isinstance(value, float)
        else f"`{value}`"
        if value not in ("", (), None)
        else "empty"
    )


def help_text(command: str) -> str:
    """What `--help` of a command prints, or of the program for an empty text."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert run([*command.split(), "--help"]) == 0
    return f"```text\n{output.getvalue()}```\n"


def scaffold_file(kind: str, path: str) -> str:
    """One file of the project that the tutorial makes."""
    text = project(TUTORIAL_NAME, kind)[path.replace("package/", f"{package_name(TUTORIAL_NAME)}/")]
    return f"```python\n{text}```\n"


def hook_functions() -> list[ast.FunctionDef]:
    """The hook specifications, in their order."""
    tree = ast.parse(inspect.getsource(hookspecs))
    return [node for node in tree.body if isinstance(node, ast.FunctionDef)]


def signature(function: ast.FunctionDef) -> str:
    """A function's `def` line, without the colon."""
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"def {function.name}({ast.unparse(function.args)}){returns}"


def hook_reference() -> str:
    """Signature and contract of every hook."""
    parts = []
    for function in hook_functions():
        parts.append(f"### `{function.name}`\n\n```python\n{signature(function)}: ...\n```\n")
        parts.append(f"{ast.get_docstring(function) or ''}\n")
    return "\n" + "\n".join(parts) + "\n"


def make(what: str) -> str:
    """One generated part. Raises KeyError for a name that there is not."""
    kind, _, rest = what.partition(" ")
    if kind == "help":
        return help_text(rest)
    if kind == "scaffold":
        return scaffold_file(*rest.split())
    if kind == "conformance":
        return conformance_tables(rest)
    return {"settings": settings_table, "hooks": hook_reference, "integrations": results.table}[what]()


def renewed(page: Path) -> str:
    """A page's text with all its generated parts made anew."""
    return _SECTION.sub(lambda found: found[1] + make(found[2]) + found[3], page.read_text("utf-8"))


def main() -> None:
    for page in PAGES:
        page.write_text(renewed(page), "utf-8")


if __name__ == "__main__":
    main()
