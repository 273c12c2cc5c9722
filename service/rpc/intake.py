"""Intake: makes of a request for a tuning job the job that will be queued, or says all that is wrong with it.

Whatever can be told before anything runs is told here, each part by itself, so that one mistake hides no
other. What the single checks are stands in `job_checks`, `contradictions` and `starting`.
"""

import asyncio
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hotlora.v1 import tuning_service_pb2 as pb
from service.artifacts import manifest_fields
from service.errors import FieldViolation, WrongState
from service.planning import DEFAULT_DATA, Needs, Planner, data_of
from service.registry import DatasetRow, NewJob, Registry, VersionState
from service.rpc import (
    contradictions,
    conversion,
    job_checks,
    remarks,
    room,
    settings_conversion,
    starting,
)
from service.rpc.findings import Findings
from service.rpc.starting import Start
from service.serving import Base, Bases
from trainer.config import Hyperparameters, Objective, Technique
from trainer.pacing import row_limit
from trainer.planning import Data, choose, complete

_SETTINGS = "hyperparameters."


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A request as far as it can be understood. None: it does not say, or what it names is not there."""

    request: pb.CreateTuningJobRequest
    base: Base
    """The default one where there is none of that name, so that what else is wrong can be told."""
    dataset: DatasetRow | None
    asked: DatasetRow | None
    """What the version would be evaluated on, where that is another dataset."""
    start: Start | None
    technique: Technique | None
    objective: Objective | None
    settings: Hyperparameters
    pieces: Data | None
    """The rows as the run takes them."""
    prompt_tokens: int
    """Of the initial prompt."""
    counted: bool
    """Whether the rows were counted by the base: else their lengths are estimates, which refuse nothing."""
    needs: Needs | None


class Intake:
    """See the module."""

    def __init__(
        self,
        *,
        registry: Registry,
        artifacts_dir: Path,
        bases: Bases,
        planner: Planner,
    ) -> None:
        self._registry = registry
        self._artifacts_dir = artifacts_dir
        self._bases = bases
        self._planner = planner

    async def take(self, request: pb.CreateTuningJobRequest, digest: str) -> NewJob:
        """The job that is asked for. Raises InvalidRequest with all that is wrong; NotFound, WrongState or
        AlreadyExists where it is one name alone."""
        findings = Findings()
        draft = await self._examine(request, findings)
        findings.raise_any()
        dataset, technique, objective = draft.dataset, draft.technique, draft.objective
        assert dataset is not None and technique is not None and objective is not None
        assert draft.pieces is not None
        return NewJob(
            request_id=request.request_id,
            request_digest=digest,
            base_model=draft.base.name,
            dataset_id=dataset.id,
            adapter_id=request.adapter_id,
            technique=technique,
            objective=objective,
            hyperparameters=draft.settings,
            evaluation_dataset_id="" if draft.asked is None else draft.asked.id,
            start_version=conversion.version_of(request.start_version) if request.start_version else None,
            warnings=(
                *([] if draft.counted else remarks.on_dataset(dataset.base_model, draft.base.name)),
                *remarks.on_settings(
                    request.hyperparameters,
                    draft.settings,
                    rows=draft.pieces.rows,
                    prompt_tokens=draft.prompt_tokens,
                ),
                *([] if draft.needs is None else room.warnings(draft.needs, technique)),
            ),
        )

    async def problems(
        self, request: pb.CreateTuningJobRequest, broken: Set[str]
    ) -> Sequence[FieldViolation]:
        """What is wrong besides the fields that are `broken`, and that `request` comes without."""
        findings = Findings(broken)
        await self._examine(request, findings)
        return findings.violations

    async def _examine(self, request: pb.CreateTuningJobRequest, findings: Findings) -> _Draft:
        draft = await self._draft(request, findings)
        findings.add(self._bases.unknown(request.base_model))
        self._check_technique(draft, findings)
        self._check_settings(draft, findings)
        if draft.dataset is not None:
            self._check_rows(draft, draft.dataset, findings)
        return draft

    async def _draft(self, request: pb.CreateTuningJobRequest, findings: Findings) -> _Draft:
        """Look up what is named, and fill in what is left out."""
        dataset, asked, start = None, None, None
        if request.dataset:
            dataset = await findings.look_up("dataset", self._dataset(request.dataset))
        if request.start_version:
            start = await findings.look_up("start_version", self._start_of(request.start_version))
        base = await self._base(request, start, findings)
        if request.adapter_id:
            await findings.look_up("adapter_id", self._refuse_adapter_id(request, base))
        if request.evaluation_dataset:
            asked = await findings.look_up("evaluation_dataset", self._dataset(request.evaluation_dataset))
        technique = self._technique(request, start, findings)
        objective = settings_conversion.objective_of(request.objective)
        if objective is None and dataset is not None and findings.knows("objective"):
            objective = dataset.objective
        settings = self._settings(request, base, technique or Technique.LORA, objective, dataset, start)
        pieces, needs = None, None
        if dataset is not None and findings.knows(*contradictions.DECIDE_STEPS):
            limit = row_limit(settings, technique or Technique.LORA, base.context_length)
            pieces = data_of(dataset).in_pieces(limit)
        if dataset is not None and dataset.objective is objective and findings.knows("hyperparameters"):
            needs = await self._planner.needs(base, data_of(dataset), settings)
        return _Draft(
            request=request,
            base=base,
            dataset=dataset,
            asked=asked,
            start=start,
            technique=technique,
            objective=objective,
            settings=settings,
            pieces=pieces,
            needs=needs,
            counted=dataset is None or self._bases.counts(base, dataset.base_model),
            prompt_tokens=await asyncio.to_thread(base.renderer.token_count, settings.initial_prompt),
        )

    async def _base(
        self, request: pb.CreateTuningJobRequest, start: Start | None, findings: Findings
    ) -> Base:
        """The one that is named, else that of what is to be trained further."""
        name, field = request.base_model, ""
        if not name and start is not None:
            name, field = start.base_model, "start_version"
        elif not name and request.adapter_id:
            name, field = await self._registry.base_model_of(request.adapter_id), "adapter_id"
        if field and self._bases.find(name) is None:
            findings.add(self._bases.absent(name, field=field))
        return self._bases.meant(name)

    async def _refuse_adapter_id(self, request: pb.CreateTuningJobRequest, base: Base) -> None:
        self._bases.refuse_name(request.adapter_id)
        own = await self._registry.base_model_of(request.adapter_id)
        # A base that is not there is what is wrong, and was told.
        if self._bases.find(request.base_model or own) is not None:
            await self._registry.refuse_adapter_id(request.adapter_id, base.name)

    async def _dataset(self, name: str) -> DatasetRow:
        return await self._registry.get_dataset(conversion.id_of(name))

    async def _start_of(self, name: str) -> Start:
        """The version to start from. Raises NotFound, WrongState, ArtifactCorrupt, ArtifactUnreadable."""
        version = await self._registry.get_version(*conversion.version_of(name))
        if version.state is VersionState.FAILED:
            raise WrongState(
                f"{version.model} is FAILED ({version.failure_reason}); a job can start from a version in "
                "any other state",
                state=version.state,
                allowed=sorted(set(VersionState) - {VersionState.FAILED}),
                reason="VERSION_STATE",
            )
        if version.job_id is not None:
            return Start.of_job(version, await self._registry.get_job(version.job_id))
        manifest = await asyncio.to_thread(manifest_fields, self._artifacts_dir / version.digest)
        return Start.of_import(version, manifest)

    def _technique(
        self, request: pb.CreateTuningJobRequest, start: Start | None, findings: Findings
    ) -> Technique | None:
        if request.technique != pb.TECHNIQUE_UNSPECIFIED:
            return settings_conversion.technique_of(request.technique)
        if not findings.knows("technique", "start_version") or (request.start_version and start is None):
            return None
        return settings_conversion.technique_of(request.technique) if start is None else start.technique

    def _settings(
        self,
        request: pb.CreateTuningJobRequest,
        base: Base,
        technique: Technique,
        objective: Objective | None,
        dataset: DatasetRow | None,
        start: Start | None,
    ) -> Hyperparameters:
        given: dict[str, Any] = settings_conversion.given_settings_of(request.hyperparameters)
        if start is not None:
            if not request.hyperparameters.target_modules:
                del given["target_modules"]
            given = {**start.taken_over, **given}
        data = DEFAULT_DATA if dataset is None else data_of(dataset)
        choices = choose(
            technique,
            replace(data, objective=objective or data.objective),
            parameters=self._planner.parameters(base),
            context_length=base.context_length,
            max_rank=base.fleet.max_rank,
        )
        return complete(choices, given)

    def _check_technique(self, draft: _Draft, findings: Findings) -> None:
        if draft.technique is None:
            return
        findings.add(job_checks.unservable(draft.technique, draft.base.unservable()))
        if draft.needs is not None and draft.counted:
            findings.add(room.violations(draft.needs, draft.technique))
        if draft.start is not None:
            findings.add(
                starting.differences(
                    draft.start,
                    base_model=draft.base.name,
                    technique=draft.technique,
                    settings=draft.settings,
                )
            )

    def _check_settings(self, draft: _Draft, findings: Findings) -> None:
        given = [field.name for field, _ in draft.request.hyperparameters.ListFields()]
        findings.add(job_checks.without_effect(draft.technique, draft.objective, given))
        if draft.request.start_version:
            findings.add(starting.unread_prompt(draft.request))
        findings.add(job_checks.unknown_modules(draft.settings, draft.base.linear_modules))
        findings.add(job_checks.too_high_rank(draft.technique, draft.settings, draft.base.fleet.max_rank))
        findings.add(job_checks.beyond_context(draft.settings, draft.base.context_length))
        findings.add(job_checks.unreadable_prompt(draft.settings, draft.prompt_tokens))
        scored = None if draft.dataset is None else draft.dataset.task is not None
        asked = draft.request.hyperparameters
        findings.add(contradictions.between(asked, draft.settings, data=draft.pieces, scored=scored))

    def _check_rows(self, draft: _Draft, dataset: DatasetRow, findings: Findings) -> None:
        settings, technique = draft.settings, draft.technique
        if draft.objective is not None:
            findings.add(job_checks.contradicting_objective(draft.objective, dataset))
        if draft.asked is not None:
            findings.add(job_checks.unlike_evaluation(dataset, draft.asked))
        if not draft.counted:
            return  # how long its rows are for this base, the run will see
        if technique is Technique.PROMPT_TUNING and findings.knows(_SETTINGS + "virtual_tokens"):
            findings.add(job_checks.no_room(settings, dataset, draft.base.context_length))
        if findings.knows(_SETTINGS + "max_sequence_length"):
            findings.add(job_checks.too_long_rows(settings, dataset, draft.base.context_length))
