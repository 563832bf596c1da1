"""Secrets: weak ones are refused; a generated one is private to its owner and never shown."""

import os
import secrets
import stat
import subprocess
import sys

import pytest

from sojourn._crypto.secret_key import (
    check_secrets,
    generate_secret,
    missing_secret,
    read_or_create_secrets,
)
from sojourn.errors import ConfigurationError

GOOD = "Zq3vXbT0rYkP8wLm2NcEeJ5dUoHs7fGa"


@pytest.mark.parametrize(
    "good",
    [
        GOOD, GOOD.encode(), "é" + GOOD, GOOD[:16], "correct horse battery staple moves",
        "a secret of mine: " + GOOD, "secret" + GOOD[:13],
    ],
)  # fmt: skip
def test_a_strong_secret_is_accepted(good):
    data = good if isinstance(good, bytes) else good.encode()
    assert check_secrets(good, source="secret=") == (data,)


def test_the_text_of_a_secret_file_is_the_secret_in_it():
    """As commands and environment variables read the file; bytes are taken as they are."""
    assert check_secrets([f"{GOOD}\n", f" {GOOD}x\r\n"], source="secret=") == (
        GOOD.encode(),
        f"{GOOD}x".encode(),
    )
    assert check_secrets(f"{GOOD}\n".encode(), source="secret=") == (f"{GOOD}\n".encode(),)
    with pytest.raises(ConfigurationError, match="has 15 bytes"):
        check_secrets(f"{GOOD[:15]}\n", source="secret=")


def test_random_secrets_are_accepted_in_every_common_encoding():
    for _ in range(500):
        for good in (
            secrets.token_bytes(16), secrets.token_bytes(32), secrets.token_hex(16),
            secrets.token_urlsafe(16), secrets.token_urlsafe(32), generate_secret(),
        ):  # fmt: skip
            assert check_secrets(good, source="secret=")


@pytest.mark.parametrize(
    ("weak", "why"),
    [
        ("", "has 0 bytes"), ("N84", "has 3 bytes"), ("x" * 15, "has 15 bytes"),
        (b"\0" * 15, "has 15 bytes"), ("a" * 64, "repeats itself"), ("ab" * 40, "repeats itself"),
        (b"\0" * 32, "repeats itself"), ("changeme-changeme-changeme", "placeholder"),
        ("your-secret-key-here", "placeholder"), ("SuperSecretPassword!", "placeholder"),
        ("this-is-the-default-secret", "placeholder"), ("django-insecure-example", "placeholder"),
        ("CHANGE_ME_PLEASE_x9", "placeholder"), ("1234567890123456", "placeholder"),
        ("qwertyuiop123456", "placeholder"), ("secret" + GOOD[:12], "placeholder"),
    ],
)  # fmt: skip
def test_a_weak_secret_is_refused_with_a_new_one_to_copy(weak, why):
    """B-16: the error says what is wrong, why, and shows an acceptable secret."""
    with pytest.raises(ConfigurationError) as caught:
        check_secrets(weak, source="SOJOURN_SECRET")
    text = str(caught.value)
    assert text.startswith("SOJOURN_SECRET ")
    assert why in text
    assert "at least 16 random bytes" in text
    fresh = text.rpartition(" ")[2]
    assert check_secrets(fresh, source="secret=")
    assert len(weak) < 10 or str(weak) not in text, (
        "a refused secret may be used by another application"
    )


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (5, "found int"), (object(), "found object"), ([5], "found int"), ({"a"}, "found set"),
        ([None], "found NoneType"), ([], "empty list"), ((), "empty list"), ({}, "found dict"),
        (bytearray(b"x" * 40), "found"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(wrong, text):
    with pytest.raises(ConfigurationError, match=text):
        check_secrets(wrong, source="secret=")


def test_every_secret_of_a_list_is_checked_and_the_order_is_kept():
    ring = [GOOD, GOOD[::-1].encode()]
    assert check_secrets(ring, source="secret=") == (GOOD.encode(), GOOD[::-1].encode())
    with pytest.raises(ConfigurationError, match="has 3 bytes"):
        check_secrets([GOOD, "N84"], source="secret=")


def test_secret_bytes_that_are_not_utf8_are_accepted_and_never_shown():
    """A18: a UnicodeEncodeError would contain the secret."""
    odd = os.fsdecode(b"\xff\xfe" + GOOD.encode())
    assert len(check_secrets(odd, source="SOJOURN_SECRET")[0]) > 32


def test_the_error_for_a_shared_store_contains_a_new_secret_to_copy():
    error = missing_secret("redis://")
    line = next(line.strip() for line in str(error).splitlines() if "SOJOURN_SECRET=" in line)
    assert check_secrets(line.partition("=")[2], source="secret=")
    assert str(missing_secret("redis://")) != str(error)


def test_generated_secrets_differ():
    assert len({generate_secret() for _ in range(100)}) == 100
    assert len(generate_secret()) == 43


class TestFile:
    def test_the_file_is_created_once_with_private_permissions(self, tmp_path):
        """0600, and 0700 for the folder."""
        path = tmp_path / "deep" / "folder" / "secret"
        (first,) = read_or_create_secrets(path)
        assert read_or_create_secrets(path) == (first,)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert list(path.parent.iterdir()) == [path], "no temporary file is left"
        assert len(first) == 43

    def test_the_umask_does_not_widen_permissions(self, tmp_path):
        old = os.umask(0)
        try:
            read_or_create_secrets(tmp_path / "secret")
        finally:
            os.umask(old)
        assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620, 0o601])
    def test_a_file_with_wider_permissions_is_refused_with_the_remedy(self, tmp_path, mode):
        path = tmp_path / "secret"
        (before,) = read_or_create_secrets(path)
        path.chmod(mode)
        with pytest.raises(ConfigurationError, match=f"chmod 600 {path}") as caught:
            read_or_create_secrets(path)
        assert before.decode() not in str(caught.value)

    @pytest.mark.parametrize("target", ["there", "missing"])
    def test_a_symbolic_link_is_refused(self, tmp_path, target):
        """B-50: an attacker could choose its target."""
        read_or_create_secrets(tmp_path / "there")
        (tmp_path / "secret").symlink_to(tmp_path / target)
        with pytest.raises(ConfigurationError):
            read_or_create_secrets(tmp_path / "secret")
        assert not (tmp_path / "missing").exists()

    def test_a_folder_at_the_path_of_the_file_is_refused(self, tmp_path):
        (tmp_path / "secret").mkdir(mode=0o700)
        with pytest.raises(ConfigurationError, match="cannot be used"):
            read_or_create_secrets(tmp_path / "secret")

    def test_a_file_at_the_path_of_the_folder_is_refused(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(ConfigurationError, match="pass secret="):
            read_or_create_secrets(tmp_path / "file" / "secret")

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"short",
            b"changeme-changeme",
            b"\xff" * 40,
            b"aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            GOOD.encode() + b",short",
        ],
    )
    def test_a_file_with_a_weak_secret_is_refused(self, tmp_path, content):
        path = tmp_path / "secret"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ConfigurationError, match=f"the secret file {path}"):
            read_or_create_secrets(path)

    def test_a_file_that_is_not_utf8_is_accepted(self, tmp_path):
        path = tmp_path / "secret"
        path.write_bytes(b"\xff\xfe" + GOOD.encode() + b"\n")
        path.chmod(0o600)
        assert read_or_create_secrets(path) == (b"\xff\xfe" + GOOD.encode(),)

    @pytest.mark.parametrize("separator", [b",", b"\n", b" , \r\n"])
    def test_a_file_can_contain_several_secrets(self, tmp_path, separator):
        """The first seals, all unseal; they are separated by commas or lines."""
        path = tmp_path / "secret"
        older = GOOD[::-1].encode()
        path.write_bytes(GOOD.encode() + separator + older + b"\n")
        path.chmod(0o600)
        assert read_or_create_secrets(path) == (GOOD.encode(), older)

    def test_eight_processes_that_start_together_get_one_secret(self, tmp_path, repository):
        """Otherwise workers could not unseal each other's tickets."""
        script = (
            "import sys; from pathlib import Path\n"
            "from sojourn._crypto.secret_key import read_or_create_secrets\n"
            "sys.stdin.readline(); print(read_or_create_secrets(Path(sys.argv[1]))[0].decode())"
        )
        path = tmp_path / "new" / "secret"
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(repository / "src")},
            )
            for _ in range(8)
        ]
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        printed = {worker.communicate(timeout=30)[0].strip() for worker in workers}
        assert printed == {path.read_text().strip()}
        assert list(path.parent.iterdir()) == [path]
