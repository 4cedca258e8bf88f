"""What Prometheus reads of the web process. One registry a process, made with the other services."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

# Seconds. The live path promises 0.1 s for refusals and 0.4 s for evidence, so the buckets lie around those.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "retort_requests_total", "Requests answered", ("surface", "method", "route", "status"), registry=self.registry
        )
        self.latency = Histogram(
            "retort_request_seconds",
            "Time to the response's head",
            ("surface", "route"),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.streams = Gauge("retort_open_streams", "Event streams held open by this process", registry=self.registry)
        self.queue = Gauge("retort_queue_depth", "Answers queued or running, over all workspaces", registry=self.registry)
        self.messages = Counter("retort_messages_total", "Messages accepted", ("surface",), registry=self.registry)
        self.refused = Counter("retort_refused_total", "Requests refused for load", ("reason",), registry=self.registry)
        self.bus_up = Gauge("retort_bus_up", "1 while the bus answers", registry=self.registry)
        self.database_up = Gauge("retort_database_up", "1 while PostgreSQL answers", registry=self.registry)
