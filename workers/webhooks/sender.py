"""One try of a delivery: a signed POST to a checked address, within a time, following nothing."""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

import httpcore
from standardwebhooks.webhooks import Webhook

from contract.egress import EgressPolicy
from contract.errors import FleetError, InputUnavailable
from contract.tracing import TraceContext
from workers.guarded import GuardedBackend

#: Seconds for a whole try, from the connection to the head of the answer.
TRY_S = 20.0

#: What stays as it is in a URL; all else is written as %xx.
_PLAIN = "%/:=&?~#+!$,;'@()*[]"


@dataclass(frozen=True)
class Answer:
    """What came of a try.

    Attributes:
        status_code: The receiver's; None where it gave none.
        error: Why there is none, or none that counts as received.
        detail: The same in words, safe to show to the tenant.
        retry_after: The receiver's header.
        seconds: How long it took.
    """

    status_code: int | None
    error: str | None
    detail: str | None
    retry_after: str | None
    seconds: float

    @property
    def received(self) -> bool:
        """Whether the receiver took it."""
        return self.error is None


class Sender:
    """Sends under one egress policy. Thread-safe: each try has a connection of its own.

    Args:
        policy: What may be reached.
        try_s: Seconds for a whole try.
    """

    def __init__(self, policy: EgressPolicy, try_s: float = TRY_S) -> None:
        self._policy = policy
        self._try_s = try_s
        self._ssl = ssl.create_default_context()

    def send(
        self, url: str, message_id: str, body: str, secrets: Sequence[str], trace: TraceContext | None = None
    ) -> Answer:
        """Try once; never raises for a fault of the receiver's.

        Args:
            url: The receiver's.
            message_id: The same for every try.
            body: What is sent and signed.
            secrets: One signature for each.
            trace: The step of a trace that the try is.
        """
        headers = [*_headers(message_id, body, secrets), *(trace.headers if trace else ())]
        start = time.monotonic()
        try:
            status, retry_after = self._post(url, headers, body, start + self._try_s)
        except InputUnavailable as exc:
            error, detail = "unreachable", str(exc)
        except FleetError as exc:
            error, detail = exc.code, str(exc)
        except httpcore.TimeoutException:
            error, detail = "timeout", f"no answer within {self._try_s:g} seconds"
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError):
            error, detail = "unreachable", "the receiver can't be reached, or doesn't speak HTTP"
        except (httpcore.UnsupportedProtocol, ValueError):
            error, detail = "url_not_allowed", "the URL can't be requested"
        else:
            seconds = time.monotonic() - start
            if 200 <= status < 300:
                return Answer(status, None, None, None, seconds)
            kind = "redirect" if 300 <= status < 400 else "refused"
            return Answer(status, kind, f"the receiver answered {status}", retry_after, seconds)
        return Answer(None, error, detail, None, time.monotonic() - start)

    def _post(self, url: str, headers: list[tuple[str, str]], body: str, deadline: float) -> tuple[int, str | None]:
        self._policy.check_url(url)
        backend = GuardedBackend(self._policy, deadline)
        with (
            httpcore.ConnectionPool(ssl_context=self._ssl, network_backend=backend) as pool,
            pool.stream("POST", quote(url, safe=_PLAIN), headers=headers, content=body.encode()) as response,
        ):
            value = next((value for name, value in response.headers if name.lower() == b"retry-after"), None)
            # The answer's body says nothing to us: it is left unread.
            return response.status, value.decode("latin-1")[:64] if value else None


def _headers(message_id: str, body: str, secrets: Sequence[str]) -> list[tuple[str, str]]:
    moment = datetime.now(UTC)
    signatures = [Webhook(secret).sign(message_id, moment, body) for secret in secrets]
    return [
        ("Content-Type", "application/json"),
        ("User-Agent", "ovis-fleet"),
        ("webhook-id", message_id),
        ("webhook-timestamp", str(int(moment.timestamp()))),
        ("webhook-signature", " ".join(signatures)),
    ]
