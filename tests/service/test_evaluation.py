"""Versions are evaluated through the served engine, on rows that training never saw, and people go first."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from service.errors import AlreadyExists, NotFound, WrongState
from service.evaluation import Evaluator, Kind, Limits, Report
from service.evaluation.general_skill import ITEMS
from service.registry import EvaluationRow, EvaluationState, Imported, NewEvaluation, VersionRow, VersionState
from service.registry.states import EVALUATION_ENDED
from service.serving import Bases, Chat, ChatMessage, ChatTurn
from tests.doubles.arithmetic import logprobs
from tests.service import serving_stage
from tests.service.registry_stage import dataset, new_job
from tests.service.registry_stage import until as until_reached
from tests.service.serving_stage import MODEL
from tests.tiny_renderer import tiny_renderer
from trainer.config import Hyperparameters, Task, Technique
from trainer.records import Kind as RecordKind
from trainer.records import Turn
from trainer.rendering import Renderer
from trainer.rows import split_validation

LABELS = ("billing", "delivery", "account")
ROWS = [(f"message {number} about {LABELS[number % 3]}", LABELS[number % 3]) for number in range(40)]
QUICK = Limits(rows=20, beat_seconds=0.05, silent_seconds=0.3, period_seconds=0.1, patience_seconds=0.4)
SEED, FRACTION = Hyperparameters.seed, Hyperparameters.validation_fraction
TRAINED, ASIDE = split_validation([text for text, _ in ROWS], FRACTION, SEED)


def write_rows(path: Path, rows: list[tuple[str, str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        "".join(
            json.dumps(
                {
                    "messages": [
                        {"role": "user", "content": question},
                        {"role": "assistant", "content": answer},
                    ]
                }
            )
            + "\n"
            for question, answer in rows
        )
    )


@dataclass(kw_only=True)
class Stage:
    """Serving against a double that answers by a rule, and an evaluator beside it."""

    serving: serving_stage.Stage
    chat: Chat
    bases: Bases
    renderer: Renderer
    datasets_dir: Path
    asked: list[tuple[str, str, tuple[str, ...] | None]] = field(default_factory=list)
    """Model, last message of the user, choices."""
    rule: Callable[[str, str], str] = lambda model, question: question.split()[-1] if "@" in model else "?"

    def respond(self, fields: Mapping[str, object]) -> tuple[str]:
        prompt = self.renderer.decode(fields["prompt"])  # type: ignore[arg-type]
        question = prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
        structured = fields.get("structured_outputs")
        choices = tuple(structured["choice"]) if isinstance(structured, dict) else None
        model = str(fields["model"])
        self.asked.append((model, question, choices))
        return (self.rule(model, question),)

    def evaluator(self, limits: Limits = QUICK) -> Evaluator:
        return Evaluator(
            registry=self.serving.registry,
            changes=self.serving.changes,
            chat=self.chat,
            served=self.serving.served,
            bases=self.bases,
            datasets_dir=self.datasets_dir,
            limits=limits,
        )

    @asynccontextmanager
    async def evaluating(self, limits: Limits = QUICK) -> AsyncIterator[None]:
        task = asyncio.create_task(self.evaluator(limits).run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def active(self, weights: bytes = b"weights of one") -> VersionRow:
        row = await self.serving.publish("support", weights)
        assert (await self.serving.outcome(row)).state == VersionState.ACTIVE
        await self.serving.is_served(row)
        return row

    def write_texts(self, dataset_id: str, texts: list[str]) -> None:
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (self.datasets_dir / f"{dataset_id}.jsonl").write_text(lines)

    async def continued(self, number: int, *, dataset_id: str = "rows", **settings: float) -> VersionRow:
        """The version that a training made of version `number`, with these hyperparameters."""
        asked = new_job(dataset_id=dataset_id)
        asked = replace(
            asked,
            start_version=("support", number),
            hyperparameters=replace(asked.hyperparameters, **settings),  # type: ignore[arg-type]
        )
        digest = serving_stage.write_artifact(self.serving.artifacts_dir, b"weights after %d" % number)
        row = await serving_stage.register(self.serving.registry, digest, asked=asked)
        await self.serving.outcome(row)
        await self.serving.is_served(row)
        return row

    async def ended(self, evaluation_id: str) -> EvaluationRow:
        evaluations = self.serving.registry.evaluations

        async def reached() -> bool:
            try:
                return (await evaluations.get(evaluation_id)).state in EVALUATION_ENDED
            except NotFound:
                return False

        await until_reached(self.serving.changes, f"evaluation/{evaluation_id}", reached)
        return await evaluations.get(evaluation_id)

    async def report(self, evaluation_id: str) -> Report:
        row = await self.ended(evaluation_id)
        assert row.state == EvaluationState.SUCCEEDED, row.failure_message
        assert row.report is not None
        assert row.done_answers == row.total_answers > 0
        return Report.decode(row.report)

    def questions(self, model: str, *, constrained: bool = False) -> list[str]:
        general = {item.question for item in ITEMS}
        return [
            question
            for asked, question, choices in self.asked
            if asked == model and question not in general and (choices is not None) == constrained
        ]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with serving_stage.stage(tmp_path) as serving:
        renderer = tiny_renderer(tmp_path / "bytes")
        bases = Bases([replace(serving.bases.default, renderer=renderer)])
        chat = Chat(
            registry=serving.registry,
            served=serving.served,
            bases=bases,
            own_engines=serving.own_engines,
            metrics=serving.metrics,
        )
        datasets_dir = tmp_path / "datasets"
        write_rows(datasets_dir / "rows.jsonl", ROWS)
        made = Stage(serving=serving, chat=chat, bases=bases, renderer=renderer, datasets_dir=datasets_dir)
        serving.double.respond = made.respond
        yield made


def figures(report: Report, *, constrained: bool = False) -> dict[str, tuple[float, float]]:
    return {
        each.name: (each.base, each.adapter) for each in report.figures if each.constrained == constrained
    }


async def test_every_active_version_is_compared_with_its_base_on_rows_that_training_set_aside(
    stage: Stage,
) -> None:
    version = await stage.active()
    async with stage.evaluating():
        report = await stage.report("support-1")

    assert sorted(stage.questions(MODEL.name)) == sorted(stage.questions("support@1")) == sorted(ASIDE)
    assert not set(TRAINED) & {question for _, question, _ in stage.asked}
    assert report.task == Task.CLASSIFICATION
    assert figures(report)["accuracy"] == (0.0, 1.0)
    assert (report.rows, report.wins, report.losses, report.ties) == (4, 4, 0, 0)
    assert (report.held_out_rows, report.seen_rows, report.refused_rows) == (4, 0, 0)
    assert report.summary.startswith("accuracy from 0.000 to 1.000 on 4 unseen rows (4 better, 0 worse)")
    assert (await stage.serving.registry.get_job(version.job_id)).evaluation_id == "support-1"


async def test_a_classification_is_asked_freely_and_with_our_own_labels_as_the_only_choices(
    stage: Stage,
) -> None:
    await stage.active()
    async with stage.evaluating():
        report = await stage.report("support-1")

    assert {choices for _, _, choices in stage.asked if choices} == {tuple(sorted(LABELS))}
    assert sorted(stage.questions(MODEL.name, constrained=True)) == sorted(ASIDE)
    assert set(figures(report, constrained=True)) == {"accuracy", "macro_f1", "labelled"}
    assert [(table.adapter, table.constrained) for table in report.tables] == [
        (False, False), (True, False), (False, True), (True, True),
    ]  # fmt: skip
    free_base, free_adapter = report.tables[:2]
    assert free_base.labels == tuple(sorted(LABELS))
    assert sum(row[-1] for row in free_base.counts) == 4  # all "no label"
    assert sum(row[index] for index, row in enumerate(free_adapter.counts)) == 4


async def test_the_base_is_asked_once_for_all_its_versions(stage: Stage) -> None:
    async with stage.evaluating():
        await stage.active(b"weights of one")
        first = await stage.report("support-1")
        asked = Counter(model for model, _, _ in stage.asked)
        await stage.active(b"weights of another")
        second = await stage.report("support-2")

    assert Counter(model for model, _, _ in stage.asked) == {**asked, "support@2": asked["support@1"]}
    assert figures(first) == figures(second)


async def test_what_was_forgotten_is_seen_from_general_questions(stage: Stage) -> None:
    right = {item.question: f"It is {item.accepted[0]}." for item in ITEMS}
    stage.rule = lambda model, question: right.get(question, "?") if model == MODEL.name else "billing"
    await stage.active()
    async with stage.evaluating():
        report = await stage.report("support-1")

    skill = report.general_skill
    assert (skill.items, skill.base_right, skill.adapter_right, skill.forgotten) == (32, 32, 0, 32)
    lapses = [example for example in report.examples if example.line == 0]
    assert {example.kind for example in lapses} == {Kind.REGRESSION}
    assert (lapses[0].prompt, lapses[0].base_answer) == (ITEMS[0].question, "It is Paris.")
    assert report.regressions >= 32


async def test_wins_losses_and_regressions_come_with_examples(stage: Stage) -> None:
    worse = ASIDE[0]
    stage.rule = lambda model, question: (
        question.split()[-1] if (question == worse) != ("@" in model) else "something else"
    )
    await stage.active()
    async with stage.evaluating():
        report = await stage.report("support-1")

    assert (report.wins, report.losses, report.ties) == (3, 1, 0)
    assert [example.prompt for example in report.examples if example.kind is Kind.REGRESSION] == [worse]
    win = next(example for example in report.examples if example.kind is Kind.WIN)
    assert (win.expected, win.base_answer) == (win.adapter_answer, "something else")
    assert ROWS[win.line - 1] == (win.prompt, win.expected)


async def test_an_evaluation_dataset_is_asked_without_what_training_saw(stage: Stage) -> None:
    new = [(f"unheard {number} of {LABELS[number % 3]}", LABELS[number % 3]) for number in range(6)]
    leaked = [(TRAINED[0], "billing"), (TRAINED[1], "billing")]
    write_rows(stage.datasets_dir / "others.jsonl", new + leaked)
    await stage.serving.registry.create_dataset(dataset("others"))
    await stage.active()
    registry = stage.serving.registry
    asked = NewEvaluation(adapter_id="support", number=1, dataset_id="others", request_id="again")
    row = await registry.evaluations.create(asked)
    async with stage.evaluating():
        report = await stage.report(row.id)

    assert (report.rows, report.held_out_rows, report.seen_rows) == (6, 8, 2)
    assert sorted(stage.questions("support@1")) == sorted(text for text, _ in new)
    assert await registry.evaluations.create(asked) == await registry.evaluations.get(row.id)
    with pytest.raises(AlreadyExists):
        await registry.evaluations.create(replace(asked, dataset_id="rows"))
    second = await registry.evaluations.create(NewEvaluation(adapter_id="support", number=1))
    assert (row.id, second.id) == ("support-1", "support-1.2")


async def test_an_imported_version_and_what_was_trained_on_it_are_asked_about_a_named_dataset(
    stage: Stage,
) -> None:
    write_rows(stage.datasets_dir / "others.jsonl", ROWS[:6])
    await stage.serving.registry.create_dataset(dataset("others"))
    registry = stage.serving.registry
    digest = serving_stage.write_artifact(stage.serving.artifacts_dir, b"weights from elsewhere")
    row = await registry.import_version(
        Imported(adapter_id="support", base_model=MODEL.name, rank=4, digest=digest, size_bytes=100)
    )
    assert (await stage.serving.outcome(row)).state == VersionState.ACTIVE
    await stage.continued(1)
    own = NewEvaluation(adapter_id="support", number=1, dataset_id="others")
    trained_on = NewEvaluation(adapter_id="support", number=2, dataset_id="others")
    async with stage.evaluating():
        report = await stage.report((await registry.evaluations.create(own)).id)
        assert (report.rows, report.held_out_rows, report.seen_rows) == (6, 6, 0)
        later = await stage.report((await registry.evaluations.create(trained_on)).id)

    seen = len({text for text, _ in ROWS[:6]} & set(TRAINED))
    assert (later.held_out_rows, later.seen_rows) == (6, seen)


async def test_what_a_version_that_training_started_from_had_seen_is_not_asked(stage: Stage) -> None:
    more = [(f"further {number} of {LABELS[number % 3]}", LABELS[number % 3]) for number in range(10)]
    write_rows(stage.datasets_dir / "more.jsonl", more)
    await stage.serving.registry.create_dataset(dataset("more"))
    await stage.active()
    await stage.continued(1, dataset_id="more", seed=3, validation_fraction=0.0)
    await stage.continued(2, seed=7, validation_fraction=0.5)
    async with stage.evaluating():
        report = await stage.report("support-3")
        new = NewEvaluation(adapter_id="support", number=3, dataset_id="more")
        of_more = await stage.report((await stage.serving.registry.evaluations.create(new)).id)

    _, aside = split_validation([text for text, _ in ROWS], 0.5, 7)
    never_seen = {*aside} & {*ASIDE}
    assert 0 < len(never_seen) < len(ASIDE)
    assert {*stage.questions("support@3")} == never_seen
    assert (report.held_out_rows, report.seen_rows) == (20, 20 - len(never_seen))
    assert (of_more.rows, of_more.seen_rows) == (0, 10)
    assert of_more.summary.startswith("All 10 rows had been trained on")


async def test_texts_that_an_earlier_version_was_trained_on_are_not_measured_however_they_were_cut(
    stage: Stage,
) -> None:
    drawn = random.Random(5)
    stage.write_texts("texts", ["".join(drawn.choices("abcdefghijklmno ", k=1200)) for _ in range(20)])
    await stage.serving.registry.create_dataset(replace(dataset("texts"), kind=RecordKind.TEXT))
    await stage.active()
    await stage.continued(1, dataset_id="texts", max_sequence_length=300)
    await stage.continued(2, dataset_id="texts", seed=1, max_sequence_length=500, validation_fraction=0.5)
    async with stage.evaluating():
        report = await stage.report("support-3")

    assert report.held_out_rows == 20 * 3 // 2
    assert report.seen_rows > 0.8 * report.held_out_rows, "nine pieces in ten were trained on before"
    assert list(figures(report)) == ["perplexity"]


async def test_a_row_asks_for_its_last_trained_answer(stage: Stage) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": text},
                {"role": "assistant", "content": label},
                {"role": "user", "content": "Thank you!"},
                {"role": "assistant", "content": "You are welcome.", "weight": 0},
            ]
        }
        for text, label in ROWS
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (stage.datasets_dir / "rows.jsonl").write_text(lines)
    await stage.active()
    async with stage.evaluating():
        report = await stage.report("support-1")

    assert sorted(stage.questions("support@1")) == sorted(ASIDE)
    assert figures(report)["accuracy"] == (0.0, 1.0)


async def test_generation_is_judged_with_perplexity_too(stage: Stage) -> None:
    rows = [
        (f"Describe thing {number}.", f"A thing of the {number}th kind, well made.") for number in range(40)
    ]
    write_rows(stage.datasets_dir / "rows.jsonl", rows)
    await stage.active()
    async with stage.evaluating():
        report = await stage.report("support-1")

    assert report.task == Task.GENERATION
    assert list(figures(report)) == ["chrf", "rouge_l", "perplexity"]
    assert report.figures[-1].higher_is_better is False
    assert min(figures(report)["perplexity"]) > 1


async def test_answers_beyond_the_context_have_the_perplexity_of_what_fits_into_it(stage: Stage) -> None:
    rows = [(f"Tell me story {number}.", f"Story {number}: " + "and then " * 250) for number in range(40)]
    write_rows(stage.datasets_dir / "rows.jsonl", rows)
    await stage.active()
    async with stage.evaluating():
        report = await stage.report("support-1")

    assert list(figures(report)) == ["chrf", "rouge_l", "perplexity"]
    assert (report.rows, report.refused_rows) == (4, 0)


async def test_of_plain_texts_only_the_perplexity_is_told(stage: Stage) -> None:
    stage.write_texts("texts", [f"A plain text, number {number}, of some words." for number in range(30)])
    row = replace(dataset("texts"), kind=RecordKind.TEXT)
    await stage.serving.registry.create_dataset(row)
    await stage.active()
    new = NewEvaluation(adapter_id="support", number=1, dataset_id="texts")
    await stage.serving.registry.evaluations.create(new)
    async with stage.evaluating():
        report = await stage.report("support-1")

    assert list(figures(report)) == ["perplexity"]
    assert (report.rows, report.held_out_rows) == (20, 30)
    assert stage.questions("support@1") == []


async def test_preferences_are_judged_by_how_probable_both_answers_are(stage: Stage) -> None:
    pairs = [(f"question {number}", f"wanted {number}", f"other {number}!") for number in range(12)]
    rows = [{"prompt": ask, "chosen": chosen, "rejected": other} for ask, chosen, other in pairs]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (stage.datasets_dir / "pairs.jsonl").write_text(lines)
    await stage.serving.registry.create_dataset(replace(dataset("pairs"), kind=RecordKind.PREFERENCES))
    await stage.active(b"weights of one")
    await stage.serving.registry.evaluations.create(
        NewEvaluation(adapter_id="support", number=1, dataset_id="pairs")
    )
    async with stage.evaluating():
        report = await stage.report("support-1")

    def margin(weights: bytes | None, question: str, chosen: str, other: str) -> float:
        wanted, unwanted = (told(weights, question, answer) for answer in (chosen, other))
        return wanted - unwanted

    def told(weights: bytes | None, question: str, answer: str) -> float:
        turns = [Turn(role="user", content=question), Turn(role="assistant", content=answer, trained=True)]
        row = stage.renderer.training_row(turns)
        values = logprobs(weights, row.token_ids)
        return sum(value for value, counts in zip(values, row.trained[1:], strict=True) if counts)

    expected = {weights: [margin(weights, *pair) for pair in pairs] for weights in (None, b"weights of one")}
    assert list(figures(report))[:2] == ["preference_accuracy", "preference_margin"]
    accuracies, means = (figures(report)[name] for name in ("preference_accuracy", "preference_margin"))
    assert accuracies == tuple(sum(each > 0 for each in margins) / 12 for margins in expected.values())
    assert means == pytest.approx([sum(margins) / 12 for margins in expected.values()], abs=0.05)
    assert report.summary.startswith("preference accuracy from")
    assert report.rows == 12


async def test_pieces_of_texts_that_fill_the_context_are_measured_too(stage: Stage) -> None:
    long = "".join(f"{number} and so on, " for number in range(1000))
    stage.write_texts("long", [long] * 2)
    await stage.serving.registry.create_dataset(replace(dataset("long"), kind=RecordKind.TEXT))
    await stage.active()
    await stage.serving.registry.evaluations.create(
        NewEvaluation(adapter_id="support", number=1, dataset_id="long")
    )
    async with stage.evaluating():
        report = await stage.report("support-1")

    pieces = 2 * -(-len(long) // (2048 - 1))
    assert (report.rows, report.held_out_rows, report.refused_rows) == (pieces, pieces, 0)
    assert list(figures(report)) == ["perplexity"]


async def test_a_prompt_tuned_version_has_a_perplexity_over_a_few_tokens_of_each_row(stage: Stage) -> None:
    stage.write_texts("texts", [f"A plain text, number {number}, of some words." for number in range(30)])
    serving = stage.serving
    serving.double.respond = None  # it cannot read the prompts, which are embeddings
    await serving.registry.create_dataset(replace(dataset("texts"), kind=RecordKind.TEXT))
    digest = serving_stage.write_prompt(serving.artifacts_dir, 1)
    tuned = await serving_stage.register(serving.registry, digest, rank=0, technique=Technique.PROMPT_TUNING)
    await serving.outcome(tuned)
    await serving.is_served(tuned)
    await serving.registry.evaluations.create(
        NewEvaluation(adapter_id="support", number=1, dataset_id="texts")
    )
    asked = serving.double.calls["/v1/completions"]
    async with stage.evaluating():
        report = await stage.report("support-1")

    base, adapter = figures(report)["perplexity"]
    assert (report.rows, report.refused_rows) == (20, 0)
    assert 1 < base < adapter, "virtual tokens make everything less probable in the double"
    asked = serving.double.calls["/v1/completions"] - asked
    assert asked == 20 * (1 + 8) + 2 * len(ITEMS), "the base tells all tokens at once, the version one by one"


async def test_where_nothing_was_held_out_only_general_questions_are_asked(stage: Stage) -> None:
    write_rows(stage.datasets_dir / "rows.jsonl", ROWS[:1])
    await stage.active()
    async with stage.evaluating():
        report = await stage.report("support-1")

    assert (report.rows, report.figures) == (0, ())
    assert report.general_skill.items == len(ITEMS)
    assert report.summary.startswith("No rows were held out")


async def test_an_evaluation_whose_owner_fell_silent_goes_on_with_the_answers_that_are_there(
    stage: Stage,
) -> None:
    await stage.active()
    evaluations = stage.serving.registry.evaluations
    stage.serving.double.hold = asyncio.Event()  # answers begin and do not end
    (row,) = await evaluations.create_missing()
    claimed = await evaluations.claim("a service that was killed")
    assert claimed is not None
    stage.serving.double.hold.set()
    async with stage.evaluating():
        await stage.report(row.id)

    ended = await evaluations.get(row.id)
    assert ended.epoch > claimed.epoch
    with pytest.raises(WrongState):
        await evaluations.succeed(claimed, "{}")


async def test_a_service_that_stops_gives_its_evaluation_back_and_the_next_asks_only_what_is_missing(
    stage: Stage,
) -> None:
    await stage.active()
    evaluations, double = stage.serving.registry.evaluations, stage.serving.double
    asked_before = 10

    def stalling(fields: Mapping[str, object]) -> tuple[str]:
        if len(stage.asked) >= asked_before:
            double.hold = double.hold or asyncio.Event()
        return stage.respond(fields)

    double.respond = stalling
    async with stage.evaluating():

        async def stalled() -> bool:
            return double.hold is not None

        await until_reached(stage.serving.changes, "polled", stalled)
    assert (await evaluations.get("support-1")).state == EvaluationState.QUEUED
    assert double.hold is not None
    double.hold.set()
    double.hold, double.respond = None, stage.respond
    before = Counter(stage.asked)
    async with stage.evaluating():
        await stage.report("support-1")

    twice = [ask for ask, number in Counter(stage.asked).items() if number > 1 and ask[1] in ASIDE]
    assert len(twice) <= QUICK.concurrency
    assert sum(before.values()) >= asked_before


async def test_an_engine_that_stays_away_fails_the_evaluation_with_a_reason(stage: Stage) -> None:
    await stage.active()
    stage.serving.double.stalled_completions = False
    stage.serving.double.faults.error_event_at = 0
    async with stage.evaluating():
        row = await stage.ended("support-1")

    assert (row.state, row.failure_reason) == (EvaluationState.FAILED, "ENGINE_AWAY")
    assert "ask for the evaluation again" in (row.failure_message or "")


async def test_a_version_that_is_retired_meanwhile_fails_the_evaluation_with_a_reason(stage: Stage) -> None:
    version = await stage.active()
    await stage.serving.registry.evaluations.create_missing()
    await stage.serving.registry.request_unload("support", version.number)
    await stage.serving.outcome(version, {VersionState.RETIRED})
    async with stage.evaluating():
        row = await stage.ended("support-1")

    assert (row.state, row.failure_reason) == (EvaluationState.FAILED, "VERSION_NOT_SERVED")
    assert "RETIRED" in (row.failure_message or "")


async def test_a_deleted_dataset_fails_the_evaluation_with_a_reason(stage: Stage) -> None:
    await stage.active()
    await stage.serving.registry.delete_dataset("rows")
    async with stage.evaluating():
        row = await stage.ended("support-1")

    assert (row.state, row.failure_reason) == (EvaluationState.FAILED, "DATASET_GONE")


async def test_only_one_answer_is_asked_for_while_a_person_is_being_answered(stage: Stage) -> None:
    await stage.active()
    double = stage.serving.double
    double.hold = asyncio.Event()
    person = ChatTurn(messages=(ChatMessage(role="user", content="hello billing"),))
    answer = stage.chat.stream(person)
    await anext(answer)  # the person's answer has begun, and is held
    async with stage.evaluating():

        async def begun() -> bool:
            return double.streams == 2

        await until_reached(stage.serving.changes, "polled", begun)
        for _ in range(20):
            await stage.serving.changes.wait("polled", stage.serving.changes.seen("polled"), 0.01)
            assert double.streams == 2
        double.hold.set()
        assert "".join([delta.text async for delta in answer]) == ""
        await stage.report("support-1")


async def test_versions_are_not_evaluated_by_themselves_where_that_is_switched_off(stage: Stage) -> None:
    await stage.active()
    evaluations = stage.serving.registry.evaluations
    async with stage.evaluating(replace(QUICK, rows=0)):
        asked = await evaluations.create(NewEvaluation(adapter_id="support", number=1))
        await stage.active(b"weights of another")
        await stage.report(asked.id)

    assert [row.id for row in (await evaluations.listing()).rows] == ["support-1"]


async def test_evaluations_are_listed_newest_first_by_adapter_and_version(stage: Stage) -> None:
    for weights in (b"one", b"other"):
        await stage.active(weights)
    evaluations = stage.serving.registry.evaluations
    await evaluations.create_missing()

    first = await evaluations.listing(limit=1, adapter_id="support")
    rest = await evaluations.listing(limit=1, adapter_id="support", cursor=first.next_cursor)

    assert [row.id for row in (*first.rows, *rest.rows)] == ["support-2", "support-1"]
    assert rest.next_cursor == ""
    assert [row.id for row in (await evaluations.listing(adapter_id="support", number=1)).rows] == [
        "support-1"
    ]
    assert (await evaluations.listing(adapter_id="other")).rows == ()
