"""Credentials are found in a text before it leaves the machine, by their form or as known here."""

from pathlib import Path

import pytest

from polyfit.store.credentials import credentials_here, find_credential


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Those of a machine with some variables and two profiles."""
    credentials = "[work]\naws_access_key_id = ours-of-work\naws_secret_access_key = slash/plus+=\n"
    (tmp_path / "credentials").write_text(credentials)
    (tmp_path / "config").write_text("[profile other]\naws_session_token = a-very-long-one\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2hunter2")
    monkeypatch.setenv("SHORT_TOKEN", "x")
    monkeypatch.setenv("PGPASSWORD", "pg-word")
    monkeypatch.setenv("GITHUB_PAT", "ghp_1234567890abcdefghij")
    monkeypatch.setenv("KEY_CREDENTIALS", "/home/somebody/project-1/key.json")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallel")
    return credentials_here()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("planted-secret", "AWS_SECRET_ACCESS_KEY"),
        ("hunter2hunter2", "DATABASE_PASSWORD"),
        ("ours-of-work", "aws_access_key_id of the profile work"),
        ("slash/plus+=", "aws_secret_access_key of the profile work"),
        ("a-very-long-one", "aws_session_token of the profile other"),
    ],
)
def test_a_known_one_is_named_with_its_line(known: dict[str, str], value: str, name: str) -> None:
    found = find_credential(f"name: a\n# {value}\nfit: {{}}\n", known)
    assert found == (f"the value of {name}", 2)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("slash%2Fplus%2b%3D", "aws_secret_access_key of the profile work"),
        ("a piece: 1234567890abcdef", "GITHUB_PAT"),
        ("ghp_1234567890ab", "GITHUB_PAT"),
        ("pg-word", "PGPASSWORD"),
    ],
)
def test_encoded_a_piece_or_a_short_one_as_a_whole_it_is_found(
    known: dict[str, str], text: str, name: str
) -> None:
    assert find_credential(text, known) == (f"the value of {name}", 1)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("# AKIAIOSFODNN7EXAMPLE", "an AWS access key id"),
        ("aws_secret_access_key: abc", "a secret AWS key"),
        ("AWS_SESSION_TOKEN=abc", "a secret AWS key"),
        ('{"aws_secret_access_key": "abc"}', "a secret AWS key"),
        ("X-Amz-Security-Token: abc", "a signed URL"),
        ("https://me:word@host/", "a user and a password in a URL"),
        ("https://a/b?X-Amz-Signature=abc", "a signed URL"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
    ],
)
def test_what_has_the_form_of_one_is_found(text: str, what: str) -> None:
    assert find_credential(f"\n\n{text}", {}) == (what, 3)


@pytest.mark.parametrize(
    "text",
    [
        "target: sin(x)\nstore: s3://bucket/prefix",
        "https://host:9000/a@b",
        "# the credentials are in aws_secret_access_key of the profile",
        "parallel x",
        "a pg-word within",
        "ghp_1234567890a",
        "/home/somebody/project-1/bin/python",
        "",
    ],
)
def test_other_texts_hold_none(known: dict[str, str], text: str) -> None:
    assert find_credential(text, known) is None
