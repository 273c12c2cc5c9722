"""Rendering, proven against transformers to the token: what is served, what is trained, what carries loss."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tests.unit.rendering_families import (
    CHATML_TEMPLATE,
    MISTRAL_TEMPLATE,
    special_tokens_in,
    trl_templates,
    write_byte_level,
    write_sentencepiece,
)
from trainer.records import Turn
from trainer.rendering import Renderer, RenderingError, TrainingRow
from trainer.rendering.template import PLAIN_TEMPLATE

TEMPLATES = trl_templates()
WANTS_PARTS = {
    "idefics3",
    "idefics3_training",
    "llava_next",
    "llava_next_training",
    "smolvlm",
    "smolvlm_training",
}
"""Templates of vision models, for which a message's content is a list of parts."""

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True, kw_only=True)
class Base:
    """The same directory, read by us and by transformers."""

    renderer: Renderer
    reference: PreTrainedTokenizerBase

    def reference_ids(self, messages: Sequence[Turn], *, generation_prompt: bool) -> list[int]:
        conversation = [{"role": turn.role, "content": turn.content} for turn in messages]
        encoded = self.reference.apply_chat_template(
            conversation, tokenize=True, add_generation_prompt=generation_prompt
        )
        return list(encoded["input_ids"])


def read(directory: Path) -> Base:
    return Base(
        renderer=Renderer.from_directory(directory), reference=AutoTokenizer.from_pretrained(directory)
    )


def smollm2(_: Path, base_model_dir: Path) -> Path:
    return base_model_dir


def llama3(directory: Path, _: Path) -> Path:
    names = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"]
    return write_byte_level(
        directory,
        TEMPLATES["llama3"],
        names,
        bos=names[0],
        eos=names[-1],
        prepends_bos=True,
        split=LLAMA3_SPLIT,
    )


def qwen(directory: Path, _: Path) -> Path:
    return write_byte_level(
        directory,
        TEMPLATES["qwen2_5"],
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        bos=None,
        eos="<|im_end|>",
        split=QWEN_SPLIT,
        normalizer=normalizers.NFC(),
        tokenizer_class="Qwen2Tokenizer",
    )


def chatml(directory: Path, _: Path) -> Path:
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return write_byte_level(directory, CHATML_TEMPLATE, names, bos="<|endoftext|>", eos="<|endoftext|>")


def gemma(directory: Path, _: Path) -> Path:
    names = ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
    return write_sentencepiece(
        directory, TEMPLATES["gemma"], names, prefix_space=False, bos="<bos>", eos="<eos>"
    )


def mistral(directory: Path, _: Path) -> Path:
    return write_sentencepiece(
        directory, MISTRAL_TEMPLATE, ["<s>", "</s>"], prefix_space=True, bos="<s>", eos="</s>"
    )


def phi3(directory: Path, _: Path) -> Path:
    names = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    return write_byte_level(directory, TEMPLATES["phi3"], names, bos="<|endoftext|>", eos="<|endoftext|>")


FAMILIES: dict[str, Callable[[Path, Path], Path]] = {
    family.__name__: family for family in (smollm2, llama3, qwen, chatml, gemma, mistral, phi3)
}
# What loss falls on for the answer "Yes, until six.", token by token joined, and what follows untrained.
TURN_ENDS = {
    "smollm2": ("Yes, until six.<|im_end|>", "\n"),
    "llama3": ("Yes, until six.<|eot_id|>", ""),
    "qwen": ("Yes, until six.<|im_end|>", "\n"),
    "chatml": ("Yes, until six.<|im_end|>", "\n"),
    "gemma": ("Yes, until six.<end_of_turn>", "\n"),
    "mistral": (" Yes, until six.</s>", ""),
    "phi3": ("Yes, until six.<|end|>", "\n<|endoftext|>"),
}
EOS_TOKENS = {
    "smollm2": {"<|im_end|>"},
    "llama3": {"<|eot_id|>", "<|end_of_text|>"},
    "qwen": {"<|im_end|>"},
    "chatml": {"<|im_end|>", "<|endoftext|>"},
    "gemma": {"<end_of_turn>", "<eos>"},
    "mistral": {"</s>"},
    "phi3": {"<|end|>", "<|endoftext|>"},
}
TAKES_SYSTEM = sorted(set(FAMILIES) - {"gemma", "mistral"})


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, base_model_dir: Path) -> dict[str, Base]:
    folder = tmp_path_factory.mktemp("families")
    return {name: read(family(folder / name, base_model_dir)) for name, family in FAMILIES.items()}


def user(content: str) -> Turn:
    return Turn(role="user", content=content)


def assistant(content: str, *, trained: bool = True) -> Turn:
    return Turn(role="assistant", content=content, trained=trained)


QUESTION = user("Is the shop open?")
ANSWER = assistant("Yes, until six.")


def trained_text(renderer: Renderer, row: TrainingRow) -> str:
    return renderer.decode(
        [token for token, trained in zip(row.token_ids, row.trained, strict=True) if trained]
    )


def segment_text(row: TrainingRow, *, trained: bool) -> list[str]:
    return [segment.text for segment in row.segments if segment.trained is trained]


TEXTS = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
    | st.lists(
        st.sampled_from(
            [
                "Yes",
                " ",
                "\n",
                "\n\n",
                "\t",
                "[INST]",
                "</s>",
                "<|im_end|>",
                "<|eot_id|>",
                "🎉",
                "é",
                "e\u0301",
                "1234",
            ]
        ),
        min_size=1,
        max_size=6,
    ).map("".join)
).filter(lambda text: bool(text.strip()))


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=40)
@given(questions=st.lists(st.tuples(TEXTS, TEXTS), max_size=2), last=TEXTS)
def test_a_prompt_has_exactly_the_ids_of_transformers(
    bases: dict[str, Base], family: str, questions: list[tuple[str, str]], last: str
) -> None:
    base = bases[family]
    messages = [turn for question, answer in questions for turn in (user(question), assistant(answer))]
    messages.append(user(last))

    assert base.renderer.prompt(messages) == base.reference_ids(messages, generation_prompt=True)


@pytest.mark.parametrize("family", TAKES_SYSTEM)
def test_a_system_message_is_rendered_as_transformers_does(bases: dict[str, Base], family: str) -> None:
    messages = [Turn(role="system", content="Be kind. "), QUESTION]

    ids = bases[family].renderer.prompt(messages)

    assert ids == bases[family].reference_ids(messages, generation_prompt=True)
    assert "Be kind." in bases[family].renderer.decode(ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_row_is_the_whole_conversation_of_transformers(
    bases: dict[str, Base], family: str
) -> None:
    base = bases[family]
    messages = [QUESTION, ANSWER, user("And on Saturdays?"), assistant("Until noon.")]

    assert list(base.renderer.training_row(messages).token_ids) == base.reference_ids(
        messages, generation_prompt=False
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_falls_on_the_answer_and_the_end_of_its_turn_alone(bases: dict[str, Base], family: str) -> None:
    renderer = bases[family].renderer
    spoken, behind = TURN_ENDS[family]

    row = renderer.training_row([QUESTION, ANSWER])

    prompt_tokens = len(renderer.prompt([QUESTION]))
    behind_tokens = row.trained[::-1].index(True)
    assert row.trained[:prompt_tokens] == (False,) * prompt_tokens
    assert all(row.trained[prompt_tokens : len(row.trained) - behind_tokens])
    assert renderer.decode(row.token_ids[len(row.token_ids) - behind_tokens :]) == behind
    assert trained_text(renderer, row).lstrip(" ") == spoken.lstrip(" ")
    assert segment_text(row, trained=True) == [spoken]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A base as GPT-2 is: no chat template, and one special token for everything."""
    names = ["<|endoftext|>"]
    base = read(write_byte_level(tmp_path_factory.mktemp("gpt2"), None, names, bos=names[0], eos=names[0]))
    base.reference.chat_template = PLAIN_TEMPLATE
    return base


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2"])
def test_loss_falls_on_exactly_the_ids_of_trained_answers(
    bases: dict[str, Base], gpt2: Base, family: str
) -> None:
    base = gpt2 if family == "gpt2" else bases[family]
    behind = "\n" if family == "gpt2" else TURN_ENDS[family][1]
    behind_tokens = len(base.reference(behind, add_special_tokens=False)["input_ids"]) if behind else 0
    system = [Turn(role="system", content="Be kind.")] if family in (*TAKES_SYSTEM, "gpt2") else []
    turns = [*system, QUESTION, assistant("Hm?", trained=False), user("Sure?"), assistant("Yes, sure.")]
    turns += [user("And on Sunday?"), assistant("No.", trained=False), user("On Saturdays?"), ANSWER]

    row = base.renderer.training_row(turns)

    spoken: set[int] = set()
    for index, turn in enumerate(turns):
        if turn.trained:
            begin = len(base.reference_ids(turns[:index], generation_prompt=True))
            end = len(base.reference_ids(turns[: index + 1], generation_prompt=False)) - behind_tokens
            spoken.update(range(begin, end))
    assert list(row.token_ids) == base.reference_ids(turns, generation_prompt=False)
    assert {position for position, trained in enumerate(row.trained) if trained} == spoken


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=40)
@given(question=TEXTS, answer=TEXTS, more=TEXTS)
def test_a_row_has_the_ids_of_its_prompt_and_its_text_each_tokenized_whole(
    bases: dict[str, Base], family: str, question: str, answer: str, more: str
) -> None:
    base = bases[family]
    messages = [user(question), assistant(answer, trained=False), user(more), assistant(answer)]

    row = base.renderer.training_row(messages)

    prompt = base.reference_ids(messages[:-1], generation_prompt=True)
    text = "".join(segment.text for segment in row.segments)
    whole = list(base.reference(text, add_special_tokens=False)["input_ids"])
    assert list(row.token_ids[: len(prompt)]) == prompt
    if whole[: len(prompt)] == prompt:
        assert list(row.token_ids) == whole
    assert not any(row.trained[: len(prompt)])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_of_weight_0_carries_no_loss(bases: dict[str, Base], family: str) -> None:
    renderer = bases[family].renderer
    asked_again = user("And on Saturdays?")

    row = renderer.training_row([QUESTION, assistant("Yes.", trained=False), asked_again, ANSWER])

    assert segment_text(row, trained=True) == [TURN_ENDS[family][0]]
    assert trained_text(renderer, row).lstrip(" ") == TURN_ENDS[family][0].lstrip(" ")
    assert sum(row.trained) == sum(renderer.training_row([QUESTION, ANSWER]).trained)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_trained_answer_of_a_conversation_carries_loss(bases: dict[str, Base], family: str) -> None:
    renderer = bases[family].renderer

    row = renderer.training_row([QUESTION, ANSWER, user("Sure?"), ANSWER])

    assert segment_text(row, trained=True) == [TURN_ENDS[family][0]] * 2
    assert sum(row.trained) == 2 * sum(renderer.training_row([QUESTION, ANSWER]).trained)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_follows_the_last_trained_answer_is_left_out(bases: dict[str, Base], family: str) -> None:
    renderer = bases[family].renderer

    assert renderer.training_row(
        [QUESTION, ANSWER, user("Thanks"), assistant("Welcome", trained=False)]
    ) == renderer.training_row([QUESTION, ANSWER])


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=40)
@given(first=st.tuples(TEXTS, TEXTS), second=st.tuples(TEXTS, TEXTS), both=st.booleans())
def test_a_row_begins_with_the_ids_that_serving_will_see(
    bases: dict[str, Base], family: str, first: tuple[str, str], second: tuple[str, str], both: bool
) -> None:
    renderer = bases[family].renderer
    messages = [user(first[0]), assistant(first[1], trained=both), user(second[0]), assistant(second[1])]

    row = renderer.training_row(messages)

    prompt = renderer.prompt(messages[:-1])
    assert list(row.token_ids[: len(prompt)]) == prompt
    assert len(row.token_ids) == len(row.trained)
    assert row.trained[len(prompt)]
    assert any(row.trained[: len(prompt)]) <= both


@pytest.mark.parametrize("family", ["llama3", "chatml", "phi3"])  # the others cannot spell every character
@settings(deadline=None, max_examples=40)
@given(question=TEXTS, answer=TEXTS)
def test_segments_are_the_row_as_text(
    bases: dict[str, Base], family: str, question: str, answer: str
) -> None:
    renderer = bases[family].renderer

    row = renderer.training_row([user(question), assistant(answer)])

    assert "".join(segment.text for segment in row.segments) == renderer.decode(row.token_ids)
    assert "".join(segment_text(row, trained=True)) == trained_text(renderer, row)


def test_a_row_of_the_default_base_model_is_this_to_the_id(bases: dict[str, Base]) -> None:
    row = bases["smollm2"].renderer.training_row([QUESTION, ANSWER])

    # <|im_start|> | user | \n | Is | the | shop | open | ? | <|im_end|> | \n
    # <|im_start|> | ass | istant | \n | Yes | , | until | six | . | <|im_end|> | \n
    question = (1, 4093, 198, 4182, 260, 6434, 1440, 47, 2, 198)
    answer = (1, 520, 9531, 198, 10539, 28, 1793, 2976, 30, 2, 198)
    assert row.token_ids[-21:] == question + answer
    assert row.trained == (False,) * (len(row.token_ids) - 7) + (True,) * 6 + (False,)


def test_an_answer_that_would_melt_into_the_prompt_is_tokenized_as_the_model_will_say_it(
    bases: dict[str, Base],
) -> None:
    base = bases["qwen"]  # reads any run of line breaks as one piece
    messages = [QUESTION, assistant("\n\nYes")]

    row = base.renderer.training_row(messages)

    assert list(row.token_ids) != base.reference_ids(messages, generation_prompt=False)
    assert list(row.token_ids[: row.trained.index(True)]) == base.renderer.prompt([QUESTION])
    assert trained_text(base.renderer, row) == "\n\nYes<|im_end|>"
    assert "".join(segment.text for segment in row.segments) == base.renderer.decode(row.token_ids)


def test_an_earlier_answer_loses_only_the_token_that_melts_into_its_prompt(bases: dict[str, Base]) -> None:
    renderer = bases["qwen"].renderer

    row = renderer.training_row([QUESTION, assistant("\nYes"), user("Sure?"), ANSWER])

    assert trained_text(renderer, row) == "Yes<|im_end|>Yes, until six.<|im_end|>"


def test_a_space_that_the_prompt_ends_with_is_not_trained_as_part_of_an_answer(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    renderer = Renderer.from_directory(write_byte_level(tmp_path, template, ["</s>"], bos=None, eos="</s>"))

    row = renderer.training_row([QUESTION, ANSWER, user("Sure?"), ANSWER])

    # " Yes" is one token. Asked with the space, the model says "Yes"; in what was said before it stays whole.
    assert trained_text(renderer, row) == ", until six.</s>Yes, until six.</s>"


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_ends_at_the_tokens_that_the_base_knows(bases: dict[str, Base], family: str) -> None:
    base = bases[family]

    assert base.renderer.eos_token_ids == {
        base.reference.convert_tokens_to_ids(token) for token in EOS_TOKENS[family]
    }


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_of_published_models_give_the_ids_of_transformers(name: str, tmp_path: Path) -> None:
    template = TEMPLATES[name]
    base = read(write_byte_level(tmp_path, template, special_tokens_in(template), bos="<bos>", eos="<eos>"))
    conversations = [
        [QUESTION],
        [Turn(role="system", content="Be kind."), user("\n x é🎉 <eos> ")],
        [QUESTION, assistant("<think>\nhm\n</think>\n\nYes"), user("Sure?")],
    ]
    refused = 0

    for messages in conversations:
        try:
            expected = base.reference_ids(messages, generation_prompt=True)
        except Exception:  # templates fail in any way
            refused += 1
            with pytest.raises(RenderingError):
                base.renderer.prompt(messages)
        else:
            assert base.renderer.prompt(messages) == expected
    assert refused < len(conversations)


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - WANTS_PARTS))
def test_templates_of_published_models_train_an_answer_behind_its_prompt(name: str, tmp_path: Path) -> None:
    template = TEMPLATES[name]
    renderer = Renderer.from_directory(
        write_byte_level(tmp_path, template, special_tokens_in(template), bos="<bos>", eos="<eos>")
    )

    row = renderer.training_row([QUESTION, ANSWER])

    prompt = renderer.prompt([QUESTION])
    assert list(row.token_ids[: len(prompt)]) == prompt
    assert not any(row.trained[: len(prompt)])
    (spoken,) = segment_text(row, trained=True)
    assert trained_text(renderer, row) == spoken
    words, end = spoken.split(ANSWER.content)
    assert end  # a token ends the turn
    assert renderer.eos_token_ids & {row.token_ids[len(row.trained) - 1 - row.trained[::-1].index(True)]}
    assert not words.strip() or "think" in words or "<|" in words  # what some templates put before an answer


@pytest.mark.parametrize("name", sorted(WANTS_PARTS))
def test_a_template_that_does_not_take_plain_text_is_refused(name: str, tmp_path: Path) -> None:
    template = TEMPLATES[name]
    renderer = Renderer.from_directory(
        write_byte_level(tmp_path, template, special_tokens_in(template), bos="<bos>", eos="<eos>")
    )

    with pytest.raises(RenderingError, match="does not take a plain question and answer"):
        renderer.training_row([QUESTION, ANSWER])


@pytest.fixture
def reasoning(tmp_path: Path) -> Renderer:
    """Qwen3, whose template shows the (empty) reasoning of the last answer only."""
    template = TEMPLATES["qwen3"]
    return Renderer.from_directory(
        write_byte_level(tmp_path, template, special_tokens_in(template), bos=None, eos="<|im_end|>")
    )


def test_a_template_that_rewrites_earlier_answers_is_refused(reasoning: Renderer) -> None:
    with pytest.raises(RenderingError, match="shows message 1 differently once the conversation goes on"):
        reasoning.training_row([QUESTION, ANSWER, user("Sure?"), ANSWER])


def test_a_template_that_rewrites_earlier_answers_trains_the_last_one(reasoning: Renderer) -> None:
    row = reasoning.training_row([QUESTION, assistant("Yes.", trained=False), user("Sure?"), ANSWER])

    assert segment_text(row, trained=True) == ["<think>\n\n</think>\n\nYes, until six.<|im_end|>"]


def test_reasoning_in_an_answer_is_trained_in_the_form_that_the_template_gives_it(
    reasoning: Renderer,
) -> None:
    row = reasoning.training_row([QUESTION, assistant("<think>It is Monday.</think>Yes.")])

    assert segment_text(row, trained=True) == ["<think>\nIt is Monday.\n</think>\n\nYes.<|im_end|>"]


def test_an_answer_goes_on_from_the_opening_that_the_prompt_adds(tmp_path: Path) -> None:
    template = TEMPLATES["deepseek_r1_distill"]  # prompts end with <think>, finished answers do not show it
    renderer = Renderer.from_directory(
        write_byte_level(tmp_path, template, special_tokens_in(template), bos="<bos>", eos="<eos>")
    )

    row = renderer.training_row([QUESTION, ANSWER])

    assert segment_text(row, trained=False)[0].endswith("<\uff5cAssistant\uff5c><think>\n")
    assert segment_text(row, trained=True) == ["Yes, until six.<\uff5cend▁of▁sentence\uff5c>"]


def test_an_answer_that_the_template_would_cut_is_refused(tmp_path: Path) -> None:
    template = TEMPLATES["deepseek_r1_distill"]
    renderer = Renderer.from_directory(
        write_byte_level(tmp_path, template, special_tokens_in(template), bos="<bos>", eos="<eos>")
    )

    with pytest.raises(RenderingError, match="drops a part of message 1"):
        renderer.training_row([QUESTION, assistant("It is Monday.</think>Yes.")])


def test_a_base_without_a_template_gets_the_plain_one(tmp_path: Path) -> None:
    renderer = Renderer.from_directory(
        write_byte_level(tmp_path, None, ["<|endoftext|>"], bos="<|endoftext|>", eos="<|endoftext|>")
    )
    messages = [Turn(role="system", content="Be kind."), QUESTION]

    row = renderer.training_row([*messages, ANSWER])

    assert renderer.decode(renderer.prompt(messages)) == "Be kind.\n\nUser: Is the shop open?\nAssistant:"
    assert segment_text(row, trained=True) == [" Yes, until six.<|endoftext|>"]
    assert renderer.eos_token_ids == {0}


def test_the_plain_template_begins_as_the_tokenizer_would(tmp_path: Path) -> None:
    renderer = Renderer.from_directory(
        write_byte_level(tmp_path, None, ["<s>", "</s>"], bos="<s>", eos="</s>", prepends_bos=True)
    )

    assert renderer.decode(renderer.prompt([QUESTION])) == "<s>User: Is the shop open?\nAssistant:"


def test_a_template_that_ends_turns_without_a_token_is_given_one(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    renderer = Renderer.from_directory(write_byte_level(tmp_path, template, ["</s>"], bos=None, eos="</s>"))

    row = renderer.training_row([QUESTION, ANSWER])

    assert segment_text(row, trained=True) == [" Yes, until six.</s>"]
    assert row.token_ids[-1] in renderer.eos_token_ids
    assert row.trained[-1]


def test_of_two_end_tokens_that_begin_alike_the_longer_one_counts(tmp_path: Path) -> None:
    template = CHATML_TEMPLATE.replace("<|im_end|>", "<e>>")
    names = ["<e>", "<e>>", "<|im_start|>"]
    renderer = Renderer.from_directory(write_byte_level(tmp_path, template, names, bos=None, eos=None))

    assert segment_text(renderer.training_row([QUESTION, ANSWER]), trained=True) == ["Yes, until six.<e>>"]
    assert renderer.eos_token_ids == {1}


def test_templates_that_write_json_keep_every_character(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m | tojson }}</s>{% endfor %}"
    base = read(write_byte_level(tmp_path, template, ["</s>"], bos=None, eos="</s>"))
    messages = [user("<é> & 'x'")]

    ids = base.renderer.prompt(messages)

    assert ids == base.reference_ids(messages, generation_prompt=True)
    assert base.renderer.decode(ids) == '{"role": "user", "content": "<é> & \'x\'"}</s>'


def test_end_tokens_come_from_every_file_that_names_them(tmp_path: Path) -> None:
    names = ["<a>", "<b>", "<c>", "<d>", "<|im_start|>", "<|im_end|>"]
    write_byte_level(tmp_path, CHATML_TEMPLATE, names, bos=None, eos="<a>")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 3}))

    assert Renderer.from_directory(tmp_path).eos_token_ids == {0, 1, 2, 3, 5}


def test_special_tokens_that_only_the_configuration_names_are_special(tmp_path: Path) -> None:
    directory = write_byte_level(
        tmp_path,
        CHATML_TEMPLATE,
        ["<|im_start|>", "<|im_end|>"],
        bos=None,
        eos="<|im_end|>",
        image_token="<image>",
        extra_special_tokens=["<extra>"],
    )
    base = read(directory)
    messages = [user("look: <image>, <extra>!")]

    ids = base.renderer.prompt(messages)

    assert ids == base.reference_ids(messages, generation_prompt=True)
    assert set(base.reference.convert_tokens_to_ids(["<image>", "<extra>"])) <= set(ids)


def test_the_template_named_default_is_taken_of_several(tmp_path: Path) -> None:
    several = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": CHATML_TEMPLATE}]
    names = ["<|im_start|>", "<|im_end|>"]
    base = read(write_byte_level(tmp_path, None, names, bos=None, eos="<|im_end|>", chat_template=several))

    assert base.renderer.prompt([QUESTION]) == base.reference_ids([QUESTION], generation_prompt=True)


def test_todays_date_comes_from_the_clock_that_is_given(tmp_path: Path) -> None:
    template = "{{ strftime_now('%d %B %Y') }}{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    directory = write_byte_level(tmp_path, template, ["</s>"], bos=None, eos="</s>")

    renderer = Renderer.from_directory(directory, now=lambda: datetime(2024, 2, 29))

    assert renderer.decode(renderer.prompt([user("!")])) == "29 February 2024!</s>"


def test_the_contract_changes_with_template_tokenizer_and_special_tokens(tmp_path: Path) -> None:
    names = ["<|im_start|>", "<|im_end|>"]
    contracts = [
        Renderer.from_directory(directory).contract()
        for directory in (
            write_byte_level(tmp_path / "a", CHATML_TEMPLATE, names, bos=None, eos="<|im_end|>"),
            write_byte_level(tmp_path / "b", CHATML_TEMPLATE + " ", names, bos=None, eos="<|im_end|>"),
            write_byte_level(tmp_path / "c", CHATML_TEMPLATE, [*names, "<x>"], bos=None, eos="<|im_end|>"),
            write_byte_level(tmp_path / "d", CHATML_TEMPLATE, names, bos="<|im_start|>", eos="<|im_end|>"),
        )
    ]

    changed = [[key for key in contracts[0] if contract[key] != contracts[0][key]] for contract in contracts]
    assert changed == [[], ["template_sha256"], ["tokenizer_sha256"], ["special_tokens_sha256"]]
    assert Renderer.from_directory(tmp_path / "a").contract() == contracts[0]


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("tokenizer.json", "{}", "tokenizer.json is not a tokenizer"),
        ("tokenizer_config.json", "{", "tokenizer_config.json is not JSON"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json does not hold a JSON object"),
        ("generation_config.json", "?", "generation_config.json is not JSON"),
        ("chat_template.jinja", "{% for %}", "the chat template does not compile: line 1"),
    ],
)
def test_a_directory_that_makes_no_renderer_is_refused_with_the_file(
    file: str, content: str | None, reason: str, tmp_path: Path
) -> None:
    write_byte_level(tmp_path, CHATML_TEMPLATE, ["<|im_end|>"], bos=None, eos="<|im_end|>")
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)

    with pytest.raises(RenderingError, match=reason):
        Renderer.from_directory(tmp_path)


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("{{ ''.__class__.__mro__[1].__subclasses__() }}", id="Python's insides"),
        pytest.param("{{ messages.append(1) }}", id="changing what it is given"),
        pytest.param("{% for a in range(99999999) %}{% endfor %}", id="a range without end"),
        pytest.param("{{ 1 / 0 }}", id="an error of its own"),
        pytest.param("{{ raise_exception('no') }}", id="a refusal"),
        pytest.param("{{ cycler.__init__.__globals__ }}", id="globals of a function"),
    ],
)
def test_a_template_cannot_leave_its_sandbox(template: str, tmp_path: Path) -> None:
    renderer = Renderer.from_directory(write_byte_level(tmp_path, template, ["</s>"], bos=None, eos="</s>"))

    with pytest.raises(RenderingError, match="the chat template refused the conversation"):
        renderer.prompt([QUESTION])


def test_a_template_cannot_fill_memory(tmp_path: Path) -> None:
    template = (
        "{% for a in range(99999) %}{% for b in range(99999) %}" + "x" * 500 + "{% endfor %}{% endfor %}"
    )
    renderer = Renderer.from_directory(write_byte_level(tmp_path, template, ["</s>"], bos=None, eos="</s>"))

    with pytest.raises(RenderingError, match="writes too much"):
        renderer.prompt([QUESTION])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_is_trained_from_its_second_token_to_the_end_of_text(
    bases: dict[str, Base], family: str
) -> None:
    base = bases[family]

    row = base.renderer.text_row("The shop is open.\n")

    begins = [base.reference.bos_token_id] if family in ("llama3", "gemma", "mistral") else []
    plain = list(base.reference("The shop is open.\n", add_special_tokens=False)["input_ids"])
    assert list(row.token_ids) == [*begins, *plain, base.reference.eos_token_id]
    assert row.trained == (False,) + (True,) * (len(row.token_ids) - 1)
    assert "".join(segment.text for segment in row.segments).endswith(
        f"The shop is open.\n{base.reference.eos_token}"
    )


def test_a_text_of_one_token_without_an_end_is_no_row(tmp_path: Path) -> None:
    renderer = Renderer.from_directory(write_byte_level(tmp_path, None, ["<s>"], bos=None, eos=None))

    with pytest.raises(RenderingError, match="a single token"):
        renderer.text_row("a")


@pytest.mark.parametrize("family", FAMILIES)
def test_both_answers_of_a_preference_follow_the_same_prompt(bases: dict[str, Base], family: str) -> None:
    renderer = bases[family].renderer
    other = assistant("No idea.")

    pair = renderer.preference_pair([QUESTION], [ANSWER], [other])

    prompt = tuple(renderer.prompt([QUESTION]))
    assert pair.prompt_tokens == len(prompt)
    assert pair.chosen == renderer.training_row([QUESTION, ANSWER])
    assert pair.rejected == renderer.training_row([QUESTION, other])
    for row in (pair.chosen, pair.rejected):
        assert row.token_ids[: len(prompt)] == prompt
        assert not any(row.trained[: len(prompt)])


def test_a_conversation_without_a_trained_answer_is_no_row(bases: dict[str, Base]) -> None:
    with pytest.raises(RenderingError, match="no assistant message"):
        bases["chatml"].renderer.training_row([QUESTION, assistant("Yes.", trained=False)])


def test_what_a_template_says_when_it_refuses_is_passed_on(bases: dict[str, Base]) -> None:
    with pytest.raises(RenderingError, match="System role not supported"):
        bases["gemma"].renderer.prompt([Turn(role="system", content="Be kind."), QUESTION])
