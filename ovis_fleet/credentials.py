"""The secrets of a local stack: generated once per data directory."""

import base64
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from ovis_fleet.workspace import write_private


@dataclass(frozen=True)
class S3Credentials:
    """What the S3 server accepts.

    Attributes:
        access_key_id: the public half.
        secret_access_key: the secret half; not part of the repr.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True)
class StackSecrets:
    """All secrets of one stack; none is part of the repr.

    Attributes:
        api_key: the default tenant's.
        s3: what gateway, workers and the S3 server share.
        webhook_key: what gateway and io workers encrypt signing secrets with.
    """

    api_key: str = field(repr=False)
    s3: S3Credentials
    webhook_key: str = field(repr=False)

    @classmethod
    def generate(cls) -> "StackSecrets":
        """Makes new random secrets."""
        s3 = S3Credentials(secrets.token_hex(10).upper(), secrets.token_urlsafe(30))
        return cls(api_key=f"sk-{secrets.token_urlsafe(32)}", s3=s3, webhook_key=_new_webhook_key())

    @classmethod
    def kept_in(cls, path: Path) -> "StackSecrets":
        """Reads the secrets of an earlier run, so that keys and presigned URLs outlive it, or makes and keeps new ones.

        Args:
            path: the file; written with mode 0600.
        """
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            made = cls.generate()
            document = {
                "api_key": made.api_key,
                "s3_access_key_id": made.s3.access_key_id,
                "s3_secret_access_key": made.s3.secret_access_key,
                "webhook_key": made.webhook_key,
            }
            write_private(path, json.dumps(document, indent=2) + "\n")
            return made
        if "webhook_key" not in kept:  # kept by a version without webhooks
            kept["webhook_key"] = _new_webhook_key()
            write_private(path, json.dumps(kept, indent=2) + "\n")
        s3 = S3Credentials(kept["s3_access_key_id"], kept["s3_secret_access_key"])
        return cls(kept["api_key"], s3, kept["webhook_key"])


def _new_webhook_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
