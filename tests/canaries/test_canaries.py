"""Each canary has a target and selects tests, and each law and answered flaw has a canary."""

import pytest

from tests.canaries import registry
from tests.canaries.plugin import intended
from tests.canaries.registry import Canary, MissingTarget, canaries, planted, resolve
from tools import canaries as runner
from tools import citations, security_table

ALL = canaries()

# Collecting every test of the repository takes a minute beside other tests.
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("name", sorted(ALL))
def test_the_target_of_a_canary_exists_and_can_be_replaced(name):
    originals = {target: resolve(target)[2] for target in ALL[name].targets}
    with planted(name):
        for target, original in originals.items():
            fault = resolve(target)[2]
            assert fault is not original
            assert registry.signature_changes(original, fault) == "", target
    assert {target: resolve(target)[2] for target in ALL[name].targets} == originals


def test_a_canary_runs_a_test_for_each_law_that_it_breaks(docstrings):
    for canary in ALL.values():
        cited = [citations.names(docstrings[test]) for test in canary.select(docstrings)]
        missing = set(canary.breaks) - set().union(*cited)
        assert not missing, f"{canary.name} selects no test that cites {missing}"


def test_every_law_has_a_canary():
    assert set(citations.LAWS) - {name for each in ALL.values() for name in each.breaks} == set()


def test_every_answered_flaw_has_a_canary():
    flaws = {row.id for row in security_table.read()["flaw"] if row.answer}
    assert flaws - {name for each in ALL.values() for name in each.breaks} == set()


def test_each_law_or_flaw_that_a_canary_breaks_exists():
    known = {*citations.LAWS, *(row.id for row in security_table.all_rows(security_table.read()))}
    assert {name for each in ALL.values() for name in each.breaks} - known == set()


# The framework


def twice(value):
    return 2 * value


class Base:
    def inherited(self):
        pass


class Derived(Base):
    pass


@pytest.mark.parametrize(
    "target",
    [
        "sojourn.no_such_module:x",
        "sojourn.record:no_such_name",
        "sojourn.record:Record.no_such_member",
        "sojourn.record:NoSuchClass.from_bytes",
        f"{__name__}:Derived.inherited",
    ],
)
def test_a_missing_target_raises(target):
    with pytest.raises(MissingTarget):
        resolve(target)


def test_a_signature_that_differs_is_reported():
    async def asynchronous(value):
        pass

    def other(values):
        pass

    def anything(*args):
        pass

    assert "coroutine" in registry.signature_changes(twice, asynchronous)
    assert "['value']" in registry.signature_changes(twice, other)
    assert registry.signature_changes(twice, anything) == ""


def test_a_function_is_also_replaced_where_it_was_imported():
    from sojourn._core import loader, policy

    original = policy.expired
    with planted("no_limit_expires_a_session"):
        assert policy.expired is loader.expired is not original
    assert policy.expired is loader.expired is original


@pytest.mark.parametrize(
    ("error", "raises", "expected"),
    [
        (AssertionError(), (), True),
        (pytest.fail.Exception("DID NOT RAISE"), (), True),
        (pytest.fail.Exception("Timeout (>20.0s) from pytest-timeout."), (), False),
        (TypeError(), (), False),
        (FileNotFoundError(), ("OSError",), True),
        (ExceptionGroup("", [TypeError(), ExceptionGroup("", [AssertionError()])]), (), True),
        (ExceptionGroup("", [TypeError()]), (), False),
    ],
)
def test_only_an_assertion_or_an_expected_exception_counts_as_detection(error, raises, expected):
    assert intended(error, raises) is expected


@pytest.mark.parametrize(
    ("code", "lines", "result"),
    [
        (1, [("seen", "S1", "a"), ("seen", "S2", "b")], "seen"),
        (0, [], "missed"),
        (1, [("seen", "S1", "a")], "missed"),
        (1, [("seen", "S1", "a"), ("error", "TypeError: x", "b")], "broken"),
        (3, [], "broken"),
        (None, [], "broken"),
    ],
)
def test_the_verdict_follows_from_the_failed_tests(monkeypatch, code, lines, result):
    canary = Canary(
        name="any",
        breaks=("S1", "S2"),
        targets=("sojourn.record:Record",),
        tests=(),
        raises=(),
        fault=twice,
    )
    monkeypatch.setattr(runner, "run_tests", lambda *_: (code, lines))
    assert runner.run(canary, {"a": "S1", "b": "S2"}).result == result
    assert runner.run(canary, {"a": "no law"}).result == "broken"


def test_a_canary_without_its_target_raises(monkeypatch):
    canary = Canary(
        name="any", breaks=("S1",), targets=("sojourn:gone",), tests=(), raises=(), fault=twice
    )
    monkeypatch.setattr(runner, "canaries", lambda: {"any": canary})
    monkeypatch.setattr(citations, "collected", dict)
    with pytest.raises(MissingTarget, match="sojourn:gone"):
        runner.main(["S1"])
    assert runner.main(["S2"]) == 1, "no canary is a failure, too"


@pytest.mark.slow
def test_a_planted_fault_is_detected(docstrings):
    verdict = runner.run(ALL["memory_create_overwrites"], docstrings)
    assert verdict.result == "seen"
