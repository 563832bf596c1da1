"""DictSession: a session that is a dict to ``json.dumps`` and ``isinstance``, as Starlette's is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from sojourn.session import NullSession, Session

C = TypeVar("C", bound=type)

#: What each class has of its own, and must not be copied from another one.
_CLASS_ATTRIBUTES: Final = frozenset(
    (
        *("__abstractmethods__", "__annotations__", "__class_getitem__", "__dict__", "__doc__"),
        *("__firstlineno__", "__init_subclass__", "__module__", "__new__", "__orig_bases__"),
        *("__parameters__", "__slots__", "__static_attributes__", "__subclasshook__"),
        *("__weakref__", "_abc_impl", "_copy", "_engine"),
    )
)


def _with_members_of(source: type) -> Callable[[C], C]:
    """Give a class the members of another one, and make it a virtual subclass of that one.

    Python allows no class below both ``dict`` and ``Session``: each has fields of its own.
    """

    def add(cls: C) -> C:
        for base in reversed(source.__mro__):
            if base is not object:
                for name, member in vars(base).items():
                    if name not in _CLASS_ATTRIBUTES and name not in vars(cls).get("_kept", ()):
                        setattr(cls, name, member)
        cast("Any", source).register(cls)
        return cls

    return add


class _Unserializable:
    """The only value in the storage of the dict itself.

    Libraries in C may read that storage directly, without a method of the class. They fail at this
    value instead of taking the session for an empty one.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """Say what to do."""
        return "<use session.copy()>"


_STORAGE: Final[Mapping[str, object]] = {"": _Unserializable()}

if TYPE_CHECKING:
    # What type checkers see: both.
    class DictSession(Session[Any]):
        """A ``Session`` that is also a ``dict``, so that ``JSONResponse`` and ``json`` take it."""

        accessed: bool
        """Whether the session was read or written during this request."""
        modified: bool
        """Whether the session was changed during this request."""

        def mark_accessed(self) -> None:
            """Let the response depend on the session, as if it had been read."""

        def mark_modified(self) -> None:
            """Do what ``mark_accessed`` does; changes inside of values are detected anyway."""

    class DictNullSession(NullSession):
        """The same for a request that continues although the store failed."""

else:

    @_with_members_of(Session)
    class DictSession(dict):
        """A ``Session`` that is also a ``dict``, so that ``JSONResponse`` and ``json`` take it."""

        __slots__ = ("_copy", "_engine")
        _kept = ("clear",)

        def __init__(self) -> None:
            # The encoder of `json` takes a dict without storage for an empty one, and calls `items`
            # of any other.
            dict.update(self, _STORAGE)

        @property
        def accessed(self) -> bool:
            """Whether the session was read or written during this request."""
            return self._copy.accessed

        @property
        def modified(self) -> bool:
            """Whether the session was changed during this request."""
            return self._copy.modified()

        def mark_accessed(self) -> None:
            """Let the response depend on the session, as if it had been read."""
            self._copy.accessed = True

        def mark_modified(self) -> None:
            """Do what ``mark_accessed`` does; changes inside of values are detected anyway."""
            self._copy.accessed = True

        def clear(self, *, keep_login: bool = False) -> None:
            """End the session, as Starlette's does: its cookie is deleted.

            What is written afterwards goes into a new session.

            Args:
                keep_login: delete the keys and keep the session, its user and its ticket.
            """
            if keep_login or self._copy.record is None:
                Session.clear(self, keep_login=keep_login)
            else:
                self.destroy()

    @_with_members_of(NullSession)
    class DictNullSession(dict):
        """The same for a request that continues although the store failed."""

        __slots__ = ("_copy", "_engine")
        _kept = ("clear",)
        __init__ = DictSession.__init__
        accessed = DictSession.accessed
        modified = DictSession.modified
        mark_accessed = DictSession.mark_accessed
        mark_modified = DictSession.mark_modified

        def clear(self, *, keep_login: bool = False) -> None:
            """Raise ``StoreUnavailable``, because the session would not be ended."""
            if not keep_login:
                self._fail()
            Session.clear(self, keep_login=True)
