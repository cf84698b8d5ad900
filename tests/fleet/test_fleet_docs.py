"""What docs/client.md says of the client and the command is so."""

import base64
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook
from typer.main import get_command

from ovis_fleet import AsyncClient, Client, WebhookVerificationError, verify_webhook
from ovis_fleet.cli import app
from ovis_fleet.exit_codes import ExitCode
from tests.fleet.answering import KEY, Answer, Server, task_document

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_both_clients_have_the_same_methods_and_all_are_documented() -> None:
    assert public(Client) == public(AsyncClient)
    assert [name for name in public(Client) - {"close"} if not re.search(rf"`{name}[`(]", PAGE)] == []


def test_every_command_and_exit_status_is_documented() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert [name for name in commands if not re.search(rf"`{name}[` ]", PAGE)] == []
    assert re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE) == [str(int(code)) for code in ExitCode]


def test_the_first_example_runs(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "receipt.png").write_bytes(b"\x89PNG...")
    monkeypatch.chdir(tmp_path)
    server.will_answer(Answer(202, task_document()), Answer(200, task_document("succeeded")), Answer(200, "TOTAL"))

    exec(EXAMPLES[0], {"url": server.url, "api_key": KEY})

    assert capsys.readouterr().out == "TOTAL\n"


def signed(body: str, at: datetime) -> dict[str, str]:
    signature = Webhook(SECRET).sign("msg_1", at, body)
    stamp = str(int(at.timestamp()))
    return {"Webhook-Id": "msg_1", "Webhook-Timestamp": stamp, "Webhook-Signature": signature}


def test_a_delivery_is_verified() -> None:
    body = '{"type": "task.succeeded"}'

    assert verify_webhook(body.encode(), signed(body, datetime.now(UTC)), SECRET) == {"type": "task.succeeded"}


@pytest.mark.parametrize(
    ("body", "at", "change"),
    [
        pytest.param("{}", datetime.now(UTC), {"Webhook-Signature": "v1,AAAA"}, id="forged"),
        pytest.param("{}", datetime.now(UTC), {"Webhook-Signature": "nonsense"}, id="malformed"),
        pytest.param("{}", datetime(2026, 1, 1, tzinfo=UTC), {}, id="old"),
        pytest.param("[]", datetime.now(UTC), {}, id="no object"),
        pytest.param("no json", datetime.now(UTC), {}, id="no JSON"),
    ],
)
def test_what_the_fleet_did_not_send_is_refused(body: str, at: datetime, change: dict[str, Any]) -> None:
    with pytest.raises(WebhookVerificationError, match="not a webhook"):
        verify_webhook(body.encode(), {**signed(body, at), **change}, SECRET)


def test_an_untouched_signature_of_another_body_is_refused() -> None:
    headers = signed("{}", datetime.now(UTC))

    with pytest.raises(WebhookVerificationError):
        verify_webhook(b'{"type": "task.succeeded"}', headers, SECRET)
