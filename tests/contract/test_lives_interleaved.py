"""Every order of store calls of logins, rotations, logouts and revoking, with writes and touches.

For tasks and threads, on each store, in one installation and apart. Read next: ``company.py``, and
``test_histories.py`` for many at once.
"""

from sojourn._crypto.tickets import hash_verifier
from sojourn.testing import Visitor
from tests.contract.multi_process_model import touch, write


async def login(visitor: Visitor, user: str, log: list[str] | None = None) -> None:
    async with visitor.visit() as session:
        if log is not None:
            log.append("login")
        session.login(user)


async def rotate(visitor: Visitor) -> None:
    async with visitor.visit() as session:
        session.rotate()


async def logout(visitor: Visitor) -> None:
    async with visitor.visit() as session:
        session.logout()


async def revoke(visitor: Visitor, user: str, log: list[str] | None = None) -> None:
    """Look at one's own session first, as the page of an administrator does."""
    await visitor.load()
    if log is not None:
        log.append("revoke")
    await visitor.sessions.arevoke_user(user)


async def of_ada(company, number: int, **data) -> list[Visitor]:
    """Return visitors with the cookie of a session that ada has logged in to."""
    visitors = await company.visitors(number, **data)
    await login(visitors[0], company.user)
    for other in visitors[1:]:
        other.cookie = visitors[0].cookie
    return visitors


async def nobody(company, *cookies: str | None) -> bool:
    """Tell whether none of the cookies opens a session of anybody."""
    return all([(await company.open(cookie)).user is None for cookie in cookies])


async def listed(company) -> set[str]:
    return {info.id for info in await company.sessions.alist_user(company.user)}


def test_login_and_write_leave_the_former_ticket_dead(setting):
    """A9, A6: the write is there or it is not, and never with the ticket from before."""

    async def scene(company):
        one, two = await company.visitors(2, n=0, nested={}, log=[], kept=1)
        before = one.cookie
        await company.together(login(one, company.user), write(two, "two"))
        assert (await company.open(before)).new
        session = await company.open(one.cookie)
        assert (session.user, session["kept"]) == (company.user, 1)
        wrote = "two" in session
        assert (session["n"], session["log"]) == ((1, ["two"]) if wrote else (0, []))
        if two.cookie != before:  # it came too late and began a session of its own
            other = await company.open(two.cookie)
            assert (other.user, "kept" in other) == (None, False)
            assert not wrote

    setting.play(scene, fewest=(6, 4))


def test_login_and_login_leave_the_former_ticket_dead(setting):
    """A9, S15: who has got a ticket is in; there are as many sessions as tickets."""

    async def scene(company):
        one, two = await company.visitors(2, n=0)
        before = one.cookie
        await company.together(login(one, company.user), login(two, company.user))
        assert (await company.open(before)).new
        given = {one.cookie, two.cookie} - {before}
        opened = [await company.open(cookie) for cookie in given]
        assert given
        assert [session.user for session in opened] == [company.user] * len(given)
        assert {session.id for session in opened} == await listed(company)

    setting.play(scene, fewest=(6, 4))


def test_login_and_logout_leave_the_former_ticket_dead(setting):
    """A7, A9: whoever is first, and nobody gets a cookie back that opens it."""

    async def scene(company):
        one, two = await company.visitors(2, n=0)
        before = one.cookie
        await company.together(login(one, company.user), logout(two))
        assert (await company.open(before)).new
        assert two.cookie in (None, before)
        session = await company.open(one.cookie)
        assert (session.user, await listed(company)) in (
            (company.user, {session.id}),
            (None, set()),
        )

    setting.play(scene, fewest=(6, 6))


def test_rotate_and_rotate_arrive_at_one_ticket(setting):
    """A9: whoever answers last, the visitor has the ticket that is good."""

    async def scene(company):
        one, two = await of_ada(company, 2, n=0)
        before = one.cookie
        await company.together(rotate(one), rotate(two))
        assert one.cookie == two.cookie != before
        session = await company.open(one.cookie)
        assert session.user == company.user
        former = await company.open(before)
        assert former.user == company.user
        assert session._copy.record.verifier == hash_verifier(former._verifier), (
            "the new one, again"
        )

    setting.play(scene, fewest=(6, 4))


def test_rotate_and_write_lose_neither(setting):
    """A6, A9: the write is there, and every ticket that was sent opens the session."""

    async def scene(company):
        one, two = await of_ada(company, 2, n=0, nested={}, log=[])
        before = one.cookie
        await company.together(rotate(one), write(two, "two"))
        assert one.cookie != before
        assert two.cookie in (before, one.cookie)
        for cookie in (before, one.cookie):
            session = await company.open(cookie)
            assert (session.user, session["n"], session["log"]) == (company.user, 1, ["two"])
        company.clock.advance("10 seconds")
        assert (await company.open(one.cookie)).user == company.user
        assert await nobody(company, before)

    setting.play(scene, fewest=(6, 4))


def test_rotate_and_touch_lose_neither(setting):
    """A9, S6: one moves the ticket on, the other the time."""

    async def scene(company):
        one, two = await of_ada(company, 2, n=0)
        before = one.cookie
        company.clock.advance(61)
        await company.together(rotate(one), touch(two))
        assert one.cookie != before
        assert two.cookie in (before, one.cookie)
        for cookie in (before, one.cookie):
            session = await company.open(cookie)
            assert session.user == company.user
            assert session._copy.record.seen_at == company.clock()

    setting.play(scene, fewest=(6, 4))


def test_logout_and_rotate_leave_nothing(setting):
    """A7: whatever ticket the rotation has sent, it opens nothing."""

    async def scene(company):
        one, two = await of_ada(company, 2, n=0)
        before = one.cookie
        await company.together(logout(one), rotate(two))
        assert one.cookie is None
        for cookie in (before, two.cookie):
            assert (await company.open(cookie)).new
        assert await listed(company) == set()

    setting.play(scene, fewest=(6, 6))


def test_revoking_a_user_ends_the_login_that_began_before(setting):
    """S16: wherever it was when the order came; one that began later may stay."""

    async def scene(company):
        log = []
        one, two = await company.visitors(2, n=0)
        before = one.cookie
        await company.together(login(one, company.user, log), revoke(two, company.user, log))
        session = await company.open(one.cookie)
        assert await listed(company) == ({session.id} if session.user else set())
        if log == ["login", "revoke"]:
            assert session.user is None
            assert await nobody(company, before, one.cookie)

    setting.play(scene, fewest=(10, 10))


def test_revoking_a_user_ends_a_new_visitors_login_that_began_before(setting):
    """S16: the same where the login begins the session."""

    async def scene(company):
        log = []
        one, two = await company.visitors(2, n=0)
        one.cookie = None
        await company.together(login(one, company.user, log), revoke(two, company.user, log))
        session = await company.open(one.cookie)
        assert await listed(company) == ({session.id} if session.user else set())
        if log == ["login", "revoke"]:
            assert session.user is None

    setting.play(scene, fewest=(4, 4))


def test_revoking_a_user_and_write_leave_nothing(setting):
    """A7, S16: the write is lost with the session, or begins one of its own."""

    async def scene(company):
        one, two = await of_ada(company, 2, n=0, nested={}, log=[], kept=1)
        before = one.cookie
        await company.together(write(one, "one"), revoke(two, company.user))
        assert (await company.open(before)).new
        session = await company.open(one.cookie)
        assert (session.user, "kept" in session) == (None, False)
        assert await listed(company) == set()

    setting.play(scene, fewest=(21, 21))


def test_revoking_a_user_and_rotate_leave_nothing(setting):
    """A7, S16: whatever ticket the rotation has sent, it opens nothing."""

    async def scene(company):
        one, two = await of_ada(company, 2, n=0)
        before = one.cookie
        await company.together(rotate(one), revoke(two, company.user))
        for cookie in (before, one.cookie):
            assert (await company.open(cookie)).new
        assert await listed(company) == set()

    setting.play(scene, fewest=(21, 21))
