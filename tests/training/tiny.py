"""Tiny random bases of several families, with a tokenizer of bytes and a chat template."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
)

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
VOCABULARY = 264
_WORDS = (
    "apple",
    "river",
    "stone",
    "cloud",
    "lamp",
    "horse",
    "table",
    "green",
    "nine",
    "soft",
    "wind",
    "coat",
)


def config_of(family: str, hidden_size: int = 32) -> PretrainedConfig:
    """A model of 2 layers and 4 heads."""
    sizes = {"vocab_size": VOCABULARY, "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 257}
    decoder = {
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.1,
    }
    match family:
        case "llama":
            return LlamaConfig(**sizes, **decoder)
        case "qwen2":
            return Qwen2Config(**sizes, **decoder)
        case "gemma":
            return GemmaConfig(**sizes, **decoder, head_dim=hidden_size // 4)
        case "phi3":  # one matrix for queries, keys and values, and one for gate and up
            return Phi3Config(**sizes, **decoder)
        case "gpt2":
            return GPT2Config(
                **sizes,
                n_positions=512,
                n_embd=hidden_size,
                n_layer=2,
                n_head=4,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                initializer_range=0.1,
            )
        case "bloom":  # positions by distance in the sequence: cannot tell packed rows apart
            return BloomConfig(**sizes, hidden_size=hidden_size, n_layer=2, n_head=4, initializer_range=0.1)
        case "mamba":  # a state that runs through everything in the sequence
            return MambaConfig(
                **sizes, hidden_size=hidden_size, num_hidden_layers=2, state_size=4, initializer_range=0.1
            )
    raise ValueError(family)


def build_base(directory: Path, family: str, hidden_size: int = 32) -> Path:
    """Write config, safetensors weights and tokenizer."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config_of(family, hidden_size)).save_pretrained(directory)
    write_tokenizer(directory)
    return directory


def write_tokenizer(directory: Path) -> None:
    """One token a byte, and two for the turns."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: index for index, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|im_start|>"), AddedToken("<|im_end|>")])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "chat_template": TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def write_rows(path: Path, count: int = 24) -> Path:
    """Questions of differing lengths with short answers that can be learned."""
    lines = []
    for index in range(count):
        words = [_WORDS[(index * 5 + place * (index + 3)) % len(_WORDS)] for place in range(1 + index % 4)]
        lines.append(_row(words, f"{words[0][0]}{len(words)}"))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_chance(path: Path, count: int = 16) -> Path:
    """Questions whose answers follow no rule: what is learned of one says nothing about another."""
    numbers = random.Random(0)

    def letters(length: int) -> str:
        return "".join(numbers.choice("abcdefghijklmnop") for _ in range(length))

    path.write_text("".join(_row([letters(6)], letters(4)) + "\n" for _ in range(count)))
    return path


def write_pairs(path: Path, count: int = 24) -> Path:
    """Questions with an answer that is wanted, and the same answer in capitals, which is not."""
    lines = []
    for index in range(count):
        words = [_WORDS[(index * 5 + place * (index + 3)) % len(_WORDS)] for place in range(1 + index % 4)]
        pair = {"prompt": " ".join(words), "chosen": words[0], "rejected": words[-1].upper()}
        lines.append(json.dumps(pair))
    path.write_text("\n".join(lines) + "\n")
    return path


def _row(words: Sequence[str], answer: str) -> str:
    messages = [{"role": "user", "content": " ".join(words)}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages})
