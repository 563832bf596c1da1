"""Help for tests of applications works where pytest is not installed (``docs/testing.md``)."""

import subprocess
import sys

import sojourn.testing

PROGRAM = """
import sys
sys.modules["pytest"] = None  # importing it raises ModuleNotFoundError
import sojourn
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore, Visitor, aopen_session, open_session
clock = FakeClock()
store = FaultyStore(MemoryStore())
sessions = sojourn.Sessions(store=store, clock=clock, secret="a secret for tests: 5f8c1e90")
visitor = open_session(sessions, name="Ada")
print(visitor.data())
"""


def test_an_application_is_tested_without_pytest():
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert (answer.stdout, answer.stderr) == ("{'name': 'Ada'}\n", "")


def test_each_public_name_is_listed_and_importable():
    assert set(sojourn.testing.__all__) <= set(dir(sojourn.testing))
    assert all(hasattr(sojourn.testing, name) for name in sojourn.testing.__all__)
    assert not hasattr(sojourn.testing, "AppSuit")
