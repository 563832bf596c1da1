"""The pages of user interface frameworks show the programs that `make test-ui` runs."""

import re

import pytest

NAMES = ("fasthtml", "gradio", "nicegui", "streamlit")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_the_programs_that_are_tested(repository, name):
    page = (repository / "docs" / "frameworks" / f"{name}.md").read_text("utf-8")
    shown = dict(
        re.findall(r'^```python title="(\w+\.py)"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    )
    programs = (repository / "tests" / "ui" / "programs").glob(f"{name}_*.py")
    assert shown == {path.name: path.read_text("utf-8") for path in programs}
