"""What a receiver of webhooks does first: see that the fleet sent it."""

from collections.abc import Mapping
from typing import Any


class WebhookVerificationError(Exception):
    """The delivery isn't signed with the secret, is too old, or isn't one."""


def verify_webhook(body: bytes, headers: Mapping[str, str], secret: str) -> dict[str, Any]:
    """Returns a delivery's event if it was signed with the secret within five minutes of now.

    Args:
        body: as it arrived, byte for byte.
        headers: of the request, in any case.
        secret: ``whsec_...``, as the gateway showed it.

    Raises:
        WebhookVerificationError: when it is somebody else's, too old or too new, or no event.
        ModuleNotFoundError: without the extra ``webhooks``.
    """
    # Not at the top: the library comes with an extra, which most users of the client don't need.
    from standardwebhooks.webhooks import Webhook
    from standardwebhooks.webhooks import WebhookVerificationError as Unverified

    try:
        event = Webhook(secret).verify(body, dict(headers))
    except (Unverified, ValueError) as exc:
        raise WebhookVerificationError(f"not a webhook of this secret: {exc}") from exc
    if not isinstance(event, dict):
        raise WebhookVerificationError("not a webhook: the body is no object")
    return event
