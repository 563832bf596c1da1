"""Comparisons, calls and names that the source must not contain, found in its syntax trees.

Forbidden imports are in ``tests/test_imports.py``.
"""

import ast
import functools
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent.parent / "src" / "sojourn"
MODULES = sorted(
    path for path in SOURCE.rglob("*.py") if "testing" not in path.relative_to(SOURCE).parts
)

#: Names of secret values and of values that are compared with them.
SECRET_NAMES = {"verifier", "previous_verifier", "former", "digest", "tag", "mac", "signature"}
SECRET_NAMES |= {"csrf_token"}
SECRET_NAMES |= {f"_{name}" for name in SECRET_NAMES} | {"hash_verifier", "NO_VERIFIER"}

#: A comparison with these reveals only absence.
PLAIN = {"NO_VERIFIER", "None", "ABSENT"}

#: Comparisons of two stored hashes, which contain no input of a visitor.
BOTH_STORED = {"known.verifier == record.verifier"}

RUNS_CODE = {"eval", "exec", "compile", "__import__", "loads", "load_module"}
RANDOM = {"random", "numpy", "uuid1", "uuid4", "getnode", "urandom"}
HASHES = {"sha256", "SHA256"}
OTHER_HASHES = {
    *("md5", "MD5", "sha1", "SHA1", "new", "sha224", "SHA224", "blake2b", "blake2s", "crc32"),
    *("adler32", "ECB", "CBC", "CTR", "ARC4", "TripleDES", "AES", "Fernet"),
}
#: Redis identifies a script by its SHA-1, which is not used for security.
NAMING = {
    "stores/redis/scripts.py": {"sha1"},
    # Cookies of other libraries are verified with those libraries, and never created.
    "legacy/aiohttp_session.py": {"Fernet"},
    "legacy/signatures.py": {"sha1"},
}
#: Selects the keys that are counted, which is not a secret.
SAMPLING = {"stores/redis/counting.py"}
#: Applications with their own forms and searches. They get the session from the host application,
#: so their input contains no ticket.
PAGES = "admin/"
FROM_ADDRESSES = {"query_string", "QUERY_STRING", "REQUEST_URI", "query_params", "wsgi.input"}
REDIRECTS = {"location", "referer", "refresh", "HTTP_REFERER"}


@functools.cache
def trees():
    """Return each module's name and syntax tree."""
    return [(str(path.relative_to(SOURCE)), ast.parse(path.read_text("utf-8"))) for path in MODULES]


def name_of(node):
    """Return the last name of an expression such as ``record.verifier`` or ``hash(x)``."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=function):
            return name_of(function)
        case ast.Constant(value=None):
            return "None"
    return ""


def plainly_compared(tree, names_of_secrets=SECRET_NAMES):
    """Yield the line of each comparison whose duration reveals a matching prefix of a secret."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or ast.unparse(node) in BOTH_STORED:
            continue
        if not any(isinstance(operator, ast.Eq | ast.NotEq | ast.In) for operator in node.ops):
            continue
        names = {name_of(side) for side in (node.left, *node.comparators)}
        if names & names_of_secrets and not names & PLAIN:
            yield node.lineno


def called(tree, forbidden, modules=()):
    """Yield the line of each call of a forbidden name, alone or as a member of these modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            alone = isinstance(function, ast.Name)
            if name_of(function) in forbidden and (
                alone or name_of(getattr(function, "value", None)) in modules
            ):
                yield node.lineno


def imported(tree):
    """Yield every name that an import statement binds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, (node.module or "").partition(".")[0]
            yield from ((node.lineno, alias.name) for alias in node.names)


def texts(tree, *, members=True):
    """Yield every string and bytes of the code, and the names of members."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            value = node.value
            yield node.lineno, value if isinstance(value, str) else value.decode("latin-1")
        elif members and isinstance(node, ast.Attribute):
            yield node.lineno, node.attr


def test_secrets_are_compared_in_constant_time():
    """B-17: by ``compare_digest`` or the cipher; no ``==`` with a verifier or its hash."""
    found = []
    for name, tree in trees():
        # In a store, a digest is the name of a script or a list, and a tag is part of the names of
        # keys in a cluster; stores never receive verifiers (B-18).
        public = {"digest", "tag"} if name.startswith("stores/") else set()
        found += [(name, line) for line in plainly_compared(tree, SECRET_NAMES - public)]
    assert not found
    assert any(list(called(tree, {"compare_digest"}, {"hmac"})) for _, tree in trees())


def test_stored_bytes_are_never_executed():
    """B-10, B-11, B-12, ASVS 1.5.2: no eval, no exec, no loads."""
    modules = {"pickle", "marshal", "yaml", "builtins", "dill"}
    found = [
        f"{name}:{line}" for name, tree in trees() for line in called(tree, RUNS_CODE, modules)
    ]
    assert not found


def test_random_values_come_from_the_operating_system():
    """ASVS 11.5.1, SESS-11: only the module ``secrets`` is used."""
    for name, tree in trees():
        if name in SAMPLING:
            continue
        assert not [line for line, what in imported(tree) if what in RANDOM], name
        assert not list(called(tree, RANDOM, {"uuid", "os"})), name


def test_hashes_and_ciphers_are_approved():
    """ASVS 11.4.1, B-15: only SHA-256, HKDF and HMAC with it, and AEAD ciphers are named."""
    used = set()
    for name, tree in trees():
        modules = {"hashlib", "hashes", "algorithms", "modes", "zlib", "binascii"}
        others = OTHER_HASHES - NAMING.get(name, set())
        assert not list(called(tree, others, modules)), name
        used |= {what for _, what in imported(tree) if what in HASHES | {"AESSIV", "HKDF"}}
    assert {"SHA256", "HKDF", "AESSIV"} <= used


def test_nothing_is_read_from_query_strings_or_bodies():
    """B-23, B-28, ASVS 14.2.1: no module names a query string, so it cannot carry a ticket."""
    found = [
        f"{name}:{line}"
        for name, tree in trees()
        if not name.startswith((PAGES, "frameworks/django/admin.py", "frameworks/flask/admin.py"))
        for line, text in texts(tree)
        if text in FROM_ADDRESSES
    ]
    assert not found


def test_no_location_or_referer_header_is_used():
    """B-59."""
    found = [
        f"{name}:{line}"
        for name, tree in trees()
        # Lists the headers that may not contain a ticket.
        if name != "web/header_transport.py" and not name.startswith(PAGES)
        for line, text in texts(tree, members=False)
        if text.lower() in REDIRECTS
    ]
    assert not found


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a.verifier == b", [1]),
        ("x = 1\nif hash_verifier(v) != record.verifier: pass", [2]),
        ("record.previous_verifier == NO_VERIFIER", []),
        ("verifier is None", []),
        ("compare_digest(a.verifier, b)", []),
    ],
)
def test_plain_comparisons_are_found(text, lines):
    assert list(plainly_compared(ast.parse(text))) == lines


def test_forbidden_calls_are_found():
    assert list(called(ast.parse("pickle.loads(x)"), RUNS_CODE, {"pickle"})) == [1]
    assert list(called(ast.parse("eval(x)"), RUNS_CODE)) == [1]
    assert list(called(ast.parse("re.compile(x)"), RUNS_CODE, {"pickle"})) == []
    assert (1, "query_string") in list(texts(ast.parse("scope['query_string']")))
