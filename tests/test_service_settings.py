"""Settings from the environment: what is wrong is named, what is secret is not shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model.errors import UserError
from service.settings import load_settings


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("PINSAGE_"):
            monkeypatch.delenv(name)


def test_defaults_serve_this_machine_only() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.keys) == ("127.0.0.1", 8000, None)
    assert settings.home == Path.home() / ".pinsage"
    assert settings.max_body_bytes == 2**20


def test_environment_is_read_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINSAGE_PORT", "9001")
    monkeypatch.setenv("PINSAGE_MAX_INFLIGHT", "7")
    assert (load_settings().port, load_settings().max_inflight) == (9001, 7)
    assert (load_settings(port=0).port, load_settings(port=None).port) == (0, 9001)


def test_empty_variable_means_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINSAGE_KEYS", "")
    assert load_settings().keys is None


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("PINSAGE_MAX_INFLIHGT", "PINSAGE_MAX_INFLIGHT"),
        ("PINSAGE_KEY", "PINSAGE_KEYS"),
        ("PINSAGE_REDIS", "PINSAGE_REDIS_URL"),
    ],
)
def test_unknown_variable_names_the_nearest(monkeypatch: pytest.MonkeyPatch, variable: str, nearest: str) -> None:
    monkeypatch.setenv(variable, "secret-value")
    with pytest.raises(UserError, match=rf"{variable} is not a setting; the nearest one is {nearest}$"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "tcp://10.0.0.1:80"),
        ("PORT", "70000"),
        ("MAX_INFLIGHT", "0"),
        ("WORKER", "maybe"),
        ("GRACE_SECONDS", "nan"),
    ],
)
def test_wrong_value_names_variable_and_value(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(f"PINSAGE_{variable}", value)
    with pytest.raises(UserError, match=f"PINSAGE_{variable} = .*{value}"):
        load_settings()


def test_wrong_argument_is_named_as_given() -> None:
    with pytest.raises(UserError, match=r"^port = 99999: "):
        load_settings(port=99999)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINSAGE_KEYS", "ops:admin:hunter2")
    monkeypatch.setenv("PINSAGE_REDIS_URL", "redis://:hunter2@cache:6379/0")
    settings = load_settings()
    assert "hunter2" not in repr(settings) + str(settings.masked())
    assert settings.keys is not None
    assert settings.keys.get_secret_value() == "ops:admin:hunter2"


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in type(load_settings()).model_fields.items() if not field.description] == []
