"""Every page of a framework has the same structure."""

import re

import pytest

#: Pages of frameworks with an adapter or a tested recipe for ASGI or WSGI.
PAGES = (
    *("aiohttp", "blacksheep", "bottle", "cherrypy", "connexion", "django", "falcon", "fastapi"),
    *("flask", "lilya", "litestar", "pyramid", "quart", "sanic", "starlette", "tornado"),
)
#: User interface frameworks: their programs run in `make test-ui`.
RECIPES = ("fasthtml", "gradio", "nicegui", "streamlit")

#: The sections that every page has, in this order; others may be between them.
SECTIONS = (
    "Login and logout",
    "Only some routes",
    "(WebSockets and streams|Streams)",
    "Errors",
    "CSRF",
    "Tests",
    "From .+",
)

BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def page(repository, name):
    return (repository / "docs" / "frameworks" / f"{name}.md").read_text("utf-8")


def test_every_page_is_listed_here(repository):
    found = {path.stem for path in (repository / "docs" / "frameworks").glob("*.md")}
    assert found - {"tested"} == {*PAGES, *RECIPES}


@pytest.mark.parametrize("name", [*PAGES, *RECIPES])
def test_page_starts_with_installation_program_and_transcript(page, name):
    blocks = BLOCK.findall(page.partition("\n## ")[0])
    kinds = [kind for kind, _ in blocks if kind != 'python title="streamlit_page.py"']
    program = r'python title="\w+\.py"'
    transcript = "console" if name in PAGES else "text"
    assert re.fullmatch(f"sh\n{program}\n{transcript}", "\n".join(kinds[:3]))
    assert blocks[0][1].startswith("pip install ")
    text_before = page.partition("```")[0].strip().splitlines()
    assert len(text_before) == 1, "only the title precedes the first block"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_common_sections_in_their_order(page, name):
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    common = [h for h in headings if any(re.fullmatch(each, h) for each in SECTIONS)]
    assert len(common) == len(SECTIONS), headings
    assert all(re.fullmatch(each, h) for each, h in zip(SECTIONS, common, strict=True)), headings
