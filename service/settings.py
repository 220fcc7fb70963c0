"""Settings of the service: PINSAGE_* variables, every one checked before anything starts.

A variable that we do not know is an error that names the nearest known one: a mistyped limit must not mean "no limit".
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.errors import UserError
from service.http.rate_limit import parse_limits

PREFIX = "PINSAGE_"
SECRET_FIELDS = ("keys", "redis_url")  # a Redis URL may carry a password


class Settings(BaseSettings):
    """What may be set; values given in code win over the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", validate_default=True
    )

    home: Path = Field(Path("~/.pinsage"), description="folder of releases, private Redis and logs")
    host: str = Field("127.0.0.1", description="address to listen at; a public one needs keys")
    port: int = Field(8000, ge=0, le=65535, description="port to listen at; 0 lets the system choose")
    redis_url: SecretStr | None = Field(None, description="Redis to use instead of a private one")
    keys: SecretStr | None = Field(None, description="name:scope:key, several by commas, or a file of them")
    max_body_bytes: int = Field(2**20, ge=1024, le=2**28, description="longest request body")
    body_seconds: float = Field(
        10.0,
        gt=0,
        le=600,
        description="a request's head, its body, and the reading of its answer may each take so long",
    )
    max_inflight: int = Field(64, ge=1, le=10_000, description="requests worked on at once; more are shed")
    rate_limit: str | None = Field(
        None, description="most requests of one key or address: `600/minute`, or `read:900/minute,write:60/minute`"
    )
    queue_seconds: float = Field(2.0, gt=0, le=60, description="a request that waits longer for its turn is shed")
    max_live_pins: int = Field(100_000, ge=1, description="new pins held in memory until a reindex")
    max_live_bytes: int = Field(2**31, ge=2**20, description="memory for all that comes in until a reindex")
    native_threads: int = Field(
        default_factory=lambda: max(1, min(4, os.cpu_count() or 1)),
        ge=1,
        le=256,
        description="requests that compute at the same time, each in one thread",
    )
    worker: Literal["child", "none"] = Field(
        "child", description="run `pinsage worker` as a child, or leave it to others"
    )
    images_dir: Path | None = Field(None, description="folder whose pictures are served at /images")
    drain_seconds: float = Field(1.0, ge=0, le=300, description="after SIGTERM: time of 503 at /readyz before closing")
    grace_seconds: float = Field(10.0, gt=0, le=300, description="time that requests in flight get to finish")

    @field_validator("home", "images_dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()

    @field_validator("rate_limit")
    @classmethod
    def _a_rate(cls, given: str | None) -> str | None:
        parse_limits(given)
        return given

    def masked(self) -> dict[str, object]:
        """The settings for people, secrets masked."""
        return {name: str(value) if isinstance(value, Path | SecretStr) else value for name, value in self}


def load_settings(**given: object) -> Settings:
    """Settings from the environment, overridden by `given` (None means: not given).

    Raises UserError naming the variable and its value, or the nearest known name of an unknown variable.
    """
    _refuse_unknown_variables()
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise UserError("; ".join(_explain(fault, given) for fault in error.errors())) from None


def _refuse_unknown_variables() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for variable in sorted(os.environ):
        if variable.upper().startswith(PREFIX) and variable.upper() not in known:
            near = difflib.get_close_matches(variable.upper(), known, n=1, cutoff=0.0)
            raise UserError(f"{variable} is not a setting; the nearest one is {near[0]}")


def _explain(fault: object, given: dict[str, object]) -> str:
    """One fault of pydantic's in words: which setting, from where, what value, what is wrong."""
    assert isinstance(fault, dict)
    name = str(fault["loc"][0]) if fault["loc"] else "settings"
    source = name if given.get(name) is not None else PREFIX + name.upper()
    value = "(secret)" if name in SECRET_FIELDS else repr(fault["input"])
    return f"{source} = {value}: {fault['msg']}"
