"""Stands in for `python -m trainer.importing`: the same artifact without torch. The canary fits
`tests.doubles.engine`. An adapter whose configuration has `"task_type": "HANG"` is never finished, and one
with "FAIL" ends badly. `tests/training/test_importing.py` shows what the real one makes."""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

from tests.doubles.arithmetic import logprobs
from trainer.rendering import Renderer

_TOKENS = (tuple(range(3, 40)), tuple(range(50, 70)))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("base", "source", "target"):
        parser.add_argument(name, type=Path)
    for name in ("--name", "--revision", "--threads"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    files = {file.name: file.read_bytes() for file in arguments.source.iterdir()}
    config, weights = json.loads(files["adapter_config.json"]), files["adapter_model.safetensors"]
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
        }
        for tokens in _TOKENS
    ]
    manifest = {
        "format": 1,
        "technique": "lora",
        "rank": config["r"],
        "alpha": config["lora_alpha"],
        "use_rslora": False,
        "target_modules": config["target_modules"],
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
