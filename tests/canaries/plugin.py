"""pytest plugin: plants the fault named by CANARY and reports the tests that detect it.

Loaded with ``-p tests.canaries.plugin``. Without CANARY it reports every failed test.
"""

import os
import subprocess
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.canaries.registry import Canary, plant
from tools.citations import docstring, names

#: The name of the canary. Python processes that tests start plant it, too (startup/).
CANARY = "CANARY"

#: The file for the report: a line for each failed test with ``seen`` or ``error``, the law or the
#: exception, and the node ID, separated by tabs.
REPORT = "CANARY_REPORT"

_STARTUP = str(Path(__file__).parent / "startup")

# Names of exceptions that tests raise to fail; pytest.fail raises Failed.
_ASSERTIONS = {"AssertionError", "Failed"}

_name = os.environ.get(CANARY, "")
_canary: Canary | None = plant(_name) if _name else None
_unseen = set(_canary.breaks) if _canary else set()


def _inherit(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which a Python process plants the canary."""
    paths = [_STARTUP, environment.get("PYTHONPATH", "")]
    return {**environment, CANARY: _name, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class _Popen(subprocess.Popen[Any]):
    """Plants the canary also in processes that a test starts with an environment of its own."""

    def __init__(self, *args: Any, env: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(*args, env=_inherit(os.environ if env is None else env), **options)


if _canary:
    subprocess.Popen = _Popen  # type: ignore[misc] # for the rest of the process


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a failed test; stop once each law and row has one."""
    report = yield
    if not report.failed or call.excinfo is None:
        return report
    with Path(os.environ[REPORT]).open("a", encoding="utf-8") as file:
        error = call.excinfo.value
        if not _canary:
            file.write(f"failed\t\t{item.nodeid}\n")
        elif report.when == "setup" or not intended(error, _canary.raises):
            message = str(error).partition("\n")[0]
            file.write(f"error\t{type(error).__name__}: {message}\t{item.nodeid}\n")
        else:
            cited = names(docstring(item))
            file.writelines(f"seen\t{name}\t{item.nodeid}\n" for name in cited & _unseen)
            _unseen.difference_update(cited)
    if _canary and not _unseen:
        item.session.shouldstop = "each law that the fault breaks was seen to fail"
    return report


def intended(error: BaseException, raises: tuple[str, ...]) -> bool:
    """Return whether a test failed by an assertion, or by one of the expected exceptions."""
    if isinstance(error, BaseExceptionGroup):
        return any(intended(each, raises) for each in error.exceptions)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if str(error).startswith("Timeout"):  # pytest-timeout fails a test by pytest.fail
        return "Timeout" in raises
    return bool(kinds & {*_ASSERTIONS, *raises})
