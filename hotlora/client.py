"""The blocking client: one method per call of the API, typed errors, watches that reconnect by themselves.

Knows nothing of the service but its protos. Every method may raise what stands in `hotlora.errors`.
Methods may be called from several threads. For asyncio there is `hotlora.aio`.
"""

import io
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import grpc

from hotlora import calls, errors, requests, statuses
from hotlora.arrival import Arrival
from hotlora.calls import Call, RequestT, ResponseT
from hotlora.departure import departure
from hotlora.following import Cursor, EvaluationCursor, JobCursor, Patience, VersionCursor
from hotlora.v1 import adapter_service_pb2 as adapters
from hotlora.v1 import alias_service_pb2 as aliases
from hotlora.v1 import chat_service_pb2 as chats
from hotlora.v1 import dataset_service_pb2 as datasets
from hotlora.v1 import evaluation_service_pb2 as evaluations
from hotlora.v1 import planning_service_pb2 as planning
from hotlora.v1 import tuning_service_pb2 as tuning
from hotlora.v1.resources_pb2 import Message


class Client:
    """Speaks to one service. `address` is host:port; by default HOTLORA_ADDRESS, else 127.0.0.1:50051.

    Close it, or use it as a context manager.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        clock: Callable[[], float] = time.monotonic,
        keepalive_seconds: float = calls.KEEPALIVE_SECONDS,
    ) -> None:
        """A connection that died without a word is given up after twice `keepalive_seconds`."""
        self.address = calls.address_or_default(address)
        self._new_id = new_id
        self._clock = clock
        self._channel = grpc.insecure_channel(self.address, options=calls.channel_options(keepalive_seconds))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every running call and the connection."""
        self._channel.close()

    # Tuning jobs

    def create_tuning_job(
        self,
        *,
        dataset: str,
        adapter_id: str,
        base_model: str = "",
        technique: tuning.Technique | str = tuning.TECHNIQUE_UNSPECIFIED,
        objective: tuning.Objective | str = tuning.OBJECTIVE_UNSPECIFIED,
        hyperparameters: tuning.Hyperparameters | None = None,
        request_id: str | None = None,
        evaluation_dataset: str = "",
        start_version: str = "",
    ) -> tuning.TuningJob:
        """Queues a job on `dataset`, datasets/{id}. A request id is made where none is given."""
        request = tuning.CreateTuningJobRequest(
            request_id=request_id or self._new_id(),
            base_model=base_model,
            dataset=dataset,
            adapter_id=adapter_id,
            technique=technique,
            objective=objective,
            hyperparameters=hyperparameters,
            evaluation_dataset=evaluation_dataset,
            start_version=start_version,
        )
        return self._unary(calls.CREATE_TUNING_JOB, request)

    def plan(self, request: planning.PlanRequest) -> planning.PlanResponse:
        """What a training will need, and which technique to take. A probe takes half a minute or more."""
        return self._unary(calls.PLAN, request)

    def get_tuning_job(self, name: str) -> tuning.TuningJob:
        return self._unary(calls.GET_TUNING_JOB, tuning.GetTuningJobRequest(name=name))

    def list_tuning_jobs(
        self,
        *,
        page_size: int = 0,
        page_token: str = "",
        states: Sequence[tuning.TuningJob.State | str] = (),
        adapter: str = "",
    ) -> tuning.ListTuningJobsResponse:
        """A page of jobs, newest first. `adapter` is adapters/{id}, or empty for all."""
        request = tuning.ListTuningJobsRequest(
            page_size=page_size, page_token=page_token, states=states, adapter=adapter
        )
        return self._unary(calls.LIST_TUNING_JOBS, request)

    def cancel_tuning_job(self, name: str) -> tuning.TuningJob:
        return self._unary(calls.CANCEL_TUNING_JOB, tuning.CancelTuningJobRequest(name=name))

    def pause_tuning_job(self, name: str) -> tuning.TuningJob:
        return self._unary(calls.PAUSE_TUNING_JOB, tuning.PauseTuningJobRequest(name=name))

    def resume_tuning_job(self, name: str) -> tuning.TuningJob:
        return self._unary(calls.RESUME_TUNING_JOB, tuning.ResumeTuningJobRequest(name=name))

    def watch_tuning_job(
        self, name: str, after_sequence: int = 0
    ) -> Generator[tuning.WatchTuningJobResponse, None, None]:
        """The job's present state once, then each event after the cursor once, until the job has ended.

        Reconnects by itself for as long as `following.PATIENCE_SECONDS`, missing and repeating nothing.
        """
        return self._follow(calls.WATCH_TUNING_JOB, JobCursor(name, after_sequence))

    # Datasets

    def upload_dataset(
        self,
        source: Path | bytes,
        *,
        dataset_id: str = "",
        display_name: str = "",
        wishes: datasets.UploadHeader | None = None,
        sent: Callable[[int], None] = lambda total_bytes: None,
    ) -> datasets.Dataset:
        """Uploads a file, or bytes. `sent` is told the bytes sent so far.

        `wishes` says how it is understood: format, mapping, bad_rows, task, validate_only.
        Raises OSError when the file cannot be read. InvalidArgument names the first 20 bad rows.
        """
        size_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
        header = requests.upload_header(
            dataset_id=dataset_id, display_name=display_name, size_bytes=size_bytes, wishes=wishes
        )
        method = self._channel.stream_unary(
            calls.UPLOAD_DATASET.path,
            request_serializer=datasets.UploadDatasetRequest.SerializeToString,
            response_deserializer=datasets.Dataset.FromString,
        )
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            # A future, so that an interrupted wait cancels the call instead of leaving it to run.
            call = method.future(_upload(header, file, sent), timeout=calls.UPLOAD_DATASET.timeout_seconds)
            try:
                return call.result()
            except grpc.RpcError as failure:
                raise self._error(failure, calls.UPLOAD_DATASET) from None
            finally:
                call.cancel()

    def import_dataset(
        self,
        source: str | datasets.HubSplit,
        *,
        dataset_id: str = "",
        display_name: str = "",
        wishes: datasets.UploadHeader | None = None,
    ) -> datasets.Dataset:
        """Has the service read a path on its own machine, or a split of the Hugging Face hub.

        `wishes` as for an upload. InvalidArgument names the first 20 bad rows, or why the source is refused.
        """
        request = requests.import_request(
            source=source, dataset_id=dataset_id, display_name=display_name, wishes=wishes
        )
        return self._unary(calls.IMPORT_DATASET, request)

    def get_dataset(self, name: str) -> datasets.Dataset:
        return self._unary(calls.GET_DATASET, datasets.GetDatasetRequest(name=name))

    def list_datasets(self, *, page_size: int = 0, page_token: str = "") -> datasets.ListDatasetsResponse:
        """A page of datasets, newest first."""
        request = datasets.ListDatasetsRequest(page_size=page_size, page_token=page_token)
        return self._unary(calls.LIST_DATASETS, request)

    def delete_dataset(self, name: str) -> None:
        self._unary(calls.DELETE_DATASET, datasets.DeleteDatasetRequest(name=name))

    def preview_dataset(self, name: str, *, max_rows: int = 0) -> datasets.PreviewDatasetResponse:
        """The first rows as the base model will see them; 0 means 5."""
        request = datasets.PreviewDatasetRequest(name=name, max_rows=max_rows)
        return self._unary(calls.PREVIEW_DATASET, request)

    # Adapters

    def get_adapter(self, name: str) -> adapters.Adapter:
        return self._unary(calls.GET_ADAPTER, adapters.GetAdapterRequest(name=name))

    def list_adapters(self, *, page_size: int = 0, page_token: str = "") -> adapters.ListAdaptersResponse:
        """A page of adapters, by name."""
        request = adapters.ListAdaptersRequest(page_size=page_size, page_token=page_token)
        return self._unary(calls.LIST_ADAPTERS, request)

    def delete_adapter(self, name: str) -> None:
        self._unary(calls.DELETE_ADAPTER, adapters.DeleteAdapterRequest(name=name))

    def get_adapter_version(self, name: str) -> adapters.AdapterVersion:
        return self._unary(calls.GET_ADAPTER_VERSION, adapters.GetAdapterVersionRequest(name=name))

    def list_adapter_versions(
        self, parent: str, *, page_size: int = 0, page_token: str = ""
    ) -> adapters.ListAdapterVersionsResponse:
        """A page of the versions of adapters/{id}, newest first."""
        request = adapters.ListAdapterVersionsRequest(
            parent=parent, page_size=page_size, page_token=page_token
        )
        return self._unary(calls.LIST_ADAPTER_VERSIONS, request)

    def load_adapter_version(self, name: str) -> adapters.AdapterVersion:
        return self._unary(calls.LOAD_ADAPTER_VERSION, adapters.LoadAdapterVersionRequest(name=name))

    def unload_adapter_version(self, name: str) -> adapters.AdapterVersion:
        return self._unary(calls.UNLOAD_ADAPTER_VERSION, adapters.UnloadAdapterVersionRequest(name=name))

    def watch_adapter_version(self, name: str) -> Generator[adapters.AdapterVersion, None, None]:
        """The version now, then at each change, until it is ACTIVE, FAILED or RETIRED; reconnects itself."""
        return self._follow(calls.WATCH_ADAPTER_VERSION, VersionCursor(name))

    def import_adapter_version(
        self, source: Path | str, adapter_id: str, *, base_model: str = ""
    ) -> adapters.AdapterVersion:
        """Makes the next version of an adapter of a PEFT LoRA directory: one here (a Path), whose two files
        are uploaded, or one on the service's machine (a text). Raises OSError where a file cannot be read."""
        method = self._channel.stream_unary(
            calls.IMPORT_ADAPTER_VERSION.path,
            request_serializer=adapters.ImportAdapterVersionRequest.SerializeToString,
            response_deserializer=adapters.AdapterVersion.FromString,
        )
        with departure(source, adapter_id, base_model) as messages:
            call = method.future(messages, timeout=calls.IMPORT_ADAPTER_VERSION.timeout_seconds)
            try:
                return call.result()
            except grpc.RpcError as failure:
                raise self._error(failure, calls.IMPORT_ADAPTER_VERSION) from None
            finally:
                call.cancel()

    def export_adapter_version(
        self,
        name: str,
        target: Path,
        *,
        format: adapters.ExportAdapterVersionRequest.Format
        | str = adapters.ExportAdapterVersionRequest.FORMAT_UNSPECIFIED,
        gguf_type: adapters.ExportAdapterVersionRequest.GgufType
        | str = adapters.ExportAdapterVersionRequest.GGUF_TYPE_UNSPECIFIED,
    ) -> Path:
        """Writes a version to `target`, a directory that must not exist: whole, or not at all; gives it.

        A merged model or a GGUF file, which `format` may ask for, is made first, in seconds to minutes.

        Raises FileExistsError, OSError, and DataLoss where what came is not what was announced.
        """
        with Arrival(target) as arrival:
            request = adapters.ExportAdapterVersionRequest(name=name, format=format, gguf_type=gguf_type)
            with closing(self._stream(calls.EXPORT_ADAPTER_VERSION, request)) as pieces:
                for piece in pieces:
                    arrival.take(piece)
            arrival.finish()
        return target

    # Aliases

    def get_alias(self, name: str) -> aliases.Alias:
        return self._unary(calls.GET_ALIAS, aliases.GetAliasRequest(name=name))

    def list_aliases(
        self, parent: str, *, page_size: int = 0, page_token: str = ""
    ) -> aliases.ListAliasesResponse:
        """A page of the aliases of adapters/{id}, by id."""
        request = aliases.ListAliasesRequest(parent=parent, page_size=page_size, page_token=page_token)
        return self._unary(calls.LIST_ALIASES, request)

    def promote_version(
        self,
        name: str,
        version: int,
        *,
        gated: bool | None = None,
        force: bool = False,
        expected_revision: int | None = None,
        author: str = "",
    ) -> aliases.Alias:
        """Points adapters/{id}/aliases/{alias} at one version, from the next request on."""
        request = aliases.PromoteVersionRequest(
            name=name,
            version=version,
            gated=gated,
            force=force,
            expected_revision=expected_revision,
            author=author,
        )
        return self._unary(calls.PROMOTE_VERSION, request)

    def split_traffic(
        self,
        name: str,
        percents: Mapping[int, int],
        *,
        gated: bool | None = None,
        force: bool = False,
        expected_revision: int | None = None,
        author: str = "",
    ) -> aliases.Alias:
        """Has versions share an alias's requests: percentages by version number, which make 100."""
        request = aliases.SplitTrafficRequest(
            name=name,
            shares=[
                aliases.TrafficShare(version=version, percent=percent)
                for version, percent in percents.items()
            ],
            gated=gated,
            force=force,
            expected_revision=expected_revision,
            author=author,
        )
        return self._unary(calls.SPLIT_TRAFFIC, request)

    def roll_back_alias(
        self, name: str, *, steps: int = 1, expected_revision: int | None = None, author: str = ""
    ) -> aliases.Alias:
        """Points an alias at what it pointed at `steps` settings ago."""
        request = aliases.RollBackAliasRequest(
            name=name, steps=steps, expected_revision=expected_revision, author=author
        )
        return self._unary(calls.ROLL_BACK_ALIAS, request)

    def delete_alias(self, name: str, *, expected_revision: int | None = None, author: str = "") -> None:
        request = aliases.DeleteAliasRequest(name=name, expected_revision=expected_revision, author=author)
        self._unary(calls.DELETE_ALIAS, request)

    def list_alias_changes(
        self, parent: str, *, page_size: int = 0, page_token: str = ""
    ) -> aliases.ListAliasChangesResponse:
        """A page of what was done to adapters/{id}/aliases/{alias}, newest first."""
        request = aliases.ListAliasChangesRequest(parent=parent, page_size=page_size, page_token=page_token)
        return self._unary(calls.LIST_ALIAS_CHANGES, request)

    # Evaluations

    def get_evaluation(self, name: str) -> evaluations.AdapterEvaluation:
        return self._unary(calls.GET_EVALUATION, evaluations.GetEvaluationRequest(name=name))

    def list_evaluations(
        self, *, page_size: int = 0, page_token: str = "", parent: str = ""
    ) -> evaluations.ListEvaluationsResponse:
        """A page of evaluations, newest first. `parent` is an adapter, a version, or empty for all."""
        request = evaluations.ListEvaluationsRequest(
            page_size=page_size, page_token=page_token, parent=parent
        )
        return self._unary(calls.LIST_EVALUATIONS, request)

    def create_evaluation(
        self, adapter_version: str, *, dataset: str = "", request_id: str | None = None
    ) -> evaluations.AdapterEvaluation:
        """Queues one on `dataset`, by default on what the version's job held out. A request id is made where
        none is given."""
        request = evaluations.CreateEvaluationRequest(
            request_id=request_id or self._new_id(), adapter_version=adapter_version, dataset=dataset
        )
        return self._unary(calls.CREATE_EVALUATION, request)

    def watch_evaluation(self, name: str) -> Generator[evaluations.AdapterEvaluation, None, None]:
        """The evaluation now, then at each change, until it is SUCCEEDED or FAILED; reconnects itself."""
        return self._follow(calls.WATCH_EVALUATION, EvaluationCursor(name))

    # Chat

    def chat(
        self,
        messages: Sequence[Message],
        *,
        model: str = "",
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        sticky_key: str = "",
    ) -> Generator[chats.ChatResponse, None, None]:
        """Streams an answer; None leaves the service's default. Closing the generator cancels the call."""
        request = requests.chat_request(
            model=model,
            messages=messages,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop=stop,
            sticky_key=sticky_key,
        )
        return self._stream(calls.CHAT, request)

    def list_models(self) -> chats.ListModelsResponse:
        return self._unary(calls.LIST_MODELS, chats.ListModelsRequest())

    # How calls are made

    def _unary(self, call: Call[RequestT, ResponseT], request: RequestT) -> ResponseT:
        """One answer, asked for again where that is harmless and nobody answered."""
        assert call.timeout_seconds is not None
        ends_at = self._clock() + call.timeout_seconds
        method = self._channel.unary_unary(
            call.path,
            request_serializer=call.request.SerializeToString,
            response_deserializer=call.response.FromString,
        )
        pauses = iter(calls.RETRY_PAUSES_SECONDS if call.repeatable else ())
        while True:
            try:
                return method(request, timeout=ends_at - self._clock())
            except grpc.RpcError as failure:
                error = self._error(failure, call)
            pause = next(pauses, None)
            if pause is None or not isinstance(error, errors.Unavailable):
                raise error
            time.sleep(pause)

    def _stream(self, call: Call[RequestT, ResponseT], request: RequestT) -> Generator[ResponseT, None, None]:
        """One stream. Closing the generator cancels the call."""
        stream = self._channel.unary_stream(
            call.path,
            request_serializer=call.request.SerializeToString,
            response_deserializer=call.response.FromString,
        )(request, timeout=call.timeout_seconds)
        has_begun = False
        try:
            for response in stream:
                has_begun = True
                yield response
        except grpc.RpcError as failure:
            raise self._error(failure, call, broken_off=has_begun) from None
        finally:
            stream.cancel()

    def _follow(
        self, call: Call[RequestT, ResponseT], cursor: Cursor[RequestT, ResponseT]
    ) -> Generator[ResponseT, None, None]:
        """What is new of a stream, opened again and again until it ends well."""
        patience = Patience(self._clock)
        while True:
            patience.opened()
            try:
                with closing(self._stream(call, cursor.request())) as stream:
                    for response in stream:
                        if cursor.is_new(response):
                            patience.progressed()
                            yield response
                return
            except errors.HotloraError as error:
                pause = patience.pause_seconds(error)
            time.sleep(pause)

    def _error(
        self, failure: grpc.RpcError, call: Call[RequestT, ResponseT], *, broken_off: bool = False
    ) -> errors.HotloraError:
        trailers = [(one.key, one.value) for one in failure.trailing_metadata() or ()]
        status = statuses.status_of(failure.code(), failure.details(), trailers)
        return statuses.error_of(status, address=self.address, method=call.method, broken_off=broken_off)


def _upload(
    header: datasets.UploadDatasetRequest, file: BinaryIO, sent: Callable[[int], None]
) -> Iterator[datasets.UploadDatasetRequest]:
    """The messages of an upload, read as they are sent."""
    yield header
    total_bytes = 0
    while chunk := file.read(calls.UPLOAD_CHUNK_BYTES):
        yield datasets.UploadDatasetRequest(chunk=chunk)
        total_bytes += len(chunk)
        sent(total_bytes)
