"""Prompt-tuned versions: proven through the engine's embeddings field, and answering like every other."""

import asyncio
import base64
import io
import json
import struct
from pathlib import Path

import pytest

from service.artifacts import Form, Manifest
from service.engine.embeddings import Dtype, PromptEmbeddings
from service.errors import InvalidRequest
from service.registry import VersionState
from service.serving import ChatMessage, ChatTurn
from service.serving.soft_prompts import EmbeddingTable, NoPlainEmbeddingsError, SoftPrompt
from tests.service.serving_stage import (
    EMBEDDINGS,
    register,
    safetensors,
    stage,
    write_artifact,
    write_base,
    write_prompt,
)

HELLO = (ChatMessage(role="user", content="hello world"),)
INFINITE = struct.pack("<f", float("inf"))[2:]


async def test_a_prompt_tuned_version_is_proven_and_answers_under_its_name(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        digest = write_prompt(on.artifacts_dir, 1)
        row = await on.outcome(await register(on.registry, digest, rank=0))

        assert (row.state, row.failure_message) == (VersionState.ACTIVE, None)
        figures = row.verification
        assert figures is not None
        assert figures.tokens == 16 + 16
        assert figures.adapter_difference <= figures.tolerance < figures.effect
        answer = await on.answer("support")
        assert answer[-1].model == "support@1"
        assert on.double.adapters == {}
        assert on.double.calls["/v1/load_lora_adapter"] == 0


async def test_its_virtual_tokens_take_places_of_the_context(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        row = await on.outcome(await register(on.registry, write_prompt(on.artifacts_dir, 1, tokens=7)))
        length = next(model.max_model_length for model in await on.chat.models() if model.id == row.model)
        rendered = (await on.answer("support"))[-1].prompt_tokens
        turn = ChatTurn(model="support", messages=HELLO, max_tokens=length - rendered + 1)

        assert length == 2048 - 7
        with pytest.raises(InvalidRequest, match=f"up to {length - rendered} would"):
            await anext(on.chat.stream(turn))


async def test_each_bad_one_fails_with_its_own_reason_and_is_forgotten(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        artifacts = on.artifacts_dir
        flipped = write_prompt(artifacts, 1)
        with (artifacts / flipped / "adapter_model.safetensors").open("r+b") as file:
            file.seek(-1, io.SEEK_END)
            file.write(b"\x41")
        digests = {
            "flipped": (flipped, "CORRUPT"),
            "narrow": (write_prompt(artifacts, 2, width=1), "CORRUPT"),
            "short": (write_prompt(artifacts, 3, says_tokens=4), "CORRUPT"),
            "infinite": (write_prompt(artifacts, 4, harm=INFINITE), "CORRUPT"),
            "endless": (write_prompt(artifacts, 5, tokens=2048), "LOAD_REFUSED"),
            "swapped": (write_prompt(artifacts, 6, canary_seed=7), "WRONG_WEIGHTS"),
        }
        rows = {
            name: await register(on.registry, digest, adapter_id=name)
            for name, (digest, _) in digests.items()
        }

        found = {name: (await on.outcome(row)).failure_reason for name, row in rows.items()}

        assert found == {name: reason for name, (_, reason) in digests.items()}
        async with asyncio.timeout(10):
            while on.bases.default.routes.held(on.engine):
                await on.changes.wait("polled", 0, 0.02)


async def test_an_engine_that_ignores_the_virtual_tokens_is_found_out(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.double.faults.deaf_to_virtual_tokens = True
        row = await on.outcome(await register(on.registry, write_prompt(on.artifacts_dir, 1)))

        assert row.failure_reason == "NO_EFFECT"


async def test_an_engine_that_takes_no_embeddings_says_so(tmp_path: Path) -> None:
    async with stage(tmp_path, supervised=False) as on:
        on.double.faults.without_prompt_embeds = True
        row = await on.outcome(await register(on.registry, write_prompt(on.artifacts_dir, 1)))

        assert row.failure_reason == "LOAD_REFUSED"
        assert "--enable-prompt-embeds" in str(row.failure_message)


async def test_after_an_engine_restart_it_is_proven_again_before_it_answers(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        row = await on.outcome(await register(on.registry, write_prompt(on.artifacts_dir, 1)))
        asked = on.double.calls["/v1/completions"]
        await on.engine.restart()
        assert not on.served.holds(row.model)

        await on.is_served(row)

        # Of the first sequence: sixteen places, and the base.
        assert on.double.calls["/v1/completions"] >= asked + 16 + 1


async def test_it_lives_beside_adapters_and_is_unloaded_and_deleted_like_them(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        adapter = await on.outcome(await register(on.registry, write_artifact(on.artifacts_dir, b"w")))
        prompt = await on.outcome(
            await register(on.registry, write_prompt(on.artifacts_dir, 1), adapter_id="tuned")
        )
        assert on.bases.default.routes.held(on.engine).keys() == {prompt.model}
        assert [delta.model for delta in await on.answer("support")][-1] == adapter.model

        await on.registry.request_unload("tuned", 1)
        await on.outcome(prompt, {VersionState.RETIRED})
        assert on.bases.default.routes.held(on.engine) == {}
        await on.registry.request_load("tuned", 1)
        await on.outcome(prompt, {VersionState.ACTIVE})
        await on.registry.delete_adapter("tuned")
        await on.outcome(prompt, {VersionState.RETIRED})

        assert on.bases.default.routes.held(on.engine) == {}
        assert on.served.holds(adapter.model)


def test_the_manifest_says_what_it_is(tmp_path: Path) -> None:
    manifest = Manifest.read(tmp_path / write_prompt(tmp_path, 1, tokens=5))

    assert (manifest.form, manifest.rank, manifest.virtual_tokens) == (Form.PROMPT, 0, 5)


@pytest.mark.parametrize("dtype", list(Dtype))
def test_what_goes_to_the_engine_is_what_torch_would_have_written(dtype: Dtype) -> None:
    import torch  # noqa: PLC0415

    kind = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[dtype]
    tensor = torch.randn(300, 7, generator=torch.Generator().manual_seed(1)).to(kind)
    rows = tensor.view(torch.uint8).numpy().tobytes()

    encoded = PromptEmbeddings(rows=rows, width=7, dtype=dtype).encoded()

    read = torch.load(io.BytesIO(base64.b64decode(encoded)), weights_only=True)
    assert read.dtype == kind
    assert torch.equal(read, tensor)


@pytest.mark.parametrize(
    ("dtype", "written"),
    [(Dtype.BFLOAT16, b"\xc0\x3f"), (Dtype.FLOAT16, b"\x00\x3e"), (Dtype.FLOAT32, b"\x00\x00\xc0\x3f")],
)
def test_virtual_tokens_take_the_numbers_of_the_bases_table(
    tmp_path: Path, dtype: Dtype, written: bytes
) -> None:
    numbers = b"\0" * 2 * dtype.size * 4
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 2}))
    (tmp_path / "model.safetensors").write_bytes(safetensors("wte.weight", dtype, [4, 2], numbers))
    artifact = tmp_path / write_prompt(tmp_path, 1, tokens=1, harm=b"\xc0\x3f" * 2)

    prompt = EmbeddingTable(tmp_path).read_prompt(artifact, 1)

    assert prompt.rows == written * 2  # 1.5, twice


def test_a_prompt_is_its_virtual_tokens_and_then_the_rows_of_its_token_ids(tmp_path: Path) -> None:
    table = EmbeddingTable(write_base(tmp_path).path)

    composed = table.compose(SoftPrompt(rows=b"v" * 8, tokens=1), [5, 127, 0])

    assert composed.rows == b"v" * 8 + EMBEDDINGS[5] + EMBEDDINGS[127] + EMBEDDINGS[0]
    assert composed.tokens == 4


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "gemma3_text", "hidden_size": 2}, "gemma3_text change embeddings"),
        ({"model_type": "opt", "hidden_size": 4}, "the layers take 4"),
    ],
)
def test_a_base_whose_rows_are_not_what_its_layers_get_is_refused_with_the_reason(
    tmp_path: Path, config: dict[str, object], says: str
) -> None:
    base = write_base(tmp_path)
    (base.path / "config.json").write_text(json.dumps(config))

    with pytest.raises(NoPlainEmbeddingsError, match=says):
        EmbeddingTable(base.path)


def test_a_base_without_a_known_table_is_refused_by_the_names_that_are_looked_for(tmp_path: Path) -> None:
    base = write_base(tmp_path)
    (base.path / "model.safetensors").write_bytes(safetensors("x", "F32", [1, 2], b"\0" * 8))

    with pytest.raises(NoPlainEmbeddingsError, match=r"wte\.weight"):
        EmbeddingTable(base.path)


def test_a_table_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path)
    whole = (base.path / "model.safetensors").read_bytes()
    (base.path / "model.safetensors").write_bytes(whole[:-1])

    with pytest.raises(NoPlainEmbeddingsError, match="not a whole safetensors file"):
        EmbeddingTable(base.path)
