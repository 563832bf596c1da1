"""Faults of what is told of a session's life: events and the audit log.

What lives here: which events there are, what a line says, and what becomes of one that cannot be
written. What must not: secrets that show (``tickets.py``).
"""

from tools.mutations.places import (
    AUDIT,
    EVENTS,
    IN_AUDIT,
    JOURNAL,
    PROMISES,
    PROTECT,
    TICKET_RULES,
)
from tools.mutations.row import Mutation

FAULTS = [
    Mutation(
        "B-34, ASVS 16.5",
        AUDIT,
        "        try:\n            self._put(line)\n        except Exception:\n"
        '            logger.exception("an audit line could not be written: %s", line)\n',
        "        self._put(line)\n",
        f"{IN_AUDIT} -k 'is_logged and breaks_nothing'",
    ),
    Mutation(
        "B-50",
        AUDIT,
        "return os.open(path, flags, 0o600)",
        "return os.open(path, flags, 0o666)",
        f"{IN_AUDIT} -k owners_alone",
    ),
    Mutation(
        "ASVS 16.4",
        AUDIT,
        'return line.encode() + b"\\n"',
        "return line.encode()",
        f"{IN_AUDIT} -k several_processes",
    ),
    Mutation(
        "ASVS 16.3.1",
        AUDIT,
        "for kind in KINDS - TRAFFIC:",
        "for kind in KINDS:",
        f"{IN_AUDIT} -k all_kinds",
    ),
    Mutation(
        "ASVS 16.4",
        AUDIT,
        '"ab", buffering=0',
        '"r+b", buffering=0',
        f"{IN_AUDIT} -k 'several_processes or appended'",
    ),
    Mutation(
        "B-34",
        EVENTS,
        "            except Exception:\n",
        "            except ZeroDivisionError:\n",
        "tests/test_events.py",
    ),
    Mutation(
        "ASVS 16.3.3, OWASP-3",
        JOURNAL,
        "        self._dispatcher.emit(Rejected(session_id.hex(), reason))\n",
        "        pass\n",
        f"{TICKET_RULES} -k told",
    ),
    Mutation(
        "ASVS 16.1",
        AUDIT,
        "            self._open().close()\n",
        "            pass\n",
        f"{IN_AUDIT} -k at_the_start",
    ),
    Mutation(
        "ASVS 16.2.1, ASVS 16.3.1",
        AUDIT,
        '            "session": event.session_id or None,\n',
        "",
        f"{IN_AUDIT} -k whose_and_why",
    ),
    Mutation(
        "ASVS 16.3",
        AUDIT,
        '            if field.name != "session_id":\n',
        '            if field.name == "reason":\n',
        f"{IN_AUDIT} -k every_field",
    ),
    Mutation(
        "ASVS 16.4.1",
        AUDIT,
        "        return _encode(entry).decode()\n",
        '        return "{" + ",".join(f\'"{key}":"{entry[key]}"\' for key in entry) + "}"\n',
        f"{IN_AUDIT} -k another_line",
    ),
    Mutation(
        "OWASP-5, ASVS 16.3.3",
        JOURNAL,
        "        self._dispatcher.emit(Created(record.session_id))\n",
        "        pass\n",
        f"{PROMISES} -k life_of_a_session",
    ),
    Mutation(
        "ASVS 16.3",
        JOURNAL,
        "        self._dispatcher.emit(Created(record.session_id))\n",
        "        pass\n",
        f"{PROTECT} -k real_run",
    ),
    Mutation(
        "B-34",
        AUDIT,
        '        except Exception:\n            logger.exception("no audit',
        '        except ZeroDivisionError:\n            logger.exception("no audit',
        f"{IN_AUDIT} -k written_down",
    ),
    Mutation(
        "B-60",
        AUDIT,
        "        if callable(sink) and not inspect.iscoroutinefunction(sink):\n",
        "        if callable(sink):\n",
        f"{IN_AUDIT} -k is_no_sink",
    ),
]
