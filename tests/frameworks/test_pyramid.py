"""Pyramid: the laws of requests, and features of Pyramid."""

import time

import pytest
from pyramid import testing
from pyramid.authentication import SessionAuthenticationHelper, SessionAuthenticationPolicy
from pyramid.authorization import ACLAuthorizationPolicy
from pyramid.config import Configurator
from pyramid.csrf import SessionCSRFStoragePolicy, get_csrf_token
from pyramid.events import NewRequest
from pyramid.exceptions import ConfigurationConflictError
from pyramid.httpexceptions import HTTPFound
from pyramid.interfaces import ISession
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import forget, remember
from pyramid.tweens import EXCVIEW
from webtest import TestApp
from zope.interface.verify import verifyObject

import sojourn
from sojourn.errors import ConfigurationError, LoginRequired, SessionTooLarge, StoreError
from sojourn.frameworks.pyramid import get_sessions, session_factory
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FaultyStore, open_session
from tests.contract.request_suite import RequestSuite
from tests.frameworks.apps import pyramid_app

SECRET = "a secret for tests: 5f8c1e90"
INCLUDE = "sojourn.frameworks.pyramid"


class TestPyramid(RequestSuite):
    """A1 to A24 through Pyramid."""

    protocol = "wsgi"
    answers_errors = False
    build = staticmethod(pyramid_app.build)
    uninstall = staticmethod(pyramid_app.uninstall)


class Site:
    """An application with the given views, and a browser."""

    def __init__(self, *views, configure=lambda config: None, **settings):
        settings = {"sojourn.store": "memory://", **settings}
        with Configurator(settings=settings) as config:
            config.include(INCLUDE)
            configure(config)
            for view in views:
                config.add_route(view.__name__, f"/{view.__name__}")
                config.add_view(view, route_name=view.__name__)
            self.app = config.make_wsgi_app()
        self.sessions = sojourn.get(self.app)
        self.browser = self.new_browser()

    def new_browser(self):
        return TestApp(self.app)

    def get(self, path, **kwargs):
        return self.browser.get(path, **kwargs)


def visit(request):
    return Response(str(request.session.increment("visits")))


def show(request):
    return Response(str(request.session.get("visits")))


class TestSettings:
    """The settings ``sojourn.*``."""

    def test_each_option_is_read_from_text(self):
        site = Site(
            visit,
            **{
                "sojourn.secret": "a first secret: 5f8c1e90a1\na second one: 99aa77bb66cc",
                "sojourn.timeout": "20 minutes",
                "sojourn.absolute_timeout": "none",
                "sojourn.store_timeout": "3",
                "sojourn.secure": "auto",
                "sojourn.persistent": "yes",
                "sojourn.protect": "false",
                "sojourn.max_sessions": "3",
                "sojourn.exclude": "/static/* /health",
                "sojourn.merge": "counter = sum\ncart = dict of sum",
                "sojourn.on_store_failure": "/visit /show",
                "sojourn.on_error": f"{__name__}.show",
                "sojourn.encrypt": "ticket",
            },
        )
        config = site.sessions.config
        assert len(config.secrets) == 2
        assert config.core.policy.authenticated.idle_timeout == 20 * 60_000
        assert config.core.policy.authenticated.absolute_timeout is None
        assert config.core.store_timeout == 3
        assert config.web.cookie.persistent is True
        assert config.core.session_limit.max_sessions == 3
        assert not config.web.patterns.match("/static/site.css")
        assert set(config.merges) == {"counter", "cart"}
        assert config.web.anonymous.match("/show")
        assert config.web.on_error is show
        assert config.encrypt == "ticket"

    @pytest.mark.parametrize(
        ("setting", "text", "message"),
        [
            ("sojourn.timeot", "1 hour", "'sojourn.timeout'"),
            ("sojourn.max_age", "1 hour", "sojourn.timeout"),
            ("sojourn.timeout", "soon", "timeout"),
            ("sojourn.protect", "maybe", "true or false"),
            ("sojourn.max_sessions", "many", "max_sessions"),
            ("sojourn.merge", "counter", "counter = sum"),
            ("sojourn.on_error", "nowhere.to_be.found", "dotted name"),
            ("sojourn.secret", "short", "secret"),
        ],
    )
    def test_invalid_setting_is_refused(self, setting, text, message):
        with pytest.raises(ConfigurationError, match=message):
            Configurator(settings={setting: text}).include(INCLUDE)

    def test_keywords_take_precedence(self):
        config = Configurator(settings={"sojourn.store": "memory://", "sojourn.realm": "one"})
        sessions = sojourn.install(config, realm="two")
        assert sessions.config.realm == "two"
        assert sojourn.get(config) is sessions

    def test_another_session_factory_is_refused(self):
        config = Configurator(settings={"sojourn.store": "memory://"})
        sojourn.install(config)
        config.set_session_factory(lambda request: {})
        with pytest.raises(ConfigurationConflictError):
            config.make_wsgi_app()
        config = Configurator(settings={"sojourn.store": "memory://"})
        config.include(INCLUDE)
        config.set_session_factory(lambda request: {})
        with pytest.raises(ConfigurationError, match="another session factory"):
            config.make_wsgi_app()

    def test_install_on_a_built_application_is_refused(self):
        with pytest.raises(ConfigurationError, match="Configurator"):
            sojourn.install(Configurator().make_wsgi_app(), store="memory://")


class TestSession:
    """``pyramid.interfaces.ISession``."""

    def test_session_has_every_member_of_isession(self):
        seen = []

        def look(request):
            session = request.session
            verifyObject(ISession, session)
            seen.append((session.new, session.created))
            session["a"] = 1
            session.changed()
            return Response("")

        site = Site(look)
        site.get("/look")
        site.get("/look")
        assert [new for new, _ in seen] == [True, False]
        assert all(abs(created - time.time()) < 60 and type(created) is int for _, created in seen)

    def test_session_is_loaded_at_its_first_access(self):
        """A1: a view without an access makes no store call."""
        store = FaultyStore(MemoryStore())

        def plain(request):
            return Response("")

        site = Site(visit, plain, **{"sojourn.store": store, "sojourn.secret": SECRET})
        site.get("/visit")
        store.calls.clear()
        assert "Vary" not in site.get("/plain").headers
        assert store.calls == []

    def test_flash_messages_are_stored_in_queues(self):
        def put(request):
            session = request.session
            for message in ("one", "two", "one"):
                session.flash(message, allow_duplicate=False)
            session.flash({"id": 3}, "errors")
            return Response("")

        def pop(request):
            session = request.session
            found = [session.peek_flash(), session.pop_flash(), session.pop_flash()]
            return Response(json_body=[*found, session.flashes()])

        site = Site(put, pop)
        site.get("/put")
        queue = ["one", "two"]
        assert site.get("/pop").json == [queue, queue, [], [[{"id": 3}, "errors"]]]
        assert site.get("/pop").json == [[], [], [], []]

    def test_invalidate_starts_another_session(self):
        def invalidate(request):
            request.session.invalidate()
            request.session["kept"] = True
            return Response("")

        def keys(request):
            return Response(json_body=[request.session.id, *request.session])

        site = Site(visit, invalidate, keys)
        site.get("/visit")
        before, _ = site.get("/keys").json
        site.get("/invalidate")
        after, *found = site.get("/keys").json
        assert after != before
        assert found == ["kept"]
        assert site.sessions.get(before) is None

    def test_testing_request_with_a_session(self):
        sessions = sojourn.Sessions(store="memory://")
        request = testing.DummyRequest()
        session = session_factory(sessions)(request)
        assert verifyObject(ISession, session)
        session["a"] = 1
        response = Response("")
        for callback in request.response_callbacks:
            callback(request, response)
        assert dict(response.headerlist)["Set-Cookie"].startswith("__Host-sid=")

    def test_client_with_a_prepared_session(self):
        """The test client sends the cookie of a session that a test made."""
        site = Site(show)
        open_session(site.app, visits=7).add_to_jar(site.browser.cookiejar)
        assert site.get("/show").text == "7"


def log_in(request):
    headers = remember(request, int(request.params["user"]))
    request.session["cart"] = ["apple"]
    return HTTPFound("/whoami", headers=headers)


def log_out(request):
    return HTTPFound("/whoami", headers=forget(request))


def whoami(request):
    session = request.session
    return Response(
        json_body=[request.authenticated_userid, session.user, session.get("cart"), session.id]
    )


class HelperPolicy:
    """A security policy on ``SessionAuthenticationHelper``, as in Pyramid's documentation."""

    def __init__(self, prefix="auth."):
        self.helper = SessionAuthenticationHelper(prefix)

    def identity(self, request):
        return self.helper.authenticated_userid(request)

    authenticated_userid = identity

    def permits(self, request, context, permission):
        return self.identity(request) is not None

    def remember(self, request, userid, **kw):
        return self.helper.remember(request, userid, **kw)

    def forget(self, request, **kw):
        return self.helper.forget(request, **kw)


def use_helper(config):
    config.set_security_policy(HelperPolicy())


def use_legacy_policy(config):
    with pytest.warns(DeprecationWarning, match="security policies"):
        config.set_authentication_policy(SessionAuthenticationPolicy())
    with pytest.warns(DeprecationWarning, match="security policies"):
        config.set_authorization_policy(ACLAuthorizationPolicy())


class TestEvents:
    """Pyramid's events, which it creates only if a subscriber exists."""

    def test_sojourn_registers_no_event_subscriber(self):
        site = Site(visit)
        assert not site.app.registry.has_listeners
        assert [site.browser.get("/visit").text for _ in range(2)] == ["1", "2"]

    def test_subscriber_of_the_application_gets_its_events(self):
        seen = []
        site = Site(visit, configure=lambda config: config.add_subscriber(seen.append, NewRequest))
        assert [site.browser.get("/visit").text for _ in range(2)] == ["1", "2"]
        assert len(seen) == 2

    def test_another_router_of_the_same_application_has_the_session_layer(self):
        """Also options that need the WSGI layer, such as ``protect``."""
        config = Configurator(settings={"sojourn.store": "memory://", "sojourn.protect": "true"})
        config.include(INCLUDE)
        config.add_route("visit", "/visit")
        config.add_view(visit, route_name="visit")
        for _ in range(3):
            browser = TestApp(config.make_wsgi_app())
            assert [browser.get("/visit").text for _ in range(2)] == ["1", "2"]
            foreign = {"Sec-Fetch-Site": "cross-site"}
            assert browser.post("/visit", headers=foreign, status=403).status_int == 403
            assert browser.get("/visit").text == "3"


class TestAuthentication:
    """``remember`` and ``forget`` of Pyramid's session authentication."""

    @pytest.mark.parametrize("configure", [use_helper, use_legacy_policy])
    def test_remember_logs_in_and_forget_logs_out(self, configure):
        """A9, A7, B-25: the ticket is replaced, and the user's sessions are listed."""
        site = Site(visit, log_in, log_out, whoami, configure=configure)
        site.get("/visit")
        before = site.browser.cookies["sid"]
        site.get("/log_in?user=17")
        during = site.browser.cookies["sid"]
        user, bound, cart, session_id = site.get("/whoami").json
        assert (user, bound, cart) == (17, "17", ["apple"])
        assert [info.id for info in site.sessions.list_user(17)] == [session_id]
        thief = site.new_browser()
        for ticket in (before, during):
            stolen = {"Cookie": f"sid={ticket}"}
            assert thief.get("/whoami", headers=stolen).json[0] == (
                17 if ticket == during else None
            )
        site.get("/log_out")
        user, bound, cart, after = site.get("/whoami").json
        assert (user, bound, cart) == (None, None, ["apple"])
        assert after != session_id
        assert site.sessions.list_user(17) == []
        assert thief.get("/whoami", headers={"Cookie": f"sid={during}"}).json[0] is None

    def test_revoked_user_is_logged_out(self):
        """A7."""
        site = Site(log_in, whoami, configure=use_helper)
        site.get("/log_in?user=17")
        assert site.sessions.revoke_user(17) == 1
        assert site.get("/whoami").json[:2] == [None, None]

    def test_refused_login_stores_no_user(self):
        """A24: also with ``save_on_error``."""
        settings = {
            "sojourn.max_sessions": "1",
            "sojourn.on_limit": "refuse",
            "sojourn.save_on_error": "true",
        }

        def refused(error, request):
            return Response("refused", 409)

        def configure(config):
            use_helper(config)
            config.add_exception_view(refused, context=sojourn.errors.LimitReached)

        site = Site(log_in, whoami, visit, configure=configure, **settings)
        site.get("/log_in?user=17")
        other = site.new_browser()
        other.get("/visit")
        assert other.get("/log_in?user=17", status=409).text == "refused"
        assert other.get("/whoami").json[:2] == [None, None]

    def test_session_methods_and_authentication_helper_agree(self):
        def sign_in(request):
            request.session.login("ada", methods=("password",))
            return Response("")

        site = Site(sign_in, whoami, log_out, configure=use_helper)
        site.get("/sign_in")
        assert site.get("/whoami").json[:2] == ["ada", "ada"]
        site.get("/log_out")
        assert site.get("/whoami").json[:2] == [None, None]

    def test_prefix_of_the_authentication_helper(self):
        def configure(config):
            config.set_security_policy(HelperPolicy("mine."))

        settings = {"sojourn.auth_prefix": "mine."}
        site = Site(log_in, log_out, whoami, configure=configure, **settings)
        site.get("/log_in?user=17")
        assert site.get("/whoami").json[:2] == [17, "17"]
        site.get("/log_out")
        assert site.get("/whoami").json[:2] == [None, None]


def form(request):
    return Response(json_body=[get_csrf_token(request), request.session.get_csrf_token()])


def send(request):
    return Response("accepted")


def log_in_to_session(request):
    request.session.login(17)
    return Response("done")


def renew_login(request):
    request.session.renew_login()
    return Response("done")


class TestCSRF:
    """Pyramid's CSRF protection."""

    @pytest.mark.parametrize("own", [True, False])
    def test_tokens_are_checked(self, own):
        def configure(config):
            config.set_default_csrf_options(require_csrf=True)
            if not own:
                config.set_csrf_storage_policy(SessionCSRFStoragePolicy())

        site = Site(form, send, log_in, configure=configure)
        for token in site.get("/form").json:
            assert site.browser.post("/send", {"csrf_token": token}).text == "accepted"
        site.browser.post("/send", {"csrf_token": "guessed"}, status=400)
        site.browser.post("/send", status=400)

    @pytest.mark.parametrize("how", ["/log_in?user=17", "/log_in_to_session", "/renew_login"])
    def test_a_login_replaces_the_tokens(self, how):
        """B-25: an attacker may know a token from before the login."""

        def configure(config):
            use_helper(config)
            config.set_default_csrf_options(require_csrf=True)

        site = Site(form, send, log_in, log_in_to_session, renew_login, configure=configure)
        if how == "/renew_login":
            site.get("/log_in?user=17")
        before = site.get("/form").json
        site.get(how)
        for token in before:
            site.browser.post("/send", {"csrf_token": token}, status=400)


def too_much(request):
    request.session["note"] = "x" * 100_000
    return Response("never sent")


class TestErrors:
    """A23: exception views respond to errors."""

    def site(self, *views, answer=None, context=StoreError, **settings):
        self.store = FaultyStore(MemoryStore())

        def configure(config):
            if answer is not None:
                config.add_exception_view(answer, context=context)

        settings = {"sojourn.store": self.store, "sojourn.secret": SECRET, **settings}
        return Site(visit, show, *views, configure=configure, **settings)

    @pytest.mark.parametrize("verb", ["load", "save"])
    def test_exception_views_respond_to_a_failing_store(self, verb):
        def answer(error, request):
            return Response("back in a moment", 503, headers={"Retry-After": "9"})

        site = self.site(answer=answer)
        site.get("/visit")
        self.store.fail(verb)
        response = site.get("/visit", status=503)
        assert (response.text, response.headers.getall("Retry-After")) == (
            "back in a moment",
            ["9"],
        )
        self.store.heal()
        assert site.get("/show").text == "1"

    @pytest.mark.parametrize("verb", ["load", "save"])
    def test_500_of_an_exception_view_becomes_503(self, verb):
        site = self.site(answer=lambda error, request: Response("oops", 500), context=Exception)
        site.get("/visit")
        self.store.fail(verb)
        response = site.get("/visit", status=503)
        assert response.text == "oops"
        assert response.headers["Retry-After"]

    @pytest.mark.parametrize("verb", ["load", "save"])
    def test_failing_store_is_503_by_default(self, verb):
        site = self.site()
        site.get("/visit")
        self.store.fail(verb)
        response = site.get("/visit", status=503)
        assert response.headers["Retry-After"]
        assert "Set-Cookie" not in response.headers

    def test_on_error_is_called_first_and_once(self):
        handled = []

        def on_error(request, error):
            handled.append((request.path, type(error)))
            return Response("too large", 413) if isinstance(error, SessionTooLarge) else None

        views = lambda error, request: Response("from a view", 503)  # noqa: E731 - a view
        site = self.site(too_much, answer=views, **{"sojourn.on_error": on_error})
        assert site.get("/too_much", status=413).text == "too large"
        site.get("/visit")
        self.store.fail("load")
        assert site.get("/visit", status=503).text == "from a view"
        assert [path for path, _ in handled] == ["/too_much", "/visit"]

    def test_exception_views_respond_to_a_commit_error(self):
        """A10."""

        def answer(error, request):
            request.session["late"] = True
            return Response(f"{error.limit} bytes at most", 413)

        site = self.site(too_much, answer=answer, context=SessionTooLarge)
        site.get("/visit")
        assert site.get("/too_much", status=413).text == "65536 bytes at most"
        assert site.get("/show").text == "1"

    def test_exception_view_for_a_missing_login_may_write_and_redirect(self):
        def account(request):
            return Response(request.session.require_user())

        def to_login(error, request):
            request.session["visits"] = 9
            return HTTPFound("/show")

        site = self.site(account, answer=to_login, context=LoginRequired)
        assert site.get("/account", status=302).follow().text == "9"
        assert self.site(account).get("/account", status=401)

    def test_raised_redirect_keeps_the_changes(self):
        def save(request):
            request.session["visits"] = 5
            raise HTTPFound("/show")

        assert self.site(save).get("/save", status=302).follow().text == "5"

    def test_a_route_continues_without_its_session(self):
        """A15."""

        def news(request):
            return Response(request.session.get("name", "guest"))

        site = self.site()
        decorated = site.sessions.route(on_store_failure="anonymous")(news)
        site = self.site(decorated, **{"sojourn.autoload": "false"})
        site.get("/visit")
        self.store.fail("load")
        assert site.get("/news").text == "guest"


class TestResponses:
    """When the session is committed."""

    def test_a_stream_commits_at_its_end(self):
        """A11."""

        def stream(request):
            session = request.session

            def parts():
                yield b"first "
                session.increment("visits")
                yield b"last"

            return Response(app_iter=parts())

        site = Site(visit, show, stream)
        site.get("/visit")
        assert site.get("/stream").text == "first last"
        assert site.get("/show").text == "2"

    def test_response_callbacks_and_tweens_may_write(self):
        def late(request):
            def write(request, response):
                request.session.increment("visits")

            request.add_response_callback(write)
            return Response("")

        def configure(config):
            config.add_tween(f"{__name__}.counting_tween_factory")

        site = Site(visit, late, show, configure=configure)
        site.get("/visit")
        assert site.get("/late").headers["X-Tween"] == "1"  # before the callback
        assert site.get("/show").text == "2"
        assert site.get("/show").text == "3"

    def test_failing_tween_drops_the_changes(self):
        """A10: such as the transaction manager, whose tween is outside the exception views."""
        site = Site(visit, show, configure=add_failing_tween)
        site.get("/visit")
        with pytest.raises(LookupError):
            site.get("/visit?fail=1")
        assert site.get("/show").text == "1"

    def test_repeated_attempt_starts_with_the_stored_session(self):
        """A6: an execution policy may repeat a request."""

        def configure(config):
            add_failing_tween(config)
            config.set_execution_policy(run_twice)

        site = Site(visit, show, configure=configure)
        site.get("/visit")
        assert site.get("/visit?fail=once").text == "2"
        assert site.get("/show").text == "2"

    def test_a_subrequest_with_the_environ_shares_the_session(self):
        def parent(request):
            request.session["a"] = 1
            child = Request(request.environ.copy())
            child.path_info = "/visit"
            return request.invoke_subrequest(child)

        def empty_child(request):
            return request.invoke_subrequest(Request.blank("/visit"), use_tweens=True)

        site = Site(visit, parent, show, empty_child)
        assert site.get("/parent").text == "1"
        assert site.get("/parent").text == "2"
        assert site.new_browser().get("/empty_child").text == "1"

    def test_factory_without_include_commits(self):
        """``set_session_factory(session_factory(sessions))`` without ``include``."""
        store = FaultyStore(MemoryStore())
        sessions = sojourn.Sessions(store=store, secret=SECRET)

        def broken(request):
            request.session.increment("visits")
            raise LookupError("planned by the test")

        with Configurator() as config:
            config.set_session_factory(session_factory(sessions))
            for view in (visit, show, broken):
                config.add_route(view.__name__, f"/{view.__name__}")
                config.add_view(view, route_name=view.__name__)
            browser = TestApp(config.make_wsgi_app())
        assert [browser.get("/visit").text for _ in range(2)] == ["1", "2"]
        with pytest.raises(LookupError):
            browser.get("/broken")
        assert browser.get("/show").text == "2"
        store.fail("save")
        assert browser.get("/visit", status=503).headers["Retry-After"]

    @pytest.mark.parametrize("option", [{"protect": True}, {"on_error": show}])
    def test_factory_without_include_refuses_options_of_the_middleware(self, option):
        """A24: `protect` must not be ignored silently."""
        with Configurator() as config:
            config.set_session_factory(
                session_factory(sojourn.Sessions(store="memory://", **option))
            )
            config.add_view(visit)
            browser = TestApp(config.make_wsgi_app())
        with pytest.raises(ConfigurationError, match=r"config\.include"):
            browser.get("/")

    def test_excluded_paths_have_no_session(self):
        def probe(request):
            return Response(str(hasattr(request, "session")))

        site = Site(probe, visit, **{"sojourn.exclude": "/probe"})
        site.get("/visit")
        assert site.get("/probe").text == "False"

    def test_view_can_access_its_installation(self):
        def count(request):
            return Response(str(get_sessions(request).count()))

        site = Site(visit, count)
        site.get("/visit")
        assert site.get("/count").text == "1"
        with pytest.raises(ConfigurationError, match=r"config\.include"):
            get_sessions(Configurator())


def add_failing_tween(config):
    """Add a tween at the position of that of ``pyramid_tm``."""
    ours = "sojourn.frameworks.pyramid.tweens.commit_tween_factory"
    config.add_tween(f"{__name__}.failing_tween_factory", under=ours, over=EXCVIEW)


def failing_tween_factory(handler, registry):
    """Return a tween that fails after the view, like a failing transaction."""

    def tween(request):
        response = handler(request)
        fail = request.params.get("fail")
        if fail == "1" or (fail == "once" and request.environ["retry.attempt"] == 0):
            raise LookupError("planned by the test")
        return response

    return tween


def run_twice(environ, router):
    """Run requests with ``fail=once`` twice, like ``pyramid_retry``."""
    for attempt in range(2):
        environ["retry.attempt"], environ["retry.attempts"] = attempt, 2
        with router.request_context(environ) as request:
            try:
                return router.invoke_request(request)
            except LookupError:
                if attempt:
                    raise
    return None


def counting_tween_factory(handler, registry):
    """Return a tween that uses the session after the view."""

    def tween(request):
        response = handler(request)
        if "visits" in request.session:
            response.headers["X-Tween"] = str(request.session["visits"])
            if request.path == "/show":
                response.headers["X-Tween"] = str(request.session.increment("visits"))
        return response

    return tween
