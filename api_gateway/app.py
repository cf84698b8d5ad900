"""Builds the application: everything is made here, nothing at import."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, ProcessCollector

from api_gateway.blob_calls import BlobCalls
from api_gateway.body_limit import BodyLimit
from api_gateway.changes import Changes
from api_gateway.dead_letters import DeadLetters
from api_gateway.endings import Endings
from api_gateway.estimation import Estimator
from api_gateway.event_hub import EventHub
from api_gateway.observation import Observation
from api_gateway.parts import Parts
from api_gateway.planning import Planner
from api_gateway.problems import install_handlers
from api_gateway.records import Records
from api_gateway.routes import (
    dead_letters,
    estimates,
    events,
    lists,
    models,
    operations,
    parts,
    results,
    tasks,
    webhooks,
)
from api_gateway.services import Services
from api_gateway.settings import GatewaySettings
from api_gateway.submission import Submitter
from api_gateway.webhooks import Webhooks
from contract.blobs import BlobStore
from contract.metrics import GatewayMetrics
from contract.prompt_book import load_prompt_books
from contract.redis_io import connect_async
from contract.tenants import Tenants
from contract.webhook_secrets import SecretBox


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
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Observation, metrics=services.metrics)
    install_handlers(app)
    for module in (tasks, estimates, events, lists, results, parts, dead_letters, webhooks, models, operations):
        app.include_router(module.router)
    return app


def _services(settings: GatewaySettings) -> Services:
    tenants = Tenants.load(settings.tenants_file)
    client = connect_async(settings.redis_url.get_secret_value())
    records = Records(client)
    blobs = BlobCalls(BlobStore(settings), threads=settings.blob_threads, timeout_s=settings.blob_timeout_s)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return Services(
        settings=settings,
        tenants=tenants,
        records=records,
        parts=Parts(client, records),
        blobs=blobs,
        planner=Planner(settings.egress, load_prompt_books(settings.prompts_dir)),
        estimator=Estimator(client, blobs, settings.estimate_wait_s),
        submitter=Submitter(client, records, blobs, settings.queue_max_waiting_parts, settings.queue_max_bytes),
        changes=Changes(client, records, blobs),
        dead_letters=DeadLetters(client, records),
        endings=Endings(client),
        events=EventHub(client),
        webhooks=Webhooks(client, SecretBox(settings.webhook_keys), settings.egress),
        registry=registry,
        metrics=GatewayMetrics(registry),
    )


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    listening = {asyncio.create_task(part.run()) for part in (services.endings, services.events)}
    try:
        yield
    finally:
        for task in listening:
            task.cancel()
        await asyncio.wait(listening)
        await services.submitter.client.aclose()
        services.blobs.close()
