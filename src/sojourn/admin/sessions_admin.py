"""SessionsAdmin: the pages with which administrators search and revoke sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Literal

from sojourn.admin.awaitables import resolve
from sojourn.admin.confirmation import (
    TYPED_DIGITS,
    Confirmation,
    phrase_of_label,
    phrase_of_user,
)
from sojourn.admin.errors import PageError
from sojourn.admin.filters import PERIODS, Filters
from sojourn.admin.login_redirect import login_redirect
from sojourn.admin.page_filling import fill_page
from sojourn.admin.request import AdminRequest
from sojourn.admin.response import AdminResponse, redirect
from sojourn.admin.routes import Route, Routes
from sojourn.admin.stylesheet import load_stylesheet
from sojourn.admin.templating import render
from sojourn.admin.user_directory import UserDirectory, find_user, name_users
from sojourn.admin.web_application import WebApplication
from sojourn.errors import ConfigurationError
from sojourn.record import INDEXED_LABELS, check_user
from sojourn.sessions import EndedSession, SessionInfo, Sessions

Permission = bool | Literal["read"] | None
"""True to admit a visitor, ``"read"`` to admit them without the right to revoke."""

Allow = Callable[[AdminRequest], Permission | Awaitable[Permission]]

#: The key in the visitor's session of what their last form did, for the next page.
NOTICE: Final = "sojourn_admin_notice"

#: Sessions of a user that the form of their revocation counts: more would take seconds to read.
_MAX_COUNTED: Final = 100

_READER: Final = "read"
_WRITER: Final = "write"


class SessionsAdmin:
    """The handlers of the admin application.

    Args:
        sessions: which are administered.
        allow: decides who is admitted.
        login_url: where visitors who are not logged in are sent; None to answer 403.
        page_size: the number of sessions on a page.
        title: of the pages.
        users: names users; None to show them as they are in sessions.
    """

    def __init__(
        self,
        sessions: Sessions[Any],
        *,
        allow: Allow,
        login_url: str | None,
        page_size: int,
        title: str,
        users: UserDirectory | None,
    ) -> None:
        self._sessions = sessions
        self._allow = allow
        self._login_url = login_url
        self._page_size = page_size
        self._title = title
        self._users = users

    def application(self) -> WebApplication:
        """Return the application of these pages."""
        return WebApplication(
            self._sessions.web,
            Routes(
                Route("/", {"GET": self.show_list}),
                Route("/ended", {"GET": self.show_ended}),
                Route("/sessions/{id}", {"GET": self.show_session}),
                Route(
                    "/sessions/{id}/revoke",
                    {"GET": self.show_revoke_session, "POST": self.revoke_session},
                ),
                Route("/revoke-user", {"GET": self.show_revoke_user, "POST": self.revoke_user}),
                Route("/revoke-label", {"GET": self.show_revoke_label, "POST": self.revoke_label}),
                Route("/revoke-all", {"GET": self.show_revoke_all, "POST": self.revoke_all}),
            ),
            admit=self.admit,
            show_error=self.show_error,
            stylesheet=load_stylesheet(),
        )

    # Visitors

    async def admit(self, request: AdminRequest) -> AdminResponse | None:
        """Set the role of a visitor, or refuse them.

        Raises:
            PageError: the visitor is not admitted.
            ConfigurationError: ``allow`` returned something else than it may, or is a coroutine
                function under WSGI.
        """
        found: object = await resolve(self._allow(request), "allow")
        if found is True or (isinstance(found, str) and found == _READER):
            request.role = _WRITER if found is True else _READER
            return None
        if found is not False and found is not None:
            raise ConfigurationError(
                "allow expects to return True, False or 'read', found an object of "
                f"{type(found).__qualname__}; return a comparison, such as request.user in ADMINS"
            )
        if (
            request.user is None
            and self._login_url is not None
            and request.method in ("GET", "HEAD")
        ):
            return login_redirect(self._login_url, request)
        raise PageError(
            HTTPStatus.FORBIDDEN,
            "You may not use this page",
            "This page is for administrators. Log in as one of them, or ask one to admit you.",
        )

    def show_error(self, request: AdminRequest, error: PageError) -> AdminResponse:
        """Return the page of an error; with the navigation if the visitor was admitted."""
        return self._render(
            request, "error.html", status=error.status, headers=error.headers, error=error
        )

    # Lists

    async def show_list(self, request: AdminRequest) -> AdminResponse:
        """Show a page of live sessions."""
        filters = Filters.read(request.query)
        if filters.session_id and not filters.errors:
            return redirect(f"sessions/{filters.session_id}")
        page = total = None
        cursor = request.query.get("cursor", "")
        user = filters.user_id or await find_user(self._users, filters.user)
        period = filters.period()
        if not filters.errors:
            try:
                list_page = partial(
                    self._sessions.alist_page,
                    user=user or None,
                    labels=filters.labels(),
                    since=None if period is None else self._now() - period,
                )
                page = await fill_page(list_page, cursor, self._page_size)
                if "count" in request.query:
                    total = await self._sessions.acount()
            except TypeError:
                filters.errors["user"] = "Enter a user of 1 to 255 characters"
            except ValueError:
                raise _bad_cursor() from None
            except ConfigurationError as error:
                raise _unsupported(error) from error
        return self._render(
            request,
            "list.html",
            status=HTTPStatus.UNPROCESSABLE_ENTITY if filters.errors else HTTPStatus.OK,
            filters=await self._with_user_name(filters),
            user=user,
            names=await self._user_names(page.sessions if page is not None else ()),
            periods=PERIODS,
            page=page,
            cursor=cursor,
            total=total,
            own_id=_own_id(request),
            notice=self._pop_notice(request),
        )

    async def show_ended(self, request: AdminRequest) -> AdminResponse:
        """Show a page of ended sessions."""
        filters = Filters.read_user(request.query)
        user = filters.user_id or await find_user(self._users, filters.user)
        cursor = request.query.get("cursor", "")
        page = unsupported = None
        try:
            read = partial(self._sessions.ahistory, user=user or None)
            page = await fill_page(read, cursor, self._page_size)
        except ConfigurationError as error:
            unsupported = str(error)
        except TypeError:
            filters.errors["user"] = "Enter a user of 1 to 255 characters"
        except ValueError:
            raise _bad_cursor() from None
        return self._render(
            request,
            "ended.html",
            status=HTTPStatus.UNPROCESSABLE_ENTITY if filters.errors else HTTPStatus.OK,
            filters=await self._with_user_name(filters),
            names=await self._user_names(page.sessions if page is not None else ()),
            page=page,
            cursor=cursor,
            unsupported=unsupported,
        )

    async def show_session(self, request: AdminRequest, id: str) -> AdminResponse:  # noqa: A002 - the name in the pattern
        """Show everything about a session but its data."""
        info = await self._find(id)
        return self._render(
            request,
            "session.html",
            info=info,
            names=await self._user_names([info]),
            is_own=info.id == _own_id(request),
            notice=self._pop_notice(request),
        )

    # One session

    async def show_revoke_session(self, request: AdminRequest, id: str) -> AdminResponse:  # noqa: A002 - the name in the pattern
        """Show the form that revokes a session."""
        self._require_writer(request)
        info = await self._find(id)
        return await self._render_revoke_session(
            request, info, self._confirmation_of(request, info)
        )

    async def revoke_session(self, request: AdminRequest, id: str) -> AdminResponse:  # noqa: A002 - the name in the pattern
        """Revoke a session."""
        self._require_writer(request)
        info = await self._find(id)
        confirmation = self._confirmation_of(request, info)
        if not confirmation.read(request):
            return await self._render_revoke_session(request, info, confirmation)
        existed = await self._sessions.arevoke(id, reason=confirmation.reason, actor=request.user)
        text = "The session was revoked." if existed else "The session had ended already."
        return self._finish(request, text, own=confirmation.ends_own)

    def _confirmation_of(self, request: AdminRequest, info: SessionInfo) -> Confirmation:
        return Confirmation(info.id[-TYPED_DIGITS:], ends_own=info.id == _own_id(request))

    async def _render_revoke_session(
        self, request: AdminRequest, info: SessionInfo, confirmation: Confirmation
    ) -> AdminResponse:
        return self._render(
            request,
            "revoke_session.html",
            status=_form_status(confirmation),
            info=info,
            names=await self._user_names([info]),
            confirmation=confirmation,
            is_own=confirmation.ends_own,
        )

    # The sessions of a user

    async def show_revoke_user(self, request: AdminRequest) -> AdminResponse:
        """Show the form that revokes the sessions of a user."""
        self._require_writer(request)
        user = _checked_user(request.query.get("user", ""))
        return await self._render_revoke_user(request, user, await self._confirmation_of_user(user))

    async def revoke_user(self, request: AdminRequest) -> AdminResponse:
        """Revoke the sessions of a user."""
        self._require_writer(request)
        user = _checked_user(request.form.get("user", ""))
        own = await self._own_session_of(request, user)
        confirmation = await self._confirmation_of_user(user)
        confirmation.ends_own = own is not None and request.form.get("keeps_own") != "yes"
        if not confirmation.read(request):
            return await self._render_revoke_user(request, user, confirmation)
        number = await self._sessions.arevoke_user(
            user,
            keep=own if confirmation.keeps_own else None,
            reason=confirmation.reason,
            actor=request.user,
        )
        return self._finish(request, _revoked(number), own=confirmation.ends_own)

    async def _confirmation_of_user(self, user: str) -> Confirmation:
        names = await name_users(self._users, [user])
        return Confirmation(phrase_of_user(names.get(user, user)))

    async def _render_revoke_user(
        self, request: AdminRequest, user: str, confirmation: Confirmation
    ) -> AdminResponse:
        try:
            page = await self._sessions.alist_page("", _MAX_COUNTED, user=user)
        except ConfigurationError as error:
            raise _unsupported(error) from error
        own = await self._own_session_of(request, user)
        return self._render(
            request,
            "revoke_user.html",
            status=_form_status(confirmation),
            user=user,
            names=await name_users(self._users, [user]),
            page=page,
            own_id=own,
            confirmation=confirmation,
        )

    async def _own_session_of(self, request: AdminRequest, user: str) -> str | None:
        """Return the ID of the visitor's session if it is one of a user's and administered here."""
        own_id = _own_id(request)
        info = await self._sessions.aget(own_id)
        return own_id if info is not None and info.user == user else None

    # The sessions with a label

    async def show_revoke_label(self, request: AdminRequest) -> AdminResponse:
        """Show the form that revokes the sessions with an indexed label."""
        self._require_writer(request)
        name, value = _checked_label(request.query)
        confirmation = await self._confirmation_of_label(request, name, value)
        return self._render_revoke_label(request, name, value, confirmation)

    async def revoke_label(self, request: AdminRequest) -> AdminResponse:
        """Revoke the sessions with an indexed label."""
        self._require_writer(request)
        name, value = _checked_label(request.form)
        confirmation = await self._confirmation_of_label(request, name, value)
        if not confirmation.read(request):
            return self._render_revoke_label(request, name, value, confirmation)
        try:
            number = await self._sessions.arevoke_where(
                reason=confirmation.reason, actor=request.user, **{name: value}
            )
        except ConfigurationError as error:
            raise _unsupported(error) from error
        return self._finish(request, _revoked(number), own=confirmation.ends_own)

    async def _confirmation_of_label(
        self, request: AdminRequest, name: str, value: str
    ) -> Confirmation:
        own = await self._sessions.aget(_own_id(request))
        ends_own = own is not None and own.labels.get(name) == value
        return Confirmation(phrase_of_label(value), ends_own=ends_own)

    def _render_revoke_label(
        self, request: AdminRequest, name: str, value: str, confirmation: Confirmation
    ) -> AdminResponse:
        return self._render(
            request,
            "revoke_label.html",
            status=_form_status(confirmation),
            name=name,
            value=value,
            confirmation=confirmation,
        )

    # All sessions

    async def show_revoke_all(self, request: AdminRequest) -> AdminResponse:
        """Show the form that revokes every session."""
        self._require_writer(request)
        return self._render_revoke_all(request, await self._confirmation_of_all(request))

    async def revoke_all(self, request: AdminRequest) -> AdminResponse:
        """Revoke every session."""
        self._require_writer(request)
        confirmation = await self._confirmation_of_all(request)
        if not confirmation.read(request):
            return self._render_revoke_all(request, confirmation)
        try:
            await self._sessions.arevoke_all(reason=confirmation.reason, actor=request.user)
        except ConfigurationError as error:
            raise _unsupported(error) from error
        return self._finish(request, "All sessions were revoked.", own=confirmation.ends_own)

    async def _confirmation_of_all(self, request: AdminRequest) -> Confirmation:
        own = await self._sessions.aget(_own_id(request))
        return Confirmation("revoke all", ends_own=own is not None)

    def _render_revoke_all(
        self, request: AdminRequest, confirmation: Confirmation
    ) -> AdminResponse:
        return self._render(
            request, "revoke_all.html", status=_form_status(confirmation), confirmation=confirmation
        )

    # Shared steps

    async def _find(self, session_id: str) -> SessionInfo:
        info = await self._sessions.aget(session_id)
        if info is None:
            raise PageError(
                HTTPStatus.NOT_FOUND,
                "This session does not exist",
                f"No live session has the ID {session_id}. It has ended, or the ID is wrong. The "
                "list of ended sessions may say why.",
            )
        return info

    async def _user_names(self, listed: Iterable[SessionInfo | EndedSession]) -> Mapping[str, str]:
        return await name_users(self._users, [each.user for each in listed])

    async def _with_user_name(self, filters: Filters) -> Filters:
        """Return filters whose user, if a link gave their identifier, is shown by their name."""
        if filters.user_id:
            names = await name_users(self._users, [filters.user_id])
            filters.user = names.get(filters.user_id, filters.user_id)
        return filters

    def _require_writer(self, request: AdminRequest) -> None:
        if request.role != _WRITER:
            raise PageError(
                HTTPStatus.FORBIDDEN,
                "You may only read",
                "Your role shows sessions and does not revoke them. Ask an administrator.",
            )

    def _finish(self, request: AdminRequest, text: str, *, own: bool) -> AdminResponse:
        """Return the response to a form that was carried out."""
        if own:  # the session that would keep the notice has ended
            return self._render(request, "own_session_ended.html", text=text)
        request.visitor[NOTICE] = text
        return redirect(request.root)

    def _pop_notice(self, request: AdminRequest) -> str | None:
        """Return what the last form did, once."""
        session = request.visitor
        if request.method == "HEAD":
            return None
        text = session.pop(NOTICE, None) if NOTICE in session else None
        return text if isinstance(text, str) else None

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._sessions.engine.clock() / 1000, UTC)

    def _render(
        self,
        request: AdminRequest,
        template: str,
        *,
        status: HTTPStatus = HTTPStatus.OK,
        headers: tuple[tuple[str, str], ...] = (),
        **values: object,
    ) -> AdminResponse:
        return render(
            request,
            f"admin/{template}",
            status=status,
            headers=headers,
            now=self._now(),
            product=self._title,
            can_write=request.role == _WRITER,
            indexed_labels=INDEXED_LABELS,
            **values,
        )


def _own_id(request: AdminRequest) -> str:
    return request.visitor.id


def _checked_user(text: str) -> str:
    try:
        return check_user(text)
    except TypeError:
        raise PageError(
            HTTPStatus.BAD_REQUEST,
            "This is no user",
            "A user has 1 to 255 characters. Search for the user and try again.",
        ) from None


def _checked_label(fields: Mapping[str, str]) -> tuple[str, str]:
    name, value = fields.get("name", ""), fields.get("value", "")
    if name not in INDEXED_LABELS or not value:
        raise PageError(
            HTTPStatus.BAD_REQUEST,
            "Sessions cannot be revoked by this label",
            f"Sessions are revoked by the label {', '.join(INDEXED_LABELS)}. Revoke sessions with "
            "other labels one by one, or by their user.",
        )
    return name, value


def _revoked(number: int) -> str:
    return f"{number} {'session was' if number == 1 else 'sessions were'} revoked."


def _form_status(confirmation: Confirmation) -> HTTPStatus:
    return HTTPStatus.UNPROCESSABLE_ENTITY if confirmation.errors else HTTPStatus.OK


def _bad_cursor() -> PageError:
    return PageError(
        HTTPStatus.BAD_REQUEST,
        "This page of the list does not exist",
        "The address of the page is damaged or of another store. Start at the first page.",
    )


def _unsupported(error: ConfigurationError) -> PageError:
    return PageError(
        HTTPStatus.NOT_IMPLEMENTED, "The session store does not support this", f"{error}."
    )
