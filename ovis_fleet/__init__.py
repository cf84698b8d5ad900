"""The command ``ovis-fleet``, the Python clients, and the local stack of real processes."""

from ovis_fleet.client import AsyncClient, Client
from ovis_fleet.errors import ApiError, ClientError, ProtocolError, TaskTimeoutError, UnreachableError
from ovis_fleet.part_records import Estimate, Event, Part
from ovis_fleet.records import AttemptEnd, DeadLetter, Model, Page, Problem, Progress, Result, Task, Usage
from ovis_fleet.sources import SourceError
from ovis_fleet.tenant_records import Delivery, Limits, Upload, UsageReport, Used, WebhookEndpoint, WebhookSecret
from ovis_fleet.webhook_verification import WebhookVerificationError, verify_webhook

__all__ = [
    "ApiError",
    "AsyncClient",
    "AttemptEnd",
    "Client",
    "ClientError",
    "DeadLetter",
    "Delivery",
    "Estimate",
    "Event",
    "Limits",
    "Model",
    "Page",
    "Part",
    "Problem",
    "Progress",
    "ProtocolError",
    "Result",
    "SourceError",
    "Task",
    "TaskTimeoutError",
    "UnreachableError",
    "Upload",
    "Usage",
    "UsageReport",
    "Used",
    "WebhookEndpoint",
    "WebhookSecret",
    "WebhookVerificationError",
    "verify_webhook",
]
