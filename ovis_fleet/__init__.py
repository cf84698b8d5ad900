"""The command ``ovis-fleet``, the Python client, and the local stack of real processes."""

from ovis_fleet.client import Client
from ovis_fleet.errors import ApiError, ClientError, ProtocolError, TaskTimeoutError, UnreachableError
from ovis_fleet.records import (
    AttemptEnd,
    DeadLetter,
    DeadLetterPage,
    Model,
    Problem,
    Progress,
    Result,
    Task,
    TaskPage,
    Usage,
)
from ovis_fleet.sources import SourceError

__all__ = [
    "ApiError",
    "AttemptEnd",
    "Client",
    "ClientError",
    "DeadLetter",
    "DeadLetterPage",
    "Model",
    "Problem",
    "Progress",
    "ProtocolError",
    "Result",
    "SourceError",
    "Task",
    "TaskPage",
    "TaskTimeoutError",
    "UnreachableError",
    "Usage",
]
