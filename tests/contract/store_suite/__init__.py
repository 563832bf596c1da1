"""StoreSuite of this repository: the public suite, and tests of random and parallel changes.

Authors of stores need only the public suite to find the usual mistakes.
"""

from sojourn.testing import StoreSuite as PublicStoreSuite
from tests.contract.store_suite.parallel_logins import ParallelLoginTests
from tests.contract.store_suite.parallel_revocations import ParallelRevocationTests
from tests.contract.store_suite.random_index import RandomIndexTests


class StoreSuite(PublicStoreSuite, ParallelLoginTests, ParallelRevocationTests, RandomIndexTests):
    """The laws S1 to S18 for one store."""
