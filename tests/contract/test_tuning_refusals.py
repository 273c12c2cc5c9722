"""CreateTuningJob, over the wire: what cannot become a job is refused, with every field that is wrong."""

import math
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from hotlora.v1 import planning_service_pb2 as planning_pb
from hotlora.v1 import tuning_service_pb2 as pb
from service.registry import VersionState
from tests.contract.stage import (
    BASE,
    CONTEXT_LENGTH,
    DEVICE,
    GOOD_LINE,
    SHAPE,
    Stage,
    create_refused,
    running,
)
from tests.contract.training import run_to_success
from trainer.config import Technique

FIRST = "adapters/support/versions/1"


async def test_everything_that_the_engine_or_the_base_cannot_do_is_refused_at_once(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    refusal = await create_refused(
        stage, base_model="evil/repo", hyperparameters=pb.Hyperparameters(rank=33, max_sequence_length=513)
    )
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {
        "base_model",
        "hyperparameters.rank",
        "hyperparameters.max_sequence_length",
    }
    assert "32" in refusal.violations["hyperparameters.rank"]
    assert "512" in refusal.violations["hyperparameters.max_sequence_length"]


async def test_fields_that_break_a_rule_and_fields_that_the_service_cannot_serve_are_told_together(
    stage: Stage,
) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job()
    await run_to_success(stage)
    version = await stage.registry.get_version("support", 1)
    await stage.registry.move_version(version, VersionState.FAILED, failure=("CORRUPT", "It is damaged."))
    refusal = await create_refused(
        stage,
        request_id="no spaces",
        base_model="evil/repo",
        dataset="datasets/nobody",
        evaluation_dataset="datasets/nowhere",
        start_version=FIRST,
        adapter_id=BASE,
        hyperparameters=pb.Hyperparameters(
            alpha=math.nan,
            rank=33,
            epochs=2,
            max_steps=7,
            validation_fraction=0,
            eval_every_steps=3,
            early_stopping_patience=2,
            warmup_ratio=0.9,
            target_modules=["wishful"],
            max_sequence_length=513,
        ),
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    settings = (
        *("alpha", "warmup_ratio", "rank", "epochs", "eval_every_steps", "early_stopping_patience"),
        *("target_modules", "max_sequence_length"),
    )
    assert set(refusal.violations) == {
        *("request_id", "base_model", "dataset", "evaluation_dataset", "start_version", "adapter_id"),
        *(f"hyperparameters.{name}" for name in settings),
    }
    assert "there is no dataset 'nobody'" in refusal.violations["dataset"]
    assert "support@1 is FAILED" in refusal.violations["start_version"]
    assert "name of a base model" in refusal.violations["adapter_id"]


async def test_of_a_field_that_breaks_a_rule_nothing_else_is_made_up(stage: Stage) -> None:
    await stage.upload(GOOD_LINE * 10)
    for settings in (
        pb.Hyperparameters(max_steps=-1, early_stopping_patience=4, warmup_ratio=0.5, epochs=1),
        pb.Hyperparameters(validation_fraction=-1, early_stopping_patience=4, eval_every_steps=10**6),
        pb.Hyperparameters(rank=10**9),
        pb.Hyperparameters(max_sequence_length=1),
        pb.Hyperparameters(target_modules=["q_proj", "../evil", "wishful"]),
    ):
        refusal = await create_refused(stage, hyperparameters=settings)
        assert len(refusal.violations) == 1, refusal.violations
    prompt = pb.Hyperparameters(virtual_tokens=8)
    refusal = await create_refused(stage, technique=99, hyperparameters=prompt)
    assert set(refusal.violations) == {"technique"}, "which technique has no use for it cannot be known"
    refusal = await create_refused(stage, start_version=FIRST, hyperparameters=prompt)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND")


async def test_two_names_of_nothing_are_both_told(stage: Stage) -> None:
    refusal = await create_refused(stage, start_version=FIRST)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"dataset", "start_version"}


async def test_a_dataset_that_does_not_exist_is_not_found(stage: Stage) -> None:
    refusal = await create_refused(stage)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "DATASET_NOT_FOUND")


async def test_an_adapter_may_not_have_the_base_models_name(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    refusal = await create_refused(stage, adapter_id=BASE)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_OF_BASE_MODEL")


async def test_a_setting_without_effect_on_the_technique_is_refused_with_those_that_read_it(
    stage: Stage,
) -> None:
    await stage.upload(GOOD_LINE)
    settings = pb.Hyperparameters(rank=8, target_modules=["q_proj"], learning_rate=1e-5)
    refusal = await create_refused(stage, technique=pb.TECHNIQUE_FULL, hyperparameters=settings)
    assert set(refusal.violations) == {"hyperparameters.rank", "hyperparameters.target_modules"}
    assert "full" in refusal.violations["hyperparameters.rank"]
    assert "lora or qlora" in refusal.violations["hyperparameters.rank"]
    refusal = await create_refused(stage, hyperparameters=pb.Hyperparameters(virtual_tokens=8))
    assert "prompt_tuning" in refusal.violations["hyperparameters.virtual_tokens"]


async def test_an_objective_that_the_dataset_is_not_for_is_refused_with_both_named(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.upload(b'{"prompt": "hello", "chosen": "world", "rejected": "moon"}\n', "pairs")
    refusal = await create_refused(stage, objective=pb.OBJECTIVE_PREFERENCE)
    assert "preference" in refusal.violations["objective"]
    assert "conversations" in refusal.violations["objective"]
    refusal = await create_refused(stage, dataset="datasets/pairs", objective=pb.OBJECTIVE_SUPERVISED)
    assert "supervised" in refusal.violations["objective"]
    assert "preferences" in refusal.violations["objective"]
    refusal = await create_refused(stage, hyperparameters=pb.Hyperparameters(dpo_beta=0.2))
    assert "preference" in refusal.violations["hyperparameters.dpo_beta"]


async def test_target_modules_that_the_base_has_not_are_refused_with_those_it_has(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    for module in ("lm_head", "wishful"):
        settings = pb.Hyperparameters(target_modules=["q_proj", module])
        refusal = await create_refused(stage, hyperparameters=settings)
        text = refusal.violations["hyperparameters.target_modules"]
        assert module in text
        assert "down_proj, q_proj, v_proj" in text


async def test_all_linear_is_a_target_by_itself_and_contradicts_any_other(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    job = await stage.job(hyperparameters=pb.Hyperparameters(target_modules=["all-linear"]))
    assert job.hyperparameters.target_modules == ["all-linear"]
    settings = pb.Hyperparameters(target_modules=["all-linear", "q_proj"])
    refusal = await create_refused(stage, hyperparameters=settings)
    assert "q_proj" in refusal.violations["hyperparameters.target_modules"]


async def test_virtual_tokens_have_to_fit_into_the_context_with_the_longest_row(stage: Stage) -> None:
    dataset = await stage.upload(b'{"prompt": "hello", "completion": "' + b"x" * 300 + b'"}\n')
    room = CONTEXT_LENGTH - dataset.longest_row_tokens
    prompt = {"technique": pb.TECHNIQUE_PROMPT_TUNING}
    assert await stage.job(**prompt, hyperparameters=pb.Hyperparameters(virtual_tokens=room))
    settings = pb.Hyperparameters(virtual_tokens=room + 1)
    refusal = await create_refused(stage, **prompt, hyperparameters=settings)
    assert f"at most {room}" in refusal.violations["hyperparameters.virtual_tokens"]


async def test_settings_that_contradict_each_other_are_refused_by_both_names(stage: Stage) -> None:
    await stage.upload(GOOD_LINE * 9)
    refusal = await create_refused(
        stage,
        hyperparameters=pb.Hyperparameters(validation_fraction=0, eval_every_steps=3, max_steps=2, epochs=5),
    )
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {
        "hyperparameters.eval_every_steps",
        "hyperparameters.epochs",
    }
    assert "hyperparameters.max_steps 2" in refusal.violations["hyperparameters.epochs"]
    assert "hyperparameters.validation_fraction" in refusal.violations["hyperparameters.eval_every_steps"]
    kept = pb.Hyperparameters(validation_fraction=0, max_steps=2, warmup_ratio=0.5)
    assert (await stage.job(hyperparameters=kept)).hyperparameters.max_steps == 2


@pytest.mark.parametrize("max_steps", [1, 2, 30])
async def test_the_settings_of_a_job_may_be_sent_again_as_they_are(stage: Stage, max_steps: int) -> None:
    await stage.upload(GOOD_LINE * 9)
    job = await stage.job(hyperparameters=pb.Hyperparameters(max_steps=max_steps))
    again = await stage.job(hyperparameters=job.hyperparameters)
    assert again.hyperparameters == job.hyperparameters


PATIENCE = "hyperparameters.early_stopping_patience"


METRIC = "hyperparameters.early_stopping_metric"


@pytest.mark.parametrize(
    ("rows", "settings", "field", "words"),
    [
        (10, {"early_stopping_patience": 1, "validation_fraction": 0}, PATIENCE, "validation_fraction is 0"),
        (1, {"early_stopping_patience": 1}, PATIENCE, "the dataset has 1 row only"),
        (
            10,
            {"early_stopping_patience": 4, "max_steps": 40},
            PATIENCE,
            "with hyperparameters.eval_every_steps 10, the run of 40 steps has 4",
        ),
        (10, {"early_stopping_metric": pb.METRIC_TASK_SCORE}, METRIC, "needs a dataset with a task"),
    ],
)
async def test_settings_of_early_stopping_that_contradict_others_are_refused_naming_both(
    stage: Stage, rows: int, settings: dict[str, object], field: str, words: str
) -> None:
    await stage.upload(GOOD_LINE * rows)
    refusal = await create_refused(stage, hyperparameters=pb.Hyperparameters(**settings))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in refusal.violations[field]


async def test_a_row_longer_than_the_sequence_is_named_before_anything_is_trained(stage: Stage) -> None:
    long_line = b'{"prompt": "hello", "completion": "' + b"x" * 200 + b'"}\n'
    dataset = await stage.upload(GOOD_LINE + b"\n" + long_line)
    length = dataset.longest_row_tokens
    refusal = await create_refused(stage, hyperparameters=pb.Hyperparameters(max_sequence_length=length - 1))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f", line 3, has {length} tokens" in refusal.violations["hyperparameters.max_sequence_length"]
    assert await stage.job(hyperparameters=pb.Hyperparameters(max_sequence_length=length))


async def test_a_long_text_is_as_many_rows_as_the_pieces_it_is_trained_in(stage: Stage) -> None:
    await stage.upload(b'{"text": "' + b"word " * 2_000 + b'"}\n')
    settings = pb.Hyperparameters(early_stopping_patience=3, batch_size=1, epochs=1)
    job = await stage.job(hyperparameters=settings)
    assert job.hyperparameters.max_sequence_length == CONTEXT_LENGTH
    refusal = await create_refused(
        stage, hyperparameters=pb.Hyperparameters(early_stopping_patience=30, eval_every_steps=1, epochs=1)
    )
    assert "the run of 3 steps has 3" in refusal.violations[PATIENCE]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"technique": pb.TECHNIQUE_LORA}, "technique", "must be qlora"),
        ({"hyperparameters": pb.Hyperparameters(rank=8)}, "hyperparameters.rank", "must be 4"),
        ({"hyperparameters": pb.Hyperparameters(alpha=9)}, "hyperparameters.alpha", "must be 12"),
        (
            {"hyperparameters": pb.Hyperparameters(target_modules=["v_proj"])},
            "hyperparameters.target_modules",
            "must be q_proj",
        ),
    ],
)
async def test_what_the_weights_mean_cannot_be_changed_by_going_on_with_them(
    stage: Stage, fields: dict[str, object], field: str, words: str
) -> None:
    await stage.upload(GOOD_LINE)
    settings = pb.Hyperparameters(rank=4, alpha=12, target_modules=["q_proj"])
    await stage.job(technique=pb.TECHNIQUE_QLORA, hyperparameters=settings)
    await run_to_success(stage)
    refusal = await create_refused(stage, start_version=FIRST, **fields)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in refusal.violations[field]
    assert "support@1" in refusal.violations[field]


async def test_a_text_to_begin_with_contradicts_a_version_to_begin_with(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    await stage.job(technique=pb.TECHNIQUE_PROMPT_TUNING)
    await run_to_success(stage)
    settings = pb.Hyperparameters(initial_prompt="Sort this.")
    refusal = await create_refused(stage, start_version=FIRST, hyperparameters=settings)
    assert set(refusal.violations) == {"hyperparameters.initial_prompt"}
    assert f"start_version {FIRST}" in refusal.violations["hyperparameters.initial_prompt"]


async def test_a_version_that_is_not_there_or_failed_is_no_start(stage: Stage) -> None:
    await stage.upload(GOOD_LINE)
    assert (await create_refused(stage, start_version=FIRST)).code is grpc.StatusCode.NOT_FOUND
    await stage.job()
    await run_to_success(stage)
    version = await stage.registry.get_version("support", 1)
    await stage.registry.move_version(version, VersionState.FAILED, failure=("CORRUPT", "It is damaged."))
    refusal = await create_refused(stage, start_version=FIRST)
    assert (refusal.code, refusal.metadata["state"]) == (grpc.StatusCode.FAILED_PRECONDITION, "FAILED")


async def test_a_technique_whose_versions_could_not_be_served_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    reasons = {Technique.FULL: "no engine is to be had"}
    async with running(tmp_path, unservable=lambda: reasons) as stage:
        await stage.upload(GOOD_LINE)
        refusal = await create_refused(stage, technique=pb.TECHNIQUE_FULL)
        await stage.job(technique=pb.TECHNIQUE_LORA)

    assert set(refusal.violations) == {"technique"}
    assert "no engine is to be had" in refusal.violations["technique"]
    assert "choose lora or qlora or prompt_tuning" in refusal.violations["technique"]


async def test_a_technique_that_could_not_be_served_is_refused_where_it_is_what_nobody_chose(
    tmp_path: Path,
) -> None:
    reasons = {Technique.LORA: "no adapters of this kind", Technique.QLORA: "no adapters of this kind"}
    async with running(tmp_path, unservable=lambda: reasons) as stage:
        await stage.upload(GOOD_LINE)
        refusal = await create_refused(stage)
    assert "choose prompt_tuning or full" in refusal.violations["technique"]


BILLION = {**SHAPE, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
"""A base of about a billion parameters, whose techniques differ by gigabytes."""


async def planned(stage: Stage) -> dict[int, int]:
    """What the plan says of each technique, in bytes."""
    plan = await stage.planning.Plan(planning_pb.PlanRequest(dataset="datasets/rows"))
    return {one.technique: one.total_bytes for one in plan.techniques}


async def test_a_job_that_cannot_fit_is_refused_with_what_it_needs_and_what_would_fit(
    tmp_path: Path,
) -> None:
    device = replace(DEVICE, memory_bytes=8 * 10**9)
    async with running(tmp_path, shape=BILLION, device=device) as stage:
        await stage.upload(GOOD_LINE)
        needed = await planned(stage)
        refusal = await create_refused(stage, technique=pb.TECHNIQUE_FULL, adapter_id=BASE)
        assert await stage.job(technique=pb.TECHNIQUE_LORA)
    assert set(refusal.violations) == {"technique", "adapter_id"}
    words = refusal.violations["technique"]
    full, lora = needed[pb.TECHNIQUE_FULL], needed[pb.TECHNIQUE_LORA]
    assert f"it needs about {gb(full)}, {gb(0.8 * full)} at the least" in words
    assert "the device has 8.0 GB in all" in words
    assert f"lora needs about {gb(lora)}" in words and "full needs" not in words


async def test_where_nothing_fits_no_technique_is_advised(tmp_path: Path) -> None:
    async with running(tmp_path, shape=BILLION, device=replace(DEVICE, memory_bytes=10**9)) as stage:
        await stage.upload(GOOD_LINE)
        refusal = await create_refused(stage)
    assert refusal.violations["technique"].endswith("; shorter rows or a smaller base model need less")


async def test_a_job_that_the_plan_may_be_wrong_about_is_accepted_with_a_warning(tmp_path: Path) -> None:
    async with running(tmp_path / "probe", shape=BILLION) as stage:
        await stage.upload(GOOD_LINE)
        lora = (await planned(stage))[pb.TECHNIQUE_LORA]
        assert not (await stage.job()).warnings
    for bytes_in_all, bytes_free in ((round(0.81 * lora), round(0.81 * lora)), (2 * lora, lora - 1)):
        device = replace(DEVICE, memory_bytes=bytes_in_all, available_bytes=bytes_free)
        async with running(tmp_path / str(bytes_in_all), shape=BILLION, device=device) as stage:
            await stage.upload(GOOD_LINE)
            (warning,) = (await stage.job()).warnings
        assert warning.field == "technique"
        assert f"needs about {gb(lora)} (20% more or less)" in warning.description
        assert f"{gb(bytes_free)} are free now" in warning.description


def gb(size: float) -> str:
    return f"{size / 10**9:.1f} GB"
