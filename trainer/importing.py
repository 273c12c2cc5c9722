"""An import: an adapter made elsewhere becomes an artifact like those that are trained here, canary and all.

    python -m trainer.importing BASE_MODEL_DIR SOURCE_DIR TARGET_DIR --name NAME --revision REVISION

reads PEFT's two files in SOURCE_DIR, writes them anew with a manifest into TARGET_DIR, which must be empty,
and prints one JSON line: {"problems": [{"field", "description"}, ...]}, empty where all is well. It trusts
that its caller looked at the files before: sizes, headers, configuration.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

Problem = Mapping[str, str]


def main() -> int:
    """Import and print; what libraries print goes to standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.importing", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("base", type=Path, help="directory of the base model")
    parser.add_argument("source", type=Path, help="directory of PEFT's two files")
    parser.add_argument("target", type=Path, help="empty directory")
    parser.add_argument("--name", required=True, help="of the base model")
    parser.add_argument("--revision", required=True, help="of the base model")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all (%(default)s)")
    parser.add_argument("--nice", type=int, default=5, help="added to the process's niceness (%(default)s)")
    arguments = parser.parse_args()
    os.nice(arguments.nice)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as result:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        problems = bring_in(
            arguments.base,
            arguments.source,
            arguments.target,
            base_name=arguments.name,
            revision=arguments.revision,
            threads=arguments.threads,
        )
        result.write(json.dumps({"problems": problems}) + "\n")
    return 0


def bring_in(
    base_path: Path,
    source: Path,
    target: Path,
    *,
    base_name: str,
    revision: str,
    threads: int = 0,
    dtype: "torch.dtype | None" = None,
) -> list[Problem]:
    """Give what is wrong; where nothing is, `target` holds the artifact, forced to disk.

    `dtype` is that of the base's arithmetic; None means what the device is fastest in. Raises what loading a
    base raises, and OSError.
    """
    import torch  # noqa: PLC0415  - seconds, which --help need not take
    from safetensors.torch import load_file  # noqa: PLC0415

    from trainer.config import Hyperparameters  # noqa: PLC0415
    from trainer.failures import TrainingError  # noqa: PLC0415
    from trainer.files import json_bytes, seal, sync_directory  # noqa: PLC0415
    from trainer.model import load_base  # noqa: PLC0415
    from trainer.neutral import measure_neutral  # noqa: PLC0415
    from trainer.precision import fastest_dtype  # noqa: PLC0415
    from trainer.publication import FORMAT, MANIFEST, round_as_published  # noqa: PLC0415
    from trainer.rendering import Renderer  # noqa: PLC0415
    from trainer.steps import Trainee  # noqa: PLC0415

    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = json.loads((source / CONFIG_FILE).read_bytes())
    tensors = load_file(source / WEIGHTS_FILE)
    renderer = Renderer.from_directory(base_path)
    settings = Hyperparameters(
        rank=config["r"],
        alpha=float(config["lora_alpha"]),
        dropout=0.0,
        use_rslora=bool(config.get("use_rslora")),
        target_modules=tuple(sorted({name.split(".")[-3] for name in tensors})),
    )
    trainee = Trainee.of(load_base(base_path, dtype or fastest_dtype(device)), settings, device)
    if problems := _unfitting(tensors, trainee.matrices):
        return problems
    with torch.no_grad():
        for name, tensor in tensors.items():
            trainee.matrices[name].copy_(tensor)
    try:
        round_as_published(trainee.adapted)
    except TrainingError:
        return [_problem("its lora_B matrices are all zero, so it has no effect")]
    canary = measure_neutral(trainee.row_loss, renderer)
    trainee.adapted.write(target, base_name)
    manifest = {
        "format": FORMAT,
        "technique": "lora",
        "rank": trainee.adapted.rank,
        **trainee.adapted.facts,
        "base_model": {"name": base_name, "revision": revision},
        "rendering": dict(renderer.contract()),
        "files": seal(target),
        "canary": {"sequences": [vars(sequence) for sequence in canary]},
        "create_time": time.time(),
    }
    (target / MANIFEST).write_bytes(json_bytes(manifest))
    with (target / MANIFEST).open("rb") as file:
        os.fsync(file.fileno())
    sync_directory(target)
    return []


def _unfitting(tensors: Mapping[str, object], matrices: Mapping[str, object]) -> list[Problem]:
    """Tensors that are no matrices of the base's adapter, or are not numbers."""
    from torch import Tensor  # noqa: PLC0415

    problems = []
    for name, tensor in sorted(tensors.items()):
        matrix = matrices.get(name)
        assert isinstance(tensor, Tensor)
        if not isinstance(matrix, Tensor):
            problems.append(_problem(f"{name}: the base model has no such module"))
        elif tensor.shape != matrix.shape:
            wanted = list(matrix.shape)
            problems.append(_problem(f"{name} is {list(tensor.shape)}; for the base model {wanted} fits"))
        elif not bool(tensor.isfinite().all()):
            problems.append(_problem(f"{name} has numbers that are not finite"))
    return problems


def _problem(description: str) -> Problem:
    return {"field": WEIGHTS_FILE, "description": description}


if __name__ == "__main__":
    sys.exit(main())
