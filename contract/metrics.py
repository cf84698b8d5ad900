"""Names of every metric, in one place; labels have few values, never ids.

Each role registers what it exports in its own registry: ``Metrics(CollectorRegistry())``.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

#: Seconds; from a tiny task on a GPU to a long one on a CPU.
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class GatewayMetrics:
    """What the gateway counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "ovis_gateway_requests", "HTTP requests answered", ["route", "method", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "ovis_gateway_request_seconds", "Time to answer", ["route"], buckets=SECONDS, registry=registry
        )
        self.tasks_accepted = Counter(
            "ovis_tasks_accepted", "Tasks that were answered with 202", ["model", "kind"], registry=registry
        )
        self.event_streams = Gauge("ovis_gateway_event_streams", "Event streams that are open", registry=registry)
        self.tenants_file_ok = Gauge(
            "ovis_gateway_tenants_file_ok", "1 while the tenants file as it is now is in use", registry=registry
        )
        self.tenants_reloads = Counter(
            "ovis_gateway_tenants_reloads", "Changes of the tenants file", ["outcome"], registry=registry
        )


class WorkerMetrics:
    """What a model worker counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.wakeups = Counter("ovis_worker_wakeups", "Wake-ups taken", ["outcome"], registry=registry)
        self.parts = Counter("ovis_worker_parts", "Attempts ended", ["outcome"], registry=registry)
        self.part_seconds = Histogram(
            "ovis_worker_part_seconds",
            "Seconds of an attempt by stage",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self.queued_seconds = Histogram(
            "ovis_worker_queued_seconds", "Seconds a part waited", buckets=SECONDS, registry=registry
        )
        self.leases = Gauge("ovis_worker_leases", "Attempts held", registry=registry)
        self.media_deaths = Counter(
            "ovis_media_process_deaths", "Media processes that were killed or died", ["why"], registry=registry
        )
        self.running = Gauge("ovis_engine_running_requests", "Requests sharing engine steps", registry=registry)
        self.waiting = Gauge("ovis_engine_waiting_requests", "Requests that wait for a row", registry=registry)
        self.steps = Gauge("ovis_engine_steps", "Engine steps since the start", registry=registry)
        self.output_tokens = Gauge("ovis_engine_output_tokens", "Tokens generated since the start", registry=registry)
        self.cache_tokens = Gauge("ovis_engine_cache_tokens", "Tokens held by the KV cache", registry=registry)
        self.pool_rows = Gauge("ovis_engine_visual_pool_rows", "Rows of the visual pool in use", registry=registry)


class JobMetrics:
    """What an io worker counts of plans and assemblies."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.jobs = Counter("ovis_io_jobs", "Plans and assemblies ended", ["job", "outcome"], registry=registry)
        self.job_seconds = Histogram(
            "ovis_io_job_seconds", "Seconds of a plan or an assembly", ["job"], buckets=SECONDS, registry=registry
        )
        self.media_deaths = Counter(
            "ovis_media_process_deaths", "Media processes that were killed or died", ["why"], registry=registry
        )


class BatchMetrics:
    """What an io worker counts of batches."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.unended = Gauge("ovis_batches_unended", "Batches that haven't ended", registry=registry)
        self.steps = Counter("ovis_batch_steps", "Steps of batches", ["status", "outcome"], registry=registry)
        self.lines = Counter("ovis_batch_lines", "Lines passed", ["outcome"], registry=registry)
        self.ended = Counter("ovis_batches_ended", "Batches ended", ["status"], registry=registry)


class QueueMetrics:
    """What the io workers export of the queues."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting = Gauge("ovis_queue_waiting_parts", "Parts that wait", ["queue"], registry=registry)
        self.running = Gauge("ovis_queue_running_parts", "Parts under a lease", ["queue"], registry=registry)
        self.slots = Gauge("ovis_queue_slots", "Parts the live workers take at once", ["queue"], registry=registry)
        self.workers = Gauge("ovis_queue_workers", "Live workers", ["queue"], registry=registry)
        self.wakeups_pushed = Counter("ovis_queue_wakeups_pushed", "Wake-ups topped up", ["queue"], registry=registry)
        self.leases_expired = Counter("ovis_leases_expired", "Attempts taken back", ["outcome"], registry=registry)
        self.tasks_purged = Counter("ovis_tasks_purged", "Tasks purged after their retention", registry=registry)
        self.orphans_swept = Counter("ovis_orphans_swept", "Stored tasks without a record, deleted", registry=registry)
        self.reaps = Counter("ovis_reaper_passes", "Looks at the leases", registry=registry)


class WebhookMetrics:
    """What the io workers count of webhooks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.attempts = Counter("ovis_webhook_attempts", "Tries of deliveries", ["outcome"], registry=registry)
        self.attempt_seconds = Histogram(
            "ovis_webhook_attempt_seconds", "Seconds of a try", buckets=SECONDS, registry=registry
        )
        self.outbox_events = Gauge("ovis_webhook_outbox_events", "Events that are no deliveries yet", registry=registry)
        self.outbox_age = Gauge("ovis_webhook_outbox_age_seconds", "Age of the oldest of them", registry=registry)
        self.receivers_due = Gauge(
            "ovis_webhook_receivers_due", "Receivers that could be called while all senders are busy", registry=registry
        )
