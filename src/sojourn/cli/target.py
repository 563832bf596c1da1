"""Target: the installation that a command works on, from the global options or an application."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Collection, Coroutine
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, TypeVar, cast
from urllib.parse import unquote, urlsplit

import click

from sojourn.errors import ConfigurationError

if TYPE_CHECKING:
    import asyncio

    from rich.console import Console

    from sojourn.config import Options
    from sojourn.sessions import Sessions

T = TypeVar("T")

FindInstallation = Callable[[Any], "Sessions[Any]"]

#: The default of the option ``store``; a test compares them. Importing ``config`` would load the
#: whole library for ``sojourn secret new``.
DEFAULT_STORE: Final = "sqlite:///.sojourn/sessions.db"

DEFAULT_REALM: Final = "default"

#: A wrong path may name a large file, or an endless device.
MAX_SECRET_FILE_BYTES: Final = 65_536

_STORE_VARIABLE: Final = "SOJOURN_STORE"
_SECRET_VARIABLE: Final = "SOJOURN_SECRET"  # noqa: S105 - the name of a variable

#: Columns of a table that is written to a file or a pipe: rich would cut it at 80.
_PIPE_WIDTH: Final = 10_000


class Target:
    """The installation that a command works on; commands receive it as click's context object.

    Args:
        find_installation: returns the ``Sessions`` of an application; None if ``--app`` is not
            supported.
        open_installation: returns the ``Sessions`` and the application of a framework's command,
            such as ``flask sessions``; None if options choose the installation.

    Attributes:
        app: the application; None without ``--app``.
        app_name: ``module:app``; None if not given.
        is_json: whether the command prints JSON.
        realm: the namespace; None for that of the application, or the default.
        secret_file: None if not given.
        url: of the store, with its password; None if not given. Show ``store_url`` instead.
    """

    def __init__(
        self,
        find_installation: FindInstallation | None = None,
        *,
        open_installation: Callable[[], tuple[Sessions[Any], Any]] | None = None,
    ) -> None:
        self._find_installation = find_installation
        self._open_installation = open_installation
        self._opened: Sessions[Any] | None = None
        self._runner: asyncio.Runner | None = None
        self._app: Any = None
        self.app_name: str | None = None
        self.is_json: bool = False
        self.realm: str | None = None
        self.secret_file: Path | None = None
        self.url: str | None = None

    @property
    def is_configurable(self) -> bool:
        """Whether options choose the installation; False inside of a framework's command."""
        return self._open_installation is None

    @property
    def is_of_application(self) -> bool:
        """Whether an application has configured the installation."""
        return self._open_installation is not None or self.app_name is not None

    @property
    def app(self) -> Any:
        """The application of ``--app`` or of the framework's command; None without one.

        Raises:
            ConfigurationError: it cannot be imported.
        """
        if self._app is None and self.app_name is not None:
            self._app = _import_application(self.app_name)
        elif self._app is None and self._open_installation is not None:
            self._opened, self._app = self._open_installation()
        return self._app

    @property
    def installation(self) -> Sessions[Any]:
        """The installation, whatever its store is; opened at the first access.

        Raises:
            ConfigurationError: the options are wrong, or the store cannot be opened.
        """
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    @property
    def sessions(self) -> Sessions[Any]:
        """The installation, whose sessions the command can reach; opened at the first access.

        Raises:
            ConfigurationError: the options are wrong, the store cannot be opened, or it is in the
                memory of the application that runs.
        """
        sessions = self.installation
        if self.app_name is not None and _is_memory(sessions):
            raise ConfigurationError(
                f"--app {self.app_name} has the store memory://, which is in the memory of the "
                "application that runs, where a command cannot reach it; expected another store"
            )
        return sessions

    @property
    def store_url(self) -> str:
        """The store for display, without a password."""
        from sojourn.stores.urls import without_password

        if self.is_of_application:
            return repr(self.installation.store)
        return without_password(self.effective_url)

    @property
    def effective_url(self) -> str:
        """The URL of the store with its password: of ``--store``, the environment or the default.

        Only for opening the store; show ``store_url``.
        """
        return self.url or os.environ.get(_STORE_VARIABLE) or DEFAULT_STORE

    @property
    def secret(self) -> tuple[bytes, ...] | None:
        """The secrets of ``--secret-file`` or ``SOJOURN_SECRET``, newest first; None without them.

        Raises:
            ConfigurationError: the file cannot be read, or a secret is weak.
        """
        from sojourn._crypto.secret_key import check_secrets, split_secrets

        if self.secret_file is not None:
            return read_secret_file(self.secret_file)
        value = os.environ.get(_SECRET_VARIABLE)
        if not value:
            return None
        data = value.encode(errors="surrogateescape")
        return check_secrets(split_secrets(data), source=_SECRET_VARIABLE)

    @property
    def options(self) -> Options:
        """The options for ``Sessions``; they contain secrets and passwords."""
        options: dict[str, Any] = {"store": self.effective_url, "secret": self.secret}
        if self.realm is not None:
            options["realm"] = self.realm
        return cast("Options", {name: value for name, value in options.items() if value})

    @property
    def is_terminal(self) -> bool:
        """Whether the standard output is a terminal. Asked before ``console``, which costs time."""
        return sys.stdout.isatty()

    @cached_property
    def console(self) -> Console:
        """The console of the standard output. Escape foreign text with ``formatting.printable``."""
        return make_console(stderr=False)

    @cached_property
    def error_console(self) -> Console:
        """The console of the standard error, for progress and messages."""
        return make_console(stderr=True)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of ``sessions`` or its store, also if the store needs an event loop.

        All coroutines of a command run in the same loop, because an asyncio client belongs to one.
        """
        from sojourn._core.concurrency import run
        from sojourn.store import RequiresEventLoop

        store = self.sessions.store
        if not isinstance(store, RequiresEventLoop) or store.requires_event_loop() is None:
            return run(coroutine)
        return self.run_in_loop(coroutine)

    def run_in_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop of the command."""
        import asyncio

        if self._runner is None:
            self._runner = asyncio.Runner()

        async def result() -> T:  # the runner refuses the coroutines of public verbs
            return await coroutine

        return self._runner.run(result())

    def close(self) -> None:
        """Close what the command has opened; the installation of an application stays open."""
        if self._opened is not None and not self.is_of_application:
            self._opened.close()
        if self._runner is not None:
            self._runner.close()

    def _open(self) -> Sessions[Any]:
        from sojourn.sessions import Sessions

        if self._open_installation is not None:
            self._opened, self._app = self._open_installation()
            return self._opened
        if self.app_name is not None:
            return self._installation(self.app)
        url = self.effective_url
        if url.startswith("memory:"):
            raise ConfigurationError(
                "memory:// is in the memory of an application, where a command cannot reach it; "
                "expected the URL of another store"
            )
        self._check_file(url)
        if self.secret is None and _is_shared(url):
            raise ConfigurationError(
                f"{self.store_url} expects the secret of its applications, found none; set "
                f"{_SECRET_VARIABLE}, or give --secret-file or --app"
            )
        sessions: Sessions[Any] = Sessions(**self.options)
        return sessions

    def _installation(self, app: Any) -> Sessions[Any]:
        from sojourn.sessions import Sessions

        if isinstance(app, Sessions):
            return app
        if self._find_installation is None:
            raise ConfigurationError("--app is not supported here; give --store")
        return self._find_installation(app)

    def _check_file(self, url: str) -> None:
        """Refuse to create a SQLite database, its tables, or a secret for one that has another."""
        path = sqlite_path(url)
        if path is None or not path.name:  # the store says what is wrong with the URL
            return
        if not path.exists():
            raise ConfigurationError(
                f"{self.store_url} expects a database, found none at {path.absolute()}; check the "
                "path and the folder, or start the application once"
            )
        secret = path.with_name(path.name + ".secret")
        if self.secret is None and not secret.exists():
            raise ConfigurationError(
                f"{self.store_url} expects the secret of its application, found none beside the "
                f"database; set {_SECRET_VARIABLE}, or give --secret-file or --app"
            )
        from sojourn.stores.sqlite.inspection import list_realms

        realm, realms = self.realm or DEFAULT_REALM, list_realms(path)
        if realms and realm not in realms:
            raise ConfigurationError(
                f"{self.store_url} expects the tables of realm {realm!r}, found those of "
                f"{', '.join(map(repr, realms))}; correct --realm"
            )


def make_console(*, stderr: bool) -> Console:
    """Return a console that has no colours with NO_COLOR and cuts nothing in a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:  # rich would end the process with the exit code 1
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    return PipeConsole(
        stderr=stderr,
        highlight=False,
        emoji=False,
        width=_width(stream),
    )


def _width(stream: TextIO) -> int | None:
    """Return the columns of a console; None for those of the terminal."""
    columns = os.environ.get("COLUMNS")
    if columns == "0":  # of a terminal without a size; rich would print nothing
        return shutil.get_terminal_size().columns
    return None if stream.isatty() or columns is not None else _PIPE_WIDTH


def read_secret_file(path: Path) -> tuple[bytes, ...]:
    """Return the secrets in a file, newest first; commas or lines separate them.

    Raises:
        ConfigurationError: the file cannot be read, or a secret is weak.
    """
    from sojourn._crypto.secret_key import check_secrets, split_secrets

    try:
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"the secret file {path} cannot be read: {error.strerror}"
        ) from error
    if len(data) > MAX_SECRET_FILE_BYTES:  # such as an endless device
        raise ConfigurationError(
            f"the secret file {path} has more than {MAX_SECRET_FILE_BYTES:,} bytes; expected "
            "secrets, separated by commas or lines"
        )
    return check_secrets(split_secrets(data), source=f"the secret file {path}")


def sqlite_path(url: str) -> Path | None:
    """Return the path in a SQLite URL; None for another URL."""
    if not url.startswith("sqlite:///"):
        return None
    return Path(unquote(urlsplit(url).path.removeprefix("/")))


def _is_memory(sessions: Sessions[Any]) -> bool:
    from sojourn.stores.memory import MemoryStore

    return isinstance(sessions.config.store, MemoryStore)


def _is_shared(url: str) -> bool:
    return not url.startswith(("sqlite:", "memory:"))


def _import_application(name: str) -> Any:
    module_name, separator, attributes = name.partition(":")
    if not separator or not module_name or not attributes:
        raise ConfigurationError(f"--app expects module:app, such as main:app, found {name!r}")
    folder = str(Path.cwd())
    if folder not in sys.path:  # as uvicorn and gunicorn do
        sys.path.insert(0, folder)
    try:
        # What the application prints must not become a part of a JSON document.
        with contextlib.redirect_stdout(sys.stderr):
            found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"--app {name}: {module_name} needs {error.name}, which is not installed"
            ) from error
        raise ConfigurationError(
            f"--app {name}: there is no module {module_name!r} in {folder} or among the installed "
            "packages"
        ) from error
    except ConfigurationError as error:
        raise ConfigurationError(f"--app {name}: {message_without_secret(error)}") from error
    except (Exception, SystemExit) as error:  # the application's own code runs here
        raise ConfigurationError(
            f"--app {name}: importing {module_name} raised {type(error).__qualname__}; run "
            f"`python -c 'import {module_name}'` to see why"
        ) from error
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise ConfigurationError(f"--app {name}: {module_name} has no {attributes!r}")
        found = getattr(found, attribute)
    return found


def message_without_secret(error: ConfigurationError) -> str:
    """Return the message without the new secret at its end, which does not belong into a log."""
    return str(error).partition("Here is a new one")[0].partition("\n\n")[0].strip()


class TargetCommand(click.Command):
    """A command with the options that choose the target, and ``--json``.

    Each may stand before or after the name of the command.

    Args:
        shared: names of the shared options that it has, as attributes of ``Target``; None for all.
    """

    def __init__(self, *args: Any, shared: Collection[str] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shared = shared

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own parameters and the shared ones."""
        params = super().get_params(ctx)
        own = {name for param in params for name in param.opts}
        shared = [each for each in shared_options(ctx) if own.isdisjoint(each.opts)]
        if self._shared is not None:
            shared = [each for each in shared if each.name in self._shared]
        return [*params, *shared]


def shared_options(ctx: click.Context) -> list[click.Parameter]:
    """Return the options that every command has."""
    target = ctx.find_object(Target)
    if target is not None and not target.is_configurable:
        return [_json_option()]
    return [*_target_options(), _json_option()]


def _target_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--store", "url"],
            metavar="URL",
            expose_value=False,
            callback=_set,
            help=f"The store. Default: {_STORE_VARIABLE}, or {DEFAULT_STORE}.",
        ),
        click.Option(
            ["--secret-file"],
            type=click.Path(path_type=Path, dir_okay=False),
            expose_value=False,
            callback=_set,
            help=f"A file with the application's secret. Default: {_SECRET_VARIABLE}, or the "
            "secret beside a SQLite database.",
        ),
        click.Option(
            ["--realm"],
            expose_value=False,
            callback=_set,
            help="The realm of the installation, if it has one.",
        ),
        click.Option(
            ["--app", "app_name"],
            metavar="MODULE:APP",
            expose_value=False,
            callback=_set,
            help="Take store, secret and realm from an application, or from a Sessions object.",
        ),
    ]


def _json_option() -> click.Option:
    return click.Option(
        ["--json", "is_json"],
        is_flag=True,
        expose_value=False,
        callback=_set,
        help="Print JSON instead of text.",
    )


def _set(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    target = ctx.find_object(Target)
    if target is None or value in (None, False) or param.name is None:
        return
    if value in ("", Path()):  # such as "$STORE" with a variable that is not set
        raise click.BadParameter("expected a value, found an empty text", ctx, param)
    setattr(target, param.name, value)
    if target.app_name is not None and (target.url or target.realm or target.secret_file):
        raise click.UsageError(
            "--app names the installation: leave out --store, --secret-file and --realm", ctx
        )
