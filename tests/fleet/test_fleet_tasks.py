"""The commands that handle tasks and dead letters, against a real gateway; the test plays the worker."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import stamina

from ovis_fleet import ApiError, Client
from ovis_fleet.stack import LocalStack, StackConfig
from ovis_fleet.uploading import LARGE_BYTES
from tests.api_gateway.conftest import KEYS, PNG, Fleet, write_tenants
from tests.fleet.both_clients import Open

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """Everything but workers, with the tenants of the gateway's tests."""
    tenants = write_tenants(tmp_path_factory.mktemp("tenants") / "tenants.json")
    config = StackConfig(parts=("valkey", "s3", "gateway"), extra_env={"OVIS_TENANTS_FILE": str(tenants)})
    with LocalStack(config) as running:
        yield running


@pytest.fixture
def fleet(stack: LocalStack) -> Iterator[Fleet]:
    """The worker's view of an empty queue."""
    connected = Fleet.of(stack)
    connected.redis.flushall()
    connected.blobs.delete_prefix("")
    yield connected
    connected.close()


@pytest.fixture
def client(stack: LocalStack) -> Iterator[Client]:
    with Client(stack.url, KEYS["acme"]) as made:
        yield made


@pytest.fixture
def either(stack: LocalStack, opening: Open) -> Iterator[Client]:
    """Either client."""
    with opening(stack.url, KEYS["acme"]) as made:
        yield made


@pytest.fixture
def run(stack: LocalStack) -> Run:
    """Runs the command to its end."""
    address = {"OVIS_URL": stack.url, "OVIS_API_KEY": KEYS["acme"], "COLUMNS": "200"}

    def run_command(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "ovis_fleet.cli", *arguments]
        env = {**os.environ, **address}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    return run_command


def submit(client: Client) -> str:
    return client.submit(kind="text", model="ovis2-reader", prompt="Say hello.").id


def kill(fleet: Fleet, client: Client, count: int) -> list[str]:
    """Makes dead letters; the last to die is the last."""
    ids = []
    for _ in range(count):
        submit(client)
        ids.append(fleet.exhaust())
    return ids


def test_a_queued_task_is_canceled(fleet: Fleet, client: Client, run: Run) -> None:
    task_id = submit(client)

    outcome = run("cancel", task_id)

    assert (outcome.returncode, outcome.stdout) == (0, f"{task_id} canceled\n")


def test_a_failed_task_is_retried_once(fleet: Fleet, client: Client, run: Run) -> None:
    (task_id,) = kill(fleet, client, 1)

    first, second = run("retry", task_id, "--json"), run("retry", task_id)

    assert first.returncode == 0
    assert [json.loads(first.stdout)[key] for key in ("status", "run")] == ["queued", 2]
    assert second.returncode == 4
    assert second.stderr.startswith("ovis-fleet: wrong_status: the task is queued")


@pytest.mark.parametrize("text", ["hello", "[red]long[/red] " * 2000], ids=["small", "large"])
def test_a_result_is_printed_as_it_is(fleet: Fleet, client: Client, run: Run, text: str) -> None:
    task_id = submit(client)
    fleet.succeed(fleet.claim(), text)

    assert run("result", task_id).stdout == f"{text}\n"
    assert json.loads(run("result", task_id, "--format", "json").stdout)["text"] == text


def test_a_task_without_a_result_says_why(fleet: Fleet, client: Client, run: Run) -> None:
    outcome = run("result", submit(client))

    assert (outcome.returncode, outcome.stdout) == (4, "")
    assert outcome.stderr.startswith("ovis-fleet: result_not_ready: the task is queued")


def test_a_deadline_goes_with_a_submission(fleet: Fleet, client: Client, run: Run) -> None:
    outcome = run("submit", "--prompt", "Say hello.", "--deadline", "60", "--no-wait", "--json")

    assert outcome.returncode == 0, outcome.stderr
    task = client.get(json.loads(outcome.stdout)["data"][0]["id"])
    assert task.deadline_at is not None
    assert task.created_at is not None
    assert (task.deadline_at - task.created_at).total_seconds() == 60
    assert "deadline" in run("status", task.id).stdout


def test_an_ended_task_is_deleted_for_good(fleet: Fleet, client: Client) -> None:
    task_id = submit(client)
    with pytest.raises(ApiError, match="wrong_status"):
        client.delete(task_id)
    fleet.succeed(fleet.claim())

    client.delete(task_id)

    with pytest.raises(ApiError, match="gone"):
        client.get(task_id)


def test_no_dead_letters_print_nothing(fleet: Fleet, run: Run) -> None:
    outcome = run("dead-letters", "list")

    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


def test_dead_letters_are_listed_the_last_to_die_first(fleet: Fleet, client: Client, run: Run) -> None:
    ids = kill(fleet, client, 3)

    table = run("dead-letters", "list", "--limit", "2")
    letters = json.loads(run("dead-letters", "list", "--all", "--json").stdout)["data"]

    assert [line.split()[0] for line in table.stdout.splitlines()] == ["task", ids[2], ids[1]]
    assert "engine_died" in table.stdout
    assert "more than 2" in table.stderr
    assert [line["task"]["id"] for line in letters] == ids[::-1]
    assert [end["attempt"] for end in letters[0]["history"]] == [1, 2, 3]


def test_a_dead_letter_is_shown_with_its_history(fleet: Fleet, client: Client, run: Run) -> None:
    (task_id,) = kill(fleet, client, 1)

    shown = run("dead-letters", "show", task_id).stdout

    assert task_id in shown
    assert "attempts_exhausted" in shown
    assert shown.count("worker-1") == shown.count("engine_died") == 3
    assert json.loads(run("dead-letters", "show", task_id, "--json").stdout)["task"]["id"] == task_id


def test_dead_letters_are_replayed_by_id_or_all(fleet: Fleet, client: Client, run: Run) -> None:
    ids = kill(fleet, client, 3)

    one = run("dead-letters", "replay", ids[0])
    rest = run("dead-letters", "replay", "--all")

    assert (one.returncode, one.stdout) == (0, f"{ids[0]} queued\n")
    assert (rest.returncode, rest.stdout) == (0, f"{ids[2]} queued\n{ids[1]} queued\n")
    assert list(client.all_dead_letters()) == []
    assert {client.get(task_id).run for task_id in ids} == {2}


def test_what_is_no_dead_letter_stops_no_other(fleet: Fleet, client: Client, run: Run) -> None:
    ids, living = kill(fleet, client, 2), submit(client)

    outcome = run("dead-letters", "discard", ids[0], living, ids[1])

    assert outcome.returncode == 4
    assert outcome.stdout == f"{ids[0]} discarded\n{ids[1]} discarded\n"
    assert outcome.stderr.startswith(f"{living}: not_found")
    assert list(client.all_dead_letters()) == []
    assert {client.get(task_id).status for task_id in ids} == {"failed"}


@pytest.mark.parametrize("arguments", [[], ["task_1", "--all"]], ids=["neither", "both"])
@pytest.mark.parametrize("command", ["replay", "discard"])
def test_ids_and_all_exclude_each_other(fleet: Fleet, run: Run, command: str, arguments: list[str]) -> None:
    outcome = run("dead-letters", command, *arguments)

    assert outcome.returncode == 2
    assert "give ids or --all" in outcome.stderr


def test_either_client_lists_by_what_a_task_carries(fleet: Fleet, either: Client) -> None:
    ids = [either.submit(model="ovis2-reader", prompt="Say hello.", metadata={"order": order}).id for order in "1223"]

    page = either.list(limit=3)

    assert [task.id for task in page.items] == ids[:0:-1]
    assert [task.id for task in either.list(page.next_cursor).items] == ids[:1]
    assert [task.id for task in either.list_all(metadata={"order": "2"}, status="queued")] == [ids[2], ids[1]]
    assert [task.id for task in either.list_all(limit=1)] == ids[::-1]


def test_either_client_follows_a_task_over_a_killed_gateway(stack: LocalStack, fleet: Fleet, either: Client) -> None:
    task_id = submit(either)
    attempt = fleet.claim()
    events = iter(either.events(task_id))
    first = next(events)

    stack.kill_part("gateway")
    stack.start_part("gateway")
    fleet.succeed(attempt)
    rest = list(events)

    assert (first.status, first.run) == ("running", 1)
    assert [(event.status, event.state) for event in rest] == [(None, "succeeded"), ("succeeded", None)]
    assert list(either.events(task_id, after=rest[-1].id)) == []
    assert [(part.part, part.state) for part in either.parts(task_id=task_id)] == [(0, "succeeded")]
    assert either.result(task_id, "text") == either.result(task_id, part=0)["text"] == "hello"


def test_either_client_waits_through_a_killed_gateway(
    stack: LocalStack,
    fleet: Fleet,
    either: Client,
    eventually: Callable[..., bool],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "httpx")
    task_id = submit(either)
    attempt = fleet.claim()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(either.wait, task_id, 60)
        assert eventually(lambda: f"/v1/tasks/{task_id}" in caplog.text)
        stack.kill_part("gateway")
        stack.start_part("gateway")
        fleet.succeed(attempt)

        assert waiting.result(60).status == "succeeded"


def test_either_client_heeds_a_real_429(stack: LocalStack, fleet: Fleet, opening: Open) -> None:
    refused: list[str] = []
    stamina.instrumentation.set_on_retry_hooks([lambda details: refused.append(details.caused_by.code)])
    try:
        with opening(stack.url, KEYS["hasty"]) as hasty:
            for _ in range(200):
                hasty.limits()
                if refused:
                    break
    finally:
        stamina.instrumentation.set_on_retry_hooks(None)
    assert set(refused) == {"rate_limited"}


def test_either_client_sends_a_large_file_to_the_store(fleet: Fleet, either: Client, tmp_path: Path) -> None:
    picture = tmp_path / "large.png"
    picture.write_bytes(PNG + bytes(LARGE_BYTES))

    task = either.submit(picture, model="ovis2-reader")

    (key,) = fleet.keys("inputs/")
    assert task.id in key
    assert fleet.blobs.get(key) == picture.read_bytes()
    assert either.limits().waiting_bytes == len(PNG) + LARGE_BYTES


def test_one_key_makes_one_task_and_one_run(fleet: Fleet, either: Client) -> None:
    one, same = (either.submit(model="ovis2-reader", prompt="p", idempotency_key="k") for _ in range(2))
    fleet.exhaust()
    runs = [either.retry(one.id, idempotency_key="r").run for _ in range(2)]

    assert one.id == same.id
    assert runs == [2, 2]
    assert either.usage(1).total.tasks["submitted"] == 1


def test_the_command_lists_and_watches(fleet: Fleet, client: Client, run: Run) -> None:
    ids = [submit(client) for _ in range(3)]
    fleet.succeed(fleet.claim())
    client.cancel(ids[1])

    listed = run("list", "--limit", "2")
    document = json.loads(run("tasks", "--status", "succeeded", "--json").stdout)
    good, bad = run("watch", ids[0]), run("watch", ids[1], "--json")

    assert [line.split()[:2] for line in listed.stdout.splitlines()[1:]] == [[ids[2], "queued"], [ids[1], "canceled"]]
    assert "more than 2" in listed.stderr
    assert ([task["id"] for task in document["data"]], document["has_more"]) == ([ids[0]], False)
    assert (good.returncode, good.stdout.splitlines()[-2:]) == (0, ["part 0 succeeded", "status succeeded"])
    assert bad.returncode == 1
    assert json.loads(bad.stdout.splitlines()[-1])["status"] == "canceled"
    assert "\x1b" not in listed.stdout + good.stdout


def test_a_task_that_does_not_end_in_time_exits_with_5(fleet: Fleet, run: Run) -> None:
    outcome = run("submit", "--prompt", "Say hello.", "--timeout-s", "1", "--metadata", "order=42")

    assert (outcome.returncode, outcome.stdout) == (5, "")
    assert outcome.stderr.startswith("ovis-fleet: text still running after 1 s")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["submit", "--prompt", "p", "--option", "cot"], "KEY=VALUE", id="pair"),
        pytest.param(["result", "task_1", "--format", "pdf"], "'pdf' is not one of", id="format"),
    ],
)
def test_wrong_use_is_said_in_plain_words(fleet: Fleet, run: Run, arguments: list[str], said: str) -> None:
    outcome = run(*arguments)

    assert outcome.returncode == 2
    assert said in outcome.stderr
    assert "\u2500" not in outcome.stderr


def test_a_deleted_task_is_gone(fleet: Fleet, client: Client, run: Run) -> None:
    task_id = submit(client)
    fleet.succeed(fleet.claim())

    assert json.loads(run("delete", task_id, "--json").stdout) == {"id": task_id, "deleted": True}
    assert run("status", task_id).returncode == 4
