"""Stands in for `python -m trainer.importing`: the same artifact without torch. The canary fits
`tests.doubles.engine`. It finds nothing wrong with any adapter: one whose configuration has
`"task_type": "HANG"` is never finished, and one with "FAIL" ends badly. `tests/training/test_double.py`
compares the two."""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

from tests.doubles.arithmetic import logprobs
from trainer.importing import CONFIG_FILE, WEIGHTS_FILE
from trainer.rendering import Renderer
from trainer.tensor_headers import read_headers

_TOKENS = (tuple(range(3, 40)), tuple(range(50, 70)))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("base", "source", "target"):
        parser.add_argument(name, type=Path)
    for name in ("--name", "--revision"):
        parser.add_argument(name, required=True)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    files = {name: (arguments.source / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)}
    config, weights = json.loads(files[CONFIG_FILE]), files[WEIGHTS_FILE]
    tensors = read_headers(arguments.source / WEIGHTS_FILE)
    match config.get("task_type"):
        case "HANG":
            (arguments.base / "importing").touch()
            time.sleep(600)  # longer than a test may take: whoever is not killed is noticed
        case "FAIL":
            sys.exit("there is no memory for it")
    canary = [
        {
            "token_ids": tokens,
            "base_logprobs": logprobs(None, tokens),
            "adapter_logprobs": logprobs(weights, tokens),
            "quantised_logprobs": None,
        }
        for tokens in _TOKENS
    ]
    manifest = {
        "format": 1,
        "technique": "lora",
        "rank": config["r"],
        "alpha": float(config["lora_alpha"]),
        "use_rslora": bool(config.get("use_rslora")),
        "target_modules": sorted({name.split(".")[-3] for name in tensors}),
        "base_model": {"name": arguments.name, "revision": arguments.revision},
        "rendering": Renderer.from_directory(arguments.base).contract(),
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            for name, content in files.items()
        },
        "canary": {"sequences": canary},
        "create_time": time.time(),
    }
    for name, content in {**files, "MANIFEST.json": json.dumps(manifest).encode()}.items():
        (arguments.target / name).write_bytes(content)
    print(json.dumps({"problems": []}))


if __name__ == "__main__":
    main()
