"""`make bench`: measure everything, print one table, write it to RESULTS.md.

Runs costs.py, instructions.py and throughput.py one after the other, each in a process of its own
so that none inherits the other's heap. Never fails for a figure; a figure that misses its goal is
shown as missed. Takes nine minutes on two cores; `--quick` gives a rough answer in three.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import results

RESULTS = Path(__file__).with_name("RESULTS.md")
QUICK = {
    "cpu_time": ["--rounds", "5"],
    "throughput": ["--rounds", "5", "--seconds", "0.3", "--paced-seconds", "1"],
}


def figures_of(part: str, options: list[str]) -> Any:
    """Run one part in a process of its own and return the figures it kept; None if it kept none."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, "-m", f"benchmarks.{part}", "--json", str(file), *options]
        subprocess.run(command, check=True)
        print(flush=True)
        return json.loads(file.read_text()) if file.exists() else None


def disturbance() -> str:
    """Return a warning if other programs are using the machine; empty if none are."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < 0.5:
        return ""
    return (
        f"The load average was {load:.1f} before the first measurement: other programs were at "
        "work. Trust the instructions; repeat the rest on a quiet machine."
    )


def main() -> None:
    """Run all parts and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds; does not write")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("NO INSTRUCTION COUNTS IN THIS RUN: valgrind is not installed", file=sys.stderr)
    busy = disturbance()
    if busy:
        print(busy, file=sys.stderr)
    parts = {
        part: figures_of(part, QUICK.get(part, []) if arguments.quick else [])
        for part in ("cpu_time", "instructions", "throughput")
    }
    page = results.page(parts["cpu_time"], parts["instructions"], parts["throughput"], note=busy)
    print(page)
    if not arguments.quick:
        RESULTS.write_text(page)
        print(f"written to benchmarks/{RESULTS.name}")


if __name__ == "__main__":
    main()
