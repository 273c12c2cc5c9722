"""The client for asyncio: one method per call of the API, typed errors, watches that reconnect by themselves.

Knows nothing of the service but its protos. Every method may raise what stands in `hotlora.errors`.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from hotlora import calls, errors, requests, statuses
from hotlora.arrival import Arrival
from hotlora.calls import Call, RequestT, ResponseT
from hotlora.client import Client
from hotlora.following import Cursor, EvaluationCursor, JobCursor, Patience, VersionCursor
from hotlora.v1 import adapter_service_pb2 as adapters
from hotlora.v1 import alias_service_pb2 as aliases
from hotlora.v1 import chat_service_pb2 as chats
from hotlora.v1 import dataset_service_pb2 as datasets
from hotlora.v1 import evaluation_service_pb2 as evaluations
from hotlora.v1 import planning_service_pb2 as planning
from hotlora.v1 import tuning_service_pb2 as tuning
from hotlora.v1.resources_pb2 import Message


class AsyncClient:
    """Speaks to one service. `address` is host:port; by default HOTLORA_ADDRESS, else 127.0.0.1:50051.

    May be made outside a running event loop; it belongs to the loop of its first call.
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
        self._options = calls.channel_options(keepalive_seconds)
        self._open_channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every running call and the connection."""
        if self._open_channel is not None:
            await self._open_channel.close()
            self._open_channel = None

    # Tuning jobs

    async def create_tuning_job(
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
        return await self._unary(calls.CREATE_TUNING_JOB, request)

    async def plan(self, request: planning.PlanRequest) -> planning.PlanResponse:
        """What a training will need, and which technique to take. A probe takes half a minute or more."""
        return await self._unary(calls.PLAN, request)

    async def get_tuning_job(self, name: str) -> tuning.TuningJob:
        return await self._unary(calls.GET_TUNING_JOB, tuning.GetTuningJobRequest(name=name))

    async def list_tuning_jobs(
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
        return await self._unary(calls.LIST_TUNING_JOBS, request)

    async def cancel_tuning_job(self, name: str) -> tuning.TuningJob:
        return await self._unary(calls.CANCEL_TUNING_JOB, tuning.CancelTuningJobRequest(name=name))

    async def pause_tuning_job(self, name: str) -> tuning.TuningJob:
        return await self._unary(calls.PAUSE_TUNING_JOB, tuning.PauseTuningJobRequest(name=name))

    async def resume_tuning_job(self, name: str) -> tuning.TuningJob:
        return await self._unary(calls.RESUME_TUNING_JOB, tuning.ResumeTuningJobRequest(name=name))

    def watch_tuning_job(
        self, name: str, after_sequence: int = 0
    ) -> AsyncGenerator[tuning.WatchTuningJobResponse]:
        """The job's present state once, then each event after the cursor once, until the job has ended.

        Reconnects by itself for as long as `following.PATIENCE_SECONDS`, missing and repeating nothing.
        """
        return self._follow(calls.WATCH_TUNING_JOB, JobCursor(name, after_sequence))

    # Datasets

    async def upload_dataset(
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
        # By the blocking client in a thread: grpc.aio loses the status of a call that is refused while it is
        # still being written to.
        blocking = Client(self.address)
        loop = asyncio.get_running_loop()

        def told(total_bytes: int) -> None:
            loop.call_soon_threadsafe(sent, total_bytes)

        try:
            return await asyncio.to_thread(
                blocking.upload_dataset,
                source,
                dataset_id=dataset_id,
                display_name=display_name,
                wishes=wishes,
                sent=told,
            )
        finally:
            # Ends the call too, where this one is cancelled.
            blocking.close()

    async def import_dataset(
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
        return await self._unary(calls.IMPORT_DATASET, request)

    async def get_dataset(self, name: str) -> datasets.Dataset:
        return await self._unary(calls.GET_DATASET, datasets.GetDatasetRequest(name=name))

    async def list_datasets(
        self, *, page_size: int = 0, page_token: str = ""
    ) -> datasets.ListDatasetsResponse:
        """A page of datasets, newest first."""
        request = datasets.ListDatasetsRequest(page_size=page_size, page_token=page_token)
        return await self._unary(calls.LIST_DATASETS, request)

    async def delete_dataset(self, name: str) -> None:
        await self._unary(calls.DELETE_DATASET, datasets.DeleteDatasetRequest(name=name))

    async def preview_dataset(self, name: str, *, max_rows: int = 0) -> datasets.PreviewDatasetResponse:
        """The first rows as the base model will see them; 0 means 5."""
        request = datasets.PreviewDatasetRequest(name=name, max_rows=max_rows)
        return await self._unary(calls.PREVIEW_DATASET, request)

    # Adapters

    async def get_adapter(self, name: str) -> adapters.Adapter:
        return await self._unary(calls.GET_ADAPTER, adapters.GetAdapterRequest(name=name))

    async def list_adapters(
        self, *, page_size: int = 0, page_token: str = ""
    ) -> adapters.ListAdaptersResponse:
        """A page of adapters, by name."""
        request = adapters.ListAdaptersRequest(page_size=page_size, page_token=page_token)
        return await self._unary(calls.LIST_ADAPTERS, request)

    async def delete_adapter(self, name: str) -> None:
        await self._unary(calls.DELETE_ADAPTER, adapters.DeleteAdapterRequest(name=name))

    async def get_adapter_version(self, name: str) -> adapters.AdapterVersion:
        return await self._unary(calls.GET_ADAPTER_VERSION, adapters.GetAdapterVersionRequest(name=name))

    async def list_adapter_versions(
        self, parent: str, *, page_size: int = 0, page_token: str = ""
    ) -> adapters.ListAdapterVersionsResponse:
        """A page of the versions of adapters/{id}, newest first."""
        request = adapters.ListAdapterVersionsRequest(
            parent=parent, page_size=page_size, page_token=page_token
        )
        return await self._unary(calls.LIST_ADAPTER_VERSIONS, request)

    async def load_adapter_version(self, name: str) -> adapters.AdapterVersion:
        return await self._unary(calls.LOAD_ADAPTER_VERSION, adapters.LoadAdapterVersionRequest(name=name))

    async def unload_adapter_version(self, name: str) -> adapters.AdapterVersion:
        return await self._unary(
            calls.UNLOAD_ADAPTER_VERSION, adapters.UnloadAdapterVersionRequest(name=name)
        )

    def watch_adapter_version(self, name: str) -> AsyncGenerator[adapters.AdapterVersion]:
        """The version now, then at each change, until it is ACTIVE, FAILED or RETIRED; reconnects itself."""
        return self._follow(calls.WATCH_ADAPTER_VERSION, VersionCursor(name))

    async def import_adapter_version(
        self, source: Path | str, adapter_id: str, *, base_model: str = ""
    ) -> adapters.AdapterVersion:
        """Makes the next version of an adapter of a PEFT LoRA directory: one here (a Path), whose two files
        are uploaded, or one on the service's machine (a text). Raises OSError where a file cannot be read."""
        blocking = Client(self.address)  # for the reason that `upload_dataset` gives
        try:
            return await asyncio.to_thread(
                blocking.import_adapter_version, source, adapter_id, base_model=base_model
            )
        finally:
            blocking.close()

    async def export_adapter_version(
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
            async with aclosing(self._stream(calls.EXPORT_ADAPTER_VERSION, request)) as pieces:
                async for piece in pieces:
                    await asyncio.to_thread(arrival.take, piece)
            await asyncio.to_thread(arrival.finish)
        return target

    # Aliases

    async def get_alias(self, name: str) -> aliases.Alias:
        return await self._unary(calls.GET_ALIAS, aliases.GetAliasRequest(name=name))

    async def list_aliases(
        self, parent: str, *, page_size: int = 0, page_token: str = ""
    ) -> aliases.ListAliasesResponse:
        """A page of the aliases of adapters/{id}, by id."""
        request = aliases.ListAliasesRequest(parent=parent, page_size=page_size, page_token=page_token)
        return await self._unary(calls.LIST_ALIASES, request)

    async def promote_version(
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
        return await self._unary(calls.PROMOTE_VERSION, request)

    async def split_traffic(
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
        return await self._unary(calls.SPLIT_TRAFFIC, request)

    async def roll_back_alias(
        self, name: str, *, steps: int = 1, expected_revision: int | None = None, author: str = ""
    ) -> aliases.Alias:
        """Points an alias at what it pointed at `steps` settings ago."""
        request = aliases.RollBackAliasRequest(
            name=name, steps=steps, expected_revision=expected_revision, author=author
        )
        return await self._unary(calls.ROLL_BACK_ALIAS, request)

    async def delete_alias(
        self, name: str, *, expected_revision: int | None = None, author: str = ""
    ) -> None:
        request = aliases.DeleteAliasRequest(name=name, expected_revision=expected_revision, author=author)
        await self._unary(calls.DELETE_ALIAS, request)

    async def list_alias_changes(
        self, parent: str, *, page_size: int = 0, page_token: str = ""
    ) -> aliases.ListAliasChangesResponse:
        """A page of what was done to adapters/{id}/aliases/{alias}, newest first."""
        request = aliases.ListAliasChangesRequest(parent=parent, page_size=page_size, page_token=page_token)
        return await self._unary(calls.LIST_ALIAS_CHANGES, request)

    # Evaluations

    async def get_evaluation(self, name: str) -> evaluations.AdapterEvaluation:
        return await self._unary(calls.GET_EVALUATION, evaluations.GetEvaluationRequest(name=name))

    async def list_evaluations(
        self, *, page_size: int = 0, page_token: str = "", parent: str = ""
    ) -> evaluations.ListEvaluationsResponse:
        """A page of evaluations, newest first. `parent` is an adapter, a version, or empty for all."""
        request = evaluations.ListEvaluationsRequest(
            page_size=page_size, page_token=page_token, parent=parent
        )
        return await self._unary(calls.LIST_EVALUATIONS, request)

    async def create_evaluation(
        self, adapter_version: str, *, dataset: str = "", request_id: str | None = None
    ) -> evaluations.AdapterEvaluation:
        """Queues one on `dataset`, by default on what the version's job held out. A request id is made where
        none is given."""
        request = evaluations.CreateEvaluationRequest(
            request_id=request_id or self._new_id(), adapter_version=adapter_version, dataset=dataset
        )
        return await self._unary(calls.CREATE_EVALUATION, request)

    def watch_evaluation(self, name: str) -> AsyncGenerator[evaluations.AdapterEvaluation]:
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
    ) -> AsyncGenerator[chats.ChatResponse]:
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

    async def list_models(self) -> chats.ListModelsResponse:
        return await self._unary(calls.LIST_MODELS, chats.ListModelsRequest())

    # How calls are made

    def _channel(self) -> grpc.aio.Channel:
        if self._open_channel is None:
            self._open_channel = grpc.aio.insecure_channel(self.address, options=self._options)
        return self._open_channel

    async def _unary(self, call: Call[RequestT, ResponseT], request: RequestT) -> ResponseT:
        """One answer, asked for again where that is harmless and nobody answered."""
        assert call.timeout_seconds is not None
        ends_at = self._clock() + call.timeout_seconds
        method = self._channel().unary_unary(
            call.path,
            request_serializer=call.request.SerializeToString,
            response_deserializer=call.response.FromString,
        )
        pauses = iter(calls.RETRY_PAUSES_SECONDS if call.repeatable else ())
        while True:
            try:
                return await method(request, timeout=ends_at - self._clock())
            except grpc.aio.AioRpcError as failure:
                error = self._error(failure, call)
            pause = next(pauses, None)
            if pause is None or not isinstance(error, errors.Unavailable):
                raise error
            await asyncio.sleep(pause)

    async def _stream(self, call: Call[RequestT, ResponseT], request: RequestT) -> AsyncGenerator[ResponseT]:
        """One stream. Closing the generator cancels the call."""
        stream = self._channel().unary_stream(
            call.path,
            request_serializer=call.request.SerializeToString,
            response_deserializer=call.response.FromString,
        )(request, timeout=call.timeout_seconds)
        has_begun = False
        try:
            async for response in stream:
                has_begun = True
                yield response
        except grpc.aio.AioRpcError as failure:
            raise self._error(failure, call, broken_off=has_begun) from None
        finally:
            stream.cancel()

    async def _follow(
        self, call: Call[RequestT, ResponseT], cursor: Cursor[RequestT, ResponseT]
    ) -> AsyncGenerator[ResponseT]:
        """What is new of a stream, opened again and again until it ends well."""
        patience = Patience(self._clock)
        while True:
            patience.opened()
            try:
                async with aclosing(self._stream(call, cursor.request())) as stream:
                    async for response in stream:
                        if cursor.is_new(response):
                            patience.progressed()
                            yield response
                return
            except errors.HotloraError as error:
                pause = patience.pause_seconds(error)
            await asyncio.sleep(pause)

    def _error(
        self, failure: grpc.aio.AioRpcError, call: Call[RequestT, ResponseT], *, broken_off: bool = False
    ) -> errors.HotloraError:
        status = statuses.status_of(failure.code(), failure.details(), failure.trailing_metadata())
        return statuses.error_of(status, address=self.address, method=call.method, broken_off=broken_off)
