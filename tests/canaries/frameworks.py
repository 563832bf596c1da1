"""Canaries of the adapters: at least one fault for each framework."""

from tests.canaries.registry import canary

FRAMEWORKS = "sojourn.frameworks"


# Frameworks with a server of their own


@canary(
    "A2",
    f"{FRAMEWORKS}.aiohttp.exchange:replace_headers",
    tests="test_aiohttp.py::TestAiohttp::test_the_first_write",
)
def aiohttp_sends_no_cookie(replace_headers):
    return lambda response, selected, sent: None


@canary(
    "W4",
    f"{FRAMEWORKS}.aiohttp.websocket:AiohttpSocket._close_native",
    tests="TestAiohttpSockets::test_a_socket_is_closed_when_its_session_ends",
    raises="AttributeError",  # of the frame that does not arrive
)
def aiohttp_leaves_sockets_open(close_native):
    async def faulty(self, message):
        pass

    return faulty


@canary(
    "A23",
    "sojourn.web.framework_exchange:FrameworkExchange.commit_response",
    tests="test_middleware_answers_errors_of_the_session",
    raises="ServerDisconnectedError",
)
def a_commit_error_of_aiohttp_skips_its_middleware(commit_response):
    return lambda self, status: None


@canary(
    "A23",
    "sojourn.web.lifecycle:SessionLifecycle.unavailable_headers",
    tests="test_a_503_of",
    raises="KeyError",
)
def a_503_has_no_retry_after(unavailable_headers):
    return lambda self, headers: headers


@canary(
    "A2",
    f"{FRAMEWORKS}.sanic.exchange:add_headers",
    tests="test_sanic.py::TestSanic::test_the_first_write",
)
def sanic_sends_no_cookie(add_headers):
    async def faulty(exchange, response, *, complete):
        pass

    return faulty


@canary(
    "W4",
    f"{FRAMEWORKS}.sanic.websocket:SanicSocket._close_native",
    tests="TestSanicSockets::test_a_socket_is_closed_when_its_session_ends",
    raises="TimeoutError Timeout",
)
def sanic_leaves_sockets_open(close_native):
    async def faulty(self, message):
        pass

    return faulty


@canary(
    "A14",
    f"{FRAMEWORKS}.sanic.adapter:read_settings",
    tests="test_sanic.py::TestSettings",
)
def settings_of_sanic_are_ignored(read_settings):
    return lambda app, given: dict(given)


@canary(
    "A14",
    f"{FRAMEWORKS}.tornado.adapter:read_settings",
    tests="test_tornado.py::TestSettings",
)
def settings_of_tornado_are_ignored(read_settings):
    return lambda app, given: dict(given)


@canary(
    "B-28",
    f"{FRAMEWORKS}.tornado.xsrf:XSRFMixin.check_xsrf_cookie",
    tests="test_tornado.py::TestRequests::test_xsrf_tokens_belong_to_the_session",
)
def tornado_accepts_every_xsrf_token(check_xsrf_cookie):
    return lambda self: None


@canary(
    "A9",
    f"{FRAMEWORKS}.tornado.adapter:_get_current_user",
    tests="test_tornado.py::TestRequests::test_current_user_is_the_user_of_the_session",
)
def tornado_has_no_current_user(get_current_user):
    return lambda handler: None


# Flask and Quart


@canary(
    "A2",
    f"{FRAMEWORKS}.flask.response_lifecycle:replace_caching_headers",
    tests="test_flask.py test_quart.py",
)
def flask_and_quart_send_no_cookie(replace_caching_headers):
    return lambda *_: None


@canary(
    "A9",
    f"{FRAMEWORKS}.flask.login:LoginBinding._log_in",
    tests="TestFlaskLogin::test_a_login_binds_the_user",
)
def a_login_of_flask_login_sets_no_user(log_in):
    return lambda self, _, **__: None


@canary(
    "A7",
    f"{FRAMEWORKS}.flask.login:LoginBinding._log_out",
    tests="TestFlaskLogin::test_a_logout_destroys_the_session",
)
def a_logout_of_flask_login_keeps_the_session(log_out):
    return lambda self, app, **__: None


@canary(
    "A13",
    f"{FRAMEWORKS}.aiohttp.exchange:protect_ticket",
    tests="test_aiohttp.py::TestRequests::test_no_signal_lets_a_cache_store_a_ticket",
)
def a_signal_of_aiohttp_makes_a_ticket_public(protect_ticket):
    return lambda web, selected, added: selected


@canary(
    "A13",
    f"{FRAMEWORKS}.litestar.middleware:_put_hook_last",
    tests="test_litestar.py::TestErrors::test_no_hook_lets_a_cache_store_a_ticket",
)
def a_hook_of_litestar_makes_a_ticket_public(put_hook_last):
    return lambda app: None


@canary(
    "ASVS 3.5.1",
    "sojourn.web.asgi:check_origin",
    tests="test_quart_protocol.py::TestRoutes::test_other_origins",
)
def quart_accepts_every_origin(check_origin):
    return lambda web, scope: None


@canary(
    "A23",
    f"{FRAMEWORKS}.quart.websocket:_find_ended",
    tests="test_quart_sockets.py",
    raises="InvalidStatus",
)
def quart_does_not_recognise_the_end_of_a_session(find_ended):
    return lambda raised: None


# ASGI and WSGI


@canary(
    "A23",
    f"{FRAMEWORKS}.blacksheep.installation:_SessionComponent._commit",
    tests="test_blacksheep.py::TestErrors::test_error_handler_responds",
)
def blacksheep_commits_after_the_error_handlers(commit):
    async def faulty(self, request, response, exchange):
        pass

    return faulty


@canary(
    "A5",
    f"{FRAMEWORKS}.blacksheep.installation:_serve_mounted",
    tests="test_blacksheep_mounts",
)
def mounted_applications_of_blacksheep_have_no_session(share):
    return lambda app, sessions: None


@canary(
    "A23",
    f"{FRAMEWORKS}.bottle:call_on_error",
    tests="test_bottle.py::TestBottleAlone::test_the_application_answers_a_failing_store",
)
def bottle_does_not_call_error_handlers(call_on_error):
    return lambda web, environ, request, error: None


@canary(
    "A23",
    f"{FRAMEWORKS}.falcon.component:WSGIComponent.process_response",
    f"{FRAMEWORKS}.falcon.component:ASGIComponent.process_response",
    tests="test_falcon.py::TestErrors::test_error_handler test_async_error_handler",
)
def falcon_commits_after_the_error_handlers(process_response):
    def faulty(self, req, resp, resource, req_succeeded):
        pass

    async def faulty_async(self, req, resp, resource, req_succeeded):
        pass

    return faulty_async if "ASGI" in process_response.__qualname__ else faulty


@canary(
    "ASVS 3.5.1, SESS-20",
    f"{FRAMEWORKS}.fastapi.csrf_token:Csrf._find",
    f"{FRAMEWORKS}.fastapi.csrf_token:SAFE_METHODS",
    tests="unit/frameworks/test_fastapi",
)
def fastapi_checks_no_csrf_token(original):
    async def faulty(self, request):
        return None

    return faulty if callable(original) else frozenset({*original, "POST"})


@canary(
    "A9, S15",
    f"{FRAMEWORKS}.litestar.login:_log_in",
    tests="test_litestar.py::TestSessionAuth",
)
def a_login_of_litestar_sets_no_user(log_in):
    return lambda session, user: None


@canary(
    "W4",
    f"{FRAMEWORKS}.litestar.errors:close_socket",
    tests="test_litestar.py::TestSockets::test_missing_login_closes_with_4401",
    raises="WebSocketDisconnect",
)
def litestar_closes_sockets_without_the_reason(close_socket):
    async def faulty(error, scope):
        pass

    return faulty


@canary(
    "A13",
    f"{FRAMEWORKS}.litestar.response_cache:PersonalResponseFilter.__call__",
    tests="test_litestar.py::TestResponseCache::test_a_response_that_used_the_session",
    raises="KeyError",
)
def litestar_caches_personal_responses(call):
    return lambda self, scope, status_code: True


@canary(
    "A24",
    f"{FRAMEWORKS}.litestar.layer_check:_check_nested",
    tests="test_litestar.py::TestSecondSessionMiddleware",
)
def litestar_accepts_two_sessions_in_one_cookie(check_nested):
    return lambda installations: None


@canary(
    "A7",
    f"{FRAMEWORKS}.pyramid.session:PyramidSession.__delitem__",
    tests="test_pyramid.py::TestAuthentication::test_remember_logs_in_and_forget_logs_out",
)
def forget_of_pyramid_keeps_the_session(delitem):
    return lambda self, key: None


@canary(
    "B-25",
    f"{FRAMEWORKS}.pyramid.csrf:CSRFStoragePolicy.check_csrf_token",
    tests="test_pyramid.py::TestCSRF",
    raises="AppError",
)
def pyramid_accepts_every_csrf_token(check_csrf_token):
    return lambda self, request, token: True


# Django


@canary(
    "ASVS 7.2.4",
    f"{FRAMEWORKS}.django.auth:_bind_user",
    tests="test_django_auth.py::test_a_login_binds_the_user",
    raises="ValueError",  # of an empty list
)
def a_login_of_django_sets_no_user(bind_user):
    return lambda *, request, user, **_: None


@canary(
    "ASVS 7.4.3",
    f"{FRAMEWORKS}.django.auth:_end_other_sessions",
    tests="test_django_auth.py",
)
def a_new_password_of_django_keeps_other_sessions(end_other_sessions):
    return lambda user: None


@canary(
    "ASVS 7.4.2",
    f"{FRAMEWORKS}.django.auth:_concerns_user",
    tests="test_django_auth.py::test_a_d",
)
def deleting_a_user_of_django_keeps_the_sessions(concerns_user):
    def faulty(instance, *, raw=False):
        return False

    return faulty


# Every framework


@canary(
    "A24",
    "sojourn._core.working_copy:WorkingCopy._record_late_change",
    tests="test_late_changes",
)
def late_changes_are_not_reported(record_late_change):
    return lambda self: None
