"""Which models may be asked for, and how busy they are."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from api_gateway.records import QueueStats
from api_gateway.routes.documentation import problems
from api_gateway.services import Caller, SharedServices
from api_gateway.views import ModelListView, ModelView
from contract.catalogue import CATALOGUE
from contract.errors import StoreUnavailable

router = APIRouter(tags=["models"])


@router.get("/v1/models", responses=problems(401))
async def list_models(tenant: Caller, services: SharedServices) -> ModelListView:
    """List the models that the tenant may use with live numbers, or with nulls while the queue can't be reached."""
    cards = [card for card in CATALOGUE.values() if tenant.may_use(card.name)]
    stats: Sequence[QueueStats | None]
    try:
        stats = await services.records.queue_stats([card.name for card in cards])
    except StoreUnavailable:
        stats = [None] * len(cards)
    pairs = zip(cards, stats, strict=True)
    return ModelListView(data=[ModelView.of(card, numbers) for card, numbers in pairs])
