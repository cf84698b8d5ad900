"""Builds the application: everything is made here, nothing at import."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, ProcessCollector

from api_gateway.batches import Batches
from api_gateway.blob_calls import BlobCalls
from api_gateway.body_limit import BodyLimit
from api_gateway.changes import Changes
from api_gateway.dead_letters import DeadLetters
from api_gateway.endings import Endings
from api_gateway.estimation import Estimator
from api_gateway.event_hub import EventHub
from api_gateway.files import Files
from api_gateway.fleet_views import FleetViews
from api_gateway.observation import Observation
from api_gateway.openapi import describe
from api_gateway.parts import Parts
from api_gateway.problems import install_handlers
from api_gateway.rate_limits import RateLimits
from api_gateway.records import Records
from api_gateway.routes import (
    admin,
    batches,
    chat,
    dead_letters,
    estimates,
    events,
    files,
    lists,
    models,
    operations,
    parts,
    results,
    tasks,
    uploads,
    usage,
    webhooks,
)
from api_gateway.services import Services
from api_gateway.settings import GatewaySettings
from api_gateway.short_way import ShortWay
from api_gateway.submission import Submitter
from api_gateway.submission_batches import SubmissionBatches
from api_gateway.tenants_file import TenantsFile
from api_gateway.uploads import Uploads
from api_gateway.usage import UsageRecords
from api_gateway.webhooks import Webhooks
from contract.blobs import BlobStore
from contract.metrics import GatewayMetrics
from contract.planning import Planner
from contract.prompt_book import load_prompt_books
from contract.redis_io import connect_async
from contract.spans import open_spans
from contract.webhook_secrets import SecretBox

#: What a form may have beside its file, in bytes.
_FORM_BYTES = 64 * 1024


def create_app(settings: GatewaySettings) -> FastAPI:
    """The HTTP face, wired. Opens no connection yet.

    Raises:
        OSError: The tenants file can't be read.
        PromptFileError: A file of prompts isn't whole.
        pydantic.ValidationError: The tenants file is wrong.
    """
    services = _services(settings)
    app = FastAPI(
        title="Ovis Fleet",
        summary="Pictures and prompts in, text out.",
        version=version("ovis-fleet"),
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.services = services
    app.add_middleware(
        ShortWay, method="POST", path="/v1/tasks", endpoint=tasks.submit_task, route=tasks.router.routes[0]
    )
    longer = {"/v1/files": settings.file_max_bytes + _FORM_BYTES}
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, longer=longer)
    share = settings.trace_share if settings.otlp_endpoint else 0.0
    app.add_middleware(Observation, metrics=services.metrics, spans=services.spans, trace_share=share)
    install_handlers(app)
    for module in (
        *(tasks, estimates, events, lists, results, parts, dead_letters, webhooks),
        *(uploads, models, usage, chat, files, batches, admin, operations),
    ):
        app.include_router(module.router)
    app.openapi = partial(describe, app)  # type: ignore[method-assign] # FastAPI's own way to replace it
    return app


def _services(settings: GatewaySettings) -> Services:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics = GatewayMetrics(registry)
    tenants = TenantsFile(settings.tenants_file, metrics)
    client = connect_async(settings.redis_url.get_secret_value())
    records = Records(client)
    dead_letters = DeadLetters(client, records)
    blobs = BlobCalls(BlobStore(settings), threads=settings.blob_threads, timeout_s=settings.blob_timeout_s)
    uploads = Uploads(client, blobs, settings.max_upload_bytes)
    return Services(
        settings=settings,
        redis=client,
        tenants=tenants,
        rate_limits=RateLimits(client),
        records=records,
        parts=Parts(client, records),
        blobs=blobs,
        planner=Planner(settings.egress, load_prompt_books(settings.prompts_dir)),
        # Its own client: who waits for an estimate holds a connection.
        estimator=Estimator(
            connect_async(settings.redis_url.get_secret_value()), blobs, uploads, settings.estimate_wait_s
        ),
        submitter=Submitter(
            SubmissionBatches(client),
            records,
            blobs,
            uploads,
            settings.queue_max_waiting_parts,
            settings.queue_max_bytes,
        ),
        changes=Changes(client, records, blobs),
        dead_letters=dead_letters,
        endings=Endings(client),
        events=EventHub(client),
        webhooks=Webhooks(client, SecretBox(settings.webhook_keys), settings.egress),
        spans=open_spans(settings.otlp_endpoint, "ovis-gateway"),
        uploads=uploads,
        files=Files(client, blobs),
        batches=Batches(client, settings.queue_max_waiting_parts, settings.queue_max_bytes, settings.batch_max_unended),
        usage=UsageRecords(client),
        fleet=FleetViews(client, records, dead_letters),
        registry=registry,
        metrics=metrics,
    )


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    background = (services.endings.run(), services.events.run(), services.tenants.watch())
    running = {asyncio.create_task(work) for work in background}
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await services.redis.aclose()
        await services.estimator.client.aclose()
        services.blobs.close()
        await asyncio.to_thread(services.spans.close)
