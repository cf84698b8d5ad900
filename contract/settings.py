"""What every role needs to know of its surroundings. Each room adds its own settings to these."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contract.egress import EgressPolicy
from contract.spans import can_tell
from contract.webhook_secrets import SecretBox

Network = IPv4Network | IPv6Network


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _fernet_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    try:
        SecretBox(keys)
    except ValueError:
        raise ValueError("a key is 32 random bytes in URL-safe base64") from None  # the cause may quote the key
    return keys


def _with_extra(endpoint: str) -> str:
    if not can_tell():
        raise ValueError("this needs the extra otel: pip install ovis-fleet[otel]")
    return endpoint


class FleetSettings(BaseSettings):
    """Read from the environment, prefix ``OVIS_``. A bad value stops the start."""

    model_config = SettingsConfigDict(env_prefix="OVIS_", frozen=True, extra="ignore")

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="Redis or Valkey 7+, with noeviction and AOF"
    )
    s3_endpoint_url: str | None = Field(None, description="S3 server; none means AWS")
    s3_region: str = Field("us-east-1", description="Region of the bucket")
    s3_bucket: str = Field("ovis", description="Bucket for inputs and results")
    s3_access_key_id: SecretStr | None = Field(None, description="none means boto3's own chain of credentials")
    s3_secret_access_key: SecretStr | None = Field(None, description="goes with the key id")
    egress_allow_http: bool = Field(False, description="whether input URLs may be plain http")
    egress_allow_cidrs: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="comma-separated networks that input URLs may reach although they are not global"
    )
    webhook_keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split), AfterValidator(_fernet_keys)] = (
        Field(
            (),
            description="comma-separated keys that signing secrets are encrypted with, newest first; none: no webhooks",
        )
    )
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s?#]+$",
        description="where callers reach the gateway; links in webhooks begin with it",
    )
    otlp_endpoint: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$"), AfterValidator(_with_extra)] | None = Field(
        None, description="OpenTelemetry collector that recorded traces are told to, by OTLP over HTTP"
    )
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="lowest level logged")

    @property
    def egress(self) -> EgressPolicy:
        """The address policy for URLs that callers give."""
        return EgressPolicy(allow_http=self.egress_allow_http, allow_networks=self.egress_allow_cidrs)


def explain(error: ValidationError) -> list[tuple[str, str]]:
    """Where and what, for each wrong value; without the value, which may be a secret."""
    return [
        (".".join(map(str, item["loc"])), item["msg"])
        for item in error.errors(include_input=False, include_url=False, include_context=False)
    ]
