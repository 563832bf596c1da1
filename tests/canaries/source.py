"""Canaries of tests that read the source text: a forbidden line at the end of one module."""

import importlib.util
from pathlib import Path

from tests.canaries.registry import MissingTarget, canary

READ_TEXT = "pathlib:Path.read_text"


def appended(read_text, module, line):
    """Return ``Path.read_text`` that appends a line to the source of a module."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise MissingTarget(f"{module} does not exist")
    path = Path(found.origin).resolve()

    def faulty(self, *arguments, **options):  # Python 3.13 has one parameter more
        text = read_text(self, *arguments, **options)
        return f"{text}\n{line}\n" if self.name == path.name and self.resolve() == path else text

    return faulty


@canary("B-10, B-11, B-12", READ_TEXT, tests="test_source test_imports")
def a_module_loads_pickles(read_text):
    return appended(read_text, "sojourn._core.codec", "import pickle; pickle.loads(b'')")


@canary("B-17", READ_TEXT, tests="test_source")
def a_module_compares_verifiers_byte_by_byte(read_text):
    return appended(read_text, "sojourn._crypto.tickets", "same = one.verifier == two.verifier")


@canary("B-59", READ_TEXT, tests="test_source")
def a_module_writes_a_redirect(read_text):
    return appended(read_text, "sojourn.web.asgi", "redirect = (b'location', b'/login')")


@canary("B-23, B-28", READ_TEXT, tests="test_source")
def a_module_reads_the_query_string(read_text):
    return appended(read_text, "sojourn.web.asgi_scope", "query = scope['query_string']")
