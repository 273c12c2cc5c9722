"""Rows to train on, out of a dataset's file."""

import itertools
from pathlib import Path

import pytest

from tests.unit.rendering_families import CHATML_TEMPLATE, write_byte_level
from trainer.rendering import Renderer
from trainer.rows import DataError, load_rows

NAMES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture
def renderer(tmp_path: Path) -> Renderer:
    directory = tmp_path / "base"
    return Renderer.from_directory(
        write_byte_level(directory, CHATML_TEMPLATE, NAMES, bos=None, eos=NAMES[0])
    )


@pytest.mark.parametrize("max_length", [2, 3, 7, 1000])
def test_a_long_text_is_cut_into_rows_that_predict_each_token_but_the_first_once(
    tmp_path: Path, renderer: Renderer, max_length: int
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "The shop is open until six, and on Saturdays until noon."}\n')
    whole = renderer.text_row("The shop is open until six, and on Saturdays until noon.").token_ids

    rows = load_rows(path, renderer, max_length=max_length)

    assert max(len(row.token_ids) for row in rows) == min(max_length, len(whole))
    predicted = [
        token for row in rows for token, trained in zip(row.token_ids, row.trained, strict=True) if trained
    ]
    assert predicted == list(whole[1:])
    for row, following in itertools.pairwise(rows):
        assert following.token_ids[0] == row.token_ids[-1]


def test_preferences_are_no_rows(tmp_path: Path, renderer: Renderer) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "Open?", "chosen": "Yes.", "rejected": "No."}\n')

    with pytest.raises(DataError, match="line 1 is a preference"):
        load_rows(path, renderer, max_length=512)
