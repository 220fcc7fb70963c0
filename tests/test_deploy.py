"""Dockerfile and compose file against the program: stages, settings and commands that they name exist."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from offline.cli import app
from service.settings import Settings

ROOT = Path(__file__).parents[1]
DOCKERFILE = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
SETTINGS = {"PINSAGE_" + name.upper() for name in Settings.model_fields}
COMMANDS = set(getattr(get_command(app), "commands", ()))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    return loaded


def stages() -> dict[str, str]:
    """Build stages of the Dockerfile by name, each with its own text."""
    parts = re.split(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)[1:]
    return {name: f"FROM {base}\n{text}" for base, name, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}


def parents(name: str) -> list[str]:
    """The stages that a stage is built upon, itself first."""
    base = stages()[name].split()[1]
    return [name, *(parents(base) if base in stages() else [])]


def whole(name: str) -> str:
    return "\n".join(stages()[parent] for parent in reversed(parents(name)))


def test_stages_come_from_stages_named_before() -> None:
    seen: list[str] = []
    for name, text in stages().items():
        sources = re.findall(r"--from=(\S+)|FROM (\S+)", text)
        named = {a or b for a, b in sources} - {"python:${PYTHON}"}
        assert named <= set(seen), f"{name} uses {named - set(seen)}"
        seen.append(name)


@pytest.mark.parametrize("target", ["service", "offline"])
def test_images_run_without_rights_and_stop_on_sigterm(target: str) -> None:
    text = whole(target)
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == "10001:10001"
    assert "STOPSIGNAL SIGTERM" in text
    assert "VOLUME /data" in text
    assert 'ENTRYPOINT ["pinsage"]' in text


@pytest.mark.parametrize("target", ["service", "offline"])
def test_images_start_a_command_that_exists(target: str) -> None:
    command = re.findall(r"^CMD (\[.*\])$", whole(target), re.MULTILINE)[-1]
    assert json.loads(command)[0] in COMMANDS


def test_only_the_offline_image_gets_the_training_libraries() -> None:
    assert "[train]" in stages()["offline-build"]
    assert "offline-build" not in whole("service")
    assert "[train]" not in whole("service-build")


def test_the_index_is_compiled_for_any_processor() -> None:
    assert "HNSWLIB_NO_NATIVE=1" in whole("service-build")


def test_the_health_check_is_python_that_asks_livez() -> None:
    check = re.search(r"^HEALTHCHECK .*?CMD (\[.*\])$", stages()["service"], re.MULTILINE)
    assert check
    program, flag, code = json.loads(check[1])
    assert (program, flag) == ("python", "-c")
    assert "/livez" in ast.unparse(ast.parse(code))


def test_variables_of_ours_are_settings(compose: dict[str, Any]) -> None:
    variables = set(re.findall(r"\b(PINSAGE_\w+)=", DOCKERFILE))
    for service in compose["services"].values():
        variables |= {name for name in service.get("environment", {}) if name.startswith("PINSAGE_")}
    assert variables >= {"PINSAGE_HOME", "PINSAGE_KEYS", "PINSAGE_REDIS_URL"}
    assert variables <= SETTINGS


def test_compose_builds_stages_that_exist(compose: dict[str, Any]) -> None:
    targets = {name: s["build"]["target"] for name, s in compose["services"].items() if "build" in s}
    assert targets == {"service": "service", "worker": "offline"}
    assert set(targets.values()) <= set(stages())
    assert (ROOT / "deploy" / compose["services"]["service"]["build"]["context"] / "Dockerfile").exists()


def test_compose_keeps_what_must_not_be_lost(compose: dict[str, Any]) -> None:
    mounts = {name: {m.split(":")[0] for m in s["volumes"]} for name, s in compose["services"].items()}
    assert mounts == {"redis": {"redis"}, "service": {"data"}, "worker": {"data"}}
    assert set().union(*mounts.values()) == set(compose["volumes"])
    redis = compose["services"]["redis"]["command"]
    assert redis[redis.index("--appendonly") + 1] == "yes"


def test_compose_waits_for_redis_and_refuses_to_start_without_keys(compose: dict[str, Any]) -> None:
    for name in ("service", "worker"):
        assert compose["services"][name]["depends_on"] == {"redis": {"condition": "service_healthy"}}
        assert compose["services"][name]["read_only"] is True
    assert compose["services"]["redis"]["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]
    assert compose["services"]["service"]["environment"]["PINSAGE_KEYS"].startswith("${PINSAGE_KEYS:?")
    assert "ports" not in compose["services"]["redis"]


def test_the_example_of_settings_has_all_that_compose_asks_for() -> None:
    asked = set(re.findall(r"\${(\w+)", (ROOT / "deploy/compose.yaml").read_text()))
    given = re.findall(r"^(\w+)=", (ROOT / "deploy/example.env").read_text(), re.MULTILINE)
    assert set(given) == asked
