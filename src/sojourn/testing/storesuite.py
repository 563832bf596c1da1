"""StoreSuite: every law of stores, to be inherited by the test of a store.

What lives here: the class that authors inherit. What must not: laws (``storelaws.py``,
``parallel.py``, ``listlaws.py``, ``loginlaws.py``, ``tellinglaws.py``) and switches
(``storekit.py``), of which it is made.
"""

from __future__ import annotations

from sojourn.testing.listlaws import ListLaws
from sojourn.testing.loginlaws import LoginLaws
from sojourn.testing.parallel import ParallelLaws
from sojourn.testing.storelaws import StoreLaws
from sojourn.testing.tellinglaws import TellingLaws


class StoreSuite(StoreLaws, ParallelLaws, ListLaws, LoginLaws, TellingLaws):
    """The laws S1 to S18 for one store.

    Inherit it in a test module, say how the store is made, and override the switches that apply::

        class TestMyStore(StoreSuite):
            @pytest.fixture(autouse=True)
            def folder(self, tmp_path):
                self.folder = tmp_path

            def make_store(self, realm):
                return MyStore(self.folder / realm)
    """
