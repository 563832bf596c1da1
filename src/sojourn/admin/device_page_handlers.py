"""DevicePage: the page on which users see their own sessions and log out other devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import msgspec
from jinja2 import ChoiceLoader, Environment, FileSystemLoader

from sojourn._core.durations import Duration
from sojourn.admin.csrf import FIELD
from sojourn.admin.device_names import name_device
from sojourn.admin.device_page_texts import check_texts
from sojourn.admin.errors import PageError
from sojourn.admin.formatting import relative_time
from sojourn.admin.login_redirect import login_redirect
from sojourn.admin.request import AdminRequest
from sojourn.admin.response import AdminResponse, redirect
from sojourn.admin.routes import Route, Routes
from sojourn.admin.stylesheet import Stylesheet
from sojourn.admin.templating import load_environment
from sojourn.admin.web_application import WebApplication
from sojourn.errors import RecentAuthRequired
from sojourn.sessions import SessionInfo, Sessions

Texts = Mapping[str, str] | Callable[[AdminRequest], Mapping[str, str]]
"""Texts in place of the English ones, or a function that returns them for a request."""

FormatTime = Callable[[datetime, AdminRequest], str]

#: Devices on a page; a user with more logs out all others at once.
MAX_SHOWN: Final = 100

#: The path of the JSON routes.
_JSON_PATH: Final = "/sessions"

_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"

#: A 401 response names a scheme (RFC 9110 15.5.2).
_CHALLENGE: Final = (("www-authenticate", "Session"),)

#: The ``done`` parameter of the list, after a logout.
_NOTICES: Final = {"device": "done_device", "others": "done_others"}


class Device(msgspec.Struct, frozen=True):
    """A session as shown to its user; the form of the JSON routes.

    Attributes:
        id: the public session ID, 32 hex digits.
        name: of the browser and the device; empty if unknown.
        address: from which it logged in; None if it was not recorded.
        created_at, seen_at, expires_at: UTC.
        authenticated_at: the last login, UTC; None if unknown.
        connections: open ones in the process that answers.
        current: whether it is the session of this request.
    """

    id: str
    name: str
    address: str | None
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    authenticated_at: datetime | None
    connections: int
    current: bool


class DeviceList(msgspec.Struct, frozen=True):
    """The body of ``GET …/sessions``.

    Attributes:
        sessions: that of this request first, then by last activity, newest first.
        more: the number of further sessions.
        csrf_token: for the header ``X-CSRF-Token`` of the DELETE requests.
    """

    sessions: list[Device]
    more: int
    csrf_token: str


class DevicePage:
    """The handlers of the device page.

    Args:
        sessions: of the application.
        login_url: where visitors who are not logged in are sent; None to answer 401.
        require_recent: the greatest age of a login that may log out other devices; None for any.
        texts: in place of the English ones.
        templates: a folder with templates that replace those of the package; None for none.
        stylesheet: the path of a further stylesheet; None for none.
        format_time: returns an instant as text; None for English.
    """

    def __init__(
        self,
        sessions: Sessions[Any],
        *,
        login_url: str | None,
        require_recent: Duration | None,
        texts: Texts,
        templates: Path | None,
        stylesheet: str | None,
        format_time: FormatTime | None,
    ) -> None:
        self._sessions = sessions
        self._login_url = login_url
        self._require_recent = require_recent
        self._find_texts = texts if callable(texts) else None
        self._texts = check_texts({} if callable(texts) else texts)
        self._environment = _load_templates(templates)
        self._style = _load_stylesheet()
        self._brand = stylesheet
        self._format_time = format_time or _relative_to_now

    def application(self) -> WebApplication:
        """Return the application of these pages."""
        return WebApplication(
            self._sessions.web,
            Routes(
                Route("/", {"GET": self.show_devices}),
                Route("/log-out/{id}", {"GET": self.show_log_out_one, "POST": self.log_out_one}),
                Route(
                    "/log-out-others",
                    {"GET": self.show_log_out_others, "POST": self.log_out_others},
                ),
                Route(_JSON_PATH, {"GET": self.list_json, "DELETE": self.delete_others}),
                Route(f"{_JSON_PATH}/{{id}}", {"DELETE": self.delete_one}),
            ),
            admit=self.admit,
            show_error=self.show_error,
            stylesheet=self._style,
        )

    # Visitors

    async def admit(self, request: AdminRequest) -> AdminResponse | None:
        """Send visitors who are not logged in to the login page, or refuse them.

        Raises:
            PageError: the visitor is not logged in.
        """
        if request.visitor.user is not None:
            return None
        if self._login_url is not None and not _is_json(request):
            return login_redirect(self._login_url, request)
        raise self._error(request, HTTPStatus.UNAUTHORIZED, headers=_CHALLENGE)

    def _check_recent(self, request: AdminRequest) -> AdminResponse | None:
        """Return a redirect to the login page if the login is too old; None if it is not.

        Raises:
            PageError: it is too old, and there is no login page or the client is a script.
        """
        if self._require_recent is None:
            return None
        try:
            request.visitor.require_recent(self._require_recent)
        except RecentAuthRequired as error:
            if self._login_url is not None and not _is_json(request):
                return login_redirect(self._login_url, request)
            challenge = (  # RFC 9470 3
                f'Session error="insufficient_user_authentication", max_age="{int(error.limit)}"'
            )
            raise self._error(
                request,
                HTTPStatus.UNAUTHORIZED,
                "_recent",
                headers=(("www-authenticate", challenge),),
            ) from error
        return None

    # Pages

    async def show_devices(self, request: AdminRequest) -> AdminResponse:
        """Show the devices of the visitor."""
        devices, more = await self._list(request)
        others = len(devices) + more - 1
        done = request.query.get("done", "")
        if done == "others" and others > 0:  # an old address, or one that another site gave
            done = ""
        return self._render(
            request,
            "list.html",
            devices=devices,
            more=more,
            others=others,
            notice=_NOTICES.get(done),
        )

    async def show_log_out_one(self, request: AdminRequest, id: str) -> AdminResponse:  # noqa: A002 - a part of the path
        """Show the form that logs out one device."""
        device = await self._find(request, id)
        return self._check_recent(request) or self._render(
            request, "confirm.html", device=device, question="confirm_device", button="log_out"
        )

    async def log_out_one(self, request: AdminRequest, id: str) -> AdminResponse:  # noqa: A002 - a part of the path
        """Log out one device and show the list."""
        response = self._check_recent(request)
        if response is not None:
            return response
        await self._revoke(request, await self._find(request, id))
        return redirect("../?done=device")

    async def show_log_out_others(self, request: AdminRequest) -> AdminResponse:
        """Show the form that logs out all other devices."""
        return self._check_recent(request) or self._render(
            request,
            "confirm.html",
            device=None,
            question="confirm_others",
            button="log_out_others",
        )

    async def log_out_others(self, request: AdminRequest) -> AdminResponse:
        """Log out all other devices and show the list."""
        response = self._check_recent(request)
        if response is not None:
            return response
        await self._revoke_others(request)
        return redirect("./?done=others")

    # JSON

    async def list_json(self, request: AdminRequest) -> AdminResponse:
        """Return the devices of the visitor."""
        devices, more = await self._list(request)
        found = DeviceList(devices, more, request.visitor.csrf_token)
        return AdminResponse(HTTPStatus.OK, msgspec.json.encode(found), _JSON)

    async def delete_one(self, request: AdminRequest, id: str) -> AdminResponse:  # noqa: A002 - a part of the path
        """Log out one device."""
        self._check_recent(request)
        await self._revoke(request, await self._find(request, id))
        return AdminResponse(HTTPStatus.NO_CONTENT, content_type="")

    async def delete_others(self, request: AdminRequest) -> AdminResponse:
        """Log out all other devices; return how many there were."""
        self._check_recent(request)
        revoked = await self._revoke_others(request)
        return AdminResponse(HTTPStatus.OK, msgspec.json.encode({"revoked": revoked}), _JSON)

    # Sessions

    async def _list(self, request: AdminRequest) -> tuple[list[Device], int]:
        """Return the devices to show and the number of further ones."""
        own = request.visitor.id
        infos = await self._sessions.alist_user(_user(request))
        infos.sort(key=lambda info: (info.id != own, -info.seen_at.timestamp()))
        # Only these are named: a new User-Agent takes more than a millisecond.
        devices = [_device(info, own) for info in infos[:MAX_SHOWN]]
        return devices, len(infos) - len(devices)

    async def _find(self, request: AdminRequest, session_id: str) -> Device:
        """Return another device of the visitor.

        Raises:
            PageError: 404 for the session of another user as for one that does not exist; 409 for
                the session of the request.
        """
        info = await self._sessions.aget(session_id)
        if info is None or info.user != _user(request):
            raise self._error(request, HTTPStatus.NOT_FOUND)
        if info.id == request.visitor.id:
            raise self._error(request, HTTPStatus.CONFLICT)
        return _device(info, request.visitor.id)

    async def _revoke(self, request: AdminRequest, device: Device) -> None:
        reason = self._texts_for(request)["reason"]
        if not await self._sessions.arevoke(device.id, reason=reason, actor=_user(request)):
            raise self._error(request, HTTPStatus.NOT_FOUND)  # it has ended in the meantime

    async def _revoke_others(self, request: AdminRequest) -> int:
        return await self._sessions.arevoke_user(
            _user(request),
            keep=request.visitor.id,
            reason=self._texts_for(request)["reason"],
            actor=_user(request),
        )

    # Responses

    def show_error(self, request: AdminRequest, error: PageError) -> AdminResponse:
        """Return the page of an error, or problem details (RFC 9457) to a script."""
        title, detail = error.title, error.detail
        if not isinstance(error, _OwnError) and not _is_missing_session(error):
            # The detail of an outage names the store's address, which is not for users.
            texts, name = self._texts_for(request), f"error_{error.status.value}"
            title = texts.get(name) or title
            detail = texts.get(f"{name}_detail") or detail
        if _is_json(request):
            problem = {"type": "about:blank", "title": title, "status": error.status.value}
            body = msgspec.json.encode({**problem, "detail": detail})
            return AdminResponse(error.status, body, _PROBLEM, error.headers)
        return self._render(
            request,
            "error.html",
            status=error.status,
            headers=error.headers,
            heading=title,
            detail=detail,
            shows_devices=error.status
            not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.SERVICE_UNAVAILABLE),
        )

    def _error(
        self,
        request: AdminRequest,
        status: HTTPStatus,
        kind: str = "",
        *,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> PageError:
        texts = self._texts_for(request)
        name = f"error_{status.value}{kind}"
        return _OwnError(status, texts[name], texts[f"{name}_detail"], headers)

    def _texts_for(self, request: AdminRequest) -> Mapping[str, str]:
        if self._find_texts is None:
            return self._texts
        return check_texts(self._find_texts(request))

    def _render(
        self,
        request: AdminRequest,
        template: str,
        *,
        status: HTTPStatus = HTTPStatus.OK,
        headers: Sequence[tuple[str, str]] = (),
        **values: object,
    ) -> AdminResponse:
        text = self._environment.get_template(f"device_page/{template}").render(
            request=request,
            t=self._texts_for(request),
            format_time=lambda instant: self._format_time(instant, request),
            stylesheet=self._style.name,
            brand=self._brand,
            csrf_field=FIELD,
            **values,
        )
        return AdminResponse(status, text.encode(), headers=tuple(headers))


class _OwnError(PageError):
    """An error with texts of the device page."""


def _is_missing_session(error: PageError) -> bool:
    """Return whether an error states that the page has no session."""
    return error.status == HTTPStatus.SERVICE_UNAVAILABLE and not error.headers


def _is_json(request: AdminRequest) -> bool:
    return request.path == _JSON_PATH or request.path.startswith(f"{_JSON_PATH}/")


def _user(request: AdminRequest) -> str:
    """Return whose sessions are shown: the user of the session.

    Not ``request.user``: a framework with a login of its own puts a name there, which may be the
    session's identifier of another user.
    """
    return request.visitor.require_user()


def _device(info: SessionInfo, own: str) -> Device:
    browser = info.labels.get("browser", "")
    return Device(
        id=info.id,
        name=str(name_device(browser)) if browser else "",
        address=info.labels.get("address"),
        created_at=info.created_at,
        seen_at=info.seen_at,
        expires_at=info.expires_at,
        authenticated_at=info.authenticated_at,
        connections=info.connections,
        current=info.id == own,
    )


def _relative_to_now(instant: datetime, _: AdminRequest) -> str:
    return relative_time(instant, datetime.now(UTC))


def _load_templates(folder: Path | None) -> Environment:
    environment = load_environment()
    if folder is None or environment.loader is None:
        return environment
    return environment.overlay(loader=ChoiceLoader([FileSystemLoader(folder), environment.loader]))


def _load_stylesheet() -> Stylesheet:
    static = files("sojourn.admin").joinpath("static")
    names = ("admin.css", "device_page.css")
    return Stylesheet(b"\n".join(static.joinpath(name).read_bytes() for name in names))
