"""RequestSuite: AppSuite and the laws of requests that the core decides, for every adapter.

Authors of adapters need only AppSuite: the other laws cannot fail in a single adapter.
"""

from sojourn.testing import AppSuite
from tests.contract.request_suite.caching import CacheHeaderTests
from tests.contract.request_suite.cookies import CookieTests
from tests.contract.request_suite.endings import EndingTests
from tests.contract.request_suite.expiry import ExpiryTests
from tests.contract.request_suite.hostile_cookies import HostileCookieTests
from tests.contract.request_suite.identity import IdentityTests
from tests.contract.request_suite.merging import MergingTests
from tests.contract.request_suite.rotation import RotationTests
from tests.contract.request_suite.secrecy import SecrecyTests
from tests.contract.request_suite.store_calls import StoreCallTests
from tests.contract.request_suite.tickets import TicketTests


class RequestSuite(
    AppSuite,
    TicketTests,
    RotationTests,
    ExpiryTests,
    MergingTests,
    SecrecyTests,
    HostileCookieTests,
    IdentityTests,
    EndingTests,
    CacheHeaderTests,
    CookieTests,
    StoreCallTests,
):
    """The laws A1 to A24 for one adapter."""
