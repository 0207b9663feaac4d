"""The figures of /metrics, in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client import generate_latest as _generate

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters and gauges of the server.

    Args:
        in_flight: gives the number of requests that are accepted and not answered yet.
    """

    def __init__(self, in_flight: Callable[[], float]):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, processor time, open files; on Linux
        PlatformCollector(registry=self.registry)
        self._requests = Counter("llie_requests", "Answers", ["path", "status"], registry=self.registry)
        self._seconds = Histogram(
            "llie_request_seconds", "From request to answer", ["path"], buckets=_SECONDS, registry=self.registry
        )
        self._batches = Histogram(
            "llie_batch_pictures", "Pictures in a batch", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )
        self._pixels = Counter("llie_pixels", "Pixels of the pictures that were enhanced", registry=self.registry)
        waiting = Gauge("llie_in_flight", "Requests accepted and not answered yet", registry=self.registry)
        waiting.set_function(in_flight)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer, and the seconds that it took."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, pictures: int) -> None:
        """Count a batch, by its number of pictures."""
        self._batches.observe(pictures)

    def enhanced(self, pixels: int) -> None:
        """Count an enhanced picture, by its number of pixels."""
        self._pixels.inc(pixels)

    def text(self) -> bytes:
        """All figures, in version 0.0.4 of the text format."""
        return _generate(self.registry)
