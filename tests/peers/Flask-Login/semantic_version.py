"""A replacement for the package ``semantic_version``, which Flask-Login's tests import."""


class Version(tuple):
    """A version that compares with others by its numbers."""

    __slots__ = ()

    def __new__(cls, text="", *, major=0, minor=0, patch=0):
        """Accept a text such as "3.4.0", or the numbers."""
        numbers = map(int, text.split(".")) if text else (major, minor, patch)
        return super().__new__(cls, numbers)
