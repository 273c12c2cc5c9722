"""Every call of the API: its path, its message types, how long it may take, whether repeating it is harmless.

Says nothing of how a call is made; `hotlora.client` and `hotlora.aio` do that, each in its own flavour.
"""

import os
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message

from hotlora.v1 import adapter_service_pb2 as adapters
from hotlora.v1 import alias_service_pb2 as aliases
from hotlora.v1 import chat_service_pb2 as chats
from hotlora.v1 import dataset_service_pb2 as datasets
from hotlora.v1 import evaluation_service_pb2 as evaluations
from hotlora.v1 import planning_service_pb2 as planning
from hotlora.v1 import tuning_service_pb2 as tuning

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"

LOOK_TIMEOUT_SECONDS: Final = 10.0
"""Reads of the registry: milliseconds when all is well."""
CHANGE_TIMEOUT_SECONDS: Final = 30.0
"""Writes: they may wait for a lock, or for a dataset's rows to be measured."""
UPLOAD_TIMEOUT_SECONDS: Final = 900.0
"""512 MiB, each row checked and rendered, on a slow machine."""
EXPORT_TIMEOUT_SECONDS: Final = 3600.0
"""A whole model, read twice from a slow disk."""
PLAN_TIMEOUT_SECONDS: Final = 600.0
"""A probe of a large base on a slow machine; without a probe a plan takes milliseconds."""
CHAT_TIMEOUT_SECONDS: Final = 600.0
"""The longest answer of a small model on a CPU."""
RETRY_PAUSES_SECONDS: Final = (0.1, 0.3, 0.6)
"""Pauses before the repetitions of a call that nobody answered. Together a second: a service that restarts is
bridged, one that is not there is reported before the caller loses patience."""
UPLOAD_CHUNK_BYTES: Final = 512 * 1024
"""Bytes of one upload message; the API accepts up to 1 MiB."""
UPLOAD_LIMIT_BYTES: Final = 512 * 1024 * 1024
"""The API's bound, checked before sending so that a file that is far too large is refused at once."""

KEEPALIVE_SECONDS: Final = 15.0
"""After so much silence during a call the service is asked whether it lives; without an answer within as long
again, the connection is given up. The service allows a question every 10 seconds."""


def channel_options(keepalive_seconds: float) -> tuple[tuple[str, int], ...]:
    """What a connection to the service is made with."""
    keepalive_ms = int(keepalive_seconds * 1000)
    return (
        # A preview of 100 rows of up to 1 MiB each does not fit gRPC's default of 4 MiB.
        ("grpc.max_receive_message_length", 256 * 1024 * 1024),
        # The service listens on loopback: a proxy out of the environment has no business between.
        ("grpc.enable_http_proxy", 0),
        # A service that comes back is found soon; gRPC's own pauses grow to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # How long a connection may take until the service's first frame, whatever its name says: a busy
        # machine needs more than the tenth of a second that the pauses begin with.
        ("grpc.min_reconnect_backoff_ms", 10_000),
        # A watch has no deadline: behind a wire that died without a word it would wait for ever.
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", keepalive_ms),
        ("grpc.http2.ping_timeout_ms", keepalive_ms),  # of a ping that measures the wire, and serves for both
        ("grpc.http2.max_pings_without_data", 0),
    )


RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


@dataclass(frozen=True, kw_only=True)
class Call(Generic[RequestT, ResponseT]):
    """One method of the API."""

    service: str
    method: str
    request: type[RequestT]
    response: type[ResponseT]
    timeout_seconds: float | None
    """None only for streams that follow something for as long as it lasts."""
    repeatable: bool
    """Whether a call that nobody answered may be made again without doing harm."""

    @property
    def path(self) -> str:
        return f"/hotlora.v1.{self.service}/{self.method}"


def address_or_default(address: str | None) -> str:
    """The given address, else HOTLORA_ADDRESS, else the default."""
    return address or os.environ.get("HOTLORA_ADDRESS") or DEFAULT_ADDRESS


def _call(
    service: str,
    method: str,
    request: type[RequestT],
    response: type[ResponseT],
    timeout_seconds: float | None,
    *,
    repeatable: bool,
) -> Call[RequestT, ResponseT]:
    return Call(
        service=service,
        method=method,
        request=request,
        response=response,
        timeout_seconds=timeout_seconds,
        repeatable=repeatable,
    )


# Repeatable because it carries a request_id, always.
CREATE_TUNING_JOB: Final = _call(
    "TuningService", "CreateTuningJob", tuning.CreateTuningJobRequest, tuning.TuningJob,
    CHANGE_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
GET_TUNING_JOB: Final = _call(
    "TuningService", "GetTuningJob", tuning.GetTuningJobRequest, tuning.TuningJob,
    LOOK_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
LIST_TUNING_JOBS: Final = _call(
    "TuningService", "ListTuningJobs", tuning.ListTuningJobsRequest, tuning.ListTuningJobsResponse,
    LOOK_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
CANCEL_TUNING_JOB: Final = _call(
    "TuningService", "CancelTuningJob", tuning.CancelTuningJobRequest, tuning.TuningJob,
    CHANGE_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
PAUSE_TUNING_JOB: Final = _call(
    "TuningService", "PauseTuningJob", tuning.PauseTuningJobRequest, tuning.TuningJob,
    CHANGE_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
RESUME_TUNING_JOB: Final = _call(
    "TuningService", "ResumeTuningJob", tuning.ResumeTuningJobRequest, tuning.TuningJob,
    CHANGE_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
WATCH_TUNING_JOB: Final = _call(
    "TuningService", "WatchTuningJob", tuning.WatchTuningJobRequest, tuning.WatchTuningJobResponse,
    None, repeatable=True,
)  # fmt: skip

# These two are not repeatable: the first try may have taken the id, the second would be told that it is.
UPLOAD_DATASET: Final = _call(
    "DatasetService", "UploadDataset", datasets.UploadDatasetRequest, datasets.Dataset,
    UPLOAD_TIMEOUT_SECONDS, repeatable=False,
)  # fmt: skip
IMPORT_DATASET: Final = _call(
    "DatasetService", "ImportDataset", datasets.ImportDatasetRequest, datasets.Dataset,
    UPLOAD_TIMEOUT_SECONDS, repeatable=False,
)  # fmt: skip
GET_DATASET: Final = _call(
    "DatasetService", "GetDataset", datasets.GetDatasetRequest, datasets.Dataset,
    LOOK_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
LIST_DATASETS: Final = _call(
    "DatasetService", "ListDatasets", datasets.ListDatasetsRequest, datasets.ListDatasetsResponse,
    LOOK_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
# Not repeatable: the second try would be told that there is nothing to delete.
DELETE_DATASET: Final = _call(
    "DatasetService", "DeleteDataset", datasets.DeleteDatasetRequest, datasets.DeleteDatasetResponse,
    CHANGE_TIMEOUT_SECONDS, repeatable=False,
)  # fmt: skip
PREVIEW_DATASET: Final = _call(
    "DatasetService", "PreviewDataset", datasets.PreviewDatasetRequest, datasets.PreviewDatasetResponse,
    CHANGE_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip

GET_ADAPTER: Final = _call(
    "AdapterService", "GetAdapter", adapters.GetAdapterRequest, adapters.Adapter,
    LOOK_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
LIST_ADAPTERS: Final = _call(
    "AdapterService", "ListAdapters", adapters.ListAdaptersRequest, adapters.ListAdaptersResponse,
    LOOK_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
DELETE_ADAPTER: Final = _call(
    "AdapterService", "DeleteAdapter", adapters.DeleteAdapterRequest, adapters.DeleteAdapterResponse,
    CHANGE_TIMEOUT_SECONDS, repeatable=False,
)  # fmt: skip
GET_ADAPTER_VERSION: Final = _call(
    "AdapterService", "GetAdapterVersion", adapters.GetAdapterVersionRequest, adapters.AdapterVersion,
    LOOK_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
LIST_ADAPTER_VERSIONS: Final = _call(
    "AdapterService", "ListAdapterVersions", adapters.ListAdapterVersionsRequest,
    adapters.ListAdapterVersionsResponse, LOOK_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
LOAD_ADAPTER_VERSION: Final = _call(
    "AdapterService", "LoadAdapterVersion", adapters.LoadAdapterVersionRequest, adapters.AdapterVersion,
    CHANGE_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
UNLOAD_ADAPTER_VERSION: Final = _call(
    "AdapterService", "UnloadAdapterVersion", adapters.UnloadAdapterVersionRequest, adapters.AdapterVersion,
    CHANGE_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
WATCH_ADAPTER_VERSION: Final = _call(
    "AdapterService", "WatchAdapterVersion", adapters.WatchAdapterVersionRequest, adapters.AdapterVersion,
    None, repeatable=True,
)  # fmt: skip
# Not repeatable: the first try may have made the version.
IMPORT_ADAPTER_VERSION: Final = _call(
    "AdapterService", "ImportAdapterVersion", adapters.ImportAdapterVersionRequest, adapters.AdapterVersion,
    EXPORT_TIMEOUT_SECONDS, repeatable=False,
)  # fmt: skip
# Not repeatable: files that came already would come again.
EXPORT_ADAPTER_VERSION: Final = _call(
    "AdapterService", "ExportAdapterVersion", adapters.ExportAdapterVersionRequest,
    adapters.ExportAdapterVersionResponse, EXPORT_TIMEOUT_SECONDS, repeatable=False,
)  # fmt: skip

GET_ALIAS: Final = _call(
    "AliasService", "GetAlias", aliases.GetAliasRequest, aliases.Alias,
    LOOK_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
LIST_ALIASES: Final = _call(
    "AliasService", "ListAliases", aliases.ListAliasesRequest, aliases.ListAliasesResponse,
    LOOK_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
# Repeatable: an alias that points there already stays as it is.
PROMOTE_VERSION: Final = _call(
    "AliasService", "PromoteVersion", aliases.PromoteVersionRequest, aliases.Alias,
    CHANGE_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
SPLIT_TRAFFIC: Final = _call(
    "AliasService", "SplitTraffic", aliases.SplitTrafficRequest, aliases.Alias,
    CHANGE_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
# Not repeatable: the second try would go back once more.
ROLL_BACK_ALIAS: Final = _call(
    "AliasService", "RollBackAlias", aliases.RollBackAliasRequest, aliases.Alias,
    CHANGE_TIMEOUT_SECONDS, repeatable=False,
)  # fmt: skip
DELETE_ALIAS: Final = _call(
    "AliasService", "DeleteAlias", aliases.DeleteAliasRequest, aliases.DeleteAliasResponse,
    CHANGE_TIMEOUT_SECONDS, repeatable=False,
)  # fmt: skip
LIST_ALIAS_CHANGES: Final = _call(
    "AliasService", "ListAliasChanges", aliases.ListAliasChangesRequest, aliases.ListAliasChangesResponse,
    LOOK_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip

GET_EVALUATION: Final = _call(
    "EvaluationService", "GetEvaluation", evaluations.GetEvaluationRequest, evaluations.AdapterEvaluation,
    LOOK_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
LIST_EVALUATIONS: Final = _call(
    "EvaluationService", "ListEvaluations", evaluations.ListEvaluationsRequest,
    evaluations.ListEvaluationsResponse, LOOK_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
# Repeatable because it carries a request_id, always.
CREATE_EVALUATION: Final = _call(
    "EvaluationService", "CreateEvaluation", evaluations.CreateEvaluationRequest,
    evaluations.AdapterEvaluation, CHANGE_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
WATCH_EVALUATION: Final = _call(
    "EvaluationService", "WatchEvaluation", evaluations.WatchEvaluationRequest,
    evaluations.AdapterEvaluation, None, repeatable=True,
)  # fmt: skip

# Repeatable: a probe that was cut off is made anew, and one that ended is not made again.
PLAN: Final = _call(
    "PlanningService", "Plan", planning.PlanRequest, planning.PlanResponse,
    PLAN_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip

# Not repeatable: a stream that was cut short would begin its answer anew.
CHAT: Final = _call(
    "ChatService", "Chat", chats.ChatRequest, chats.ChatResponse, CHAT_TIMEOUT_SECONDS, repeatable=False
)
LIST_MODELS: Final = _call(
    "ChatService", "ListModels", chats.ListModelsRequest, chats.ListModelsResponse,
    LOOK_TIMEOUT_SECONDS, repeatable=True,
)  # fmt: skip
