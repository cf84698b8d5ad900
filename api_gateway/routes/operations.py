"""What machines ask: whether the process lives, whether it is of use, and what it counted. No key needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from api_gateway.routes.documentation import problems
from api_gateway.services import SharedServices
from contract.errors import BlobsUnavailable, FleetError, StoreUnavailable

router = APIRouter(tags=["operations"])

#: How long a store may take to say that it is there, in seconds.
_CHECK_S = 2.0


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


class ReadyView(BaseModel):
    """A gateway that is of use."""

    status: Literal["ready"] = "ready"
    tenants_file: str = Field(
        description="ok; or what is wrong with the file as it is now, while the last good one is in use"
    )


@router.get("/readyz", responses=problems(503))
async def readyz(services: SharedServices) -> ReadyView:
    """Redis and S3 answer; a 503 names what doesn't."""
    store_away, blobs_away = await asyncio.gather(_is_away(services.records.check()), _is_away(services.blobs.check()))
    if store_away:
        raise StoreUnavailable("redis and s3 don't answer" if blobs_away else "redis doesn't answer")
    if blobs_away:
        raise BlobsUnavailable("s3 doesn't answer")
    problem = services.tenants.problem
    return ReadyView(tenants_file=f"the last good one is in use: {problem}" if problem else "ok")


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(services: SharedServices) -> Response:
    """Prometheus metrics of this process."""
    return Response(generate_latest(services.registry), media_type=CONTENT_TYPE_LATEST)


async def _is_away(check: Awaitable[None]) -> bool:
    try:
        await asyncio.wait_for(check, _CHECK_S)
    except (FleetError, TimeoutError):
        return True
    return False
