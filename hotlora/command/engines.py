"""`engines`: what serves, and what each engine has and refuses."""

from hotlora.command import output
from hotlora.command.calling import connected
from hotlora.v1.chat_service_pb2 import Engine, ListModelsResponse


def list_engines(address: str | None, *, as_json: bool) -> None:
    """Prints the engines of all base models, then what they rejected and why."""
    with connected(address) as client:
        replicas = client.list_models().replicas
    if as_json:
        output.print_json(ListModelsResponse(replicas=replicas))
        return
    rows = [
        (
            replica.name,
            replica.base_model,
            output.state(Engine.State.Name(replica.state)),
            str(replica.restarts),
            str(len(replica.models)),
            str(replica.adapter_slots or "unknown"),
            str(replica.adapter_cache or "unknown"),
        )
        for replica in replicas
    ]
    columns = ("ENGINE", "BASE MODEL", "STATE", "RESTARTS", "PROVEN", "SLOTS", "CACHE")
    output.table(columns, rows, empty="No engine was found yet.")
    rejected = [
        (rejection.model, replica.name, rejection.failure.reason, rejection.failure.message)
        for replica in replicas
        for rejection in replica.rejections
    ]
    if rejected:
        output.table(("REJECTED", "BY", "REASON", "WHY"), rejected, empty="")
