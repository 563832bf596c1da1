"""Measures everything and writes RESULTS.md: `make bench`.

Runs cpu_time.py, instructions.py, throughput.py, valkey_memory.py and merging.py one after the
other, each in a process of its own, so that no heap is shared. A figure that misses its goal is
shown as missed; the command still succeeds. `--quick` takes short measurements, three minutes in
total, and does not write.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, results

RESULTS = Path(__file__).with_name("RESULTS.md")
QUICK = {
    "cpu_time": ["--rounds", "3", "--requests", "320"],
    "throughput": ["--rounds", "3", "--seconds", "0.1", "--half-load-seconds", "0.2"],
    "valkey_memory": ["--users", "500"],
}


def measure(part: str, options: Sequence[str]) -> Any:
    """Run one command in a separate process; return its figures; None if it wrote none."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "figures.json"
        command = [sys.executable, "-m", f"benchmarks.{part}", "--json", str(file), *options]
        subprocess.run(command, check=True)
        print(flush=True)
        return json.loads(file.read_text()) if file.exists() else None


def main() -> None:
    """Run all commands and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a rough answer; does not write")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("NO INSTRUCTION COUNTS IN THIS RUN: valgrind is not installed", file=sys.stderr)
    warning = machine.describe_load()
    if warning:
        print(warning, file=sys.stderr)
    cpu_time, instructions, throughput, memory, merging = (
        measure(part, QUICK.get(part, []) if arguments.quick else [])
        for part in ("cpu_time", "instructions", "throughput", "valkey_memory", "merging")
    )
    page = results.render_page(cpu_time, instructions, throughput, memory, merging, warning=warning)
    print(page)
    if not arguments.quick:
        kept = results.sections_of(RESULTS.read_text()) if RESULTS.exists() else ()
        RESULTS.write_text(results.with_sections(page, *kept))
        print(f"written to benchmarks/{RESULTS.name}")


if __name__ == "__main__":
    main()
