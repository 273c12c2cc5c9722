"""What a demo run found, and its file. Knows nothing of how it was found."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds; None for what was not reached."""

    submit_to_first_forward: float | None = None
    """From the job's acceptance to its first forward pass."""
    submit_to_first_step: float | None = None
    """From the job's acceptance to the end of its first optimizer step."""
    submit_to_succeeded: float | None = None
    succeeded_to_active: float | None = None
    """From the published adapter to the proven one."""
    active_to_first_token: float | None = None
    """From the proof to the first token that a client received of it."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A held-out message, the verdict a person gave it, and what both models said."""

    message: str
    reference: str
    base: str
    adapter: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything the demo found. `passed` is the verdict; `failure` says in a sentence why not."""

    passed: bool = False
    failure: str = ""
    job: str = ""
    """tuningJobs/{id}."""
    state: str = ""
    """The job's last state."""
    base_model: str = ""
    adapter_version: str = ""
    """What was asked, "{adapter}@{n}"."""
    adapter_state: str = ""
    seconds: Timings = field(default_factory=Timings)
    verification: dict[str, object] = field(default_factory=dict)
    """The figures of the proof under their names in the API; empty when there was none."""
    score: dict[str, dict[str, float]] = field(default_factory=dict)
    """The score of "base" and "adapter" over the held-out messages, fractions in 0..1."""
    questions: tuple[Question, ...] = ()

    def judged(self) -> "Report":
        """The report with its verdict: the adapter is ACTIVE, proven, and better than the base."""
        reasons = []
        if self.state != "SUCCEEDED":
            reasons.append(f"the job is {self.state or 'unknown'}")
        if self.adapter_state != "ACTIVE":
            reasons.append(f"the adapter is {self.adapter_state or 'not there'}")
        if not self.verification:
            reasons.append("the adapter is not proven")
        base, adapter = (self.score.get(side, {}).get("overall", 0.0) for side in ("base", "adapter"))
        if adapter <= base:
            reasons.append(f"the adapter scores {adapter:.3f}, the base {base:.3f}")
        return dataclasses.replace(self, passed=not reasons, failure=self.failure or "; ".join(reasons))

    def write(self, path: Path) -> None:
        """Puts the report there whole, in the place of an older one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".part")
        with beside.open("w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(self), file, ensure_ascii=False, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
