"""Every hook of corectl on one page: a plugin author's first and only stop.

A plugin is a module that says `corectl_api = 1`, implements some of these functions with `@corectl.hookimpl`, and is
named by an entry point of the group `corectl` (the entry's name is the plugin's name). A hook may leave out arguments
that it does not need.

There are two kinds of hook, never mixed:

- *Provider* hooks return a list of small descriptors. They are called once, when the plugins are loaded, in the
  server process, in the runner process and in `corectl plugins`; so they must be cheap: import an engine inside the
  descriptor's methods, not at the top of the module. Names must be unique; when two plugins offer one name, the later
  one (built-in plugins come first, then the order is that of their names) is broken and left out. So is one whose
  module or provider raises, or takes longer than 10 seconds.
- *Event* hooks are told that something has happened in the server. Each plugin has a thread of its own for them, on
  which they come in their order. Their results are ignored; one that raises is logged. While one takes longer than 10
  seconds, its plugin misses other events, and the log says so.

No hook is called per token. Everything here belongs to version 1 of the contract; a hook that is to go warns first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from corectl import hookspec

if TYPE_CHECKING:
    from corectl.cli.offered import CliCommand
    from corectl.config import Settings
    from corectl.hardware.device import HardwareProbe
    from corectl.model.conversion import Converter
    from corectl.model.formats import ModelFormat
    from corectl.output.dialect import Dialect
    from corectl.registry.base import LocalRegistry
    from corectl.registry.remote import RemoteRegistry
    from corectl.remote.backend import RemoteBackend
    from corectl.runner.engine import Backend
    from corectl.scheduler.policy import SchedulerPolicy
    from corectl.scheduler.state import LoadedModel, RequestSummary
    from corectl.search.provider import SearchProvider
    from corectl.server.frontend import Frontend


# Providers


@hookspec
def corectl_model_formats() -> list[ModelFormat]:
    """Formats of model files, and what a file's header says.

    A `ModelFormat` has `name` (such as `gguf`; backends name the formats that they load, and a model's record names
    its own), `claims(files)` (whether files are of this format), and `describe(files)` (family, sizes, capabilities,
    chat template). A `DetailedFormat` also has `details(files)`: metadata and tensors, for `/api/show`. See
    `corectl.model.formats`. Files are hostile: both must validate before they trust, raise
    `corectl.errors.BadModelFile` with a text that says what is wrong, and take under a second; after 10 it is given up.
    Called in the server process on a worker thread.
    """
    raise NotImplementedError


@hookspec
def corectl_registries() -> list[LocalRegistry]:
    """Places that offer models by name without a download, used where they lie.

    A `LocalRegistry` has `name`, `list()` and `find(name)`; see `corectl.registry.base`. Called in the server process
    on a worker thread, at each listing and each look-up that the store does not answer, so answers should be cached.
    An error is logged and counts as "offers nothing"; so does a call that takes longer than 10 seconds, and the
    registry is not asked again until it has returned.
    """
    raise NotImplementedError


@hookspec
def corectl_remote_registries() -> list[RemoteRegistry]:
    """Servers that models are pulled from, and pushed to.

    A `RemoteRegistry` has `name`, `hosts` and `session(origin, http)`; see `corectl.registry.remote`. The first by name
    that has a name's host among its `hosts` is used, else the first by name that has none. A session's coroutines run
    in the event loop of the transfers, on a thread of its own, and must not block it. They raise `corectl.errors`.
    What a registry says is hostile: sizes, digests, media types and addresses must be checked, and credentials go to
    the origin that they belong to, and nowhere else.
    """
    raise NotImplementedError


@hookspec
def corectl_converters() -> list[Converter]:
    """Ways from one model format to another, used when a model is created.

    A `Converter` has `name`, `source`, `target`, `why_not(files)`, and `convert(files, folder, done)` and
    `convert_adapter(...)`, which run in a process of their own; see `corectl.model.conversion`. Files are hostile.
    """
    raise NotImplementedError


@hookspec
def corectl_hardware_probes() -> list[HardwareProbe]:
    """What computes on this machine: CPUs and accelerators with their memory in bytes.

    A `HardwareProbe` has `name` and `devices()`; see `corectl.hardware.device`. Called in the server process on a
    worker thread before each load. A device that cannot be used is reported with the reason in `unusable`, and what to
    do about it in `remedy`. A probe that raises is logged and reports nothing. So is one that takes longer than 10
    seconds, and it is not asked again until it has returned.
    """
    raise NotImplementedError


@hookspec
def corectl_backends() -> list[Backend]:
    """Engines that load and run models.

    A `Backend` has `name`, `formats`, `availability()`, `estimate(...)` (server process; must not import an engine
    that takes seconds) and `load(...)` (runner process only: one process per loaded model, which a crash may take
    down without harm to the server). See `corectl.runner.engine` for units and errors.
    """
    raise NotImplementedError


@hookspec
def corectl_remote_backends() -> list[RemoteBackend]:
    """Other servers that run models, spoken to in whole requests.

    A `RemoteBackend` has `name`, `schemes` (of the addresses that are its own) and `connect(server)`, which gives the
    way to one server; see `corectl.remote.backend`. Of several with one scheme the first by name has it. All of it runs
    in the server's event loop and must not block; errors are `corectl.errors`. The server's key is for its own address
    only, and goes into no text.
    """
    raise NotImplementedError


@hookspec
def corectl_dialects() -> list[Dialect]:
    """How families of models write thoughts and tool calls.

    A `Dialect` has `name`, `aliases` (what a Modelfile's PARSER may call it), `claims(template)`, and for one request
    `shape(...)` and `reader(...)`; see `corectl.output.dialect`. Called in the runner process: `claims` when a
    template is first seen, the others once a request, on the thread that prepares requests. The one that the model's
    PARSER names is used, else the first by name that claims its template, else what can be learned from the template.
    A `claims` that raises or takes longer than 10 seconds counts as no; what else raises fails the request.
    """
    raise NotImplementedError


@hookspec
def corectl_frontends() -> list[Frontend]:
    """Protocols that clients speak.

    A `Frontend` has `name` and `routers(services)`, which is called once in the server process while the application
    is built and returns Litestar routers. A frontend decodes requests into `corectl.messages`, encodes events into
    replies, and does nothing else; see `corectl.server.frontend`. One that raises, that takes longer than 10 seconds,
    or that wants a route which another one has, is left out; the routes of built-in plugins come first.
    """
    raise NotImplementedError


@hookspec
def corectl_scheduler_policies() -> list[SchedulerPolicy]:
    """How the scheduler decides: which waiting request is next, which loaded model makes room, and where a model goes.

    A `SchedulerPolicy` has `name` and three pure functions, `next_request`, `evict` and `place`, from frozen values to
    values: no input or output, no clock, no logging. The first two run in the server's event loop and must return at
    once; `place` runs on a worker thread, for a load once for each size that is tried, for a plan some dozen times.
    The setting `scheduler_policy` names the one in use. One that raises fails the request that was decided on.
    """
    raise NotImplementedError


@hookspec
def corectl_search_providers() -> list[SearchProvider]:
    """Where to search the web.

    A `SearchProvider` has `name` and `search(query, max_results)`, and may have `fetch(url)`; see
    `corectl.search.provider`. Both are coroutines that run in the server's event loop. Frontends that search find them
    in `services.plugins.search_providers`. Errors are `corectl.errors`.
    """
    raise NotImplementedError


@hookspec
def corectl_cli_commands() -> list[CliCommand]:
    """Commands of the program `corectl`.

    A `CliCommand` has `name`, `help` (one line) and `make()`, which returns a click command; see
    `corectl.cli.offered`. `make` is called in the process of the command line, when somebody uses the command or asks
    for its help. Plugins are loaded there only for names that are not commands of corectl itself, and for the list of
    all commands; a plugin that offers such a name is broken.
    """
    raise NotImplementedError


# Events


@hookspec
def corectl_server_started(settings: Settings) -> None:
    """The server listens. `settings` are the effective ones."""


@hookspec
def corectl_server_stopping() -> None:
    """The server has stopped to take requests and is about to unload all models."""


@hookspec
def corectl_model_loaded(model: LoadedModel) -> None:
    """A runner has loaded a model and is ready."""


@hookspec
def corectl_model_unloaded(model: LoadedModel, reason: str) -> None:
    """A runner has ended.

    `reason` is `idle`, `stopped`, `evicted`, `reload`, `device lost`, `out of memory`, `shutdown`, or what a crash
    left.
    """


@hookspec
def corectl_request_finished(request: RequestSummary) -> None:
    """A request for a model has been answered, has failed or was cancelled, and has given its model back.

    `request` has its id and path, model, outcome, durations in seconds, tokens, and the codes of all that went another
    way than the client may think; see `corectl.scheduler.state.RequestSummary`. It never has what was asked or
    answered.
    """
