"""How a watch survives a lost connection: what to ask for again, what to pass on, when to give up.

Pure bookkeeping without a connection, so that the blocking and the asynchronous client decide alike.
"""

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from hotlora.errors import HotloraError, Unavailable
from hotlora.v1.adapter_service_pb2 import AdapterVersion, WatchAdapterVersionRequest
from hotlora.v1.evaluation_service_pb2 import AdapterEvaluation, WatchEvaluationRequest
from hotlora.v1.tuning_service_pb2 import WatchTuningJobRequest, WatchTuningJobResponse

PATIENCE_SECONDS: Final = 120.0
"""How long a watch that had once begun goes on looking for its service: a slow restart fits in."""
STEADY_SECONDS: Final = 10.0
"""A connection that lasted this long was a good one: patience begins anew when it breaks."""
FIRST_TRIES: Final = 4
"""Tries after which a watch that never began is given up, as any other call is."""
_PAUSES_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses after the first, second, ... failure in a row; the last one goes on."""

RequestT_co = TypeVar("RequestT_co", covariant=True)
ResponseT_contra = TypeVar("ResponseT_contra", contravariant=True)


class Cursor(Protocol[RequestT_co, ResponseT_contra]):
    """Where a watch stands."""

    def request(self) -> RequestT_co:
        """What to ask for now, so that nothing is missed."""

    def is_new(self, response: ResponseT_contra) -> bool:
        """Whether to pass it on; remembers that it was."""


class JobCursor:
    """Passes on the first snapshot of a job, and every event once."""

    def __init__(self, name: str, after_sequence: int) -> None:
        self._name = name
        self._after_sequence = after_sequence
        self._has_begun = False

    def request(self) -> WatchTuningJobRequest:
        return WatchTuningJobRequest(name=self._name, after_sequence=self._after_sequence)

    def is_new(self, response: WatchTuningJobResponse) -> bool:
        if response.HasField("tuning_job"):
            # Later snapshots tell nothing that the events after the cursor do not tell too.
            is_new, self._has_begun = not self._has_begun, True
            return is_new
        if response.event.sequence <= self._after_sequence:
            return False
        self._after_sequence = response.event.sequence
        return True


class VersionCursor:
    """Passes on an adapter version whenever it differs from what was passed on before."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: AdapterVersion | None = None

    def request(self) -> WatchAdapterVersionRequest:
        return WatchAdapterVersionRequest(name=self._name)

    def is_new(self, response: AdapterVersion) -> bool:
        is_new, self._last = response != self._last, response
        return is_new


class EvaluationCursor:
    """Passes on an evaluation whenever it differs from what was passed on before."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: AdapterEvaluation | None = None

    def request(self) -> WatchEvaluationRequest:
        return WatchEvaluationRequest(name=self._name)

    def is_new(self, response: AdapterEvaluation) -> bool:
        is_new, self._last = response != self._last, response
        return is_new


class Patience:
    """Decides how long to wait after a stream broke, and when another try makes no sense."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._has_begun = False
        self._failures = 0
        self._failing_since: float | None = None
        self._opened_at = clock()

    def opened(self) -> None:
        """A stream is being opened."""
        self._opened_at = self._clock()

    def progressed(self) -> None:
        """Something new came."""
        self._has_begun, self._failures, self._failing_since = True, 0, None

    def pause_seconds(self, error: HotloraError) -> float:
        """Seconds to wait before the next try. Raises the error when it is of no use to try again."""
        if not isinstance(error, Unavailable):
            raise error
        now = self._clock()
        if self._has_begun and now - self._opened_at >= STEADY_SECONDS:
            self.progressed()
        self._failures += 1
        if self._failing_since is None:
            self._failing_since = now
        hopeless = now - self._failing_since > PATIENCE_SECONDS
        if hopeless or (not self._has_begun and self._failures >= FIRST_TRIES):
            raise error
        return _PAUSES_SECONDS[min(self._failures, len(_PAUSES_SECONDS)) - 1]
