"""A1 to A24 with the ticket in a header: Starlette, FastAPI, bare ASGI and bare WSGI."""

import pytest

from tests.contract import test_applications as applications
from tests.contract.request_suite.in_header import in_header

TestStarlette = in_header(applications.TestStarletteWithMiddleware)
TestStarletteDropIn = in_header(applications.TestStarletteDropIn, pytest.mark.slow)
TestFastAPI = in_header(applications.TestFastAPI, pytest.mark.slow)
TestBareASGI = in_header(applications.TestBareASGI)
TestBareWSGI = in_header(applications.TestBareWSGI)
