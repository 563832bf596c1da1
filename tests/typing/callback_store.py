"""The functions of ``CallbackStore``; read by mypy and pyright, never run."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import Any

import sojourn


def read_bytes(session_id: str) -> bytes | None: ...


def write_bytes(session_id: str, value: bytes | None, seconds: int) -> None: ...


async def read_dict(session_id: str) -> dict[str, Any] | None: ...


def read_text(session_id: str) -> str | None: ...


async def write_dict(session_id: str, value: dict[str, Any] | None, seconds: int) -> None: ...


def each_format_has_its_functions() -> None:
    """The value is bytes, or a dict and its JSON text."""
    sojourn.CallbackStore(read=read_bytes, write=write_bytes)
    sojourn.CallbackStore(read=read_bytes, write=write_bytes, format="bytes")
    sojourn.CallbackStore(read=read_dict, write=write_dict, format="json")
    sojourn.CallbackStore(read=read_text, write=write_dict, format="json")
    sojourn.CallbackStore(read=read_bytes, write=write_dict, format="json")
    sojourn.CallbackStore(format="json").on_write(write_dict)
    sojourn.CallbackStore(read=read_dict, write=write_dict)  # type: ignore[arg-type]
    sojourn.CallbackStore(read=read_bytes, write=write_bytes, format="json")  # type: ignore[call-overload]


def functions_given_later_keep_their_type(sessions: sojourn.Sessions) -> None:
    """By call and as decorators."""

    @sessions.on_read
    def read(session_id: str) -> str | None: ...

    read("00").upper()  # type: ignore[union-attr]
    sessions.on_write(write_dict)
    sessions.on_write(write_bytes)
