"""Every flaw that is answered has a fault that takes the answer away (tools/mutations_security.py).

``make mutations`` applies them; here only that none is left out and that each still fits the code.
"""

import pytest

from tools.mutations import MUTATIONS
from tools.mutations_security import BY_LAW, SECURITY
from tools.security_flaws import FLAWS


def test_every_answered_flaw_has_a_fault():
    broken = {name for row in SECURITY for name in row.laws.split()}
    laws = {law for row in MUTATIONS for law in row.laws.split()}
    broken |= {flaw for flaw, law in BY_LAW.items() if law in laws}
    answered = {row.id for row in FLAWS if not (row.awaits or row.not_ours)}
    assert answered - broken == set()


@pytest.mark.parametrize("row", SECURITY, ids=lambda row: row.laws)
def test_every_fault_still_fits_the_code(repository, row):
    assert (repository / row.file).read_text("utf-8").count(row.text) == 1
