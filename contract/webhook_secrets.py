"""Signing secrets of webhooks: made here, kept encrypted in Redis, read by the io role that signs.

A secret must be read to sign with it, so a hash won't do. It is encrypted (Fernet: AES-CBC with HMAC-SHA256) under a
key that only gateway and io workers hold, in their environment: a copy of Redis alone gives nothing away.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import SecretStr

from contract.errors import WebhooksOff

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

#: Random bytes of a secret; Standard Webhooks asks for 24 to 64.
_SECRET_BYTES = 32


def new_secret() -> str:
    """A fresh secret, in the form that Standard Webhooks gives them."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


class SecretBox:
    """Encrypts with the first key, reads what any of them has encrypted. Thread-safe.

    Args:
        keys: Fernet keys, 32 bytes in URL-safe base64; none switches webhooks off.

    Raises:
        ValueError: A key isn't one.
    """

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._fernet = _fernet_of(keys) if keys else None

    def __repr__(self) -> str:
        return "SecretBox()"

    @property
    def usable(self) -> bool:
        """Whether there is a key."""
        return self._fernet is not None

    def seal(self, secret: str) -> str:
        """The secret as it is stored.

        Raises:
            WebhooksOff: There is no key.
        """
        return self._opened().encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """The secret again.

        Raises:
            WebhooksOff: There is no key, or none of them has encrypted this.
        """
        from cryptography.fernet import InvalidToken

        try:
            return self._opened().decrypt(sealed.encode()).decode()
        except InvalidToken as exc:
            raise WebhooksOff("the secret was encrypted with a key that OVIS_WEBHOOK_KEYS no longer holds") from exc

    def _opened(self) -> MultiFernet:
        if self._fernet is None:
            raise WebhooksOff("the operator has set no OVIS_WEBHOOK_KEYS")
        return self._fernet


def _fernet_of(keys: Sequence[SecretStr]) -> MultiFernet:
    # Imported late: 7 MiB, and model workers need no keys.
    from cryptography.fernet import Fernet, MultiFernet

    return MultiFernet([Fernet(key.get_secret_value()) for key in keys])
