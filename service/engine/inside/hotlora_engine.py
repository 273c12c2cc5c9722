"""Runs vLLM's API server: `python -P -m hotlora_engine`, with the arguments of vLLM's own.

vLLM 0.32 for CPUs has the process of the model import anew all that the server's process has imported, half
of the time of a start. Where VLLM_WORKER_MULTIPROC_METHOD says fork, that process is forked off instead, as
vLLM's own default has it elsewhere.
"""

import os
from functools import partial
from typing import Any

_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"


def _keep_method(method: str) -> None:
    """Have the method that new processes are made by stay what it is.

    The platform for CPUs sets another, whoever has chosen one, whenever it looks at a configuration.
    """
    from vllm.platforms import current_platform

    configure = current_platform.check_and_update_config

    def check_and_update_config(_platform: type, config: Any) -> None:
        configure(config)
        os.environ[_METHOD] = method

    setattr(type(current_platform), "check_and_update_config", classmethod(check_and_update_config))  # noqa: B010


def _compute_on_one_thread_until_forked() -> None:
    """A pool of threads would not exist in the process that is forked off, which would wait for it.

    Only once vLLM is imported: its kernels take the number of threads when they are loaded.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, threads))


def main() -> None:
    """Serve until told to end."""
    from vllm.entrypoints.launchers.api_server.entry import main as serve

    if (method := os.environ.get(_METHOD)) == "fork":
        _keep_method(method)
        _compute_on_one_thread_until_forked()
    serve()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
