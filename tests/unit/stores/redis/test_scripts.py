"""Lua scripts: how their text is assembled. Their effects are tested through the store."""

from importlib.resources import files

import pytest
import redis

from sojourn.stores.redis import scripts
from sojourn.stores.redis.scripts import Script

ALL = {name: value for name, value in vars(scripts).items() if isinstance(value, Script)}


@pytest.mark.parametrize("script", ALL.values(), ids=ALL)
def test_an_include_is_replaced_by_the_file_once(script):
    assert "-- include" not in script.text
    assert script.text.count("local function to_number") <= 1
    assert script.text.count("local function read_head") <= 1


def test_the_constants_precede_each_script():
    """They are defined once for Python and Lua."""
    for script in ALL.values():
        names, values = script.text.split("\n", 1)[0].removeprefix("local ").split(" = ")
        found = dict(zip(names.split(", "), map(int, values.split(", ")), strict=True))
        assert found == {name: getattr(scripts, name) for name in found}


def test_the_name_of_a_script_is_its_sha1_on_the_server(valkey):
    with redis.Redis.from_url(valkey.url) as admin:
        assert admin.script_load(scripts.UNLOCK.text) == scripts.UNLOCK.sha


def test_every_script_file_is_used():
    """A script that no module loads would not be tested."""
    folder = files("sojourn.stores.redis").joinpath("lua")
    names = {file.name for file in folder.iterdir() if file.name.endswith(".lua")}
    assert len(names) == len(ALL)
    included = {file.name for file in folder.joinpath("include").iterdir()}
    texts = [file.read_text("utf-8") for file in folder.iterdir() if file.is_file()]
    texts += [file.read_text("utf-8") for file in folder.joinpath("include").iterdir()]
    assert all(any(f"-- include {name}\n" in text for text in texts) for name in included)
