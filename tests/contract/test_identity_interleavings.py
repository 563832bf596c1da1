"""Logins, rotations, logouts and revocations in every order of store calls: laws A7, A9 and S16."""

from sojourn._crypto.tickets import hash_verifier
from sojourn.testing import Visitor
from tests.contract.multi_process_model import touch, write
from tests.support.working_copies import copy_of


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
    """Load the own session first, like the page of an administrator."""
    await visitor.load()
    if log is not None:
        log.append("revoke")
    await visitor.sessions.arevoke_user(user)


async def contents_after_login(model, number: int, **data) -> list[Visitor]:
    """Return visitors with the cookie of a logged-in session."""
    visitors = await model.visitors(number, **data)
    await login(visitors[0], model.user)
    for other in visitors[1:]:
        other.cookie = visitors[0].cookie
    return visitors


async def anonymous(model, *cookies: str | None) -> bool:
    """Return whether each cookie gives a session without a user."""
    return all([(await model.open(cookie)).user is None for cookie in cookies])


async def listed(model) -> set[str]:
    return {info.id for info in await model.sessions.alist_user(model.user)}


def test_login_and_write_invalidate_the_previous_ticket(race):
    """A6, A9: the write may be stored, but never with the previous ticket."""

    async def scenario(model):
        one, two = await model.visitors(2, n=0, nested={}, log=[], kept=1)
        before = one.cookie
        await model.together(login(one, model.user), write(two, "two"))
        assert (await model.open(before)).new
        session = await model.open(one.cookie)
        assert (session.user, session["kept"]) == (model.user, 1)
        wrote = "two" in session
        assert (session["n"], session["log"]) == ((1, ["two"]) if wrote else (0, []))
        if two.cookie != before:  # the write was too late and created another session
            other = await model.open(two.cookie)
            assert (other.user, "kept" in other) == (None, False)
            assert not wrote

    race.run(scenario, min_orders=(6, 4))


def test_login_and_login_invalidate_the_previous_ticket(race):
    """A9, S15: each new ticket is valid for a session of the user."""

    async def scenario(model):
        one, two = await model.visitors(2, n=0)
        before = one.cookie
        await model.together(login(one, model.user), login(two, model.user))
        assert (await model.open(before)).new
        given = {one.cookie, two.cookie} - {before}
        opened = [await model.open(cookie) for cookie in given]
        assert given
        assert [session.user for session in opened] == [model.user] * len(given)
        assert {session.id for session in opened} == await listed(model)

    race.run(scenario, min_orders=(6, 4))


def test_login_and_logout_invalidate_the_previous_ticket(race):
    """A7, A9: also for the visitor that logs out."""

    async def scenario(model):
        one, two = await model.visitors(2, n=0)
        before = one.cookie
        await model.together(login(one, model.user), logout(two))
        assert (await model.open(before)).new
        assert two.cookie in (None, before)
        session = await model.open(one.cookie)
        assert (session.user, await listed(model)) in (
            (model.user, {session.id}),
            (None, set()),
        )

    race.run(scenario, min_orders=(6, 6))


def test_two_rotations_give_the_same_ticket(race):
    """A9: the order of the responses does not matter."""

    async def scenario(model):
        one, two = await contents_after_login(model, 2, n=0)
        before = one.cookie
        await model.together(rotate(one), rotate(two))
        assert one.cookie == two.cookie != before
        session = await model.open(one.cookie)
        assert session.user == model.user
        former = await model.open(before)
        assert former.user == model.user
        assert copy_of(session).record.verifier == hash_verifier(copy_of(former).verifier), (
            "another new ticket"
        )

    race.run(scenario, min_orders=(6, 4))


def test_rotate_and_write_are_both_stored(race):
    """A6, A9: the write is stored, and each ticket that was sent is valid."""

    async def scenario(model):
        one, two = await contents_after_login(model, 2, n=0, nested={}, log=[])
        before = one.cookie
        await model.together(rotate(one), write(two, "two"))
        assert one.cookie != before
        assert two.cookie in (before, one.cookie)
        for cookie in (before, one.cookie):
            session = await model.open(cookie)
            assert (session.user, session["n"], session["log"]) == (model.user, 1, ["two"])
        async with one.visit() as session:  # the first use of the new ticket
            assert session.user == model.user
        model.clock.advance("2 seconds")
        assert (await model.open(one.cookie)).user == model.user
        assert await anonymous(model, before)

    race.run(scenario, min_orders=(6, 4))


def test_rotate_and_touch_are_both_stored(race):
    """A9, S6: both the new verifier and the new ``seen_at`` are stored."""

    async def scenario(model):
        one, two = await contents_after_login(model, 2, n=0)
        before = one.cookie
        model.clock.advance(61)
        await model.together(rotate(one), touch(two))
        assert one.cookie != before
        assert two.cookie in (before, one.cookie)
        for cookie in (before, one.cookie):
            session = await model.open(cookie)
            assert session.user == model.user
            assert copy_of(session).record.seen_at == model.clock()

    race.run(scenario, min_orders=(6, 4))


def test_logout_and_rotate_end_the_session(race):
    """A7: the ticket of the rotation is invalid."""

    async def scenario(model):
        one, two = await contents_after_login(model, 2, n=0)
        before = one.cookie
        await model.together(logout(one), rotate(two))
        assert one.cookie is None
        for cookie in (before, two.cookie):
            assert (await model.open(cookie)).new
        assert await listed(model) == set()

    race.run(scenario, min_orders=(6, 6))


def test_revoke_user_ends_an_earlier_login(race):
    """S16: at every step of the login; a later login may succeed."""

    async def scenario(model):
        log = []
        one, two = await model.visitors(2, n=0)
        before = one.cookie
        await model.together(login(one, model.user, log), revoke(two, model.user, log))
        session = await model.open(one.cookie)
        assert await listed(model) == ({session.id} if session.user else set())
        if log == ["login", "revoke"]:
            assert session.user is None
            assert await anonymous(model, before, one.cookie)

    race.run(scenario, min_orders=(10, 10))


def test_revoke_user_ends_an_earlier_login_of_a_new_session(race):
    """S16: the same if the login creates the session."""

    async def scenario(model):
        log = []
        one, two = await model.visitors(2, n=0)
        one.cookie = None
        await model.together(login(one, model.user, log), revoke(two, model.user, log))
        session = await model.open(one.cookie)
        assert await listed(model) == ({session.id} if session.user else set())
        if log == ["login", "revoke"]:
            assert session.user is None

    race.run(scenario, min_orders=(4, 4))


def test_revoke_user_and_write_end_the_session(race):
    """A7, S16: the write is dropped, or creates another session."""

    async def scenario(model):
        one, two = await contents_after_login(model, 2, n=0, nested={}, log=[], kept=1)
        before = one.cookie
        await model.together(write(one, "one"), revoke(two, model.user))
        assert (await model.open(before)).new
        session = await model.open(one.cookie)
        assert (session.user, "kept" in session) == (None, False)
        assert await listed(model) == set()

    race.run(scenario, min_orders=(21, 21))


def test_revoke_user_and_rotate_end_the_session(race):
    """A7, S16: the ticket of the rotation is invalid."""

    async def scenario(model):
        one, two = await contents_after_login(model, 2, n=0)
        before = one.cookie
        await model.together(rotate(one), revoke(two, model.user))
        for cookie in (before, one.cookie):
            assert (await model.open(cookie)).new
        assert await listed(model) == set()

    race.run(scenario, min_orders=(21, 21))
