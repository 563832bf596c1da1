"""``sojourn show``: one session, on request with its data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from sojourn.cli.arguments import ID_ARGUMENT, SessionID
from sojourn.cli.exit_codes import ExitCode, Failure
from sojourn.cli.formatting import print_json, printable, printable_message
from sojourn.cli.session_output import print_fields, session_document, session_fields
from sojourn.cli.target import Target, TargetCommand
from sojourn.record import UnreadableRecord

if TYPE_CHECKING:
    from sojourn.config import Options

#: Keys that begin with it are the library's.
_RESERVED: Final = "\0"

#: Shown in the place of a value that cannot be decoded.
_DAMAGED: Final = "<damaged>"

#: Python converts integers of 4,300 decimal digits and fewer.
_MAX_BITS: Final = 14_000


@click.command(
    cls=TargetCommand,
    short_help="Show a session, with --data also its data.",
    context_settings=ID_ARGUMENT,
)
@click.argument("session_id", metavar="ID", type=SessionID())
@click.option("--data", "with_data", is_flag=True, help="Also show what the session holds.")
@click.pass_obj
def show(target: Target, *, session_id: str, with_data: bool) -> None:
    """Show a session. Exit code 1 if there is none; it may then say why the session ended.

    The data of visitors may be confidential: it is shown only with --data.
    """
    sessions = target.sessions
    target.run(sessions.aping())  # another application's secret is an error, not an empty answer
    info = target.run(sessions.aget(session_id))
    if info is None:
        _report_missing(target, session_id)
        return
    document = session_document(info)
    data: dict[str, Any] = {}
    if with_data:
        data = _read_data(target, session_id)
        document["data"] = {key: _builtin(value) for key, value in data.items()}
    if target.is_json:
        print_json({"session": document})
        return
    fields = session_fields(info)
    fields += [  # `repr` escapes a backslash
        (printable_message(f"data[{key!r}]"), printable_message(_text(data[key])))
        for key in sorted(data)
    ]
    print_fields(target, fields)


def _report_missing(target: Target, session_id: str) -> None:
    raw = bytes.fromhex(session_id)
    reason = target.run(target.sessions.engine.revoker.reason(raw))
    if target.is_json:
        print_json({"session": None, "ended_reason": reason})
    else:
        why = "" if reason is None else f"; it was revoked: {printable(reason)}"
        click.echo(f"There is no such session{why}.", err=True)
    click.get_current_context().exit(ExitCode.NOT_FOUND)


def _read_data(target: Target, session_id: str) -> dict[str, Any]:
    """Return the application's values, decoded.

    Raises:
        Failure: they are encrypted with a key that the command does not have.
    """
    from sojourn._core.codec import decode
    from sojourn.sessions import Sessions

    sessions = target.sessions
    record = target.run(sessions.store.load(bytes.fromhex(session_id)))
    if record is None:  # it has ended meanwhile
        return {}
    try:
        contents = sessions.engine.context.cipher.decrypt(record, b"")
    except UnreadableRecord:
        if target.is_of_application:
            raise _encrypted() from None
        # Only the application has the option `encrypt`; encryption by the secret is assumed.
        options: Options = {**target.options, "encrypt": True}
        with_cipher: Sessions[Any] = Sessions(**options)
        try:
            contents = with_cipher.engine.context.cipher.decrypt(record, b"")
        except UnreadableRecord:
            raise _encrypted() from None
        finally:
            with_cipher.close()
    data: dict[str, Any] = {}
    for key, value in contents.data.items():
        if not key.startswith(_RESERVED):
            try:
                data[key] = decode(value)
            except msgspec.DecodeError:
                data[key] = _DAMAGED  # another program has written it; the others are shown
    return data


def _encrypted() -> Failure:
    return Failure(
        "the data cannot be decrypted: with encrypt='ticket' the key is in the visitor's cookie; "
        "otherwise give the secret of the application",
        ExitCode.USAGE,
    )


def _builtin(value: Any) -> Any:
    """Return a value of a session as JSON has it; bytes as Base64, sets as lists.

    Numbers that JSON does not have, or that readers of JSON refuse, become text.
    """
    try:
        return _json_numbers(msgspec.to_builtins(value, str_keys=True))
    except TypeError:  # such as a tuple as the key of a dict
        return _text(value)


def _json_numbers(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: _json_numbers(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [_json_numbers(item) for item in value]
    if kind is float and not math.isfinite(value):
        return repr(value)  # json.dumps would write NaN or Infinity
    return hex(value) if kind is int and value.bit_length() > _MAX_BITS else value


def _text(value: Any) -> str:
    """Return a value of a session as Python writes it."""
    try:
        return repr(value)
    except ValueError:  # an integer of more than 4,300 digits
        return f"<{type(value).__qualname__} with an integer of too many digits to show>"
