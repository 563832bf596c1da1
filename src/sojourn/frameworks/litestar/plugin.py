"""SojournPlugin: gives a Litestar application its sessions."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.openapi.spec import Components, Reference, SecurityScheme
from litestar.plugins import CLIPlugin, InitPlugin
from litestar.types import Scopes

from sojourn.errors import ConfigurationError, SojournError
from sojourn.frameworks.litestar.config import SojournConfig
from sojourn.frameworks.litestar.csrf import session_csrf_token
from sojourn.frameworks.litestar.dependency import get_session
from sojourn.frameworks.litestar.encoding import with_session_encoder
from sojourn.frameworks.litestar.errors import answer_error, close_socket
from sojourn.frameworks.litestar.layer_check import check_layers
from sojourn.sessions import Sessions
from sojourn.web.header_transport import AUTHORIZATION

if TYPE_CHECKING:
    from typing import Unpack

    from sojourn.config import Options


class SojournPlugin(InitPlugin, CLIPlugin):
    """Gives each request and socket of an application its session, as ``request.session``.

    ``Litestar(route_handlers, plugins=[SojournPlugin()])``; before ``FlashPlugin``.
    It adds the command ``litestar sessions``, too.

    Args:
        config: a ``SojournConfig`` that is used elsewhere, too; None to create it from the options.
        dependency_key: the name of the dependency with which handlers receive the session; None for
            no such dependency.
        exclude_opt_key: see ``SojournConfig``.
        scopes: see ``SojournConfig``.
        user_key: see ``SojournConfig``.
        state: a dataclass, ``msgspec.Struct`` or pydantic model for ``session.state``.
        options: the fields of ``sojourn.config.Options``.

    Attributes:
        config: for ``SessionAuth``, ``TestClient(session_config=...)`` and single layers.
        sessions: the installation.

    Raises:
        ConfigurationError: an option is invalid, or options were given beside ``config``.
    """

    def __init__(
        self,
        config: SojournConfig | None = None,
        *,
        dependency_key: str | None = "session",
        exclude_opt_key: str = "skip_session",
        scopes: Scopes | None = None,
        user_key: str | None = "user_id",
        state: type | None = None,
        **options: Unpack[Options],
    ) -> None:
        if config is None:
            config = SojournConfig(
                exclude_opt_key=exclude_opt_key,
                scopes=scopes,
                user_key=user_key,
                state=state,
                **options,
            )
        elif options or state is not None:
            raise ConfigurationError(
                "SojournPlugin(config) takes no further options; give them to SojournConfig(...)"
            )
        self.config: SojournConfig = config
        self.sessions: Sessions[Any] = config.sessions
        self._dependency_key = dependency_key

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the middleware, the handlers for errors, the dependency and the OpenAPI scheme.

        Raises:
            ConfigurationError: the application has another ``SojournPlugin``. A session middleware
                of Litestar is refused when the application starts.
        """
        if any(isinstance(each, SojournPlugin) and each is not self for each in app_config.plugins):
            raise ConfigurationError(
                "this application has two SojournPlugins, expected one. Remove the second; for "
                "other sessions of one router, give it middleware=[SojournConfig(...).middleware] "
                "with another realm= or cookie="
            )
        app_config.on_startup.append(check_layers)
        app_config.middleware.insert(0, self.config.middleware)
        app_config.exception_handlers.setdefault(SojournError, answer_error)
        app_config.after_exception.append(close_socket)
        app_config.type_encoders = with_session_encoder(app_config.type_encoders)
        if self._dependency_key is not None:
            app_config.dependencies.setdefault(self._dependency_key, Provide(get_session))
        if app_config.template_config is not None:
            engine: Any = app_config.template_config.engine_instance
            engine.register_template_callable("session_csrf_token", session_csrf_token)
        if app_config.openapi_config is not None:
            app_config.openapi_config = copy(app_config.openapi_config)
            given = app_config.openapi_config.components
            others = given if isinstance(given, list) else [given]
            app_config.openapi_config.components = [*others, _components(self.config)]
        return app_config

    def on_cli_init(self, cli: Any) -> None:
        """Add the command ``litestar sessions``."""
        from sojourn.frameworks.litestar.commands import sessions_group

        cli.add_command(sessions_group(self.sessions))


def _components(config: SojournConfig) -> Components:
    """Return the OpenAPI security schemes: the cookie, as ``SessionAuth`` names it, and the header.

    The header may be ``Authorization``, whose scheme is named ``Session``.
    """
    schemes: dict[str, SecurityScheme | Reference] = {}
    headers = config.sessions.web.header_transport
    if headers is None or headers.cookies:
        schemes["sessionCookie"] = SecurityScheme(
            type="apiKey",
            name=config.key,
            security_scheme_in="cookie",
            description="Session cookie authentication.",
        )
    if headers is not None:
        name, _ = headers.request_header("")
        schemes["sessionHeader"] = (
            SecurityScheme(type="http", scheme="Session")
            if name.lower() == AUTHORIZATION.lower()
            else SecurityScheme(type="apiKey", name=name, security_scheme_in="header")
        )
    return Components(security_schemes=schemes)
