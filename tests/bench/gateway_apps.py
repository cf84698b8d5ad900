"""``python -m tests.bench.gateway_apps NAME --port P``: what the gateway is compared with, served as the gateway is.

``send_task`` is the gateway itself, but its submission publishes the task through Celery, as most do it; ``empty``
parses the same body and answers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import uvicorn
from celery import Celery
from fastapi import Body, FastAPI, Request, Response

from api_gateway.app import create_app
from api_gateway.bodies import ReadBody
from api_gateway.routes import tasks
from api_gateway.routes.answers import pending_response
from api_gateway.services import caller_of, services_of
from api_gateway.settings import GatewaySettings
from contract.logs import configure_logs
from contract.record import TaskRecord
from contract.requests import TaskRequest
from contract.task import TaskStatus, new_task_id
from contract.wakeups import WAKE_TASK, celery_settings


def send_task_app() -> FastAPI:
    """The gateway with Celery's own way of handing over work. No record is kept: that would cost it more."""
    settings = GatewaySettings()
    celery = Celery(broker=settings.redis_url.get_secret_value())
    celery.conf.update(celery_settings("bench"))

    async def submit(request: Request) -> Response:
        services, tenant = services_of(request), await caller_of(request)
        async with ReadBody(request) as body:
            plan = await services.planner.plan(body, tenant)
        task_id = new_task_id()
        celery.send_task(WAKE_TASK, args=[task_id, plan.spec.model_dump(mode="json")], queue=plan.spec.model)
        now_ms = time.time_ns() // 1_000_000
        record = TaskRecord(
            id=task_id,
            tenant=tenant.id,
            status=TaskStatus.QUEUED,
            spec=plan.spec,
            parts_total=1,
            parts_done=0,
            parts_failed=0,
            attempts=0,
            created_ms=now_ms,
            started_ms=None,
            ended_ms=None,
            expires_ms=None,
            error=None,
            result=None,
        )
        return pending_response(record, services)

    tasks.submit_task = submit
    return create_app(settings)


def empty_app() -> FastAPI:
    """What FastAPI takes to read the same body."""
    app = FastAPI()

    @app.post("/v1/tasks", status_code=202)
    async def submit(_task: Annotated[TaskRequest, Body()]) -> dict[str, str]:
        return {"status": "queued"}

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    return app


APPS: dict[str, Callable[[], FastAPI]] = {"send_task": send_task_app, "empty": empty_app}


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway_apps", description=__doc__)
    parser.add_argument("app", choices=sorted(APPS))
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args(argv)
    configure_logs("bench")
    uvicorn.run(
        APPS[args.app](), port=args.port, loop="uvloop", http="httptools", log_config=None, access_log=False, ws="none"
    )


if __name__ == "__main__":
    main()
