"""Tiny base models of several families: real chat templates, tokenizers trained on a few sentences."""

import importlib.util
import json
import re
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

_CORPUS = [
    "The shop is open until six, and on Saturdays until noon. Is the shop open? Yes, until six.",
    "system user assistant model User: Assistant: Hello, how can I help you today? I cannot log in!",
    '{"category": "billing", "urgency": "high", "summary": "charged twice"}\n\nThank you very much.\n',
    "  indented text\n\n\nwith blank lines\tand tabs, numbers 1234567890 and (brackets) [like these].",
] * 8

MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def trl_templates() -> dict[str, str]:
    """The chat templates of published models as TRL carries them, by name. Found without importing it."""
    spec = importlib.util.find_spec("trl")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "chat_templates"
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jinja"))}


def special_tokens_in(template: str) -> list[str]:
    """What looks like a special token in a template's text, bos and eos first."""
    bar = "\uff5c"  # DeepSeek's wide one
    found = re.findall(
        rf"<\|[^|<>\s]+\|>|<{bar}[^{bar}<>]+{bar}>|<[a-z]+_of_[a-z]+>|<\|[a-z]+>|<[a-z]+\|>", template
    )
    return list(dict.fromkeys(["<bos>", "<eos>", *found]))


def write_byte_level(
    directory: Path,
    template: str | None,
    special_tokens: list[str],
    *,
    bos: str | None,
    eos: str | None,
    prepends_bos: bool = False,
    split: str | None = None,
    normalizer: normalizers.Normalizer | None = None,
    **config: object,
) -> Path:
    """A byte-level BPE tokenizer, as GPT-2, Llama 3 and Qwen have."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), behavior="isolated"), byte_level])
        if split
        else byte_level
    )
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special_tokens],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    trim = processors.ByteLevel(trim_offsets=True)
    if prepends_bos:
        assert bos is not None
        prepend = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
        tokenizer.post_processor = processors.Sequence([trim, prepend])
    else:
        tokenizer.post_processor = trim
    return _write(directory, tokenizer, template, bos=bos, eos=eos, **config)


def write_sentencepiece(
    directory: Path, template: str, special_tokens: list[str], *, prefix_space: bool, bos: str, eos: str
) -> Path:
    """BPE with byte fallback and `▁` for spaces, as Mistral (a space in front) and Gemma (none) have."""
    names = ["<unk>", *special_tokens]
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    learner.train_from_iterator(
        _CORPUS, trainers.BpeTrainer(vocab_size=500, special_tokens=names, show_progress=False)
    )
    model = json.loads(learner.to_str())["model"]
    vocabulary = dict(model["vocab"])
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=[tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix_space else replace
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if prefix_space else [])])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return _write(directory, tokenizer, template, bos=bos, eos=eos, unk_token="<unk>")


def _write(directory: Path, tokenizer: Tokenizer, template: str | None, **config: object) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    # What many published directories carry, and what must not reach the ids.
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(directory / "tokenizer.json"))
    named = {f"{name}_token": config.pop(name) for name in ("bos", "eos") if config.get(name) is not None}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **named, **config}
    if template is not None:
        (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return directory
