"""What stands in a base model's directory: tokenizer, special tokens, chat template, end tokens.

Reads the files the way `transformers` does for a directory with a tokenizer.json, so that ids agree. It does
not render anything.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from trainer.rendering.template import RenderingError

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, kw_only=True)
class TokenizerFiles:
    """A tokenizer as its directory describes it."""

    tokenizer: Tokenizer
    """Without padding, truncation and post-processor: ids and offsets are those of the text alone."""
    tokenizer_sha256: str
    special_tokens: dict[str, str]
    """Named special tokens, such as eos_token, as templates see them."""
    adds_bos: bool
    """Whether the tokenizer itself would put bos_token in front of a text."""
    template: str | None
    """The chat template's source; None when the base has none."""
    eos_token_ids: frozenset[int]
    """End tokens that the directory names."""


def read_directory(directory: Path) -> TokenizerFiles:
    """Read a base model's directory. Raises RenderingError naming the file that is missing or broken."""
    source = _tokenizer_source(directory)
    config = _read_json(directory / "tokenizer_config.json")
    tokenizer = _tokenizer(directory, source)
    padding = {"pad_token": tokenizer.padding["pad_token"]} if tokenizer.padding else {}
    declared = _declared_tokens(directory, padding | config)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    _add_tokens(tokenizer, config, declared)
    special_tokens = {name: token.content for name, token in declared.items()}
    bos_id = tokenizer.token_to_id(special_tokens.get("bos_token", ""))
    adds_bos = bos_id is not None and tokenizer.encode("a").ids[:1] == [bos_id]
    # All that is left for it to do is to trim white space off offsets, and the loss mask needs them exact.
    tokenizer.post_processor = None
    eos_id = tokenizer.token_to_id(special_tokens.get("eos_token", ""))
    return TokenizerFiles(
        tokenizer=tokenizer,
        tokenizer_sha256=hashlib.sha256(source.encode()).hexdigest(),
        special_tokens=special_tokens,
        adds_bos=adds_bos,
        template=_template(directory, config),
        eos_token_ids=frozenset(_configured_eos(directory))
        | ({eos_id} if eos_id is not None else frozenset()),
    )


def _tokenizer_source(directory: Path) -> str:
    path = directory / "tokenizer.json"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RenderingError(
            f"{path} is missing; a base needs a tokenizer.json"
            " (`AutoTokenizer.from_pretrained(...).save_pretrained(...)` writes one)"
        ) from error
    except UnicodeDecodeError as error:
        raise RenderingError(f"{path} is not UTF-8") from error


def _tokenizer(directory: Path, source: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(source)
    except Exception as error:  # the library raises bare Exception
        raise RenderingError(f"{directory / 'tokenizer.json'} is not a tokenizer: {error}") from error


def _add_tokens(tokenizer: Tokenizer, config: dict[str, Any], declared: dict[str, AddedToken]) -> None:
    """Add what only the configuration names: text that spells such a token must become it."""
    tokenizer.encode_special_tokens = bool(config.get("split_special_tokens", False))
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    listed = config.get("added_tokens_decoder") or {}
    extra = [_added_token(listed[index]) for index in sorted(listed, key=int)]
    for token in (*extra, *declared.values(), *_unnamed_special_tokens(config)):
        if token.content not in known:
            tokenizer.add_tokens([token])
            known.add(token.content)


def _declared_tokens(directory: Path, config: dict[str, Any]) -> dict[str, AddedToken]:
    """Special tokens by name: the seven usual ones and a model's own, whose names also end with _token."""
    fields = dict(config)
    if "added_tokens_decoder" not in config:  # older directories keep them in a file of their own
        fields |= _read_json(directory / "special_tokens_map.json")
    extra = fields.get("extra_special_tokens")
    if isinstance(extra, dict):
        fields |= extra
        own = set(extra)
    else:
        own = set()
    names = [name for name in fields if name in own or name.endswith("_token")]
    ordered = sorted(names, key=lambda name: _NAMED_TOKENS.index(name) if name in _NAMED_TOKENS else 99)
    return {
        name: _added_token(fields[name])
        for name in ordered
        if isinstance(fields[name], str | dict) and fields[name]
    }


def _unnamed_special_tokens(config: dict[str, Any]) -> list[AddedToken]:
    tokens = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    return [_added_token(token) for token in tokens] if isinstance(tokens, list) else []


def _added_token(value: str | dict[str, Any]) -> AddedToken:
    if isinstance(value, str):
        return AddedToken(value, special=True)
    flags = {
        name: bool(value[name]) for name in ("lstrip", "rstrip", "single_word", "normalized") if name in value
    }
    return AddedToken(str(value["content"]), special=bool(value.get("special", True)), **flags)


def _template(directory: Path, config: dict[str, Any]) -> str | None:
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):
        found = {entry["name"]: entry["template"] for entry in found}.get("default")
    if found is not None and not isinstance(found, str):
        raise RenderingError(
            f"{directory / 'tokenizer_config.json'}: chat_template is neither text nor a list"
        )
    return found


def _configured_eos(directory: Path) -> Iterator[int]:
    config = _read_json(directory / "config.json")
    for fields in (_read_json(directory / "generation_config.json"), config, config.get("text_config") or {}):
        value = fields.get("eos_token_id")
        yield from value if isinstance(value, list) else [value] if isinstance(value, int) else []


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty when there is no such file."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RenderingError(f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise RenderingError(f"{path} does not hold a JSON object")
    return fields
