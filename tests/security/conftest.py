"""Every adapter that there is, for rules which must hold through each of them.

What lives here: the fixture ``kit``, one application builder of ``AppSuite`` after the other. What
must not: rules. Handlers are written as for the laws (``sojourn.testing.site``).
"""

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
    """Return what builds applications of one framework."""
    return KITS[request.param]()
