"""The base model is found by a child process whose answer and last words are heard."""

import sys
from pathlib import Path

import pytest

from service.base_model import resolve_base_model
from service.errors import HotloraError
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
