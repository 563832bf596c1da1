"""The fixture ``kit``: the application builder of each adapter."""

import pytest

from tests.contract import test_applications as adapters

KITS = {
    "Starlette": adapters.TestStarlette,
    "FastAPI": adapters.TestFastAPI,
    "ASGI": adapters.TestBareASGI,
    "WSGI": adapters.TestBareWSGI,
}


@pytest.fixture(params=KITS)
def kit(request):
    """Return the builder of applications of one framework."""
    return KITS[request.param]()
