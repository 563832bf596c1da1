"""tools/mutation.py: the survival rate of each module, from the result files of mutmut."""

import json
from collections import Counter
from datetime import date

import pytest

from tools import mutation


@pytest.fixture
def mutants(tmp_path, monkeypatch):
    """Write the results of three modules."""
    monkeypatch.setattr(mutation, "MUTANTS", tmp_path)

    def write(module: str, *codes: int | None) -> None:
        path = tmp_path / "src" / f"{module.replace('.', '/')}.py.meta"
        path.parent.mkdir(parents=True, exist_ok=True)
        found = {f"{module}.f__mutmut_{number}": code for number, code in enumerate(codes)}
        path.write_text(json.dumps({"exit_code_by_key": found}), "utf-8")

    # Survived, killed by a test, untested, exceeded the time limit, crashed, not run.
    write("sojourn.a", 0, 1, 33, 36, -11, None)
    write("sojourn.sub.b", 1, 1)
    write("sojourn.c", None)


def modules():
    """Return the counts of the measured modules."""
    found = {name: Counter(mutants.values()) for name, mutants in mutation.read(("",)).items()}
    del found["sojourn.c"]
    return found


def test_survivors_are_counted_for_each_module(mutants):
    assert modules() == {
        "sojourn.a": {"survived": 1, "untested": 1, "killed": 2, "timed out": 1, "not run": 1},
        "sojourn.sub.b": {"killed": 2},
    }
    assert [mutation.rate(counts) for counts in modules().values()] == [40.0, 0.0]


def test_run_resumes_with_the_untested_mutants(mutants):
    def select(*packages, again=(), modules=()):
        return mutation.select(mutation.read(packages, modules), again)

    assert select("sojourn.a", "sojourn.sub.") == ["sojourn.a.f__mutmut_5"]
    assert select("sojourn.c") == ["sojourn.c.f__mutmut_0"]
    assert select("sojourn.", modules=["sojourn.sub.b"], again=["survived"]) == []
    assert select("sojourn.", modules=["sojourn.sub.b", "sojourn.a"], again=["killed"]) == [
        "sojourn.a.f__mutmut_1",
        "sojourn.a.f__mutmut_4",
        "sojourn.a.f__mutmut_5",
        "sojourn.sub.b.f__mutmut_0",
        "sojourn.sub.b.f__mutmut_1",
    ]


def test_the_report_names_a_module_that_exceeds_its_budget(mutants):
    text = mutation.report(modules(), {"default": 20, "modules": {"sojourn.a": 39.9}})
    assert "40.0 %  exceeds the budget of 39.9 %" in text
    assert text.splitlines()[-1].split() == ["total", "4", "1", "1", "1", "28.6", "%"]
    assert "exceeds" not in mutation.report(modules(), {"default": 40})


@pytest.mark.parametrize(("budget", "code"), [("default = 40", 0), ("default = 39", 1)])
def test_a_module_over_its_budget_fails_the_run(mutants, monkeypatch, tmp_path, budget, code):
    file = tmp_path / "budget.toml"
    file.write_text(budget, "utf-8")
    monkeypatch.setattr(mutation, "BUDGET", file)
    assert mutation.main(["--report-only"]) == code


def test_a_run_without_mutants_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(mutation, "MUTANTS", tmp_path)
    assert mutation.main(["--report-only"]) == 1


def test_the_budget_names_modules_that_exist(repository):
    budget = mutation.tomllib.loads(mutation.BUDGET.read_text("utf-8"))
    for name in budget["modules"]:
        assert (repository / "src" / f"{name.replace('.', '/')}.py").is_file()


def test_table_is_updated_for_completely_measured_modules(mutants):
    page = (
        "before\n<!-- written by tools/mutation.py --write -->\n| old heading |\n"
        "| `sojourn.z` | 9 | 0 | 0 | 0.0 % | 2026-01-01 |\n"
        "| `sojourn.sub.b` | 9 | 0 | 9 | 100.0 % | 2026-01-01 |\n"
        "<!-- end of the table -->\nafter\n"
    )
    written = mutation.write(page, modules(), date(2026, 1, 2))
    assert written.startswith("before\n<!-- written")
    assert written.endswith("<!-- end of the table -->\nafter\n")
    assert written.splitlines()[2:-2] == [
        "| module | mutants | timed out | survived | rate | measured |",
        "|---|---|---|---|---|---|",
        "| `sojourn.sub.b` | 2 | 0 | 0 | 0.0 % | 2026-01-02 |",
        "| `sojourn.z` | 9 | 0 | 0 | 0.0 % | 2026-01-01 |",
    ], "one mutant of sojourn.a was not run"
    assert mutation.write(written, {}, date(2026, 1, 3)) == written
