"""Names of devices, times and invisible characters as pages show them."""

from datetime import UTC, datetime, timedelta

import pytest

from sojourn.admin.confirmation import can_be_typed
from sojourn.admin.device_names import name_device
from sojourn.admin.formatting import absolute_time, relative_time, visible

NOW = datetime(2026, 11, 28, 21, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("browser", "name"),
    [
        (
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 "
                "(KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
            ),
            "Safari 17 on iPhone",
        ),
        (
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) "
                "Chrome/126.0.0.0 Mobile Safari/537.36"
            ),
            "Chrome 126 on Android",
        ),
        (
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like "
                "Gecko) Version/17.5 Safari/605.1.15"
            ),
            "Safari 17 on macOS",
        ),
        (
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
                "Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0"
            ),
            "Edge 126 on Windows",
        ),
        ("curl/8.5.0", "curl 8"),
        ("payments-worker/2.1 (internal)", "payments-worker 2.1"),
        ("x" * 200, "x" * 40),
        ("", "Unknown device"),
        ("   ", "Unknown device"),
    ],
)
def test_devices_have_the_names_that_users_know(browser, name):
    assert str(name_device(browser)) == name


@pytest.mark.parametrize(
    ("distance", "text"),
    [
        (timedelta(), "just now"),
        (timedelta(seconds=-59), "just now"),
        (timedelta(seconds=-60), "1 minute ago"),
        (timedelta(minutes=-59), "59 minutes ago"),
        (timedelta(minutes=-90), "90 minutes ago"),
        (timedelta(hours=-2), "2 hours ago"),
        (timedelta(hours=-47), "47 hours ago"),
        (timedelta(days=-3), "3 days ago"),
        (timedelta(days=-800), "2 years ago"),
        (timedelta(seconds=1), "in a moment"),
        (timedelta(minutes=29, seconds=59), "in 30 minutes"),
        (timedelta(days=30), "in 30 days"),
    ],
)
def test_times_are_relative_to_now(distance, text):
    assert relative_time(NOW + distance, NOW) == text


def test_times_are_exact_besides():
    assert absolute_time(NOW) == "2026-11-28 21:05:12"
    end = datetime(9999, 12, 31, tzinfo=UTC)
    assert (relative_time(end, NOW), absolute_time(end)) == ("never", "")


def test_invisible_characters_are_shown_as_escapes():
    assert visible("ada ä 漢 <&>") == "ada ä 漢 <&>"
    assert visible("a\u202eb\x00\n\u200bc\ud800") == r"a\u202eb\x00\n\u200bc\ud800"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada@example.com", True),
        ("Ada Lovelace", True),
        ("x" * 65, False),
        (" ada", False),
        ("ada  lovelace", False),
        ("ada\u00a0lovelace", False),
        ("ada\u200b", False),
    ],
)
def test_only_texts_that_can_be_typed_are_requested(text, expected):
    assert can_be_typed(text) is expected
