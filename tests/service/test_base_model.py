"""The base model is found by a child process whose answer and last words are heard."""

import sys
from pathlib import Path

import pytest

from service.base_model import resolve_base_model, resolve_base_models
from service.errors import HotloraError
from service.settings import Settings
from trainer.config import BaseModel

ANSWER = (
    "import sys, json; print('converting', file=sys.stderr); "
    "print(json.dumps({'name': sys.argv[2], 'path': sys.argv[4], 'revision': 'sha256:1', "
    "'max_model_length': 2048}))"
)


def child(code: str) -> tuple[str, ...]:
    """A child that runs `code` with the arguments of the real one."""
    return (sys.executable, "-c", code)


async def test_the_childs_answer_is_the_base_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base, length = await resolve_base_model("tiny", tmp_path, command=child(ANSWER))
    assert (base, length) == (BaseModel(name="tiny", path=tmp_path, revision="sha256:1"), 2048)
    assert "converting" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; print('error: no such model', file=sys.stderr); sys.exit(1)", "^no such model$"),
        ("import sys; sys.exit(7)", "exit code 7"),
        ("print('hello')", "no usable answer"),
        ("print('{}')", "no usable answer"),
    ],
)
async def test_a_child_without_an_answer_is_an_error_in_its_own_words(
    tmp_path: Path, code: str, message: str
) -> None:
    with pytest.raises(HotloraError, match=message) as refused:
        await resolve_base_model("tiny", tmp_path, command=child(code))
    assert refused.value.reason == "BASE_MODEL_ERROR"


async def test_a_child_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(HotloraError, match=r"0\.2 seconds"):
        await resolve_base_model(
            "tiny", tmp_path, command=child("import time; time.sleep(60)"), timeout_seconds=0.2
        )


async def test_all_base_models_are_found_in_the_order_of_the_settings(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path,
        base_model="one",
        more_base_models=("two", "three"),
        engine_urls=("http://127.0.0.1:1", "two=http://127.0.0.1:2"),
    )
    found = await resolve_base_models(settings, command=child(ANSWER))
    assert [base.name for base, _ in found] == ["one", "two", "three"]


async def test_base_models_of_one_name_and_engines_of_none_are_refused(tmp_path: Path) -> None:
    for fields, message in (
        ({"more_base_models": ("one",)}, "the same name, among one, one"),
        ({"engine_urls": ("two=http://127.0.0.1:2",)}, "has engines of two; there is one"),
    ):
        settings = Settings.model_validate({"home": tmp_path, "base_model": "one", **fields})
        with pytest.raises(HotloraError, match=message):
            await resolve_base_models(settings, command=child(ANSWER))
