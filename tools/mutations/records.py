"""Faults of what is stored: that it is never run, stays whole, bounded and to its owner.

What lives here: flaws of formats, files and sizes. What must not: laws of stores (``stores.py``).
"""

from tools.mutations.places import (
    ASGI,
    CODEC,
    EXCLUSIVE,
    FUZZ,
    MEMORY,
    PROMISES,
    QUALITY,
    RECORD,
    SOURCE_TEXT,
    SQLITE_FILE,
    SWEEPER,
    WRITER,
)
from tools.mutations.row import Mutation

FAULTS = [
    Mutation(
        "B-10, B-11, ASVS 1.5.2",
        CODEC,
        "        return _decode(data)\n    except RecursionError:",
        '        if data[:1] == b"\\x80":\n'
        '            __import__("pickle").loads(data)\n'
        "        return _decode(data)\n    except RecursionError:",
        f"{PROMISES} -k thief",
    ),
    Mutation(
        "B-10, B-12, ASVS 1.5.2",
        CODEC,
        "        return _decode(data)\n    except RecursionError:",
        "        return eval(data)\n    except RecursionError:",
        f"{SOURCE_TEXT} -k runs_what",
    ),
    Mutation(
        "B-20, B-50",
        SQLITE_FILE,
        "                if not stat.S_ISREG(path.lstat().st_mode):\n",
        "                if stat.S_ISDIR(path.lstat().st_mode):\n",
        "tests/stores/test_sqlite.py -k link",
    ),
    Mutation(
        "B-21",
        RECORD,
        "(msgspec.MsgspecError, UnicodeDecodeError, RecursionError)",
        "(msgspec.MsgspecError, UnicodeDecodeError)",
        f"{FUZZ} -k 'fuzzer_found and body'",
    ),
    Mutation(
        "B-50",
        SQLITE_FILE,
        "                if stat.S_IMODE(path.lstat().st_mode) & 0o077:\n",
        "                if stat.S_IMODE(path.lstat().st_mode) & 0o007 == 0o007:\n",
        "tests/stores/test_sqlite.py",
    ),
    Mutation(
        "B-51",
        CODEC,
        "    if convert is None:\n        raise _Refused(path, kind)\n",
        "    if convert is None:\n        return str(value)\n",
        f"{PROMISES} -k hides",
    ),
    Mutation(
        "B-54",
        MEMORY,
        "        if len(self._records) >= self._limit:\n",
        "        if len(self._records) < 0:\n",
        "tests/stores/test_memory.py",
    ),
    Mutation(
        "B-55",
        WRITER,
        "        if len(body) > self._max_bytes:\n",
        "        if len(body) > 10 * self._max_bytes:\n",
        "tests/core/test_engine.py -k too_large",
    ),
    Mutation(
        "B-59",
        ASGI,
        '    (b"retry-after", b"2"),\n',
        '    (b"retry-after", b"2"),\n    (b"location", b"/login"),\n',
        f"{PROMISES} {SOURCE_TEXT} -k 'redirects or leads_elsewhere'",
    ),
    Mutation(
        "B-21",
        CODEC,
        "        return _decode(data)\n    except RecursionError",
        "        return _decode(data)\n    except ZeroDivisionError",
        "tests/core/test_codec.py -k without_end",
    ),
    Mutation(
        "B-55",
        CODEC,
        "    if depth > MAX_DEPTH:\n",
        "    if depth > MAX_DEPTH * 2:\n",
        "tests/core/test_codec.py -k depth_is",
    ),
    Mutation(
        "B-10, B-21",
        RECORD,
        "if len(data) <= _HEADER.size or data[0] != FORMAT:",
        "if False:",
        "tests/core/test_record.py -k foreign_bytes",
    ),
    Mutation(
        "B-21",
        RECORD,
        "if len(data) <= _HEADER.size or data[0] != FORMAT:",
        "if data[0] != FORMAT:",
        "tests/core/test_record.py -k every_byte",
    ),
    Mutation(
        "B-50",
        SQLITE_FILE,
        "            folder.mkdir(mode=0o700, exist_ok=True)\n",
        "            folder.mkdir(mode=0o755, exist_ok=True)\n",
        "tests/stores/test_sqlite.py -k 'only_its_owner'",
    ),
    Mutation(
        "B-50",
        QUALITY,
        "        if path.is_symlink() or (os.name",
        "        if (os.name",
        "tests/test_secret.py -k symbolic_link",
    ),
    Mutation(
        "B-55",
        EXCLUSIVE,
        "                if engine.clock() >= deadline or paused >= self._wait:\n",
        "                if engine.clock() >= deadline:\n",
        "tests/core/test_exclusive.py -k wait_is_bounded",
    ),
    Mutation(
        "B-54",
        SWEEPER,
        "run(self._store.purge(self._clock(), BATCH))",
        "(0, True)",
        "tests/stores/test_sweeper.py -k nothing_else",
    ),
]
