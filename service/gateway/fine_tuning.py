"""/v1/fine_tuning/jobs of the OpenAI API: a job there is a tuning job here, under its id.

A job counts as succeeded once its version answers: whoever waits for that may ask the model at once.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Protocol

from aiohttp import web

from hotlora.v1 import tuning_service_pb2 as pb
from service.errors import InvalidRequest, NotFound
from service.gateway.errors import plain_error
from service.gateway.paging import Paging
from service.gateway.tuning_objects import checkpoint_object, event_id, event_object, job_object
from service.gateway.tuning_requests import TuningRequest, in_their_words, read_request
from service.registry import EventRow, JobRow, Page, Registry, VersionRow
from trainer.config import Hyperparameters

_EVENTS_AT_ONCE = 500


class Creating(Protocol):
    """The face of `service.rpc.Creation`."""

    async def create(self, request: pb.CreateTuningJobRequest) -> JobRow:
        """Queue a job."""

    async def settings(self, request: pb.CreateTuningJobRequest) -> Hyperparameters:
        """What it would be trained with."""

    async def check(self, request: pb.CreateTuningJobRequest) -> None:
        """Refuse what the proto does not allow."""


class FineTuning:
    """See the module."""

    def __init__(
        self,
        *,
        registry: Registry,
        creation: Creating,
        base_models: Collection[str],
        new_suffix: Callable[[], str] = lambda: f"tuned-{secrets.token_hex(4)}",
    ) -> None:
        """`new_suffix` names adapters of callers who name none."""
        self._registry = registry
        self._creation = creation
        self._base_models = base_models
        self._new_suffix = new_suffix

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the routes."""
        jobs = "/v1/fine_tuning/jobs"
        router.add_post(jobs, self._create)
        router.add_get(jobs, self._list)
        router.add_get(f"{jobs}/{{id}}", self._get)
        router.add_get(f"{jobs}/{{id}}/events", self._events)
        router.add_get(f"{jobs}/{{id}}/checkpoints", self._checkpoints)
        for action, wish in (
            ("cancel", self._registry.request_cancel),
            ("pause", self._registry.request_pause),
            ("resume", self._registry.request_resume),
        ):
            router.add_post(f"{jobs}/{{id}}/{action}", self._wished(wish))

    async def _create(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return plain_error(415, "send application/json", "wrong_media_type")
        asked = read_request(await request.read())
        message = await self._message(asked)
        try:
            await self._creation.check(message)
            if asked.learning_rate_multiplier is not None:
                usual = (await self._creation.settings(message)).learning_rate
                message.hyperparameters.learning_rate = usual * asked.learning_rate_multiplier
                await self._creation.check(message)
            job = await self._creation.create(message)
        except InvalidRequest as error:
            raise in_their_words(error) from error
        return web.json_response(await self._shown(job))

    async def _message(self, asked: TuningRequest) -> pb.CreateTuningJobRequest:
        """The request in our own words. Raises NotFound and WrongState for a model to go on from."""
        message = asked.message
        if asked.model in self._base_models:
            message.base_model = asked.model
        elif asked.model:
            start = await self._registry.resolve_model(asked.model)
            message.start_version = f"adapters/{start.adapter_id}/versions/{start.number}"
        message.adapter_id = message.adapter_id or self._new_suffix()
        return message

    async def _list(self, request: web.Request) -> web.Response:
        return await Paging.of(request, most=100, default=20).answer(
            self._registry.list_jobs, lambda job: job.id, self._shown
        )

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(await self._shown(await self._job(request)))

    def _wished(
        self, wish: Callable[[str], Awaitable[JobRow]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            await self._job(request)
            return web.json_response(await self._shown(await wish(request.match_info["id"])))

        return handle

    async def _events(self, request: web.Request) -> web.Response:
        job = await self._job(request)
        events = [event async for event in self._all_events(job.id)][::-1]

        async def listing(*, limit: int, cursor: str) -> Page[EventRow]:
            return Page(rows=tuple(events), next_cursor="")

        return await Paging.of(request, most=100, default=20).answer(listing, event_id, event_object)

    async def _checkpoints(self, request: web.Request) -> web.Response:
        """The one that was published: others are states of a training, and cannot be asked."""
        job = await self._job(request)
        version = await self._version(job)
        events = [event async for event in self._all_events(job.id)]
        published = [] if version is None else [checkpoint_object(job, version, events)]

        async def listing(*, limit: int, cursor: str) -> Page[dict[str, object]]:
            return Page(rows=tuple(published), next_cursor="")

        paging = Paging.of(request, most=100, default=10)
        return await paging.answer(listing, lambda each: str(each["id"]), lambda each: each)

    async def _job(self, request: web.Request) -> JobRow:
        return await self._registry.get_job(request.match_info["id"])

    async def _shown(self, job: JobRow) -> dict[str, object]:
        return job_object(job, await self._version(job))

    async def _version(self, job: JobRow) -> VersionRow | None:
        if job.version_number is None:
            return None
        try:
            return await self._registry.get_version(job.adapter_id, job.version_number)
        except NotFound:  # its adapter was deleted
            return None

    async def _all_events(self, job_id: str) -> AsyncIterator[EventRow]:
        cursor = 0
        while True:
            events = await self._registry.events_after(job_id, cursor, _EVENTS_AT_ONCE)
            for event in events:
                yield event
            if len(events) < _EVENTS_AT_ONCE:
                return
            cursor = events[-1].sequence
