"""The program that breaks the code on purpose tells what was noticed from what was not.

Runs ``tools/mutate.py`` over a row that is good and over others in which it must not believe.
"""

import pytest

from tools import mutate
from tools.mutations import Mutation
from tools.mutations.places import POLICY

LIMIT = "    if now >= record.absolute_at:\n"
ITS_TEST = "tests/core/test_policy.py -k very_millisecond"

NOTICED = Mutation("A17, ASVS 7.3.2", POLICY, LIMIT, "    if now < 0:\n", ITS_TEST)
HARMLESS = NOTICED._replace(fault="    if record.absolute_at <= now:\n")
NOT_CITED = NOTICED._replace(breaks="A17, A18")
MISFIT = NOTICED._replace(text="    if now >= record.nothing:\n")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_fault_counts_only_if_a_test_fails_that_cites_what_it_breaks(monkeypatch, capsys):
    table = [NOTICED, HARMLESS, NOT_CITED, MISFIT]
    monkeypatch.setattr(mutate, "TABLE", table)
    assert mutate.main(["--jobs", "2"]) == 1
    *_, total, harmless, not_cited, misfit = capsys.readouterr().out.splitlines()
    assert total.startswith("1 of 4 faults were noticed")
    assert harmless.endswith("SURVIVED")
    assert not_cited.endswith("SURVIVED: no test failed that cites A18")
    assert misfit.endswith("text found 0 times: bring the row up to date")
    assert mutate.main(["--jobs", "1", "ASVS 7.3.2"]) == 1, "the harmless one is among them"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_test_that_fails_without_the_fault_proves_nothing(monkeypatch, capsys):
    whole = mutate.copied

    def with_a_broken_test(folder):
        copy = whole(folder)
        (copy / "tests" / "test_broken.py").write_text("def test_broken():\n    assert False\n")
        return copy

    row = NOTICED._replace(breaks="a promise in words", tests="tests/test_broken.py")
    monkeypatch.setattr(mutate, "TABLE", [row])
    monkeypatch.setattr(mutate, "copied", with_a_broken_test)
    assert mutate.main(["--jobs", "1"]) == 1
    said = "fails without the fault: tests/test_broken.py::test_broken"
    assert capsys.readouterr().out.rstrip().endswith(said)
