"""Model cards: what a version is and where it comes from, for whoever finds its files without the service.

Pure: text out of the manifest and what the registry knows. The YAML in front is what model hubs read.
"""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from service.artifacts import Form
from service.evaluation import Report
from service.exporting.formats import Format, GgufType, Wanted
from service.registry import Verification, VersionRow
from trainer.curve import CurvePoint

_LIBRARIES = {Form.ADAPTER: "peft", Form.PROMPT: "peft", Form.MODEL: "transformers"}
_RELATIONS = {Form.ADAPTER: "adapter", Form.PROMPT: "adapter", Form.MODEL: "finetune"}
_TAGS = {Form.ADAPTER: "lora", Form.PROMPT: "prompt-tuning", Form.MODEL: "full-fine-tuning"}


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where a version comes from."""

    version: VersionRow
    form: Form
    wanted: Wanted
    """What the files beside the card are."""
    base_name: str
    base_revision: str
    manifest: Mapping[str, object]
    """All that MANIFEST.json says; what older ones do not say is left out of the card."""
    curve: Sequence[CurvePoint]
    """Of its training; empty where it was trained elsewhere."""
    evaluation: Report | None
    """The newest one; None without any."""


def model_card(lineage: Lineage) -> str:
    """README.md: front matter, then sections; those that nothing is known for are left out."""
    version = lineage.version
    sections = [
        _front_matter(lineage),
        f"# {version.model}",
        f"Version {version.number} of the adapter `{version.adapter_id}`, kept by Hotlora.",
        _making(lineage),
        _table("Origin", _origin(lineage)),
        _table("Hyperparameters", _facts(lineage.manifest.get("hyperparameters"))),
        _curve(lineage.curve),
        _table("End of the training", _facts(lineage.manifest.get("metrics"))),
        _evaluation(lineage.evaluation),
        _proof(version.verification),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(lineage: Lineage) -> str:
    library, relation = _LIBRARIES[lineage.form], _RELATIONS[lineage.form]
    tags = ["hotlora", _TAGS[lineage.form]]
    if lineage.wanted.is_whole_model:
        library, relation = _LIBRARIES[Form.MODEL], _RELATIONS[Form.MODEL]
    if lineage.wanted.format is Format.GGUF:
        library = "gguf"
        relation = "quantized" if lineage.wanted.gguf_type is GgufType.Q8_0 else relation
    tags.append(f"base_model:{relation}:{lineage.base_name}")
    lines = [
        f"base_model: {_quoted(lineage.base_name)}",  # JSON's texts are YAML's, too
        f"library_name: {library}",
        "pipeline_tag: text-generation",
        "tags:",
        *(f"- {_quoted(tag)}" for tag in tags),
    ]
    return "\n".join(["---", *lines, "---"])


def _making(lineage: Lineage) -> str:
    """How the files came from what was trained and proven, where they are others."""
    sentences = []
    if lineage.wanted.is_whole_model and lineage.form is Form.ADAPTER:
        sentences.append(
            "The adapter's matrices are added to the weights of the base model, in the precision of the "
            "base's files. Where that is bfloat16, sums are rounded up or down by chance, which keeps the "
            "adapter on average: to the nearest number, most of a weak one would be lost."
        )
    if lineage.wanted.format is Format.GGUF:
        sentences.append(f"Converted by llama.cpp, with weights as {lineage.wanted.gguf_type}.")
    return " ".join(sentences)


def _origin(lineage: Lineage) -> Iterable[tuple[str, object]]:
    yield "base model", lineage.base_name
    yield "base revision", lineage.base_revision
    yield "technique", lineage.version.technique.value
    yield "digest of the version", lineage.version.digest
    for title, name in (
        ("SHA-256 of the data", "dataset_sha256"),
        ("started from", "start_version"),
        ("rank", "rank"),
        ("alpha", "alpha"),
        ("target modules", "target_modules"),
        ("virtual tokens", "virtual_tokens"),
    ):
        if lineage.manifest.get(name):
            yield title, lineage.manifest[name]


def _facts(fields: object) -> Iterable[tuple[str, object]]:
    if not isinstance(fields, dict):
        return []
    return [(name.replace("_", " "), value) for name, value in fields.items() if value not in (None, [], "")]


def _curve(points: Sequence[CurvePoint]) -> str:
    if not points:
        return ""
    rows = [
        " | ".join(
            [
                str(point.step),
                f"{point.train_loss:.4g}",
                _or_none(point.eval_loss),
                _or_none(point.task_score),
            ]
        )
        for point in points
    ]
    return "\n".join(
        [
            "## Losses",
            "",
            "| step | training | rows set aside | score |",
            "| --- | --- | --- | --- |",
            *(f"| {row} |" for row in rows),
        ]
    )


def _or_none(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.4g}"


def _evaluation(report: Report | None) -> str:
    if report is None:
        return ""
    lines = [
        "## Evaluation",
        f"{_text(report.summary)}",
        "| figure | base | this version |\n| --- | --- | --- |\n"
        + "\n".join(f"| {_text(one.name)} | {one.base:.4g} | {one.adapter:.4g} |" for one in report.figures),
    ]
    return "\n\n".join(lines)


def _proof(proof: Verification | None) -> str:
    if proof is None:
        return ""
    figures = {name: value for name, value in asdict(proof).items() if name not in {"time", "seconds"}}
    return "\n\n".join(
        [
            _table("Proof", _facts(figures)),
            "The engine's log-probabilities of fixed tokens against the trainer's; "
            "mean absolute differences in nats per token.",
        ]
    )


def _table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    lines = [f"| {_text(name)} | {_shown(value)} |" for name, value in rows]
    return "\n".join([f"## {title}", "", "| | |", "| --- | --- |", *lines]) if lines else ""


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return _text(value if isinstance(value, str) else _quoted(value))


def _text(value: str) -> str:
    """In one cell, and without any markup: labels and names come from callers."""
    return html.escape(" ".join(value.split()), quote=False).replace("|", "&#124;")


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
