"""Runs the code blocks of every page, one test per page, because its blocks build on each other.

``pages.py`` describes the format. The last tests check that an incorrect page fails.
"""

from pathlib import Path

import psycopg
import pytest

from tests.docs.pages import run_page

REPOSITORY = Path(__file__).parent.parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])

# Reference pages, which need no introductory example.
REFERENCE = {"dependencies.md", "laws.md", "options.md", "security.md", "tested.md"}

PROGRAM = """
```python title="app.py"
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-number", b"7")]})
    await send({"type": "http.response.body", "body": b"hello, reader\\n"})
```

```console
$ uvicorn app:app
$ curl -i http://localhost:8000/
HTTP/1.1 200 OK
…
x-number: 7
…

hello, WORD
```
"""


#: Pages whose code takes many seconds: the suites for stores and adapters.
LONG = {"docs/testing.md"}

ALL = [
    pytest.param(page, id=name, marks=[pytest.mark.slow] if name in LONG else [])
    for page in PAGES
    for name in [str(page.relative_to(REPOSITORY))]
]


@pytest.mark.parametrize("page", ALL)
def test_the_code_of_a_page_runs(page, tmp_path):
    run_page(page, tmp_path)


def test_the_readme_shows_a_program_its_transcript_and_the_two_commands():
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    program = readme.index('```python title="')
    transcript = readme.index("$ curl ")
    assert program < transcript < readme.index("$ make demo") < readme.index("$ make test")


GUIDES = [
    pytest.param(path, id=str(path.relative_to(REPOSITORY)))
    for path in PAGES
    if (REPOSITORY / "docs") in path.parents and path.name not in REFERENCE
]


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_starts_with_an_example(guide):
    """Style: task first. The first code block precedes the second section."""
    introduction = guide.read_text("utf-8").split("\n## ")[:2]
    assert "```" in "".join(introduction)


def page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("word", ["reader", "rea…"])
def test_correct_transcript_passes(tmp_path, word):
    assert run_page(page(tmp_path, PROGRAM.replace("WORD", word)), tmp_path) == 2


@pytest.mark.parametrize(
    ("correct", "wrong"),
    [
        ("WORD", "writer"),
        ("x-number: 7", "x-number: 8"),
        ("…\n\nhello", "\nhello"),
        ("200 OK", "200"),
    ],
)
def test_incorrect_transcript_fails(tmp_path, correct, wrong):
    text = PROGRAM.replace(correct, wrong).replace("WORD", "reader")
    with pytest.raises(pytest.fail.Exception, match="the page says"):
        run_page(page(tmp_path, text), tmp_path)


def test_a_program_that_does_not_start_fails(tmp_path):
    text = PROGRAM.replace("async def app", "raise SystemExit('no')\nasync def app")
    with pytest.raises(pytest.fail.Exception, match="did not start"):
        run_page(page(tmp_path, text), tmp_path)


def test_blocks_share_a_namespace_and_report_their_own_failures(tmp_path):
    good = "```python\na = 1\n```\n\ntext\n\n```python\nassert a == 1\n```\n"
    assert run_page(page(tmp_path, good), tmp_path) == 2
    with pytest.raises(AssertionError):
        run_page(page(tmp_path, good.replace("a = 1", "a = 2")), tmp_path)


def test_the_sql_of_a_page_runs(tmp_path):
    """In the database of the page's URL, which has no port."""
    connect = "import psycopg\npsycopg.connect('postgresql://app:app@localhost/app').close()"
    good = f"```python\n{connect}\n```\n\n```sql\nCREATE TABLE a (b int);\nSELECT b FROM a;\n```\n"
    assert run_page(page(tmp_path, good), tmp_path) == 2
    with pytest.raises(psycopg.errors.UndefinedColumn):
        run_page(page(tmp_path, good.replace("SELECT b", "SELECT c")), tmp_path)
