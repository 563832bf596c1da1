"""Row: one requirement of a standard, or one flaw of the past, and what sojourn does about it.

What lives here: the type. The rows are data: ``security_rows.py`` (standards) and
``security_flaws.py``; ``security_table.py`` puts them into the documentation with their tests.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One row of the table in ``docs/security.md``.

    Attributes:
        id: as tests cite it: ``B-32``, ``ASVS 7.2.4``, ``SESS-13``.
        asks: the requirement, or what went wrong and where, in our words.
        ours: the option or call that answers it, or what sojourn promises.
        not_ours: why it does not concern us; then no test may cite it.
        awaits: the public name that has to exist first: ``session.login``, ``sessions.revoke_user``
            or an option. Until then the row is "not yet", also if tests of parts cite it; as soon
            as the name exists, this field has to go and a test has to be there.
    """

    id: str
    asks: str
    ours: str = ""
    not_ours: str = ""
    awaits: str = ""
