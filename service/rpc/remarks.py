"""What a job does not do as it was asked, and harms nothing: the job carries a warning.

Of settings, only those that were asked for are spoken of. Pure functions.
"""

from hotlora.v1 import tuning_service_pb2 as pb
from service.registry import SettingWarning
from trainer.config import Hyperparameters
from trainer.pacing import total_steps, validation_count


def on_settings(
    given: pb.Hyperparameters, settings: Hyperparameters, *, rows: int, prompt_tokens: int
) -> list[SettingWarning]:
    """What to say of the settings that are `given`, in a run with `settings` on `rows` rows, or pieces of
    texts. `prompt_tokens` are those of the initial prompt."""
    aside = validation_count(rows, settings.validation_fraction)
    steps = total_steps(settings, rows - aside)
    return [
        *_beyond_the_end(given, steps),
        *_beyond_the_rows(given, rows=rows, aside=aside),
        *_beyond_the_prompt(settings, prompt_tokens),
    ]


def on_dataset(counter: str, base_model: str) -> list[SettingWarning]:
    """What to say of a dataset that was checked and counted by `counter`, another base model than the
    job's."""
    return [
        SettingWarning(
            field="dataset",
            description=f"was checked and counted as {counter or 'the default base'} reads it, so that "
            f"lengths, times and memory are estimates, and rows that {base_model} refuses are told when the "
            f"run reads them; upload it with base_model {base_model} to know before",
        )
    ]


def _beyond_the_end(given: pb.Hyperparameters, steps: int) -> list[SettingWarning]:
    found = []
    run = f"the {steps} step{'s' * (steps > 1)} of the run"
    if given.eval_every_steps > steps:
        found.append(
            _warning(
                "eval_every_steps",
                f"{given.eval_every_steps} is more than {run}: it evaluates once, at the end",
            )
        )
    if given.checkpoint_every_steps > steps:
        found.append(
            _warning(
                "checkpoint_every_steps",
                f"{given.checkpoint_every_steps} is more than {run}: it has no checkpoint, and begins "
                "anew if its trainer dies",
            )
        )
    if given.log_every_steps > steps:
        found.append(
            _warning(
                "log_every_steps",
                f"{given.log_every_steps} is more than {run}: it tells its figures once, at the end",
            )
        )
    return found


def _beyond_the_rows(given: pb.Hyperparameters, *, rows: int, aside: int) -> list[SettingWarning]:
    found = []
    if given.batch_size > rows - aside:
        found.append(
            _warning(
                "batch_size",
                f"{given.batch_size} is more than the {rows - aside} rows that are trained on: every step "
                "takes all of them",
            )
        )
    if given.validation_fraction > 0 and not aside:
        found.append(
            _warning(
                "validation_fraction",
                f"{given.validation_fraction:g} of {rows} row is none: nothing is evaluated",
            )
        )
    return found


def _beyond_the_prompt(settings: Hyperparameters, prompt_tokens: int) -> list[SettingWarning]:
    if prompt_tokens <= settings.virtual_tokens:
        return []
    return [
        _warning(
            "initial_prompt",
            f"has {prompt_tokens} tokens, and hyperparameters.virtual_tokens are {settings.virtual_tokens}: "
            "the rest of it is cut off",
        )
    ]


def _warning(name: str, description: str) -> SettingWarning:
    return SettingWarning(field=f"hyperparameters.{name}", description=description)
