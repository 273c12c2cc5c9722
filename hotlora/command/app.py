"""Every command with its options. Each loads what it needs when it runs; the work is done elsewhere."""

# ruff: noqa: PLC0415 -- gRPC and rich take longer to load than `--help` may take

from pathlib import Path
from typing import Annotated

import typer
from typer.models import OptionInfo

from hotlora.command import options
from hotlora.command.aliases_app import aliases_app
from hotlora.command.collections_app import adapters_app, data_app, datasets_app
from hotlora.command.failing import CODES_HELP, Group
from hotlora.command.options import Address, AsJson, Limit, carried
from hotlora.command.planning_options import plan

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Trains adapters on request, hot-loads them into a running vLLM, proves them, and serves them.",
    epilog=CODES_HELP,
)


def _real(text: str) -> OptionInfo:
    """A setting of a run; its default and its range are the service's."""
    option: OptionInfo = typer.Option(help=text, metavar="X", show_default=False)
    return option


def _whole(text: str) -> OptionInfo:
    """The same, for whole numbers."""
    option: OptionInfo = typer.Option(help=text, metavar="N", show_default=False, callback=carried)
    return option


@app.command()
def up(
    home: Annotated[
        Path | None,
        typer.Option(help="Where everything is kept. [HOTLORA_HOME, .hotlora]", show_default=False),
    ] = None,
    models_dir: Annotated[
        Path | None, typer.Option(help="Base models. [HOTLORA_MODELS_DIR, HOME/models]", show_default=False)
    ] = None,
    base_model: Annotated[
        list[str] | None,
        typer.Option(
            help="Hugging Face id or directory; may be given again, the first is the default one. "
            "[HOTLORA_BASE_MODEL and HOTLORA_MORE_BASE_MODELS, smollm2-135m-instruct]",
            show_default=False,
        ),
    ] = None,
    grpc_address: Annotated[
        str | None, typer.Option(help="[HOTLORA_GRPC_ADDRESS, 127.0.0.1:50051]", show_default=False)
    ] = None,
    gateway_address: Annotated[
        str | None, typer.Option(help="[HOTLORA_GATEWAY_ADDRESS, 127.0.0.1:8080]", show_default=False)
    ] = None,
    page_address: Annotated[
        str | None, typer.Option(help="[HOTLORA_UI_ADDRESS, 127.0.0.1:7860]", show_default=False)
    ] = None,
    engine_url: Annotated[
        list[str] | None,
        typer.Option(
            help="Attach to this vLLM; may be given again, for replicas; dns+http://HOST:PORT: each address "
            "of HOST; NAME=URL: of the base model NAME. [HOTLORA_ENGINE_URLS, own one]",
            show_default=False,
        ),
    ] = None,
    engine_replicas: Annotated[
        int | None,
        typer.Option(
            help="Own engines of each base model. [HOTLORA_ENGINE_REPLICAS, 1]",
            min=1,
            max=16,
            show_default=False,
        ),
    ] = None,
    engine_port: Annotated[
        int | None,
        typer.Option(
            help="Of the first own engine; 0: free ones. [8000]", min=0, max=65535, show_default=False
        ),
    ] = None,
    no_page: Annotated[bool, typer.Option("--no-page", help="Without the page.")] = False,
    as_json: AsJson = False,
) -> None:
    """Brings up engine, service, gateway and page; ends all of them on Ctrl-C."""
    from hotlora.command import starting

    given = {
        "HOTLORA_HOME": home,
        "HOTLORA_MODELS_DIR": models_dir,
        "HOTLORA_BASE_MODEL": base_model[0] if base_model else None,
        "HOTLORA_MORE_BASE_MODELS": ",".join(base_model[1:]) if base_model else None,
        "HOTLORA_GRPC_ADDRESS": grpc_address,
        "HOTLORA_GATEWAY_ADDRESS": gateway_address,
        "HOTLORA_UI_ADDRESS": page_address,
        "HOTLORA_ENGINE_URLS": ",".join(engine_url) if engine_url else None,
        "HOTLORA_ENGINE_REPLICAS": engine_replicas,
        "HOTLORA_ENGINE_PORT": engine_port,
    }
    flags = {name: str(value) for name, value in given.items() if value is not None}
    raise typer.Exit(starting.up(flags, with_page=not no_page, as_json=as_json))


@app.command()
def train(
    source: Annotated[str, typer.Argument(metavar="FILE", help=options.SOURCE_HELP, show_default=False)],
    adapter: Annotated[str, typer.Option(help="Adapter that gets a new version.", show_default=False)],
    base_model: Annotated[
        str, typer.Option(help="Default: the adapter's, else the first that is served.", show_default=False)
    ] = "",
    dataset_id: Annotated[str, typer.Option(help="Default: from name and content.", show_default=False)] = "",
    row_format: options.RowFormat = None,
    mapping: options.Mapping = None,
    task: options.RowTask = None,
    drop_bad_rows: options.DropBadRows = False,
    technique: Annotated[
        options.TechniqueName | None,
        typer.Option(help="Default: lora, or that of --start-from.", show_default=False),
    ] = None,
    objective: Annotated[
        options.ObjectiveName | None,
        typer.Option(help="Default: what fits the dataset.", show_default=False),
    ] = None,
    rank: Annotated[
        int | None, _whole("1 to 512, within the engine's limit. Default 16 (few rows 8, many 32).")
    ] = None,
    alpha: Annotated[float | None, _real("Scale; above 0, up to 4096. Default 2 * rank.")] = None,
    use_rslora: Annotated[
        bool | None,
        typer.Option("--rslora/--no-rslora", help="Scale by alpha / sqrt(rank).", show_default=False),
    ] = None,
    dropout: Annotated[float | None, _real("0 to 0.9. Default 0.05 (few rows 0.1).")] = None,
    target_module: Annotated[
        list[str] | None,
        typer.Option(help="Repeatable. Default all-linear, without the output head.", show_default=False),
    ] = None,
    virtual_tokens: Annotated[int | None, _whole("Of prompt tuning, 1 to 512. Default 20.")] = None,
    dpo_beta: Annotated[float | None, _real("Of preferences; above 0, up to 10. Default 0.1.")] = None,
    initial_prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What virtual tokens begin as.", show_default=False),
    ] = None,
    learning_rate: Annotated[float | None, _real("Peak; above 0, up to 1. Default by technique.")] = None,
    epochs: Annotated[int | None, _whole("1 to 100. Default 4 (few or many rows 3).")] = None,
    max_steps: Annotated[int | None, _whole("End after this many optimizer steps, not --epochs.")] = None,
    batch_size: Annotated[
        int | None, _whole("Rows per optimizer step, 1 to 1024. Default 8 (many rows 16).")
    ] = None,
    max_sequence_length: Annotated[
        int | None, _whole("Longer rows are refused. Default 2048 tokens.")
    ] = None,
    warmup_ratio: Annotated[float | None, _real("Part of all steps, 0 to 0.5. Default 0.05.")] = None,
    schedule: Annotated[
        options.ScheduleName | None,
        typer.Option(help="Of the learning rate. Default cosine.", show_default=False),
    ] = None,
    weight_decay: Annotated[float | None, _real("0 to 1. Default 0.01 (few rows 0.05).")] = None,
    max_grad_norm: Annotated[float | None, _real("0 to 1000; 0: no clipping. Default 1.")] = None,
    seed: Annotated[int | None, _whole("Default 42.")] = None,
    validation_fraction: Annotated[
        float | None, _real("Rows set aside, 0 to 0.5. Default 0.1 (many rows 0.05).")
    ] = None,
    eval_every_steps: Annotated[int | None, _whole("Default: four evaluations in a run.")] = None,
    checkpoint_every_steps: Annotated[int | None, _whole("Default: as evaluations.")] = None,
    log_every_steps: Annotated[int | None, _whole("Steps between figures. Default 1.")] = None,
    early_stopping_patience: Annotated[
        int | None, _whole("End after this many evaluations without a better one. Default 0: never.")
    ] = None,
    early_stopping_metric: Annotated[
        options.MetricName | None,
        typer.Option(help="What better means. Default eval-loss.", show_default=False),
    ] = None,
    evaluate_on: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Like FILE, to compare base and adapter on. Default: the rows set aside.",
            show_default=False,
        ),
    ] = "",
    start_from: Annotated[
        str,
        typer.Option(metavar="ADAPTER@N", help="Go on with this version. Default: anew.", show_default=False),
    ] = "",
    request_id: Annotated[
        str | None, typer.Option(help="The same id again gives the same job.", show_default=False)
    ] = None,
    watch: Annotated[bool, typer.Option(help="Follow it until the version is ACTIVE.")] = True,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Trains an adapter on a file and follows it until it is served.

    Settings that are not given take the service's defaults; their ranges stand in the API's manual.
    """
    from hotlora.command import reading, training
    from hotlora.v1.tuning_service_pb2 import Hyperparameters

    wishes = reading.wishes(row_format=row_format, mapping=mapping, task=task, drop_bad_rows=drop_bad_rows)
    reading.refuse_without_effect(wishes, source, evaluate_on)
    settings = Hyperparameters(
        rank=rank,
        alpha=alpha,
        dropout=dropout,
        target_modules=target_module,
        use_rslora=use_rslora,
        virtual_tokens=virtual_tokens,
        initial_prompt=initial_prompt,
        dpo_beta=dpo_beta,
        learning_rate=learning_rate,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        max_sequence_length=max_sequence_length,
        warmup_ratio=warmup_ratio,
        schedule=options.constant("SCHEDULE", schedule) if schedule else None,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        seed=seed,
        validation_fraction=validation_fraction,
        eval_every_steps=eval_every_steps,
        checkpoint_every_steps=checkpoint_every_steps,
        log_every_steps=log_every_steps,
        early_stopping_patience=early_stopping_patience,
        early_stopping_metric=(
            options.constant("METRIC", early_stopping_metric) if early_stopping_metric else None
        ),
    )
    code = training.train(
        address,
        source,
        adapter=adapter,
        base_model=base_model,
        dataset_id=dataset_id,
        technique=technique,
        objective=objective,
        settings=settings,
        wishes=wishes,
        evaluate_on=evaluate_on,
        start_version=start_from,
        request_id=request_id,
        follow=watch,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command()
def jobs(
    job: Annotated[str | None, typer.Argument(help="Show this one.", show_default=False)] = None,
    state: Annotated[
        list[options.JobStateName] | None, typer.Option(help="Only these; repeatable.", show_default=False)
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="Only this adapter's.", show_default=False)] = None,
    limit: Limit = 20,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Lists tuning jobs, newest first, or shows one."""
    from hotlora.command import jobs as commands

    if job is not None:
        commands.show_job(address, job, as_json=as_json)
    else:
        commands.list_jobs(address, states=state or (), adapter=adapter, limit=limit, as_json=as_json)


@app.command()
def evaluations(
    evaluation: Annotated[str | None, typer.Argument(help="Show this one.", show_default=False)] = None,
    adapter: Annotated[
        str | None, typer.Option(help="Only this adapter's, or this version's (NAME@N).", show_default=False)
    ] = None,
    limit: Limit = 20,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Lists reports of base against adapter, newest first, or shows one."""
    from hotlora.command import reports

    if evaluation is not None:
        reports.show(address, evaluation, as_json=as_json)
    else:
        reports.list_evaluations(address, adapter=adapter, limit=limit, as_json=as_json)


@app.command()
def evaluate(
    version: Annotated[str, typer.Argument(metavar="NAME@N", show_default=False)],
    on: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help=f"{options.SOURCE_HELP} Default: what its job held out.",
            show_default=False,
        ),
    ] = "",
    watch: Annotated[bool, typer.Option(help="Follow it until there is a report.")] = True,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Compares a version with its base, again or on another dataset."""
    from hotlora.command import reports

    raise typer.Exit(reports.evaluate(address, version, on=on, follow=watch, as_json=as_json))


@app.command()
def watch(
    job: Annotated[str, typer.Argument(show_default=False)],
    after_sequence: Annotated[int, typer.Option(help="Only later events.", min=0, max=2**63 - 1)] = 0,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Follows a job to its end; exit code 0 when it SUCCEEDED."""
    from hotlora.command import jobs as commands

    raise typer.Exit(commands.watch(address, job, after_sequence=after_sequence, as_json=as_json))


@app.command()
def cancel(
    job: Annotated[str, typer.Argument(show_default=False)],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Asks a job to stop."""
    from hotlora.command import jobs as commands

    commands.cancel(address, job, as_json=as_json)


@app.command()
def pause(
    job: Annotated[str, typer.Argument(show_default=False)],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Lets a job save where it stands and free its worker; `resume` goes on there."""
    from hotlora.command import jobs as commands

    commands.pause(address, job, as_json=as_json)


@app.command()
def resume(
    job: Annotated[str, typer.Argument(show_default=False)],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Puts a paused job back into the queue."""
    from hotlora.command import jobs as commands

    commands.resume(address, job, as_json=as_json)


app.command()(plan)
app.add_typer(datasets_app, name="datasets")
app.add_typer(data_app, name="data")
app.add_typer(adapters_app, name="adapters")
app.add_typer(aliases_app, name="aliases")


@app.command()
def engines(address: Address = None, as_json: AsJson = False) -> None:
    """Lists engines, how they stand, and what they rejected."""
    from hotlora.command import engines as commands

    commands.list_engines(address, as_json=as_json)


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="Default: the default base model.", show_default=False)] = "",
    prompt: options.Prompt = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Talks to a base model, an adapter or one version of it (NAME@N)."""
    from hotlora.command import chatting

    asking = chatting.Asking(
        system=system, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed
    )
    chatting.chat(address, model, prompt=prompt, asking=asking, as_json=as_json)


@app.command()
def compare(
    left: Annotated[str, typer.Argument(metavar="MODEL", show_default=False)],
    right: Annotated[
        str | None,
        typer.Argument(metavar="OTHER", help="Without it: MODEL and its base.", show_default=False),
    ] = None,
    prompt: options.Prompt = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Asks two models the same at the same time, and shows the answers side by side."""
    from hotlora.command import chatting, comparing

    asking = chatting.Asking(
        system=system, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed
    )
    models = ("", left) if right is None else (left, right)
    raise typer.Exit(comparing.compare(address, models, prompt=prompt, asking=asking, as_json=as_json))
