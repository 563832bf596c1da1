"""The folder of the default database and the generated secret."""

import stat

import pytest

import sojourn
from sojourn._crypto.secret_key import read_or_create_secrets
from sojourn._folder import create_private_folder
from sojourn.stores.sqlite import SQLiteStore


def open_store(folder):
    SQLiteStore(folder / "sessions.db").close()


def create_secret(folder):
    read_or_create_secrets(folder / "secret")


@pytest.fixture(params=[open_store, create_secret, create_private_folder])
def create(request):
    return request.param


def test_the_default_folder_is_excluded_from_git(tmp_path, create):
    """B-16: `git add .` adds neither the sessions nor the secret, whichever is created first."""
    folder = tmp_path / "project" / ".sojourn"
    create(folder)
    assert (folder / ".gitignore").read_text() == "*\n"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_installation_creates_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOJOURN_STORE", raising=False)
    monkeypatch.delenv("SOJOURN_SECRET", raising=False)
    sojourn.Sessions().close()
    assert (tmp_path / ".sojourn" / ".gitignore").read_text() == "*\n"
    assert (tmp_path / ".sojourn" / "sessions.db.secret").exists()


@pytest.mark.parametrize("content", ["!sessions.db\n", None])
def test_an_existing_folder_is_not_changed(tmp_path, create, content):
    folder = tmp_path / ".sojourn"
    folder.mkdir()
    if content is not None:
        (folder / ".gitignore").write_text(content)
    create(folder)
    found = [each.read_text() for each in folder.glob(".gitignore")]
    assert found == ([] if content is None else [content])


def test_a_folder_of_another_name_gets_no_gitignore(tmp_path, create):
    """It may contain files that belong to the repository."""
    create(tmp_path / "data")
    assert list((tmp_path / "data").glob(".gitignore")) == []


def test_a_gitignore_that_another_process_creates_is_kept(tmp_path, monkeypatch):
    """Another worker or the developer creates it at the same time."""
    folder = tmp_path / ".sojourn"
    mkdir = type(folder).mkdir

    def mkdir_and_write(self, **options):
        mkdir(self, **options)
        (self / ".gitignore").write_text("mine")

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "mkdir", mkdir_and_write)
        create_private_folder(folder)
    assert (folder / ".gitignore").read_text() == "mine"
