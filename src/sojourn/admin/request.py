"""AdminRequest: a request to a page, read from an ASGI scope or a WSGI environ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from sojourn.admin.errors import ClientDisconnected, PageError
from sojourn.session import Session
from sojourn.web import asgi_scope, wsgi, wsgi_environ
from sojourn.web.asgi_scope import CONNECTION, Receive, Scope
from sojourn.web.wsgi_environ import Environ

#: A form of these pages has a few hundred bytes.
MAX_FORM_BYTES: Final = 65_536

_MAX_FIELDS: Final = 100

#: Digits of a Content-Length header that are read; int() refuses more than 4,300.
_MAX_DIGITS: Final = 18

#: The media type of forms.
FORM: Final = "application/x-www-form-urlencoded"


@dataclass(slots=True)
class AdminRequest:
    """A request to a page of an admin application or of a device page.

    Attributes:
        method: in upper case.
        path: below the mount, beginning with a slash; empty for the mount without its slash.
        mount: the path of the mount as the server reports it, without a slash at its end. Links are
            relative, so that they also work behind a proxy that removed a prefix.
        query_string: as sent.
        headers: by name in lower case.
        scheme: ``http`` or ``https``.
        session: of the visitor; None if the host application gives this path none.
        user: who is logged in; None if no user is.
        connection: the ASGI scope, the WSGI environ or the framework's request.
        body: as sent; of a longer one the first bytes, more than a form may have.
        query: the last value of each parameter; set by ``parse``.
        form: the last value of each field of a form; set by ``parse``, or by a framework's adapter.
        role: set by the application that admitted the visitor.
    """

    method: str
    path: str
    mount: str
    query_string: str
    headers: Mapping[str, str]
    scheme: str
    session: Session[Any] | None
    user: str | None
    connection: Any
    body: bytes = b""
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    role: str = ""

    @property
    def root(self) -> str:
        """The relative URL of the mount, such as ``../``, for links of this page."""
        return "../" * (self.path.count("/") - 1) or "./"

    @property
    def full_path(self) -> str:
        """The path with its mount, beginning with exactly one slash."""
        return _local_path(self.mount + self.path)

    @property
    def first_page(self) -> str:
        """The path of the mount, beginning with exactly one slash and ending with one."""
        return _local_path(f"{self.mount}/")

    @property
    def visitor(self) -> Session[Any]:
        """The session of the visitor.

        Raises:
            PageError: the host application gives this path none.
        """
        if self.session is None:
            raise missing_session()
        return self.session

    @property
    def body_length(self) -> int:
        """The length of the body, as far as it is known before it is read."""
        return read_length(self.headers.get("content-length", "")) or 0

    def check_length(self) -> None:
        """Refuse a body that is too long, also before it is read.

        Raises:
            PageError: it is.
        """
        if max(len(self.body), self.body_length) > MAX_FORM_BYTES:
            raise PageError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "The form is too large",
                f"A form of this page has at most {MAX_FORM_BYTES} bytes.",
            )

    def parse(self) -> None:
        """Set ``query`` and ``form``.

        Raises:
            PageError: they are too large, or the body is incomplete or not a form.
        """
        self.check_length()
        self.query = parse_fields(self.query_string)
        if self.body:
            if len(self.body) < self.body_length:
                raise PageError(
                    HTTPStatus.BAD_REQUEST,
                    "The form is incomplete",
                    "The connection broke while the form was sent. Nothing was changed. Send it "
                    "again.",
                )
            self.form = parse_form(self.body, self.headers.get("content-type", ""))


def _local_path(path: str) -> str:
    # "//host" and "/\\host" name other hosts.
    return "/" + path.lstrip("/\\")


def missing_session() -> PageError:
    """Return the error for a path without a session."""
    return PageError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "This page needs a session",
        "The application that this page is mounted in has no session for this path. Install "
        "sojourn on it with sojourn.install(app), and check that its options include= and exclude= "
        "do not leave the path out.",
    )


def read_length(text: str) -> int | None:
    """Return the value of a Content-Length header; None if it is no number."""
    if not text.isascii() or not text.isdecimal():
        return None
    return int(text[:_MAX_DIGITS])


def parse_form(body: bytes, content_type: str) -> dict[str, str]:
    """Return the last value of each field of a form.

    Raises:
        PageError: it is another kind of content or has too many fields.
    """
    if content_type.partition(";")[0].strip().lower() != FORM:
        raise PageError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "This kind of content is not accepted",
            f"This page accepts forms of the type {FORM}.",
        )
    return parse_fields(body.decode("ascii", "replace"))


def parse_fields(text: str) -> dict[str, str]:
    """Return the last value of each field of urlencoded text.

    Raises:
        PageError: it has too many fields.
    """
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise PageError(
            HTTPStatus.BAD_REQUEST,
            "The request has too many fields",
            f"This page accepts at most {_MAX_FIELDS} fields.",
        ) from None


# ASGI


def read_scope(scope: Scope) -> AdminRequest:
    """Return a request without its session and its body."""
    mount, path = _split_path(scope)
    headers: dict[str, list[str]] = {}
    for raw_name, raw_value in scope["headers"]:
        values = headers.setdefault(raw_name.decode("latin-1").lower(), [])
        values.append(raw_value.decode("latin-1"))
    return AdminRequest(
        method=scope["method"],
        path=path,
        mount=mount,
        query_string=scope.get("query_string", b"").decode("ascii", "replace"),
        headers={name: ", ".join(values) for name, values in headers.items()},
        scheme=scope.get("scheme", "http"),
        session=None,
        user=None,
        connection=scope,
    )


def _split_path(scope: Scope) -> tuple[str, str]:
    """Return the path of the mount and the path below it."""
    mount: str = scope.get("root_path", "").rstrip("/")
    if "litestar_app" in scope:
        # Litestar 2 leaves root_path as it is, and ends the path of a mount with a slash.
        full = unquote(scope.get("raw_path", b"").decode("latin-1"))
        path: str = scope["path"] if full.endswith("/") else scope["path"].rstrip("/")
        return full.removesuffix(path), path
    if mount and scope["path"] == mount:
        return mount, ""
    # Starlette's Mount appends its path to root_path and keeps that of the application beside it.
    # With `FastAPI(root_path="/shop")` behind a proxy that removes /shop, the path has no /shop.
    appended = mount.removeprefix(scope.get("app_root_path", mount))
    if appended and not _is_below(scope["path"], mount) and _is_below(scope["path"], appended):
        return mount, scope["path"].removeprefix(appended)
    return mount, asgi_scope.read_path(scope)


def _is_below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/")


async def load_scope_session(scope: Scope) -> Session[Any] | None:
    """Return the session of a request; load it if necessary; None if there is none.

    Raises:
        StoreUnavailable: the store failed.
    """
    exchange = scope.get(CONNECTION)
    found = scope.get("session") if exchange is None else await exchange.load()
    return usable_session(found)


async def receive_body(receive: Receive) -> bytes:
    """Return the body of a request; of a longer one the first bytes, more than a form may have.

    Raises:
        ClientDisconnected: the client disconnected before the end of the body.
    """
    body = bytearray()
    while len(body) <= MAX_FORM_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnected
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return bytes(body)


# WSGI


def read_environ(environ: Environ) -> AdminRequest:
    """Return a request without its session and its body."""
    headers = {
        name[5:].lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    headers["content-length"] = environ.get("CONTENT_LENGTH", "")
    mount: str = environ.get("SCRIPT_NAME", "").rstrip("/")
    return AdminRequest(
        method=environ["REQUEST_METHOD"],
        path=wsgi_environ.read_path(environ) if environ.get("PATH_INFO") or not mount else "",
        mount=mount.encode("latin-1", "replace").decode(errors="replace"),
        query_string=environ.get("QUERY_STRING", ""),
        headers=headers,
        scheme=environ["wsgi.url_scheme"],
        session=None,
        user=None,
        connection=environ,
    )


def load_environ_session(environ: Environ) -> Session[Any] | None:
    """Return the session of a request; load it if necessary; None if there is none.

    Raises:
        StoreUnavailable: the store failed.
    """
    if environ.get(wsgi.EXCHANGE) is None:
        return usable_session(environ.get(wsgi.SESSION))
    return usable_session(wsgi.get_session(environ))


async def read_body(environ: Environ) -> bytes:
    """Return the body of a request; of a longer one the first bytes, more than a form may have."""
    limit = MAX_FORM_BYTES + 1
    if not environ.get("wsgi.input_terminated"):
        try:
            limit = min(int(environ.get("CONTENT_LENGTH") or 0), limit)
        except ValueError:
            return b""
    body: bytes = environ["wsgi.input"].read(limit) if limit > 0 else b""
    return body


def usable_session(found: object) -> Session[Any] | None:
    """Return a session of sojourn; None for anything else."""
    return found if isinstance(found, Session) else None
