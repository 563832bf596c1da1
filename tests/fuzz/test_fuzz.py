"""Untrusted bytes crash no parser, forgeries are refused, and hostile headers are cheap.

Each target of ``targets.py`` receives the files of its corpus and random input of hypothesis.
"""

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sojourn._crypto.tickets import TICKET_CHARACTERS
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import COOKIE_NAME, READERS, RING, SEALED, TARGETS

CORPUS = Path(__file__).parent / "corpus"

#: Tokens of the formats, so that random bytes pass the first checks of the parsers.
PIECES = [
    *(b"sid", b"__Host-sid", b"a.b", b"=", b";", b"; ", b",", b'"', b" ", b"\t", b"\0", b"\r\n"),
    *(SEALED.encode(), b"A" * 66, b"|", b"/", b"example.com", b"\x93", b"\xc0", b"\x80", b"\x81"),
    *(b"\xa3ada", b"\xc4\x01\x01", b"\x01" * 17, b"\xc7\x03\x01\x91\xc4\x01", b"\xd4\x01"),
]
HOSTILE = st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=24).map(b"".join)
ANYTHING = st.binary(max_size=200) | HOSTILE
SEEDED = {
    name: st.tuples(st.sampled_from(seeds), st.integers(0, 200), st.binary(max_size=8)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + len(parts[2]) :]
    )
    for name, seeds in SEEDS.items()
}


def feed(target, number):
    """Call a target with the given number of generated examples."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]

    @settings(max_examples=number, suppress_health_check=slow)
    @given(ANYTHING | SEEDED[target])
    def once(data):
        TARGETS[target](data)

    once()


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_is_accepted_or_rejected(target):
    """A8, S9, B-13, B-15, B-21, B-27, B-58."""
    files = sorted((CORPUS / target).iterdir())
    assert len(files) >= len(SEEDS[target])
    for file in files:
        TARGETS[target](file.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_random_bytes_are_accepted_or_rejected(target):
    """A8, S9, B-13, B-15, B-21, B-27, B-58."""
    feed(target, 300)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", TARGETS)
def test_many_random_bytes_are_accepted_or_rejected(target):
    """A8, S9, B-13, B-15, B-21, B-27, B-58."""
    feed(target, 10_000)


@pytest.mark.parametrize("at", range(TICKET_CHARACTERS))
def test_a_ticket_with_one_changed_character_is_rejected(at):
    """A8, B-13, B-15: at every position, with every character of the alphabet."""
    assert RING.unseal(SEALED, name=COOKIE_NAME) is not None
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/= ":
        if letter != SEALED[at]:
            text = SEALED[:at] + letter + SEALED[at + 1 :]
            assert RING.unseal(text, name=COOKIE_NAME) is None


SIZE = 65_536
HEADERS = {
    "our cookie": b"sid=1;" * (SIZE // 6),
    "our cookie, all different": b";".join(b"sid=%d" % n for n in range(SIZE // 9)),
    "almost our cookie": b";sid" * (SIZE // 4),
    "almost our value": b";sid=" + b"=;sid" * (SIZE // 5),
    "blanks": b";" + b" " * SIZE,
    "blanks and semicolons": b"; \t" * (SIZE // 3),
    "blanks in the value": b"sid=" + b" x" * (SIZE // 2),
    "one value": b"sid=" + b"A" * SIZE,
    "quotes": b'sid="' + b'\\"' * (SIZE // 2),
    "tickets": b"; ".join([b"sid=" + SEALED.encode()] * (SIZE // 72)),
}


def fastest(call, *arguments, **named):
    best = float("inf")
    for _ in range(9):
        began = time.process_time()
        call(*arguments, **named)
        best = min(best, time.process_time() - began)
    return best


@pytest.mark.parametrize("kind", HEADERS)
def test_a_hostile_header_is_parsed_in_linear_time(kind):
    """A19, B-56, B-57: eight times the length costs about eight times as much."""
    find = READERS[0].find
    once, more = fastest(find, HEADERS[kind]), fastest(find, HEADERS[kind] * 8)
    assert once < 0.005
    assert more < 24 * max(once, 0.0002)


def test_an_oversized_ticket_is_not_decoded():
    """A19, B-57: text of another length is rejected at once."""
    assert fastest(RING.unseal, "A" * 10 * SIZE, name=COOKIE_NAME) < 0.0005
