"""The benchmarks are there, and their figures follow from what was measured. Nothing is timed here."""

import ast

import pytest

from benchmarks import gateway, jobs, promotions, trainer
from benchmarks.__main__ import BENCHMARKS, ROOT
from benchmarks.rounds import interleaved, median_ratio

ALONE = {("bench@1", 0): "one", ("bench@2", 0): "two"} | {
    (f"bench@{version}", caller): "same" for version in (1, 2) for caller in range(1, promotions.CALLERS)
}
TIMELINE = (
    promotions.Pointed(version=1, asked_at=0, done_at=1),
    promotions.Pointed(version=2, asked_at=10, done_at=11),
)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_that_is_named_is_a_program(name: str) -> None:
    # Read and not imported, which takes ten seconds for all; what they import, mypy holds them to.
    program = ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text())
    assert ast.unparse(program.body[-1]) in (
        "if __name__ == '__main__':\n    main()",
        "if __name__ == '__main__':\n    asyncio.run(main())",
    )


async def test_arms_take_turns_and_ratios_are_taken_round_by_round() -> None:
    ran: list[str] = []

    async def arm(name: str) -> float:
        ran.append(name)
        return float(len(ran))

    results = await interleaved({"a": lambda: arm("a"), "b": lambda: arm("b")}, rounds=2)
    assert ran == ["a", "b", "b", "a"]
    assert results == {"a": [1, 4], "b": [2, 3]}
    assert median_ratio(results["a"], results["b"]) == pytest.approx((1 / 2 + 4 / 3) / 2)


def test_a_job_is_held_against_what_it_could_not_be_quicker_than() -> None:
    warm = jobs.Started(
        first_forward_seconds=2, active_seconds=3, first_token_seconds=1, later_token_seconds=0.5
    )
    cold = jobs.Started(first_forward_seconds=20)
    figures = jobs.summary([warm], [cold], [jobs.Cancelled(step_seconds=4, cancel_seconds=1)])
    assert figures["submit to first forward pass"]["cold against warm"] == 10
    assert figures["SUCCEEDED to first token"]["against a later first token"] == 8
    assert figures["cancel to CANCELLED"]["against a step"] == 0.25


def test_a_wait_for_first_tokens_is_told_as_a_ratio_and_in_milliseconds() -> None:
    figures = gateway.waits([(0.1, 0.2), (0.2, 0.4), (0.3, 0.6)])
    assert figures["ratio"] == pytest.approx({"median": 2, "lower quartile": 2, "upper quartile": 2})
    assert figures["milliseconds added"]["median"] == pytest.approx(200)
    assert figures["direct milliseconds"]["median"] == pytest.approx(200)


@pytest.mark.parametrize("pairs", [trainer.FAST_BFLOAT16, trainer.SLOW_BFLOAT16])
def test_trainers_are_compared_on_equal_rows_and_steps(pairs: tuple[trainer.Pair, ...]) -> None:
    results = {
        arm: [
            trainer.Measured(
                tokens_per_second=6 if arm.name.startswith("ours") else 2,
                tokens_per_processor_second=1,
                peak_bytes=arm.rows << 20,
                losses=(2.0, 1.5 if arm.name.startswith("ours") else 1.25),
            )
        ]
        * arm.rounds
        for pair in pairs
        for arm in pair.arms
    }
    figures = trainer.comparisons(pairs, results)
    for pair in pairs:
        ours, theirs = pair.arms
        assert (ours.rows, ours.steps, ours.rounds) == (theirs.rows, theirs.steps, theirs.rounds)
        assert figures[pair.title] == {
            "tokens per second": 3,
            "tokens per processor second": 1,
            "peak memory": 1,
            "rows a step": pair.rows,
            "loss": {"ours": [2.0, 1.5], "TRL": [2.0, 1.25], "largest difference": 0.25},
        }


def test_answers_are_held_against_the_alias_and_against_the_texts() -> None:
    def answer(text: str, *models: str, asked_at: float = 5) -> promotions.Answer:
        return promotions.Answer(
            caller=0, asked_at=asked_at, began_at=asked_at + 1, models=frozenset(models), text=text
        )

    given = [
        answer("one", "bench@1"),
        answer("two", "bench@2", asked_at=12),
        answer("one", "bench@1", asked_at=12),  # where the alias no longer pointed
        answer("two", "bench@1"),  # the other's text
        answer("onetwo", "bench@1"),  # neither's
        answer("one", "bench@1", "bench@2"),
    ]
    figures = promotions.faults(promotions.Answers(given=given, failures=["broken"]), TIMELINE, ALONE)
    assert figures == {
        "answers": 6,
        "failed answers": 1,
        "answers of two versions": 1,
        "answers of a version that the alias did not point at": 1,
        "questions": promotions.CALLERS,
        "questions that the versions answer differently": 1,
        "answers with the other version's text": 1,
        "answers with neither version's text": 1,
        "first failure": "broken",
        "first text of neither": "onetwo",
    }


def test_an_alias_that_is_being_pointed_elsewhere_may_be_at_either() -> None:
    answers = [
        promotions.Answer(
            caller=0, asked_at=10.5, began_at=10.6, models=frozenset({f"bench@{version}"}), text=text
        )
        for version, text in ((1, "one"), (2, "two"))
    ]
    figures = promotions.faults(promotions.Answers(given=answers), TIMELINE, ALONE)
    assert figures["answers of a version that the alias did not point at"] == 0
