"""Options that are kept in a mapping; read by mypy and pyright, never run."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

import sojourn
from sojourn.config import AllOptions, Options, options_from_mapping


def options_of_a_framework_are_those_of_install(app: object) -> None:
    """What is read from a mapping can be passed on."""
    options = options_from_mapping({"SOJOURN_TIMEOUT": "1 hour"})
    assert_type(options, AllOptions)
    sojourn.install(app, **options)
    sojourn.Sessions(**options)


def an_application_can_keep_its_options_in_a_typed_dict(app: object) -> None:
    """Names and types are checked where the dict is written."""
    options: Options = {"timeout": "1 hour", "secure": True}
    sojourn.install(app, **options)
    Options(timeout=None)  # type: ignore[typeddict-item]
    Options(timeuot=5)  # type: ignore[typeddict-unknown-key]
