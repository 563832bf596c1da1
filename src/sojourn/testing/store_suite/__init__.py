"""StoreSuite: the laws of stores as tests (``docs/testing.md``)."""

from __future__ import annotations

from sojourn.testing.store_suite.availability import AvailabilityTests
from sojourn.testing.store_suite.broadcast import BroadcastTests
from sojourn.testing.store_suite.bulk import BulkTests
from sojourn.testing.store_suite.concurrency import ConcurrencyTests
from sojourn.testing.store_suite.contract import ContractTests
from sojourn.testing.store_suite.counting import CountTests
from sojourn.testing.store_suite.cutoffs import CutoffTests
from sojourn.testing.store_suite.immediate import ImmediateTests
from sojourn.testing.store_suite.key_fingerprints import KeyFingerprintTests
from sojourn.testing.store_suite.listing import ListingTests
from sojourn.testing.store_suite.session_limits import LimitTests
from sojourn.testing.store_suite.user_index import UserIndexTests


class StoreSuite(
    ContractTests,
    ConcurrencyTests,
    AvailabilityTests,
    UserIndexTests,
    CutoffTests,
    LimitTests,
    BulkTests,
    ImmediateTests,
    BroadcastTests,
    KeyFingerprintTests,
    ListingTests,
    CountTests,
):
    """The laws S1 to S18 for one store.

    Inherit it in a test module, define ``make_store``, and override what else applies::

        class TestMyStore(StoreSuite):
            @pytest.fixture(autouse=True)
            def folder(self, tmp_path):
                self.folder = tmp_path

            def make_store(self, realm):
                return MyStore(self.folder / realm)
    """
