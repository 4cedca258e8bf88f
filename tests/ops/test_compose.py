"""docker-compose.yml says what the code understands: commands, variables, order and health of every service."""

from __future__ import annotations

import importlib.util
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery.bin.beat import beat as celery_beat
from celery.bin.worker import worker as celery_worker
from typer.main import get_command

from app.cli import app as retort
from app.config import Settings, SettingsError
from app.operate.plan import planned

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
SECRETS = {
    name: secrets.token_hex(32)
    for name in (
        "RETORT_POSTGRES_PASSWORD",
        "RETORT_APP_PASSWORD",
        "RETORT_BUS_PASSWORD",
        "RETORT_STATES_PASSWORD",
        "RETORT_SECRET",
    )
}
# ${NAME}, ${NAME:-default}, ${NAME:?message}, and $$ for a dollar (Compose specification, "Interpolation").
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<how>[-?])(?P<rest>[^}]*))?\})")
OURS = ("web", "generator", "worker-io", "worker-models", "beat", "migrate")
FOREIGN = ("postgres", "bus", "states")


class Missing(ValueError):
    """A variable without a default is not set."""


def interpolate(value: Any, variables: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: interpolate(item, variables) for name, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "$"
        if given := variables.get(match["name"]):
            return given
        if match["how"] != "-":
            raise Missing(match["name"])
        return match["rest"]

    return VARIABLE.sub(replace, value)


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return interpolate(yaml.safe_load(FILE.read_text()), SECRETS)["services"]


def test_it_names_every_part(services):
    assert sorted(services) == sorted((*OURS, *FOREIGN))


@pytest.mark.parametrize("name", OURS)
def test_the_settings_accept_what_the_service_is_given(services, name):
    environment = services[name]["environment"]
    assert all(isinstance(value, str) for value in environment.values())
    settings = Settings.load(environment)
    assert settings.secret == SECRETS["RETORT_SECRET"]
    assert settings.visitor_url == "http://localhost:8460"
    assert bool(settings.admin_database_url) == (name == "migrate"), "only the migration is told the superuser's password"
    known = {f"RETORT_{field.upper()}" for field in Settings.__dataclass_fields__}
    assert {variable for variable in environment if variable.startswith("RETORT_")} <= known


@pytest.mark.parametrize("name", OURS)
def test_its_command_exists(services, name):
    command = list(services[name]["command"])
    if command[0] == "python":
        assert command[1] == "-m" and importlib.util.find_spec(command[2]), command
        assert "__main__" in (ROOT / (command[2].replace(".", "/") + ".py")).read_text()
    elif command[0] == "retort":
        assert command[1] in get_command(retort).commands
    else:
        program, flag, module, subcommand, *options = command
        assert (program, flag) == ("celery", "-A") and importlib.util.find_spec(module)
        known = {"worker": celery_worker, "beat": celery_beat}[subcommand]
        names = {spelling for parameter in known.params for spelling in parameter.opts}
        assert {option.partition("=")[0] for option in options if option.startswith("-")} <= names


def test_the_workers_run_as_under_retort_up(services, stack, tmp_path):
    for one in planned(stack.settings, {}, tmp_path):
        given = [part for part in services[one.kind]["command"] if part not in ("python", "-m")]
        assert given == one.child.command[2:]
        for variable in ("REMAP_SIGTERM",):
            assert services[one.kind]["environment"].get(variable) == (one.child.environment or {}).get(variable)


def test_every_service_that_stays_has_a_health_check_that_exists(services):
    for name in (*OURS, *FOREIGN):
        if name == "migrate":
            continue
        test = services[name]["healthcheck"]["test"]
        assert test[0] in ("CMD", "CMD-SHELL")
        if test[0] == "CMD":
            assert test[1:] == ["retort", "alive", name]
    assert "alive" in get_command(retort).commands


def test_nothing_starts_before_the_schema_is_there(services):
    for name in OURS:
        wanted = services[name]["depends_on"]
        assert set(wanted) <= set(services)
        if name == "migrate":
            assert wanted == {"postgres": {"condition": "service_healthy"}}
        else:
            assert wanted["migrate"] == {"condition": "service_completed_successfully"}
            assert {wanted[server]["condition"] for server in ("bus", "states")} == {"service_healthy"}


def test_the_bus_keeps_and_the_states_forget(services):
    bus, states = (services[name]["command"][-1] for name in ("bus", "states"))
    assert "--appendonly yes" in bus and "--maxmemory-policy noeviction" in bus and services["bus"]["volumes"]
    assert "--appendonly no" in states and "--maxmemory-policy allkeys-lru" in states and "volumes" not in services["states"]


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_no_secret_has_a_default(name):
    raw = yaml.safe_load(FILE.read_text())
    with pytest.raises(Missing, match=name):
        interpolate(raw, {other: value for other, value in SECRETS.items() if other != name})


def test_no_service_but_web_opens_a_port(services):
    assert [name for name, service in services.items() if service.get("ports")] == ["web"]


def test_a_short_secret_is_refused(services):
    environment = dict(services["web"]["environment"], RETORT_SECRET="short")
    with pytest.raises(SettingsError, match="at least 32 bytes"):
        Settings.load(environment)
