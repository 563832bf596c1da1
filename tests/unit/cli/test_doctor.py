"""The command ``sojourn doctor`` as a process: exit codes, output, applications."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from sojourn import Sessions
from sojourn.cli.doctor import exit_code
from sojourn.cli.doctor_checks import CheckResult, Report, Severity
from sojourn.cli.doctor_checks.findings import Finding
from sojourn.cli.group import INSTALLATION_COMMANDS, SessionsGroup
from sojourn.cli.target import Target
from sojourn.frameworks.install import get
from tests.support.examination import SECRET


def process(*arguments, **environment):
    """Run ``sojourn doctor`` and return the process."""
    environment = {**os.environ, "COLUMNS": "120", **environment}
    return subprocess.run(
        [sys.executable, "-m", "sojourn", "doctor", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=50,
    )


def invoked(*arguments, **environment):
    """Run the command in this process, which takes a tenth of the time; return the result."""
    group = SessionsGroup(
        "sojourn", make_target=lambda _: Target(get), modules=INSTALLATION_COMMANDS
    )
    return CliRunner().invoke(group, ["doctor", *arguments], env={"COLUMNS": "120", **environment})


@pytest.fixture
def url(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    with contextlib.closing(Sessions(store=f"sqlite:///{folder}/s.db", secret=SECRET)) as sessions:
        sessions.ping()
    return f"sqlite:///{folder}/s.db"


def write_application(options):
    Path("shop.py").write_text(
        "from flask import Flask\n"
        "import sojourn\n"
        "app = Flask('shop')\n"
        f"sojourn.install(app, {options})\n"
    )


def test_a_healthy_store_ends_with_0(url):
    answer = invoked("--store", url, SOJOURN_SECRET=SECRET)
    assert answer.exit_code == 0
    assert "0 errors, 0 warnings" in answer.output
    assert "round trip" in answer.output
    assert SECRET not in answer.output


def test_problems_exit_with_1_and_print_advice(url):
    os.chmod(url.removeprefix("sqlite:///"), 0o644)  # noqa: PTH101 - the text of a URL
    answer = invoked("--store", url, SOJOURN_SECRET="changeme-changeme-changeme")
    assert answer.exit_code == 1
    for text in ("ERROR  sqlite-mode", "chmod go-rwx", "ERROR  secret-weak", "2 errors"):
        assert text in answer.output
    assert "changeme-" not in answer.output


def test_wrong_options_end_with_2(url):
    assert invoked("--store", "foo://x").exit_code == 2
    answer = invoked("--store", url, "--ignore", "sqlite-mod")
    assert answer.exit_code == 2
    assert "sqlite-mod" in answer.output


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "shop.example",
        "https://",
        "https://visitor:s3cr3t-word@shop.example/",
        "https://shop.example:s3cr3t-word/",
    ],
)
def test_an_address_that_is_no_page_ends_with_2(address):
    answer = invoked("--store", "memory://", "--url", address)
    assert answer.exit_code == 2
    assert "https://shop.example/account" in answer.output
    assert "s3cr3t" not in answer.output


def test_an_unreachable_store_ends_with_3():
    answer = process("--store", "redis://app:s3cr3t-word@127.0.0.1:1/0", SOJOURN_SECRET=SECRET)
    assert answer.returncode == 3
    assert "store-unreachable" in answer.stdout
    assert "***" in answer.stdout
    assert "s3cr3t" not in answer.stdout + answer.stderr


def test_json_is_one_document(url):
    answer = invoked("--store", url, "--json", SOJOURN_SECRET=SECRET)
    assert answer.exit_code == 0
    report = msgspec.json.decode(answer.output, type=Report)
    assert report.reached
    assert report.round_trip is not None
    assert 0 < report.round_trip.minimum <= report.round_trip.median
    assert json.loads(answer.output)["findings"] == []


def test_findings_can_be_ignored(url):
    os.chmod(url.removeprefix("sqlite:///"), 0o644)  # noqa: PTH101 - the text of a URL
    arguments = ("--store", url, "--ignore", "sqlite-mode")
    answer = invoked(*arguments, SOJOURN_SECRET=SECRET)
    assert answer.exit_code == 0
    assert "sqlite-mode" not in answer.output


def report_with(severity):
    finding = Finding("some-code", severity, "expected", "found", "remedy")
    return Report("memory://", "default", "", True, None, (CheckResult("a", "ok"),), (finding,))


@pytest.mark.parametrize(
    ("severity", "strict", "code"),
    [
        (Severity.ERROR, False, 1),
        (Severity.WARNING, False, 0),
        (Severity.WARNING, True, 1),
        (Severity.INFO, True, 0),
    ],
)
def test_warnings_fail_with_strict_only(severity, strict, code):
    assert exit_code(report_with(severity), strict=strict) == code


def test_strict_is_passed_on():
    assert invoked("--store", "memory://", SOJOURN_SECRET=SECRET).exit_code == 0
    assert invoked("--store", "memory://", "--strict", SOJOURN_SECRET=SECRET).exit_code == 1


@pytest.mark.slow
def test_exit_codes_of_processes(url):
    healthy = process("--store", url, SOJOURN_SECRET=SECRET)
    assert (healthy.returncode, healthy.stderr) == (0, "")
    assert process("--store", url, "--realm", "typo", SOJOURN_SECRET=SECRET).returncode == 1
    assert process("--store", "foo://x", SOJOURN_SECRET=SECRET).returncode == 2
    document = process("--store", url, "--json", SOJOURN_SECRET=SECRET).stdout
    assert msgspec.json.decode(document, type=Report).reached


@pytest.mark.slow
def test_the_options_of_an_application_are_examined():
    write_application(f"store='sqlite:///data/s.db', secret={SECRET!r}, secure=False")
    answer = process("--app", "shop:app")
    assert answer.returncode == 1
    assert "cookie-insecure" in answer.stdout
    assert SECRET not in answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("secret='changeme-changeme-changeme'", "secret-weak", "sojourn secret new"),
        (
            f"secret={SECRET!r}, timeout='2 hours', absolute_timeout='1 hour'",
            "configuration-refused",
            "absolute_timeout",
        ),
        (
            f"secret={SECRET!r}, same_site='none', secure=False",
            "configuration-refused",
            "remove secure=False",
        ),
    ],
)
def test_options_that_sojourn_refuses_are_a_finding(options, code, words, monkeypatch):
    """Idle timeout above the absolute one, SameSite=None without Secure, a placeholder."""
    write_application(f"store='memory://', {options}")
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    monkeypatch.syspath_prepend(Path.cwd())
    answer = invoked("--app", "shop:app", "--json")
    sys.modules.pop("shop", None)
    assert answer.exit_code == 1
    (finding,) = json.loads(answer.output)["findings"]
    assert finding["code"] == code
    assert words in finding["found"] + finding["remedy"]
    assert "changeme-" not in answer.output
    assert "new one:" not in answer.output


def test_the_document_is_ascii(tmp_path):
    """A terminal without a character of the path would show an escape that JSON does not have."""
    answer = invoked("--store", f"sqlite:///{tmp_path}/b\u00fccher.db", "--json")
    assert answer.output.isascii()
    assert json.loads(answer.output)["store"].endswith("/b\u00fccher.db")


@pytest.mark.slow
def test_an_application_that_does_not_exist_ends_with_2():
    answer = process("--app", "typo:app")
    assert answer.returncode == 2
    assert "typo" in answer.stderr


@pytest.mark.parametrize("timeout", ["nan", "inf", "0"])
def test_a_timeout_is_a_number_of_seconds(timeout):
    """With `nan` no call would ever end."""
    assert invoked("--timeout", timeout).exit_code == 2
