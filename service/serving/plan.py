"""What to do so that an engine serves what the registry wants: a pure function from what is to what should
be.

Applying a plan twice is harmless, and applying half of one leads to the other half at the next look. No I/O.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.registry import VersionRow, VersionState
from service.serving.served import Proven

DEATHS_TO_QUARANTINE = 2
"""One death may be bad luck or a neighbour's fault; the second happens with nothing else being loaded."""
WANTED = frozenset({VersionState.PENDING, VersionState.VERIFYING, VersionState.ACTIVE})
"""States in which a version should be served."""


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Check the files, load if need be, prove, let it answer."""

    row: VersionRow


@dataclass(frozen=True, kw_only=True)
class Recheck:
    """Something else was loaded since: look again whether it is still itself."""

    row: VersionRow


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """The engine died with it too often: give up on it."""

    row: VersionRow
    deaths: int


@dataclass(frozen=True, kw_only=True)
class Fail:
    """No engine serves it: say so, with the reason of this one."""

    row: VersionRow


@dataclass(frozen=True, kw_only=True)
class Release:
    """No answer needs it any more: unload it."""

    row: VersionRow


@dataclass(frozen=True, kw_only=True)
class Retire:
    """No engine has it any more: say so."""

    row: VersionRow


@dataclass(frozen=True, kw_only=True)
class Drop:
    """Unload what nobody wants there."""

    model: str


Action = Serve | Recheck | Quarantine | Fail | Release | Retire | Drop


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What is, as far as the plan needs it."""

    loaded: Mapping[str, str]
    """Adapters in the engine and the directories that they were loaded from."""
    proven: Mapping[str, Proven]
    """Versions proven on this engine."""
    loads: int
    """Adapters loaded so far."""
    owns_engine: bool
    """Whether all adapters in the engine must be ours; else only those from below `artifacts_dir` are."""
    artifacts_dir: Path
    busy: frozenset[str] = frozenset()
    """Versions that are being worked on; left alone."""
    resting: frozenset[str] = frozenset()
    """Versions that wait a while after an attempt without an outcome; left alone."""
    evicted: frozenset[str] = frozenset()
    """Adapters that the engine would have to read again; not looked at again until somebody asks them."""
    answering: frozenset[str] = frozenset()
    """Versions that are giving answers; not unloaded."""
    deaths: Mapping[str, int] = field(default_factory=dict)
    """How often the engine died while it was loading or proving a version."""
    rejected: frozenset[str] = frozenset()
    """Versions that were rejected on this engine; not tried again, and unloaded."""
    refused: frozenset[str] = frozenset()
    """Those of `rejected` that no other engine serves either."""
    released: frozenset[str] = frozenset()
    """Versions that are to be retired, and were unloaded from this engine."""
    released_by_all: frozenset[str] = frozenset()
    """Those of `released` that no other engine has either."""


def plan(desired: Sequence[VersionRow], observed: Observed) -> tuple[Action, ...]:
    """Actions that may all be applied at once. `desired` are the versions that are WANTED or RETIRING."""
    idle = [row for row in desired if row.model not in observed.busy | observed.resting]
    wanted = [row for row in idle if row.state in WANTED and row.model not in observed.rejected]
    quarantined = [row for row in wanted if observed.deaths.get(row.model, 0) >= DEATHS_TO_QUARANTINE]
    unproven = [row for row in wanted if row not in quarantined and not _is_proven(row, observed)]
    serving = _without_company(unproven, observed)
    quiet = not unproven and not observed.busy
    return (
        *(Fail(row=row) for row in idle if row.state in WANTED and row.model in observed.refused),
        *(Drop(model=model) for model in _strangers(desired, observed)),
        *(Quarantine(row=row, deaths=observed.deaths[row.model]) for row in quarantined),
        *(Release(row=row) for row in idle if _may_release(row, observed)),
        *(Retire(row=row) for row in idle if _may_retire(row, observed)),
        *(Serve(row=row) for row in serving),
        *([Recheck(row=row) for row in wanted if _is_stale(row, observed)][:1] if quiet else ()),
    )


def _is_proven(row: VersionRow, observed: Observed) -> bool:
    return (
        row.state == VersionState.ACTIVE
        and row.model in observed.proven
        and observed.loaded.get(row.model) == directory_of(row, observed.artifacts_dir)
    )


def _is_stale(row: VersionRow, observed: Observed) -> bool:
    # Fetching one that nobody asks for would evict one that somebody does, and with more adapters than fit
    # into memory that would never end.
    return (
        _is_proven(row, observed)
        and row.model not in observed.evicted
        and observed.proven[row.model].loads < observed.loads
    )


def _without_company(unproven: Sequence[VersionRow], observed: Observed) -> Sequence[VersionRow]:
    """Versions to serve now. One that an engine died with waits for the rest, and is then loaded alone, so
    that the next death names the culprit and delays nobody."""
    suspected = {model for model, deaths in observed.deaths.items() if deaths}
    if observed.busy & suspected:
        return ()
    trusted = [row for row in unproven if row.model not in suspected]
    if trusted or observed.busy:
        return trusted
    return unproven[:1]


def _may_release(row: VersionRow, observed: Observed) -> bool:
    return row.state == VersionState.RETIRING and row.model not in observed.answering | observed.released


def _may_retire(row: VersionRow, observed: Observed) -> bool:
    return row.state == VersionState.RETIRING and row.model in observed.released_by_all


def _strangers(desired: Sequence[VersionRow], observed: Observed) -> list[str]:
    """Adapters in the engine that should not be there, or are there from another directory than they
    should."""
    paths = {
        row.model: directory_of(row, observed.artifacts_dir)
        for row in desired
        if row.model not in observed.rejected
    }
    return [
        model
        for model, path in sorted(observed.loaded.items())
        if paths.get(model) != path
        and model not in observed.busy | observed.resting
        and model not in observed.answering
        and (observed.owns_engine or Path(path).is_relative_to(observed.artifacts_dir))
    ]


def directory_of(row: VersionRow, artifacts_dir: Path) -> str:
    """The directory that a version is loaded from."""
    return str(artifacts_dir / row.digest)
