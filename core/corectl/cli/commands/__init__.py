"""The commands, one module each or a small group in one, in the order in which the help lists them."""

from __future__ import annotations

from typing import Final

import click

from corectl.cli.commands.create import create
from corectl.cli.commands.hardware import hardware
from corectl.cli.commands.models import copy, list_models, remove
from corectl.cli.commands.plan import plan
from corectl.cli.commands.plugin_new import plugin
from corectl.cli.commands.plugins import plugins
from corectl.cli.commands.ps import ps, stop
from corectl.cli.commands.run import run
from corectl.cli.commands.serve import serve
from corectl.cli.commands.show import show
from corectl.cli.commands.transfer import pull, push
from corectl.cli.commands.verify import verify
from corectl.cli.commands.version import version

COMMANDS: Final[tuple[click.Command, ...]] = (
    serve,
    create,
    show,
    run,
    stop,
    pull,
    push,
    list_models,
    ps,
    plan,
    copy,
    remove,
    verify,
    hardware,
    plugins,
    plugin,
    version,
)
