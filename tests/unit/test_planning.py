"""The plan's numbers: shapes, the formula, the textbook's examples, settings, advice and time."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.doubles.probe import calibration
from trainer.config import Hyperparameters, Metric, Objective, Technique
from trainer.planning import (
    EXAMPLES,
    RUNTIME_BYTES,
    Calibration,
    Data,
    Device,
    Footing,
    Load,
    Part,
    ShapeError,
    Source,
    TechniquePlan,
    choose,
    complete,
    plan,
    shape_of_directory,
    textbook,
)
from trainer.planning.advice import recommend
from trainer.planning.calibration import calibrated
from trainer.planning.duration import answering, course, seconds
from trainer.planning.memory import largest_pass, memory, total
from trainer.planning.textbook import GPT2, LLAMA_7B

GB = 10**9
GPU = Footing(device="cuda", number_bytes=2, runtime_bytes=RUNTIME_BYTES["cuda"])
CPU = Footing(device="cpu", number_bytes=4, runtime_bytes=500_000_000)
LOAD = Load(tokens=1024, trained_tokens=512, rows=8, longest_row=128)
DATA = Data(rows=2_000, tokens=256_000, longest_row=256, trained_share=0.5)
FEW = replace(DATA, rows=200, tokens=25_600)


def planned_on(memory_bytes: int, data: Data = DATA, kind: str = "cuda") -> tuple[Technique, list[str]]:
    """What is recommended for LLaMA 7B."""
    footing = GPU if kind == "cuda" else CPU
    device = Device(footing=footing, memory_bytes=memory_bytes, available_bytes=memory_bytes)
    found = plan(LLAMA_7B, data, device, context_length=4096, max_rank=64, calibrations={})
    return found.recommendation.technique, list(found.recommendation.reasons)


def test_the_parameters_of_known_models_are_counted_to_the_last_one() -> None:
    assert LLAMA_7B.parameters == 6_738_415_616
    assert GPT2.parameters == 124_439_808
    assert LLAMA_7B.adapter_parameters(8) == 32 * 8 * (4 * 8192 + 3 * (4096 + 11008))
    assert LLAMA_7B.adapter_parameters(8, ("q_proj", "v_proj")) == 32 * 8 * 2 * 8192


def test_a_directory_without_weights_is_known_by_its_configuration(tmp_path: Path) -> None:
    fields = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024}
    (tmp_path / "config.json").write_text(json.dumps({**fields, "vocab_size": 50_257}))
    assert shape_of_directory(tmp_path).parameters == GPT2.parameters


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"hidden_size": 8, "num_attention_heads": true}'])
def test_a_configuration_that_tells_no_shape_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ShapeError, match=r"config\.json"):
        shape_of_directory(tmp_path)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    fields = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "vocab_size": 10}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 16)
    with pytest.raises(ShapeError, match="safetensors"):
        shape_of_directory(tmp_path)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_textbooks_examples_come_out_line_by_line(name: str) -> None:
    example = EXAMPLES[name]
    for technique, printed in example.printed.items():
        lines = textbook(example.shape, technique, example)
        assert {line.part: line.printed_bytes for line in lines} == printed
        for line in lines:
            assert line.bytes == pytest.approx(line.printed_bytes, rel=0.1), (technique, line.part)
        whole = sum(line.bytes for line in lines)
        assert whole == pytest.approx(example.printed_totals[technique], rel=0.1), technique


def test_weights_gradients_and_moments_of_the_textbook_are_exact() -> None:
    lines = {line.part: line.bytes for line in textbook(LLAMA_7B, Technique.FULL, EXAMPLES["llama-7b"])}
    assert (lines[Part.WEIGHTS], lines[Part.GRADIENTS], lines[Part.OPTIMIZER]) == (28 * GB, 28 * GB, 56 * GB)
    lines = {line.part: line.bytes for line in textbook(GPT2, Technique.FULL, EXAMPLES["gpt2"])}
    assert list(lines.values()) == [GB // 2, GB // 2, GB]


def test_the_textbooks_4_bit_base_is_half_of_what_it_prints() -> None:
    weights = textbook(LLAMA_7B, Technique.QLORA, EXAMPLES["llama-7b"])[0]
    assert weights.printed_bytes == 7 * GB
    assert 3.5 * GB < weights.real_bytes < 4 * GB
    assert "3.5 GB" in weights.reality and "16 bits" in weights.reality


def test_adams_moments_are_8_bytes_for_every_trained_parameter() -> None:
    for technique in Technique:
        lines = {line.part: line.bytes for line in memory(LLAMA_7B, technique, LOAD, GPU)}
        assert lines[Part.OPTIMIZER] == 2 * lines[Part.GRADIENTS]
    assert lines[Part.GRADIENTS] == 4 * LLAMA_7B.parameters


def test_a_gpu_holds_what_cublas_works_in_however_small_the_model_is() -> None:
    for technique in (Technique.LORA, Technique.PROMPT_TUNING, Technique.FULL):
        overhead = next(line for line in memory(GPT2, technique, LOAD, GPU) if line.part is Part.OVERHEAD)
        assert (overhead.bytes, overhead.how) == (64 * 1024**2, "what cuBLAS works in")


def test_more_of_anything_never_needs_less_memory() -> None:
    for technique in Technique:
        needed = [
            total(memory(GPT2, technique, load, CPU))
            for load in (
                LOAD,
                replace(LOAD, tokens=2048),
                replace(LOAD, tokens=2048, trained_tokens=1024),
                replace(LOAD, tokens=2048, trained_tokens=1024, rank=64, virtual_tokens=100),
            )
        ]
        assert needed == sorted(needed)


def test_the_four_techniques_need_memory_in_the_order_that_everyone_expects() -> None:
    needed = {technique: total(memory(LLAMA_7B, technique, LOAD, GPU)) for technique in Technique}
    assert needed[Technique.FULL] > needed[Technique.LORA] > needed[Technique.QLORA]
    assert needed[Technique.PROMPT_TUNING] < needed[Technique.LORA]


@pytest.mark.parametrize(
    ("batch", "longest", "expected"), [(1, 100, 100), (4, 200, 500), (64, 200, 1024), (4, 1500, 1500)]
)
def test_a_pass_is_as_large_as_its_rows_and_the_budget_let_it_be(
    batch: int, longest: int, expected: int
) -> None:
    data = Data(rows=1000, tokens=100_000, longest_row=longest, trained_share=0.5)
    tokens, trained, _ = largest_pass(data, batch_size=batch, budget=1024)
    assert (tokens, trained) == (expected, expected // 2)


def test_a_pair_is_in_a_pass_with_both_of_its_rows() -> None:
    pairs = Data(
        rows=1000, tokens=200_000, longest_row=300, trained_share=0.5, objective=Objective.PREFERENCE
    )
    assert largest_pass(pairs, batch_size=1, budget=1024) == (600, 300, 2)
    assert largest_pass(pairs, batch_size=2, budget=1024) == (800, 400, 4)
    assert largest_pass(pairs, batch_size=1, budget=512)[0] == 600, "a pair is never cut in two"


def test_the_reference_of_preferences_reads_every_pair_once() -> None:
    pairs = Data(rows=100, tokens=20_000, longest_row=150, trained_share=0.5, objective=Objective.PREFERENCE)
    settings = Hyperparameters(epochs=2, batch_size=10, validation_fraction=0.1)
    assert course(pairs, settings).reference_tokens == 20_000
    assert course(pairs, replace(settings, max_steps=3)).reference_tokens == (30 + 10) * 200
    assert course(replace(pairs, objective=Objective.SUPERVISED), settings).reference_tokens == 0
    way, speed = course(pairs, settings), calibration(Technique.LORA).speed
    without = replace(way, reference_tokens=0)
    longer = seconds(way, Technique.LORA, speed) - seconds(without, Technique.LORA, speed)
    assert longer == pytest.approx(20_000 * speed.token_seconds / 2)


@pytest.mark.parametrize(
    ("memory_bytes", "technique"),
    [
        (160 * GB, Technique.FULL),
        (80 * GB, Technique.LORA),
        (40 * GB, Technique.LORA),
        (24 * GB, Technique.QLORA),
    ],
)
def test_the_tree_is_followed_as_far_as_the_model_fits(memory_bytes: int, technique: Technique) -> None:
    assert planned_on(memory_bytes)[0] is technique


def test_full_fine_tuning_of_7b_on_80_gb_gives_way_with_both_numbers() -> None:
    reasons = planned_on(80 * GB)[1]
    assert "80 GB and more: full" in reasons[0]
    assert "full fine-tuning needs 1" in reasons[1] and "LoRA needs" in reasons[1]


def test_where_nothing_fits_a_smaller_model_is_named() -> None:
    device = Device(footing=GPU, memory_bytes=2 * GB, available_bytes=2 * GB)
    found = plan(LLAMA_7B, DATA, device, context_length=4096, max_rank=64, calibrations={}).recommendation
    assert (found.technique, found.fits) == (Technique.QLORA, False)
    assert any("smaller model, up to about 1.9 billion parameters" in reason for reason in found.reasons)


def test_few_rows_are_said_to_risk_overfitting_and_many_to_let_full_fine_tuning_shine() -> None:
    few = planned_on(40 * GB, FEW)
    assert "risk of overfitting" in few[1][-1] and "regularisation" in few[1][-1]
    assert "most techniques work" in planned_on(40 * GB)[1][-1]
    many = planned_on(160 * GB, replace(DATA, rows=20_000, tokens=2_560_000))
    assert many[0] is Technique.FULL and "shines" in many[1][-1]


def test_many_rows_lift_the_advice_to_full_fine_tuning_where_it_fits() -> None:
    needed = {Technique.FULL: 10, Technique.LORA: 5, Technique.QLORA: 3, Technique.PROMPT_TUNING: 4}
    found = recommend(memory_bytes=24 * GB, rows=20_000, needed=needed, available_bytes=24 * GB)
    assert found.technique is Technique.FULL


def test_a_4_bit_base_that_saves_nothing_gives_way_to_lora() -> None:
    needed = {Technique.FULL: 10, Technique.LORA: 5, Technique.QLORA: 6, Technique.PROMPT_TUNING: 4}
    found = recommend(memory_bytes=24 * GB, rows=200, needed=needed, available_bytes=24 * GB)
    assert found.technique is Technique.LORA
    assert "4 bits would only cost accuracy" in found.reasons[1]


@pytest.mark.parametrize(
    ("unservable", "memory_bytes", "advised"),
    [
        ({Technique.FULL}, 80 * GB, Technique.LORA),
        ({Technique.LORA}, 40 * GB, Technique.QLORA),
        ({Technique.LORA, Technique.QLORA}, 24 * GB, Technique.PROMPT_TUNING),
        ({Technique.LORA, Technique.QLORA, Technique.PROMPT_TUNING}, 24 * GB, Technique.FULL),
        ({Technique.LORA, Technique.QLORA, Technique.FULL}, 3, Technique.PROMPT_TUNING),
        (set(Technique), 80 * GB, None),
    ],
)
def test_what_could_not_be_served_is_never_advised_and_its_reason_told(
    unservable: set[Technique], memory_bytes: int, advised: Technique | None
) -> None:
    needed = {Technique.FULL: 10, Technique.LORA: 5, Technique.QLORA: 6, Technique.PROMPT_TUNING: 4}
    found = recommend(
        memory_bytes=memory_bytes,
        rows=2_000,
        needed=needed,
        available_bytes=memory_bytes,
        unservable=dict.fromkeys(unservable, "no engine has it"),
    )
    assert found.technique is advised
    assert found.fits == (advised is not None and needed[advised] <= memory_bytes)
    assert any("no engine has it" in reason for reason in found.reasons)


def test_settings_follow_the_amount_of_rows() -> None:
    def settings(rows: int) -> Hyperparameters:
        choices = choose(
            Technique.LORA,
            Data(rows=rows, tokens=100 * rows, longest_row=200, trained_share=0.5),
            parameters=10**8,
            context_length=512,
            max_rank=64,
        )
        return complete(choices, {})

    few, enough, many = settings(999), settings(1_000), settings(10_001)
    assert few.rank < enough.rank < many.rank
    assert few.dropout > enough.dropout and few.weight_decay > enough.weight_decay
    assert few.epochs < enough.epochs
    assert few.alpha == 2 * few.rank and few.max_sequence_length == 512


@pytest.mark.parametrize(
    ("technique", "low", "high"),
    [
        (Technique.FULL, 1e-5, 5e-5),
        (Technique.LORA, 1e-4, 3e-4),
        (Technique.QLORA, 1e-4, 3e-4),
        (Technique.PROMPT_TUNING, 1e-3, 1e-2),
    ],
)
def test_learning_rates_are_the_usual_ones_and_halved_for_large_bases(
    technique: Technique, low: float, high: float
) -> None:
    def rate(parameters: int) -> float:
        choices = choose(
            technique,
            DATA,
            parameters=parameters,
            context_length=512,
            max_rank=64,
        )
        return complete(choices, {}).learning_rate

    assert low <= rate(7 * GB) <= high
    assert rate(70 * GB) == rate(7 * GB) / 2


def test_preferences_get_a_fraction_of_the_learning_rate_with_its_reason() -> None:
    (rate, *_) = choose(
        Technique.LORA,
        replace(FEW, objective=Objective.PREFERENCE),
        parameters=10**8,
        context_length=512,
        max_rank=4,
    )
    assert rate.field == "learning_rate" and rate.value < 2e-4 and "preferences" in rate.reason


def test_every_choice_has_a_reason_and_given_settings_stay() -> None:
    choices = choose(Technique.LORA, FEW, parameters=10**8, context_length=512, max_rank=4)
    assert all(choice.reason for choice in choices)
    settings = complete(choices, {"rank": 2, "epochs": 9})
    assert (settings.rank, settings.alpha, settings.epochs) == (2, 4, 9)
    assert complete(choices, {}).rank == 4, "the engine's limit holds"


def test_the_longest_row_decides_how_long_rows_may_be_unless_rows_are_cut() -> None:
    def length(data: Data, context_length: int = 8192) -> int:
        choices = choose(Technique.LORA, data, parameters=10**8, context_length=context_length, max_rank=64)
        return complete(choices, {}).max_sequence_length

    long = replace(DATA, longest_row=3_000)
    assert (length(DATA), length(long), length(replace(long, is_cut=True))) == (2_048, 3_000, 2_048)
    assert length(DATA, 512) == 512


@pytest.mark.parametrize(
    ("lengths", "pieces"),
    [([250_001], 123), ([2_048], 1), ([2_049], 2), ([65_536] * 10, 330), ([10_000, *[300] * 40], 45)],
)
def test_texts_are_counted_in_the_pieces_that_the_loop_makes_of_them(lengths: list[int], pieces: int) -> None:
    data = Data(
        rows=len(lengths), tokens=sum(lengths), longest_row=max(lengths), trained_share=1.0, is_cut=True
    )
    cut = data.in_pieces(2_048)
    # Every piece but the first of a text has one token more, which the piece before ended with.
    assert (cut.rows, cut.tokens) == (pieces, sum(lengths) + pieces - len(lengths))
    assert cut.longest_row == min(2_048, max(lengths))
    assert replace(data, is_cut=False).in_pieces(2_048).rows == len(lengths)


def test_a_long_text_needs_the_memory_of_its_pieces_and_as_many_steps_as_they_make() -> None:
    device = Device(footing=CPU, memory_bytes=64 * GB, available_bytes=64 * GB)

    def planned(data: Data) -> TechniquePlan:
        found = plan(GPT2, data, device, context_length=1024, max_rank=64, calibrations={})
        return next(one for one in found.techniques if one.technique is Technique.LORA)

    book = Data(rows=1, tokens=250_000, longest_row=250_000, trained_share=1.0, is_cut=True)
    pages = Data(rows=245, tokens=250_244, longest_row=1_024, trained_share=1.0)
    assert planned(book).total_bytes == planned(pages).total_bytes
    assert planned(book).course == planned(pages).course
    assert planned(book).course.steps == 3 * math.ceil((245 - 24) / 8)


def test_steps_and_tokens_are_those_of_the_loop() -> None:
    data = Data(rows=100, tokens=10_000, longest_row=150, trained_share=0.5)
    way = course(data, Hyperparameters(epochs=2, batch_size=8, validation_fraction=0.1))
    assert (way.steps, way.tokens, way.evaluated_tokens) == (24, 18_000, 4_000)
    assert course(data, Hyperparameters(max_steps=6, validation_fraction=0.0)).steps == 6


def test_answers_that_are_scored_count_where_the_rows_have_a_task() -> None:
    data = Data(rows=200, tokens=20_000, longest_row=150, trained_share=0.2, has_task=True)
    settings = Hyperparameters(batch_size=8, validation_fraction=0.1, eval_every_steps=10)
    deciding = replace(settings, early_stopping_metric=Metric.TASK_SCORE)
    way = course(data, settings)
    looked_at, decides = (answering(data, one, device="cpu") for one in (settings, deciding))
    assert 0 < looked_at <= 0.1 * 2 * way.tokens * 1.1, "a tenth of the work at most"
    # 20 questions with 80 tokens each, two batches, 28 tokens of an answer, after each of 7 evaluations.
    assert decides == 7 * (20 * 80 + 2 * 28 * 64)
    assert answering(replace(data, has_task=False), deciding, device="cpu") == 0
    assert answering(data, replace(deciding, validation_fraction=0.0), device="cpu") == 0
    assert answering(data, deciding, device="cpu", virtual_tokens=20) == decides + 7 * 20 * 20
    device = Device(footing=CPU, memory_bytes=32 * GB, available_bytes=32 * GB)

    def lora_seconds(data: Data) -> float:
        probes = {Technique.LORA: calibration(Technique.LORA)}
        given = {"early_stopping_metric": Metric.TASK_SCORE, "eval_every_steps": 10, "epochs": 3}
        found = plan(GPT2, data, device, context_length=1024, max_rank=64, calibrations=probes, given=given)
        return next(one.seconds or 0 for one in found.techniques if one.technique is Technique.LORA)

    longer = lora_seconds(data) - lora_seconds(replace(data, has_task=False))
    assert longer == pytest.approx(decides / 2000), (
        "half a millisecond for each of a thousand tokens a second"
    )


def test_a_probe_corrects_memory_so_that_its_own_samples_come_out() -> None:
    probe = calibration(Technique.LORA)
    for sample in probe.samples:
        formula = memory(GPT2, Technique.LORA, sample.load, probe.footing, training_only=True)
        lines = calibrated(GPT2, sample.load, probe, formula)
        assert total(lines) == pytest.approx(sample.peak_bytes, rel=1e-6)


def test_time_comes_from_the_probe_of_the_technique_or_of_a_like_one() -> None:
    device = Device(footing=CPU, memory_bytes=32 * GB, available_bytes=32 * GB)
    found = plan(
        GPT2,
        DATA,
        device,
        context_length=1024,
        max_rank=64,
        calibrations={Technique.LORA: calibration(Technique.LORA)},
    )
    plans = {one.technique: one for one in found.techniques}
    lora, full = plans[Technique.LORA], plans[Technique.FULL]
    assert lora.speed is not None and lora.speed.source is Source.PROBE
    assert lora.speed.tokens_per_second == pytest.approx(1000)
    assert lora.seconds == pytest.approx(
        3 + lora.course.steps * 0.1 + lora.course.tokens / 1000 + lora.course.evaluated_tokens / 2000
    )
    assert full.speed is not None and full.speed.source is Source.LIKENESS
    assert full.speed.tokens_per_second == pytest.approx(1000 * 4 / 6)


def test_without_any_measurement_there_is_no_time_unless_the_devices_speed_is_told() -> None:
    device = Device(footing=GPU, memory_bytes=80 * GB, available_bytes=80 * GB)
    untold = plan(LLAMA_7B, DATA, device, context_length=4096, max_rank=64, calibrations={})
    assert all(one.seconds is None for one in untold.techniques)
    told = plan(
        LLAMA_7B,
        DATA,
        replace(device, operations_per_second=4e14),
        context_length=4096,
        max_rank=64,
        calibrations={},
    )
    assert all(one.seconds is not None and one.seconds > 3 for one in told.techniques)


def test_a_calibration_survives_its_file_and_nothing_else_is_taken_for_one() -> None:
    probe = calibration(Technique.QLORA)
    assert Calibration.decode(probe.encode()) == probe
    for text in ("", "[]", "{}", '{"format": 1}', probe.encode().replace('"format": 1', '"format": 2')):
        with pytest.raises(ValueError, match=r"\S"):
            Calibration.decode(text)
