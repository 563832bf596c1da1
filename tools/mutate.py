"""Break the code on purpose, one fault at a time, and see the tests of the law fail.

Copies the work tree to a temporary folder, applies one row of ``mutations.py`` or
``mutations_lives.py`` (laws), ``mutations_parts.py`` (parts beside the engine),
``mutations_stores.py`` (Valkey and Redis), ``mutations_live.py`` (across processes) or
``mutations_security.py`` (flaws of the past), runs its tests there, and puts the file back. A fault
that no test notices has survived: the program then ends with 1. It ends so too when a row's text is
not found, or when the tests fail without any fault.

    python tools/mutate.py            all rows
    python tools/mutate.py A7 B-32    the rows of these laws and flaws
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # also when it is run as a file

from tools.mutations import MUTATIONS, Mutation  # noqa: E402 - after the path
from tools.mutations_live import ACROSS  # noqa: E402 - as above
from tools.mutations_lives import LIVES  # noqa: E402 - as above
from tools.mutations_parts import PARTS  # noqa: E402 - as above
from tools.mutations_security import BY_LAW, SECURITY  # noqa: E402 - as above
from tools.mutations_stores import STORES  # noqa: E402 - as above

COPIED = ("src", "tests", "tools", "pyproject.toml")

#: Seconds for one row; a fault may well make a test hang.
PATIENCE = 240

#: What pytest answers when tests were run and some failed.
SOME_FAILED = 1


def main(laws: Sequence[str]) -> int:
    """Run the rows of these laws and flaws, of all if none is named; return the exit code."""
    asked = {*laws, *(BY_LAW[name] for name in laws if name in BY_LAW)}
    table = (*MUTATIONS, *LIVES, *PARTS, *STORES, *ACROSS, *SECURITY)
    rows = [row for row in table if not asked or asked & set(row.laws.split())]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.pyc"))
            else:
                shutil.copy(ROOT / name, copy / name)
        bad = [row for row in rows if not judge(row, copy)]
    print(f"{len(rows) - len(bad)} of {len(rows)} faults were noticed,", end=" ")
    print(f"in {time.monotonic() - began:.0f} s")
    for row in bad:
        print(f"  {row.laws}: {row.file}: {row.text.strip().splitlines()[0]}")
    return 1 if bad or not rows else 0


def judge(row: Mutation, copy: Path) -> bool:
    """Apply a row, run its tests, take it back; tell whether they noticed."""
    path = copy / row.file
    original = path.read_text("utf-8")
    found = original.count(row.text)
    if found != 1:
        verdict, noticed = f"text found {found} times: bring the row up to date", False
    elif (code := sound(row.tests, copy)) != 0:
        verdict, noticed = f"its tests fail without the fault ({code})", False
    else:
        path.write_text(original.replace(row.text, row.fault), "utf-8")
        code = run_tests(row.tests, copy)
        path.write_text(original, "utf-8")
        noticed = code == SOME_FAILED
        verdict = {SOME_FAILED: "noticed", 0: "SURVIVED"}.get(code, f"pytest ended with {code}")
    print(f"{row.laws:12} {row.file.removeprefix('src/sojourn/'):26} {verdict}", flush=True)
    return noticed


@cache
def sound(tests: str, copy: Path) -> int:
    """Return the exit code of tests without any fault; asked once for all rows that share them."""
    return run_tests(tests, copy)


def run_tests(tests: str, copy: Path) -> int:
    """Return the exit code of tests in the copy; a hanging test counts as failed."""
    command = [sys.executable, "-m", "pytest", "-x", "-qq", "--no-header", "--tb=no"]
    command += ["-p", "no:cacheprovider", "-p", "no:randomly", "--timeout=20"]
    environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        answer = subprocess.run(  # noqa: S603 - our own tests
            [*command, *shlex.split(tests)],
            cwd=copy,
            env=environment,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return SOME_FAILED
    return answer.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
