"""Several base models at once: each version lives on the engines of its own base, is written for by its own
template, and what befalls one base takes nothing from another."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import InvalidRequest, Unavailable, WrongState
from service.evaluation import Evaluator, Limits
from service.registry import EvaluationRow, Imported, VersionRow, VersionState
from service.registry.states import EVALUATION_ENDED
from service.serving import ChatMessage, ChatTurn, Serving
from tests.doubles.engine import EngineDouble
from tests.service.own_engines_stage import own_stage
from tests.service.registry_stage import until as until_reached
from tests.service.serving_stage import MODEL, Stage, register, stage, write_artifact, write_model
from tests.service.test_gateway_tools import QWEN, WEATHER
from tests.tiny_renderer import CHATML
from trainer.config import Technique

OTHER = "other"
HELLO = (ChatMessage(role="user", content="hello world"),)
SHOUTING = CHATML.replace("{{ message.content }}", "{{ message.content | upper }}")


async def _publish(on: Stage, adapter_id: str, base_model: str, template: str | None = None) -> VersionRow:
    """A version of that base, PENDING; `template` is the base's."""
    digest = write_artifact(
        on.artifacts_dir,
        f"{adapter_id} of {base_model}".encode(),
        base=replace(MODEL, name=base_model),
        template=template,
    )
    return await register(on.registry, digest, adapter_id=adapter_id, base_model=base_model)


async def _answer(on: Stage, model: str) -> str:
    """The model that answered."""
    async with aclosing(on.chat.stream(ChatTurn(model=model, messages=HELLO))) as deltas:
        return {delta.model async for delta in deltas}.pop()


def _heard(double: EngineDouble) -> list[Mapping[str, object]]:
    """What an engine is asked for from now on."""
    asked: list[Mapping[str, object]] = []

    def respond(fields: Mapping[str, object]) -> Sequence[str]:
        asked.append(fields)
        return ("yes",)

    double.respond = respond
    return asked


async def test_a_version_is_loaded_and_proven_by_the_engines_of_its_own_base_alone(tmp_path: Path) -> None:
    async with stage(tmp_path, more_bases={OTHER: None}) as on:
        one = await on.outcome(await _publish(on, "one", MODEL.name))
        two = await on.outcome(await _publish(on, "two", OTHER))
        await on.is_served_by(on.engine, row=one)
        await on.is_served_by(on.others[OTHER], row=two)

        assert (one.state, two.state) == (VersionState.ACTIVE, VersionState.ACTIVE)
        assert (one.base_model, two.base_model) == (MODEL.name, OTHER)
        assert set(on.double.adapters) == {"one@1"}
        assert set(on.others[OTHER].double.adapters) == {"two@1"}
        told = {replica.name: (replica.base_model, replica.models) for replica in on.chat.replicas()}
        assert told == {
            "double-1": (MODEL.name, ("one@1",)),
            f"double-of-{OTHER}": (OTHER, ("two@1",)),
        }


async def test_each_base_and_its_versions_answer_from_its_engine_in_its_own_template(tmp_path: Path) -> None:
    async with stage(tmp_path, template=CHATML, more_bases={OTHER: SHOUTING}) as on:
        for name, base, template in (("one", MODEL.name, CHATML), ("two", OTHER, SHOUTING)):
            row = await on.outcome(await _publish(on, name, base, template))
            assert row.state == VersionState.ACTIVE, row.failure_message
            await on.is_served(row)
        engines = (on.double, on.others[OTHER].double)
        heard = [_heard(double) for double in engines]
        renderers = [base.renderer for base in on.bases]

        for name, expected in (("", MODEL.name), (MODEL.name,) * 2, (OTHER, OTHER)):
            assert await _answer(on, name) == expected
        assert await _answer(on, "one") == "one@1"
        assert await _answer(on, "two") == "two@1"

        assert [[fields["model"] for fields in asked] for asked in heard] == [
            [MODEL.name, MODEL.name, "one@1"],
            [OTHER, "two@1"],
        ]
        for asked, renderer, text in zip(heard, renderers, ("hello world", "HELLO WORLD"), strict=True):
            for fields in asked:
                prompt = fields["prompt"]
                assert isinstance(prompt, list)
                assert text in renderer.decode(prompt)


async def test_a_version_of_another_template_is_refused_by_its_own_base(tmp_path: Path) -> None:
    async with stage(tmp_path, template=CHATML, more_bases={OTHER: SHOUTING}) as on:
        row = await on.outcome(await _publish(on, "two", OTHER, CHATML))
        assert (row.state, row.failure_reason) == (VersionState.FAILED, "WRONG_RENDERING")


async def test_an_engine_that_is_gone_takes_no_answer_from_another_base(tmp_path: Path) -> None:
    async with stage(tmp_path, more_bases={OTHER: None}) as on:
        for name, base in (("one", MODEL.name), ("two", OTHER)):
            await on.is_served(await on.outcome(await _publish(on, name, base)))
        await on.others[OTHER].go()

        assert await _answer(on, "one") == "one@1"
        assert await _answer(on, "") == MODEL.name
        for name in (OTHER, "two"):
            with pytest.raises(Unavailable):
                await _answer(on, name)
        listed = {model.id: model.serving for model in await on.chat.models()}
        assert listed == {
            MODEL.name: Serving.READY,
            OTHER: Serving.STARTING,
            "one@1": Serving.READY,
            "two@1": Serving.STARTING,
        }
        row = await on.outcome(await _publish(on, "one", MODEL.name))
        assert row.state == VersionState.ACTIVE

        await on.others[OTHER].come_back()
        await on.soon(lambda: bool(on.served.engines("two@1")))
        assert await _answer(on, "two") == "two@1"


async def test_versions_of_a_base_that_is_not_there_wait_for_it(tmp_path: Path) -> None:
    async with stage(tmp_path, more_bases={OTHER: None}) as on:
        kept = await on.outcome(await _publish(on, "kept", OTHER))
        dropped = await on.outcome(await _publish(on, "dropped", OTHER))
    async with stage(tmp_path) as on:
        with pytest.raises(WrongState, match=f"'{OTHER}'.*{MODEL.name}") as refused:
            await _answer(on, "kept")
        assert refused.value.reason == "BASE_NOT_SERVED"
        listed = {model.id: (model.base_model, model.serving) for model in await on.chat.models()}
        assert listed["kept@1"] == (OTHER, Serving.NONE)
        digest = write_artifact(on.artifacts_dir, b"pending", base=replace(MODEL, name=OTHER))
        pending = await on.registry.import_version(
            Imported(adapter_id="pending", base_model=OTHER, rank=4, digest=digest, size_bytes=1)
        )
        await on.registry.request_unload("dropped", 1)
        assert (await on.outcome(dropped, {VersionState.RETIRED})).state == VersionState.RETIRED
        assert (await on.row(kept)).state == VersionState.ACTIVE
        assert (await on.row(pending)).state == VersionState.PENDING
        assert on.double.calls["/v1/load_lora_adapter"] == 0
    async with stage(tmp_path, more_bases={OTHER: None}) as on:
        await on.is_served_by(on.others[OTHER], row=kept)
        assert (await on.outcome(pending)).state == VersionState.ACTIVE
        assert await _answer(on, "kept") == "kept@1"


async def test_a_whole_model_is_compared_with_the_base_that_it_came_from(tmp_path: Path) -> None:
    async with own_stage(tmp_path, more_bases={OTHER: None}) as (on, _):
        digest = write_model(on.artifacts_dir, b"whole", base=replace(MODEL, name=OTHER))
        before = on.others[OTHER].double.calls["/v1/completions"]
        row = await register(
            on.registry, digest, adapter_id="whole", rank=0, technique=Technique.FULL, base_model=OTHER
        )
        row = await on.outcome(row)

        assert row.state == VersionState.ACTIVE, row.failure_message
        assert on.others[OTHER].double.calls["/v1/completions"] > before
        assert on.double.calls["/v1/completions"] == 0
        assert await _answer(on, "whole") == "whole@1"


async def test_tools_are_offered_where_the_template_of_the_version_has_them(tmp_path: Path) -> None:
    async with stage(tmp_path, template=CHATML, more_bases={OTHER: QWEN}) as on:
        turn = ChatTurn(model=OTHER, messages=HELLO, tools=(WEATHER,))
        async with aclosing(on.chat.stream(turn)) as deltas:
            assert [delta async for delta in deltas][-1].finish_reason is not None
        with pytest.raises(InvalidRequest, match=r"^tools: is not supported: .* takes no tools"):
            await anext(on.chat.stream(replace(turn, model=MODEL.name)))


@asynccontextmanager
async def _evaluating(on: Stage, datasets_dir: Path) -> AsyncIterator[None]:
    """An evaluator at work, and rows for it."""
    datasets_dir.mkdir()
    row = '{"messages": [{"role": "user", "content": "a %d"}, {"role": "assistant", "content": "b"}]}\n'
    (datasets_dir / "rows.jsonl").write_text("".join(row % number for number in range(40)))
    evaluator = Evaluator(
        registry=on.registry,
        changes=on.changes,
        chat=on.chat,
        served=on.served,
        bases=on.bases,
        datasets_dir=datasets_dir,
        limits=Limits(period_seconds=0.1),
    )
    task = asyncio.create_task(evaluator.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _report_on(on: Stage, adapter_id: str) -> EvaluationRow:
    """The evaluation of its first version, once it has ended."""
    found: list[EvaluationRow] = []

    async def reached() -> bool:
        page = await on.registry.evaluations.listing(limit=1, adapter_id=adapter_id, number=1)
        found[:] = [each for each in page.rows if each.state in EVALUATION_ENDED]
        return bool(found)

    await until_reached(on.changes, "polled", reached)
    return found[0]


async def test_a_version_is_evaluated_against_its_own_base(tmp_path: Path) -> None:
    async with stage(tmp_path, template=CHATML, more_bases={OTHER: CHATML}) as on:
        heard = [_heard(on.double), _heard(on.others[OTHER].double)]
        row = await on.outcome(await _publish(on, "two", OTHER, CHATML))
        assert row.state == VersionState.ACTIVE, row.failure_message
        await on.is_served(row)
        async with _evaluating(on, tmp_path / "datasets"):
            evaluation = await _report_on(on, "two")

        assert evaluation.report is not None, evaluation.failure_message
        assert not heard[0]
        assert {fields["model"] for fields in heard[1]} == {OTHER, "two@1"}


async def test_a_version_whose_base_is_away_holds_up_no_report_of_another_and_gets_its_own_later(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path, template=CHATML, more_bases={OTHER: CHATML}) as on:
        for name, base in (("two", OTHER), ("one", MODEL.name)):
            await on.is_served(await on.outcome(await _publish(on, name, base, CHATML)))
        await on.others[OTHER].go()
        async with _evaluating(on, tmp_path / "datasets"):
            assert (await _report_on(on, "one")).report is not None
            await on.others[OTHER].come_back()
            assert (await _report_on(on, "two")).report is not None


async def test_a_whole_model_whose_base_is_away_takes_no_place_from_others(tmp_path: Path) -> None:
    async with own_stage(tmp_path, more_bases={OTHER: None}, own_engines=1) as (on, row):
        await on.others[OTHER].go()
        stuck = await register(
            on.registry,
            write_model(on.artifacts_dir, b"stuck", base=replace(MODEL, name=OTHER)),
            adapter_id="stuck",
            rank=0,
            technique=Technique.FULL,
            base_model=OTHER,
        )
        other = await register(
            on.registry,
            write_model(on.artifacts_dir, b"free"),
            adapter_id="free",
            rank=0,
            technique=Technique.FULL,
        )
        assert (await on.outcome(other)).state == VersionState.ACTIVE
        assert (await on.row(stuck)).state == VersionState.PENDING
        assert {engine.name for engine in row.engines} == {"free@1"}
        row.now += 1_000
        await on.others[OTHER].come_back()
        assert (await on.outcome(stuck)).state == VersionState.ACTIVE


async def test_files_are_deleted_only_where_nobody_else_can_have_been_told_of_them(tmp_path: Path) -> None:
    async with stage(tmp_path, supervised=False, more_bases={OTHER: None}) as on:
        digests = []
        for name, base in (("one", MODEL.name), ("two", OTHER)):
            row = await on.outcome(await _publish(on, name, base))
            await on.is_served(row)
            digests.append(row.digest)
    async with stage(tmp_path) as on:  # the other base is gone, and the one has engines of its own now
        await on.is_served_by(on.engine, row=await on.registry.get_version("one", 1))
        for name in ("one", "two"):
            await on.registry.delete_adapter(name)
        one, two = (on.artifacts_dir / digest for digest in digests)
        await on.soon(lambda: "one@1" not in on.double.adapters)
        await on.engine.restart()
        await on.soon(lambda: not one.exists())
        assert two.is_dir()
