"""Run a target under a coverage-guided fuzzer, by hand.

    pip install atheris
    python -m tests.fuzz.harness value -max_total_time=600 tests/fuzz/corpus/value

The first argument is a name of ``targets.TARGETS``, the others are options of libFuzzer. New inputs
are added to the corpus folder, which ``test_fuzz.py`` runs; keep short ones, with the suffix
``.bin``. Atheris is not a dependency of the project.
"""

import sys

import atheris

atheris.enabled_hooks.add("RegEx")
with atheris.instrument_imports(include=["sojourn", "tests.fuzz.targets"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz one target until a limit of libFuzzer is reached."""
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
