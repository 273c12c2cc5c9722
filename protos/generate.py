"""Generate the Python stubs of every proto into the `hotlora` package.

protoc writes absolute imports; `buf.validate` is moved below `hotlora.buf`, so that installing hotlora never
puts a top-level package called `buf` beside somebody else's.
"""

import argparse
import filecmp
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc_tools

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"


def generate(target: Path) -> list[Path]:
    """Write the stubs below `target` and return their paths relative to it."""
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        messages = [*sorted(PROTOS.glob("hotlora/v1/*.proto")), PROTOS / "buf/validate/validate.proto"]
        services = sorted(PROTOS.glob("hotlora/v1/*_service.proto"))
        _protoc(["--python_out", str(scratch), "--pyi_out", str(scratch)], messages)
        _protoc(["--grpc_python_out", str(scratch)], services)
        written = []
        for source in sorted([*scratch.rglob("*.py"), *scratch.rglob("*.pyi")]):
            relative = source.relative_to(scratch)
            if relative.parts[0] == "buf":
                relative = Path("hotlora", *relative.parts)
            path = target / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_relocate(source.read_text()))
            written.append(relative)
    return written


def _protoc(outputs: list[str], files: list[Path]) -> None:
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    includes = [f"-I{PROTOS}", f"-I{well_known}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", *includes, *outputs, *map(str, files)]
    subprocess.run(command, check=True)


def _relocate(text: str) -> str:
    return re.sub(r"^from buf\.validate import", "from hotlora.buf.validate import", text, flags=re.M)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the committed stubs differ")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        names = generate(fresh)
        stale = [n for n in names if not (ROOT / n).exists() or not filecmp.cmp(fresh / n, ROOT / n, False)]
    for name in stale:
        print(f"{name} differs from what the protos give: run `make generate`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
