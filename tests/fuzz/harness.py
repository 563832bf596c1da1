"""Feed the targets from a coverage-guided fuzzer: a program, for longer runs by hand.

    pip install atheris
    python -m tests.fuzz.harness value -max_total_time=600 tests/fuzz/corpus/value

The first argument is the target (a name of ``targets.TARGETS``), the rest is libFuzzer's. Whatever
it finds that is new goes into the corpus folder, which ``test_fuzz.py`` replays: keep what is short
and give it the ending ``.bin``. Not a dependency of the project: the tests need none of it.
"""

import sys

import atheris

atheris.enabled_hooks.add("RegEx")
with atheris.instrument_imports(include=["sojourn", "tests.fuzz.targets"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz one target until libFuzzer's limits are reached."""
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
