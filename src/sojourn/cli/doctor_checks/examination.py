"""Examination: runs the checks one after the other, and goes on after one that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from statistics import median
from typing import Any, Final, Literal, Protocol, cast

import msgspec

from sojourn.cli.doctor_checks import (
    clock,
    connection,
    deep_check,
    options,
    records,
    secret,
    sqlite,
)
from sojourn.cli.doctor_checks.context import CheckContext
from sojourn.cli.doctor_checks.findings import Finding, Problem, Severity, error
from sojourn.errors import ConfigurationError, StoreError
from sojourn.stores.migration import MigratingStore

FAILED: Final = error(
    "check-failed",
    "a check that can be completed",
    "if the store works, report this to the authors of sojourn with the text of the error",
)

#: A check examines the installation of its context and returns its findings.
CheckFunction = Callable[[CheckContext], Iterable[Finding]]

#: The modules with checks of one kind of store, by the module of its class. They are imported when
#: they are needed, because their client libraries are optional.
_STORE_CHECKS: Final = {
    "sojourn.stores.redis.store": "sojourn.cli.doctor_checks.valkey",
    "sojourn.stores.postgresql.store": "sojourn.cli.doctor_checks.postgresql",
}


class StoreChecks(Protocol):
    """A module with the checks of one kind of store."""

    PROBLEMS: tuple[Problem, ...]
    CHECKS: tuple[tuple[str, CheckFunction], ...]

    def reach(self, context: CheckContext) -> Iterator[Finding]:
        """Connect to the server, and set ``is_reached`` and ``server``."""
        ...


class CheckResult(msgspec.Struct, frozen=True):
    """The result of one check.

    Attributes:
        name: such as ``server settings``.
        state: ``skipped`` if a check before it has found why it cannot succeed.
        reason: why it was skipped; empty otherwise.
    """

    name: str
    state: Literal["ok", "findings", "skipped"]
    reason: str = ""


class RoundTrip(msgspec.Struct, frozen=True):
    """The time of a load, in milliseconds.

    Attributes:
        minimum: of the calls.
        median: of the calls.
        calls: how many were measured.
    """

    minimum: float
    median: float
    calls: int


class Report(msgspec.Struct, frozen=True):
    """The result of an examination. It contains no secret.

    Attributes:
        store: without a password.
        realm: the namespace.
        server: name and version; empty if unknown.
        reached: whether the store has answered.
        round_trip: None if it was not measured.
        checks: in the order in which they ran.
        findings: errors first.
    """

    store: str
    realm: str
    server: str
    reached: bool
    round_trip: RoundTrip | None
    checks: tuple[CheckResult, ...]
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """Return the number of findings of a severity."""
        return sum(finding.severity is severity for finding in self.findings)


class _Examination:
    """The results so far."""

    def __init__(self, context: CheckContext) -> None:
        self.context = context
        self.checks: list[CheckResult] = []
        self.findings: list[Finding] = []

    def run(self, name: str, check: CheckFunction, *, needs_store: bool = False) -> None:
        """Run a check; record its findings, also those before an error."""
        if needs_store and self.context.blocked:
            self.checks.append(CheckResult(name, "skipped", self.context.blocked))
            return
        before = len(self.findings)
        try:
            for finding in check(self.context):
                self._add(finding)
        except ConfigurationError as failure:
            if check is connection.check_open:
                raise
            self._add(connection.UNUSABLE.finding(f"{name}: {failure}"))
            self.context.block("the store cannot be used here")
        except StoreError as failure:
            self._add(connection.FAILING.finding(f"{name}: {failure}"))
            self.context.block("the store fails")
        except Exception as failure:  # noqa: BLE001 - the other checks must run
            self._add(_finding_of(name, failure))
            if not self.context.is_reached and needs_store:
                self.context.block("the server was not reached")
        state: Literal["ok", "findings"] = "ok" if len(self.findings) == before else "findings"
        self.checks.append(CheckResult(name, state))

    def include(self, label: str, part: _Examination) -> None:
        """Add the results about one of the two stores of ``migrating``."""
        for check in part.checks:
            self.checks.append(msgspec.structs.replace(check, name=f"{label}: {check.name}"))
        for finding in part.findings:
            self._add(msgspec.structs.replace(finding, found=f"{label}: {finding.found}"))
        self.context.blocked = self.context.blocked or part.context.blocked

    def _add(self, finding: Finding) -> None:
        """Add a finding; a message of a library might quote a password."""
        for secret_text in self.context.secret_texts():
            if secret_text in finding.found:
                masked = finding.found.replace(secret_text, "***")
                finding = msgspec.structs.replace(finding, found=masked)
        self.findings.append(finding)

    def report(self) -> Report:
        """Return the results."""
        context, times = self.context, [each * 1000 for each in self.context.durations]
        order = list(Severity)
        return Report(
            context.name,
            context.realm,
            context.server,
            context.is_reached,
            RoundTrip(round(min(times), 3), round(median(times), 3), len(times)) if times else None,
            tuple(self.checks),
            tuple(sorted(self.findings, key=lambda finding: order.index(finding.severity))),
        )


def _finding_of(name: str, failure: Exception) -> Finding:
    """Return the finding for a check that raised: the server has failed, or the check itself."""
    if type(failure).__module__.startswith("sojourn.stores."):  # of an inspector
        return connection.FAILING.finding(f"{name}: {failure}")
    return FAILED.finding(f"{name}: {type(failure).__qualname__}: {failure}")


def examine(context: CheckContext) -> Report:
    """Run all checks and return the findings.

    Nothing in the store is changed, except that one record is created and deleted. Must not be
    called under an event loop.

    Args:
        context: is closed by its creator.

    Raises:
        ConfigurationError: the store's URL is invalid.
    """
    if context.store is None and context.database is not None and not context.database.name:
        context.open()  # raises, because the URL names no file
    work = _Examination(context)
    work.run("secret", secret.check_secret)
    if context.config is not None:
        work.run("cookie", options.check_cookie)
        work.run("timeouts", options.check_timeouts)
    if context.config is not None or context.public_url is not None:
        work.run("proxy", options.check_public_url)
    if isinstance(context.store, MigratingStore):
        _examine_parts(work, context.store)
    _examine_store(work)
    work.run("secrets of the realm", secret.check_fingerprints, needs_store=True)
    work.run("kind of store", options.check_store_kind)
    for name, check in _STORE_INDEPENDENT:
        work.run(name, check, needs_store=True)
    return work.report()


def _examine_store(work: _Examination) -> None:
    """Run the checks of one kind of store, until it is known to answer."""
    context = work.context
    if context.database is not None:
        work.run("folder", sqlite.check_folder)
        work.run("permissions", sqlite.check_files)
        work.run("database", sqlite.check_database, needs_store=True)
        work.run("contents", sqlite.check_contents, needs_store=True)
    work.run("open", connection.check_open, needs_store=True)
    if context.store is None:
        context.block("the store could not be opened")
    module = _store_checks(context.store)
    reach = connection.check_answer if module is None else module.reach
    work.run("connection", reach, needs_store=True)
    for name, check in () if module is None else module.CHECKS:
        work.run(name, check, needs_store=True)


def _examine_parts(work: _Examination, store: MigratingStore) -> None:
    """Examine the old and the new store of ``migrating``."""
    context = work.context
    context.parts = tuple(
        CheckContext(
            store=part, config=context.config, realm=context.realm, timeout=context.timeout
        )
        for part in (store.old, store.new)
    )
    for label, part in zip(("old store", "new store"), context.parts, strict=True):
        examination = _Examination(part)
        _examine_store(examination)
        work.include(label, examination)
    context.server = " and ".join(filter(None, (part.server for part in context.parts)))
    known = [part.fingerprints for part in context.parts if part.fingerprints is not None]
    context.fingerprints = frozenset().union(*known) if known else None


_STORE_INDEPENDENT: Final[tuple[tuple[str, CheckFunction], ...]] = (
    ("round trip", connection.check_round_trips),
    ("records", records.check_records),
    ("clock", clock.check_clock),
    ("steps of the clock", clock.check_steps),
    ("deep check", deep_check.check_store),
    ("broadcast", deep_check.check_broadcast),
)


def _store_checks(store: object) -> StoreChecks | None:
    for base in type(store).__mro__:
        if base.__module__ in _STORE_CHECKS:
            module: Any = import_module(_STORE_CHECKS[base.__module__])
            return cast("StoreChecks", module)
    return None


def problems() -> tuple[Problem, ...]:
    """Return all problems by their codes; needs the client libraries of all stores."""
    modules: list[Any] = [secret, options, connection, sqlite, clock, records, deep_check]
    modules += map(import_module, _STORE_CHECKS.values())
    found = [problem for module in modules for problem in module.PROBLEMS]
    return tuple(sorted([*found, FAILED], key=lambda problem: problem.code))
