"""What a form of the page makes of texts, and its pickers of lists; no browser is needed for that."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from hotlora.errors import FieldViolation, InvalidArgument
from hotlora.v1.adapter_service_pb2 import AdapterVersion
from hotlora.v1.chat_service_pb2 import ListModelsResponse, Model
from hotlora.v1.tuning_service_pb2 import METRIC_TASK_SCORE, Hyperparameters
from ui.models import offer
from ui.settings import COMMON, EVALUATION, RARE, choices, hyperparameters, options
from ui.typed import adapter_id, columns, dataset, version
from ui.words import plain

FIELDS = {field.name for field in Hyperparameters.DESCRIPTOR.fields}


def test_every_setting_of_a_training_has_one_field_and_stays_unset_where_that_is_empty() -> None:
    offered = [*COMMON, *EVALUATION, *RARE]
    assert sorted(offered) == sorted(FIELDS)
    assert hyperparameters(dict.fromkeys(offered, "")) == Hyperparameters()


def test_settings_are_read_as_what_each_of_them_is() -> None:
    texts = {
        "rank": "8",
        "learning_rate": "2e-4",
        "use_rslora": "no",
        "target_modules": "q_proj, v_proj k_proj",
        "initial_prompt": "Sort the message.",
        "early_stopping_metric": "METRIC_TASK_SCORE",
    }
    read = hyperparameters(texts)
    assert read == Hyperparameters(
        rank=8,
        learning_rate=2e-4,
        use_rslora=False,
        target_modules=["q_proj", "v_proj", "k_proj"],
        initial_prompt="Sort the message.",
        early_stopping_metric=METRIC_TASK_SCORE,
    )
    assert read.HasField("use_rslora")


def test_all_settings_that_cannot_be_read_are_told_at_once_by_the_names_of_their_fields() -> None:
    with pytest.raises(InvalidArgument) as caught:
        hyperparameters({"rank": "many", "max_steps": "9" * 12, "dpo_beta": "little", "epochs": "2"})
    told = plain(caught.value)
    assert "Rank: 'many' is not a whole number" in told
    assert "Max steps: 999999999999 is far outside its range" in told
    assert "DPO beta: 'little' is not a number" in told
    assert "Epochs" not in told


def test_what_can_be_picked_begins_with_the_default_which_is_left_unset() -> None:
    assert options("schedule", "cosine") == [
        ("default: cosine", ""),
        ("cosine", "SCHEDULE_COSINE"),
        ("linear", "SCHEDULE_LINEAR"),
        ("constant", "SCHEDULE_CONSTANT"),
    ]
    assert options("rank", "16") == []
    assert choices(["TASK_UNSPECIFIED", "TASK_QUESTION_ANSWERING"], "none")[1][0] == "question answering"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("hyperparameters.early_stopping_patience", "Early stopping patience"),
        ("hyperparameters.target_modules[1]", "Target modules"),
        ('header.mapping["promt"]', "Mapping"),
        ("hyperparameters.use_rslora", "Use rsLoRA"),
        ("start_version", "Start version"),
        ("line 2", "line 2"),
    ],
)
def test_a_refusal_of_the_service_names_a_field_as_the_form_does(path: str, name: str) -> None:
    violation = FieldViolation(field=path, description="3 contradicts hyperparameters.max_steps 2")
    assert plain(InvalidArgument("no", violations=(violation,))) == f"{name}: 3 contradicts Max steps 2"


def test_columns_are_pairs_by_line_or_comma_and_may_have_commas_in_their_names() -> None:
    assert columns("prompt=Question, in full\n\n completion = Answer ", "mapping") == {
        "prompt": "Question, in full",
        "completion": "Answer",
    }
    assert columns("prompt=a, completion=b", "mapping") == {"prompt": "a", "completion": "b"}
    for wrong, words in (("prompt", "'prompt' is not KEY=COLUMN"), ("a=1\na=2", "a is given twice, 1 and 2")):
        with pytest.raises(InvalidArgument, match=f"^Mapping: {words}"):
            columns(wrong, "mapping")


def test_names_are_refused_by_the_field_that_they_stand_in() -> None:
    assert version("support@3", "start_version") == "adapters/support/versions/3"
    assert version("adapters/a/versions/1", "start_version") == "adapters/a/versions/1"
    assert version("", "start_version") == ""
    with pytest.raises(InvalidArgument, match=r"^Start version: 'support' names no version.*support@1"):
        version("support", "start_version")
    assert dataset("rows-1", "dataset") == dataset("datasets/rows-1", "dataset") == "datasets/rows-1"
    assert dataset("hf:owner/name", "dataset") == "hf:owner/name"
    for wrong in ("hf:owner", "Rows", "datasets/", "models/rows"):
        with pytest.raises(InvalidArgument, match=r"^Evaluation dataset: .* names none.*hf:OWNER/NAME"):
            dataset(wrong, "evaluation_dataset")
    assert adapter_id("a-1", "adapter") == "a-1"
    for wrong in ("", "Support Desk", "-a", "a" * 64):
        with pytest.raises(InvalidArgument, match=r"^Adapter: .*lower-case letters, digits and dashes"):
            adapter_id(wrong, "adapter")


def test_the_newest_adapter_is_offered_beside_its_own_base() -> None:
    active = AdapterVersion.STATE_ACTIVE

    def version(id: str, base: str, seconds: int, serving: Model.Serving) -> Model:
        return Model(
            id=id,
            base_model=base,
            adapter_version=f"adapters/{id.replace('@', '/versions/')}",
            state=active,
            serving=serving,
            available=serving == Model.SERVING_READY,
            create_time=Timestamp(seconds=seconds),
        )

    bases = [Model(id=name, base_model=name, available=True) for name in ("one", "two")]
    versions = [
        version("a@1", "one", 1, Model.SERVING_READY),
        version("b@1", "two", 2, Model.SERVING_READY),
        version("c@1", "gone", 3, Model.SERVING_NONE),
    ]
    found = offer(ListModelsResponse(models=[*bases, *versions]))
    assert (found.base, found.newest_active) == ("two", "b@1")
    assert [label for label, _ in found.choices][-1] == "c@1 · its base model is not here"
    assert offer(ListModelsResponse(models=bases)).base == "one"
