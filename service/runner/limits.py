"""How long the runner waits for what."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Durations in seconds; tests pass shorter ones."""

    cancel_grace_seconds: float = 3.0
    """From asking a trainer to stop to killing it. A cancel is promised within 5 seconds."""
    silence_seconds: float = 120.0
    """A trainer that says nothing for this long hangs; it promises a line every 10, also while it reads or
    writes a large model."""
    connect_seconds: float = 30.0
    """From the order to the fork server to the trainer's connection."""
    exit_seconds: float = 5.0
    """From a trainer's last word to its end; then it is killed."""
    ready_seconds: float = 180.0
    """From the fork server's start to its being ready, or its saying that it still loads: torch may be read
    from a cold disk."""
    restart_seconds: float = 1.0
    """Pause before the fork server is started again; doubles to 30 while it does not become ready."""
    heartbeat_seconds: float = 10.0
    """Between two heartbeats of an owner."""
    owner_gone_seconds: float = 60.0
    """An owner on another machine whose heartbeat stands still for this long is gone."""
    rescue_seconds: float = 15.0
    """Between two looks for jobs whose owner is gone."""
    poll_seconds: float = 2.0
    """Between two looks for jobs that another process queued; our own are seen at once."""
    retry_seconds: float = 1.0
    """Pause after the registry or the disk refused something."""
    max_crashes: int = 3
    """Attempts of a job that may die or hang in a row, where those after the first kept no checkpoint; then
    it is FAILED."""
