"""Every setting of the service: defined once, validated once, read from `HOTLORA_*` environment variables.

Knows nothing of what the settings are used for beyond their meaning. Secrets never appear in its repr.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from hotlora import addresses


def _absolute(path: Path) -> Path:
    return path.expanduser().resolve()


def _directories(paths: object) -> object:
    """The directories of a list as PATH has it."""
    return [path for path in paths.split(os.pathsep) if path] if isinstance(paths, str) else paths


PREFIX = "HOTLORA_"
"""How variables of the environment begin that are settings."""


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What a program of somebody else's may see: settings hold passwords that are not its business."""
    return {name: value for name, value in environment.items() if not name.startswith(PREFIX)}


def _parts(texts: object) -> object:
    """The parts of a list with commas between."""
    return [each.strip() for each in texts.split(",") if each.strip()] if isinstance(texts, str) else texts


def without_credentials(url: str) -> str:
    """What may be shown of a URL, without a slash at its end."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")


def _public(url: str) -> str:
    if without_credentials(url) != url.rstrip("/"):
        raise ValueError(
            "has credentials, which engines' command lines would show; set OTEL_EXPORTER_OTLP_HEADERS instead"
        )
    return url


def _llama_cpp(directory: Path | None) -> Path | None:
    if directory is not None and not (directory / CONVERTER).is_file():
        raise ValueError(f"{directory} is no checkout of llama.cpp: it has no {CONVERTER}")
    return directory


def _different(urls: tuple[str, ...]) -> tuple[str, ...]:
    if len({without_credentials(url_of(url)) for url in urls}) < len(urls):
        raise ValueError("names an engine twice; each replica has an address of its own")
    return urls


NAME_PREFIX = "dns+"
"""Before the URL of a host name that stands for many engines."""


def base_of(engine_url: str) -> str:
    """The base model that an engine is of; empty for the default one."""
    base, separator, _ = engine_url.partition("=")
    return base if separator and "://" not in base else ""


def url_of(engine_url: str) -> str:
    """Without the base model that it is of."""
    base = base_of(engine_url)
    return engine_url.removeprefix(f"{base}=") if base else engine_url


def _checked(engine_url: str) -> str:
    url = url_of(engine_url)
    if not urlsplit(url).hostname or urlsplit(url).port == 0:  # a port that is none raises by itself
        raise ValueError("has no host, or a port that cannot be asked")
    if url.startswith(f"{NAME_PREFIX}https:"):
        raise ValueError(
            "cannot ask every address of a name by https: certificates are of names. Take dns+http within a "
            "network of your own, or one https URL for each engine"
        )
    return engine_url


_LAST_PORT = 65535
CONVERTER = "convert_hf_to_gguf.py"
"""Of llama.cpp: reads a directory of transformers, and writes a file."""
EngineUrl = Annotated[str, Field(pattern=r"^([^=,\s]+=)?(dns\+)?https?://[^\s,]+$"), AfterValidator(_checked)]
Directory = Annotated[Path, AfterValidator(_absolute)]
LoopbackAddress = Annotated[str, AfterValidator(addresses.loopback)]


def _models_dir(fields: dict[str, Any]) -> Path:
    return Path(fields["home"]) / "models"


def _database_url(fields: dict[str, Any]) -> str:
    return f"sqlite+aiosqlite:///{fields['home']}/registry.db"


class Settings(BaseSettings):
    """Settings of one service. Immutable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, validate_default=True, hide_input_in_errors=True
    )

    home: Directory = Path(".hotlora")
    """Directory of everything durable."""
    models_dir: Directory = Field(default_factory=_models_dir)
    """Prepared base models; may be shared by several homes."""
    database_url: str = Field(default_factory=_database_url, repr=False)
    """SQLAlchemy URL with an async driver. May carry a password: never printed."""

    base_model: str = Field(default="smollm2-135m-instruct", min_length=1, max_length=256)
    """The embedded default, a Hugging Face id, or a local directory."""
    more_base_models: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], NoDecode, BeforeValidator(_parts)
    ] = Field(default=(), max_length=15)
    """Further ones that are trained and served at the same time, commas between, each by engines of its own.
    Where a caller names none, the one above is meant; jobs of that one alone find it in memory."""
    trainer_threads: int = Field(default=0, ge=0)
    """CPU threads of a training process; 0 means all."""
    max_queued_jobs: int = Field(default=100, ge=1)
    """Jobs that may wait; one more is refused."""
    max_running_jobs: int = Field(default=1, ge=1, le=64)
    """Training processes at the same time."""
    min_free_disk_bytes: int = Field(default=1 << 30, ge=0)
    """Below this no job is created or begun and no upload is taken; 0 means off."""

    grpc_address: LoopbackAddress = "127.0.0.1:50051"
    gateway_address: LoopbackAddress = "127.0.0.1:8080"

    dataset_roots: Annotated[tuple[Directory, ...], NoDecode, BeforeValidator(_directories)] = ()
    """Directories, separated as in PATH, below which callers may name files to import; none: no file."""
    adapter_roots: Annotated[tuple[Directory, ...], NoDecode, BeforeValidator(_directories)] = ()
    """Directories, separated as in PATH, below which callers may name adapters to import; none: no path."""
    llama_cpp_dir: Annotated[Directory | None, AfterValidator(_llama_cpp)] = None
    """Checkout of llama.cpp, whose converter is run for exports as GGUF; None: there are none."""
    hub_datasets: bool = True
    """Whether callers may have dataset repositories of the Hugging Face hub imported."""

    traces_endpoint: Annotated[str, Field(pattern=r"^https?://\S+$"), AfterValidator(_public)] | None = None
    """URL of an OpenTelemetry collector that takes OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces;
    None: nothing is traced. Engines that are started here send their spans there, too."""

    engine_urls: Annotated[
        tuple[EngineUrl, ...], NoDecode, BeforeValidator(_parts), AfterValidator(_different)
    ] = Field(default=(), repr=False)
    """Running engines to attach to, commas between, `NAME=URL` of the base model NAME, a URL alone of the
    default one; several of a base are replicas. A base that has none gets engines that the service starts and
    supervises. `dns+http://HOST:PORT` is every address that HOST has, each a replica, looked up again every
    10 s. vLLM's CPU build needs the plugin in deploy/vllm_plugin there too:
    without it, proving an adapter ends the engine. May carry a password: never printed."""
    engine_api_key: SecretStr | None = None
    """Bearer key of the attached engines; None means that they want none."""
    engine_replicas: int = Field(default=1, ge=1, le=16)
    """Engines of our own for each base model; they share this machine."""
    engine_port: int = Field(default=8000, ge=0, le=_LAST_PORT)
    """Loopback port of the first engine of the default base model; those of its replicas follow, then those
    of further base models. 0 means free ones."""
    engine_max_loras: int = Field(default=4, ge=1, le=256)
    """Different adapters in one batch; more take turns. Each place costs the engine memory for an adapter of
    engine_max_rank, and time in every batch, used or not."""
    engine_max_rank: int = Field(default=64, ge=1, le=512)
    """Highest rank of an adapter; vLLM accepts 1, 8, 16, 32, 64, 128, 256, 320 and 512."""
    engine_max_cpu_loras: int = Field(default=0, ge=0)
    """Adapters kept in memory; of more, those that were asked last stay, and others are read again when they
    are asked. 0 means as many of engine_max_rank as fit into an eighth of main memory, 1,024 at most. Of
    attached engines it cannot be seen: set it to their --max-cpu-loras; 0 takes as many as they have slots,
    which is vLLM's own default."""
    engine_max_model_len: int = Field(default=2048, ge=16)
    """Tokens of prompt and answer together."""
    engine_max_num_seqs: int = Field(default=64, ge=1)
    """Answers generated at the same time."""
    engine_start_timeout_seconds: float = Field(default=300.0, gt=0)
    """How long an engine may take from start to its first token."""
    engine_gpu_memory_fraction: float = Field(default=0.45, gt=0, lt=1)
    """Share of a GPU that the engine takes, and each replica and engine of another base model that is started
    here; on CPUs without effect. What these and the engines of fully fine-tuned models leave is a training's:
    0.3 as set here. Raise it to 0.9 where nothing is trained on the GPU and no such model is served."""

    own_engines: int = Field(default=1, ge=0, le=16)
    """Fully fine-tuned models served at the same time, each by an engine of its own; 0 means that none
    is."""
    own_engine_idle_seconds: float = Field(default=600.0, gt=0)
    """An engine of a fully fine-tuned model stops after so long without an answer."""
    own_engine_wait_seconds: float = Field(default=120.0, ge=0)
    """How long a request waits for such an engine to start before it is told to come again; 0 means not at
    all."""
    own_engine_gpu_memory_fraction: float = Field(default=0.25, gt=0, lt=1)
    """Share of a GPU that each such engine takes, and that must be free when it starts; on CPUs without
    effect. Together with engine_gpu_memory_fraction, and times own_engines, it should leave room to train."""

    evaluation_rows: int = Field(default=200, ge=0, le=10_000)
    """Held-out rows that a report asks at most; 0: finished jobs are not evaluated by themselves."""
    evaluation_concurrency: int = Field(default=4, ge=1, le=64)
    """Answers for reports at the same time; one while people are being answered."""

    @model_validator(mode="after")
    def _check_engines(self) -> "Settings":
        if self.engine_urls and self.engine_replicas > 1 and not self.more_base_models:
            raise ValueError(
                "HOTLORA_ENGINE_REPLICAS is of engines that are started here, and HOTLORA_ENGINE_URLS says "
                "that none is: set one of them"
            )
        if self.engine_port and self.engine_port + self.most_engines - 1 > _LAST_PORT:
            raise ValueError(
                f"HOTLORA_ENGINE_PORT {self.engine_port} leaves no ports up to {_LAST_PORT} for "
                f"{self.most_engines} engines; 0 takes free ones"
            )
        return self

    @property
    def most_engines(self) -> int:
        """Engines of base models that may be started here: fewer where some base has others' engines."""
        return self.engine_replicas * (1 + len(self.more_base_models))

    @property
    def datasets_dir(self) -> Path:
        """Uploaded files, `<id>.jsonl`, published by rename."""
        return self.home / "datasets"

    @property
    def hub_dir(self) -> Path:
        """Dataset repositories that were downloaded before, `OWNER/NAME`; looked for here before the hub."""
        return self.home / "hub"

    @property
    def work_dir(self) -> Path:
        """One directory a running job; same file system as `artifacts_dir`."""
        return self.home / "work"

    @property
    def imports_dir(self) -> Path:
        """One directory a running import; same file system as `artifacts_dir`."""
        return self.home / "imports"

    @property
    def exports_dir(self) -> Path:
        """One directory an export that is being made."""
        return self.home / "exports"

    @property
    def artifacts_dir(self) -> Path:
        """Published adapters, one immutable directory a digest."""
        return self.home / "artifacts"

    @property
    def logs_dir(self) -> Path:
        """engine.log and trainer.log."""
        return self.home / "logs"

    @property
    def compiled_dir(self) -> Path:
        """What engines compile; made by the first one that does."""
        return self.home / "compiled"

    @property
    def calibrations_dir(self) -> Path:
        """What probes of this machine measured; made by the first one."""
        return self.home / "calibrations"

    def make_directories(self) -> None:
        """Create what is missing below `home`, readable by this user alone."""
        directories = (self.datasets_dir, self.hub_dir, self.work_dir, self.artifacts_dir, self.logs_dir)
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.models_dir.mkdir(parents=True, exist_ok=True)
        for directory in directories:
            directory.mkdir(mode=0o700, exist_ok=True)
