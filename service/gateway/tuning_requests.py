"""A fine-tuning request of the OpenAI API read into our own: known fields, everything else refused by name.

Values are judged by the rules of the proto; `in_their_words` turns what those say back.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hotlora.v1 import tuning_service_pb2 as pb
from service.errors import FieldViolation, InvalidRequest
from service.jsonshape import NO_UNICODE, Json, given, integer, is_unicode, mapping, number, text

_METHODS = {"supervised": pb.OBJECTIVE_SUPERVISED, "dpo": pb.OBJECTIVE_PREFERENCE}
_READ = frozenset(
    {"model", "training_file", "validation_file", "suffix", "seed", "hyperparameters", "method"}
)
_EMPTY: Mapping[str, object] = {"integrations": [], "metadata": {}}
"""Accepted as long as they hold nothing: nothing would come of it."""
_AUTO = "auto"
_INT32_MAX = 2**31 - 1
_OURS_BY_THEIRS = {
    "training_file": "dataset",
    "validation_file": "evaluation_dataset",
    "suffix": "adapter_id",
    "seed": "hyperparameters.seed",
    "hyperparameters.n_epochs": "hyperparameters.epochs",
    "hyperparameters.learning_rate_multiplier": "hyperparameters.learning_rate",
    "hyperparameters.beta": "hyperparameters.dpo_beta",
    "method.type": "objective",
    "model": "start_version",
}
_THEIRS = {ours: theirs for theirs, ours in _OURS_BY_THEIRS.items()}


@dataclass(frozen=True, kw_only=True)
class TuningRequest:
    """What is asked for."""

    message: pb.CreateTuningJobRequest
    """All but what depends on the model, and the learning rate."""
    model: str
    """A base model, or a version to go on from."""
    learning_rate_multiplier: float | None
    """Of what the learning rate would be; None: that itself."""


def read_request(body: bytes) -> TuningRequest:
    """Read a request body. Raises InvalidRequest naming every field that is wrong in itself."""
    try:
        reader = _Reader(given(json.loads(body)))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest([FieldViolation(field="body", description="is not a JSON object")]) from error
    request = reader.request()
    if reader.violations:
        raise InvalidRequest(reader.violations)
    return request


def in_their_words(error: InvalidRequest) -> InvalidRequest:
    """The same, told by the fields of the OpenAI API."""
    told = [
        replace(violation, field=_THEIRS.get(violation.field, violation.field))
        for violation in error.violations
    ]
    return InvalidRequest(told, reason=error.reason)


class _Reader:
    """Reads field by field and collects what is wrong."""

    def __init__(self, fields: Json) -> None:
        self._fields = fields
        self.violations: list[FieldViolation] = []

    def request(self) -> TuningRequest:
        for name, value in self._fields.items():
            if name in _EMPTY:
                if value != _EMPTY[name]:
                    self._wrong(name, "is not supported")
            elif name not in _READ:
                self._wrong(name[:64], "is not supported")
        objective, of_method = self._method()
        path = "hyperparameters" if of_method is None else f"method.{self._kind()}.hyperparameters"
        settings = self._object("hyperparameters") if of_method is None else of_method
        hyperparameters, multiplier = self._settings(settings, path)
        seed = self._integer(self._fields, "seed", "seed")
        if seed is not None:
            hyperparameters.seed = seed
        for name in ("model", "training_file"):
            if name not in self._fields:
                self._wrong(name, "is missing")
        files = [self._text(name) for name in ("training_file", "validation_file")]
        return TuningRequest(
            message=pb.CreateTuningJobRequest(
                dataset=f"datasets/{files[0]}",
                evaluation_dataset=f"datasets/{files[1]}" if files[1] else "",
                adapter_id=self._text("suffix"),
                objective=objective,
                hyperparameters=hyperparameters,
            ),
            model=self._text("model"),
            learning_rate_multiplier=multiplier,
        )

    def _wrong(self, field: str, description: str) -> None:
        self.violations.append(FieldViolation(field=field, description=description))

    def _kind(self) -> str:
        kind = self._object("method").get("type", "supervised")
        return kind if isinstance(kind, str) else ""

    def _method(self) -> tuple[pb.Objective, Json | None]:
        """Objective and settings; None: they do not stand here."""
        if "method" not in self._fields:
            return pb.OBJECTIVE_UNSPECIFIED, None
        method, kind = self._object("method"), self._kind()
        if kind not in _METHODS:
            self._wrong("method.type", f"must be one of {', '.join(_METHODS)}")
            return pb.OBJECTIVE_UNSPECIFIED, None
        for name in method.keys() - {"type", kind}:
            self._wrong(f"method.{name[:64]}", "is not supported")
        if kind not in method:
            return _METHODS[kind], None
        inner = self._object(kind, method, "method.")
        for name in inner.keys() - {"hyperparameters"}:
            self._wrong(f"method.{kind}.{name[:64]}", "is not supported")
        return _METHODS[kind], self._object("hyperparameters", inner, f"method.{kind}.")

    def _settings(self, settings: Json, path: str) -> tuple[pb.Hyperparameters, float | None]:
        given = {name: value for name, value in settings.items() if value not in (None, _AUTO)}
        known = {"n_epochs", "batch_size", "learning_rate_multiplier", "beta"}
        for name in given.keys() - known:
            self._wrong(f"{path}.{name[:64]}", "is not supported")
        hyperparameters = pb.Hyperparameters()
        for theirs, ours in (("n_epochs", "epochs"), ("batch_size", "batch_size")):
            found = self._integer(given, theirs, f"{path}.{theirs}")
            if found is not None:
                setattr(hyperparameters, ours, found)
        beta = self._number(given, "beta", f"{path}.beta")
        if beta is not None:
            hyperparameters.dpo_beta = beta
        return hyperparameters, self._number(
            given, "learning_rate_multiplier", f"{path}.learning_rate_multiplier"
        )

    def _object(self, name: str, fields: Json | None = None, prefix: str = "") -> Json:
        try:
            return mapping((self._fields if fields is None else fields).get(name, {}))
        except TypeError as error:
            self._wrong(prefix + name, str(error))
            return {}

    def _text(self, name: str) -> str:
        try:
            found = text(self._fields.get(name, ""))[:257]
        except TypeError as error:
            self._wrong(name, str(error))
            return ""
        if not is_unicode(found):
            self._wrong(name, NO_UNICODE)
            return ""
        return found

    def _integer(self, fields: Json, name: str, path: str) -> int | None:
        if name not in fields:
            return None
        try:
            found = integer(fields[name])
        except TypeError as error:
            self._wrong(path, str(error))
            return None
        if abs(found) > _INT32_MAX:
            self._wrong(path, "is far outside its range")
            return None
        return found

    def _number(self, fields: Json, name: str, path: str) -> float | None:
        if name not in fields:
            return None
        try:
            return number(fields[name])
        except (TypeError, OverflowError) as error:
            self._wrong(path, str(error))
            return None
