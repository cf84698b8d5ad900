"""The secrets of a local stack: generated once per data directory."""

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
    """

    api_key: str = field(repr=False)
    s3: S3Credentials

    @classmethod
    def generate(cls) -> "StackSecrets":
        """Makes new random secrets."""
        s3 = S3Credentials(secrets.token_hex(10).upper(), secrets.token_urlsafe(30))
        return cls(api_key=f"sk-{secrets.token_urlsafe(32)}", s3=s3)

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
            }
            write_private(path, json.dumps(document, indent=2) + "\n")
            return made
        return cls(kept["api_key"], S3Credentials(kept["s3_access_key_id"], kept["s3_secret_access_key"]))
