"""Labels have a bounded number of values, and the texts of this library are among them."""

import re
from pathlib import Path

import pytest

from sojourn.telemetry import labels

SOURCE = Path(__file__).parents[3] / "src" / "sojourn"


@pytest.mark.parametrize(
    ("function", "text", "label"),
    [
        (labels.rejection, "forged", "forged"),
        (labels.rejection, "malformed", "malformed"),
        (labels.rejection, "unreadable: the record is damaged at byte 7", "unreadable"),
        (labels.rejection, "expired (absolute)", "expired"),
        (labels.rejection, "alice was here", "other"),
        (labels.revocation, "destroyed", "destroyed"),
        (labels.revocation, "reported by alice@example.org", "other"),
        (labels.limit, "idle", "idle"),
        (labels.limit, "moon", "other"),
        (labels.failed_operation, "publish", "publish"),
        (labels.failed_operation, "x", "other"),
    ],
)
def test_labels_are_bounded(function, text, label):
    assert function(text) == label


def source():
    return "\n".join(path.read_text() for path in SOURCE.rglob("*.py"))


def test_the_reasons_of_rejections_are_labels():
    """A reason that is added to the source must be added to the labels."""
    found = set(re.findall(r'report_rejected\([^\n]+, "([^"]+)"\)', source()))
    found |= set(re.findall(r'_reject\(ticket, "([^"]+)"', source()))
    (both,) = re.findall(r'reason = "([^"]+)" if is_well_formed\(\w+\) else "([^"]+)"', source())
    found |= set(both)
    assert {"forged", "malformed", "duplicate", "replaced", "labels", "ended"} <= found
    assert found <= labels.REJECTIONS


def test_the_reasons_of_revocations_are_labels():
    found = set(re.findall(r'reason: str = "([^"]+)"|reason="([a-z ]+)"', source()))
    found = {first or second for first, second in found}
    found |= set(re.findall(r'revoker?\.(?:revoke|report)\([^"\n]+, "([^"]+)"', source()))
    assert {"revoked", "credentials changed", "limit", "destroyed", "reused"} <= found
    assert found - {"reason"} <= labels.REVOCATIONS


def test_the_failed_operations_are_labels():
    found = set(re.findall(r'(?:raise|report)_store_error\(\s*"([a-z_]+)"', source()))
    found |= set(re.findall(r'StoreFailed\([^\n]+, "([a-z]+)"', source()))
    assert {"load", "save", "publish", "server_time"} <= found
    assert found <= labels.FAILED_OPERATIONS
