"""StoreSuite of this repository: the public one, and random and parallel changes by many.

An author of a store does not need the latter to find the mistakes that are usual.
"""

from sojourn.testing import StoreSuite as PublicStoreSuite
from tests.contract.store_suite.parallel_logins import ParallelLoginTests
from tests.contract.store_suite.parallel_revocations import ParallelRevocationTests
from tests.contract.store_suite.random_index import RandomIndexTests


class StoreSuite(PublicStoreSuite, ParallelLoginTests, ParallelRevocationTests, RandomIndexTests):
    """The laws S1 to S18 for one store."""
