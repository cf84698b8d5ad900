"""Which models may be asked for, and how busy they are."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from api_gateway.records import QueueStats
from api_gateway.routes.documentation import problems
from api_gateway.services import Caller, Services, SharedServices
from api_gateway.views import ModelListView, ModelView
from contract.catalogue import CATALOGUE, ModelCard
from contract.errors import NotFound, StoreUnavailable

router = APIRouter(tags=["models"])


@router.get("/v1/models", responses=problems(401))
async def list_models(tenant: Caller, services: SharedServices) -> ModelListView:
    """List the models that the tenant may use with live numbers, or with nulls while the queue can't be reached."""
    cards = [card for card in CATALOGUE.values() if tenant.may_use(card.name)]
    return ModelListView(data=await _views(cards, services))


@router.get("/v1/models/{model}", responses=problems(401, 404))
async def read_model(model: str, tenant: Caller, services: SharedServices) -> ModelView:
    """Read one of them."""
    card = CATALOGUE.get(model)
    if card is None or not tenant.may_use(card.name):
        raise NotFound("there is no such model; GET /v1/models lists them")
    (view,) = await _views([card], services)
    return view


async def _views(cards: Sequence[ModelCard], services: Services) -> list[ModelView]:
    """Models with live numbers, or with nulls while the queue can't be reached."""
    stats: Sequence[QueueStats | None]
    try:
        stats = await services.records.queue_stats([card.name for card in cards])
    except StoreUnavailable:
        stats = [None] * len(cards)
    pairs = zip(cards, stats, strict=True)
    return [ModelView.of(card, numbers) for card, numbers in pairs]
