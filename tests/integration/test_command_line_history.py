"""`sojourn history`: revocations by the command line, with reason and actor."""

import pytest

from sojourn.config import OPTIONS
from tests.integration.command_line_stores import (
    installation,
    on_stores,
    postgresql,
    shared_cluster,
    shared_postgresql,
    shared_valkey,
    valkey,
)

__all__ = [
    "installation",
    "postgresql",
    "shared_cluster",
    "shared_postgresql",
    "shared_valkey",
    "valkey",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif("history" not in OPTIONS, reason="needs the option history"),
]


@on_stores()
def test_history_lists_revocations_by_the_command(installation):
    """Newest first; the environment has the application's option."""
    assert installation.run("history").code == 1
    installation.environ["SOJOURN_HISTORY"] = "30 days"
    ids = [installation.add(user, browser="Firefox") for user in ("ada", "eve")]
    revoked = installation.run("revoke", ids[0], "--reason", "stolen", "--actor", "support\x1b[2J")
    assert revoked.code == 0
    assert installation.run("revoke", ids[1]).code == 0

    listed = installation.run("history", "--json").document
    assert [each["id"] for each in listed["sessions"]] == [ids[1], ids[0]]
    found = listed["sessions"][1]
    assert (found["reason"], found["actor"]) == ("stolen", "support\x1b[2J")
    assert (found["user"], found["labels"]) == ("ada", {"browser": "Firefox"})
    assert found["ended_at"] >= found["created_at"]

    shown = installation.run("history", "--user", "ada")
    assert shown.out.split("\t")[1:5] == [ids[0], "ada", "stolen", r"support\x1b[2J"]

    first = installation.run("history", "--limit", "1", "--json").document
    rest = installation.run("history", "--cursor", first["cursor"], "--json").document
    assert [each["id"] for each in first["sessions"] + rest["sessions"]] == [ids[1], ids[0]]
