"""The set-up script, with stand-ins for every tool that installs something."""

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "dirname", "cat", "sha256sum", "grep", "mkdir", "cp", "chmod")
"""What the script may use of the machine; no other command is found."""
PYTHON = """#!/usr/bin/env bash
case "$*" in
  "--version") echo Python 3.11.9 ;;
  *ensurepip*) [ -z "${WITHOUT_VENV:-}" ] ;;
  "-m venv .venv")
    [ -z "${VENV_FAILS:-}" ] &&
      mkdir -p .venv/bin && cp "$0" .venv/bin/python && [ -z "${STOPPED:-}" ] && > .venv/pip ;;
  "-m pip --version") [ -e .venv/pip ] ;;
  "-m pip install"*) [ -z "${WITHOUT_INDEX:-}" ] && cp "$STAND_INS/uv" .venv/bin/uv ;;
  "-m compileall"*) echo "$*" >> "$STAND_INS/calls"; exit "${COMPILED:-0}" ;;
  *Python.h*) [ -z "${WITHOUT_HEADERS:-}" ] ;;
esac
"""
UV = """#!/usr/bin/env bash
{ echo "$@"; cat; } >> "$STAND_INS/calls"
exit "${UV_EXIT_CODE:-0}"
"""
ANSWERS = {"python3": PYTHON, "uv": UV, "id": "#!/usr/bin/env bash\necho 1000\n"}
GPU = "#!/usr/bin/env bash\necho 'GPU 0: NVIDIA'\n"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A checkout, and the commands that are there."""

    checkout: Path
    commands: Path

    def has(self, name: str, answer: str) -> None:
        (self.commands / name).write_text(answer)
        (self.commands / name).chmod(0o755)

    def sets_up(self, *options: str, **variables: str) -> str:
        """Run the script; gives what it says on its standard error."""
        ran = self.run(*options, **variables)
        assert ran.returncode == 0, ran.stderr
        return ran.stderr

    def run(self, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.checkout / "deploy" / "setup.sh", *options],
            env={"PATH": str(self.commands), "STAND_INS": str(self.commands), **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def syncs(self) -> list[str]:
        """What uv, and Python to compile, was told so far, line by line, what uv read included."""
        calls = self.commands / "calls"
        return calls.read_text().splitlines() if calls.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(checkout=tmp_path / "a checkout", commands=tmp_path / "commands")
    made.checkout.mkdir()
    made.commands.mkdir()
    shutil.copytree(ROOT / "deploy", made.checkout / "deploy")
    shutil.copy(ROOT / "pyproject.toml", made.checkout)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (made.commands / tool).symlink_to(found)
    for name, answer in ANSWERS.items():
        made.has(name, answer)
    return made


def test_without_a_gpu_the_environment_gets_the_cpu_lock_the_weights_and_both_of_our_packages_once(
    machine: Machine,
) -> None:
    said = machine.sets_up(PIP_FIND_LINKS="/wheels https://example.org/more")

    assert re.findall(r"==> (\w+ [\w.]+)", said) == ["Making the", "Installing uv", "Installing the"]
    sync, *own = machine.syncs()
    assert sync == (
        "pip sync --python .venv/bin/python --find-links /wheels --find-links https://example.org/more "
        "deploy/cpu.lock deploy/weights.txt -"
    )
    assert own == ["-e .", "-e deploy/vllm_plugin"]
    assert machine.sets_up() == ""
    assert len(machine.syncs()) == 3


def test_bytecode_is_made_where_python_may_not_write_it_at_every_start(machine: Machine) -> None:
    machine.sets_up(PYTHONDONTWRITEBYTECODE="1")
    assert "--compile-bytecode" in machine.syncs()[0].split()
    assert machine.syncs()[-1].startswith("-m compileall")

    before = machine.syncs()
    machine.sets_up(PYTHONDONTWRITEBYTECODE="1")  # with code that was edited meanwhile
    assert machine.syncs() == [*before, before[-1]]
    machine.sets_up()
    assert machine.syncs() == [*before, before[-1]]


def test_a_checkout_where_no_bytecode_can_be_kept_is_set_up_all_the_same(machine: Machine) -> None:
    assert machine.run(PYTHONDONTWRITEBYTECODE="1", COMPILED="1").returncode == 0


def test_without_folders_of_packages_torch_comes_from_its_own_index(machine: Machine) -> None:
    machine.sets_up()

    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in machine.syncs()[0]


def test_another_stack_or_lock_takes_the_place_of_what_was_there(machine: Machine) -> None:
    machine.sets_up()
    machine.has("nvidia-smi", GPU)
    machine.has("cc", "")

    machine.sets_up(PIP_FIND_LINKS="/wheels")

    assert machine.syncs()[3:] == [
        "pip sync --python .venv/bin/python deploy/cuda.lock deploy/weights.txt -",
        "-e .",
    ]
    with (machine.checkout / "deploy" / "cuda.lock").open("a") as lock:
        lock.write("one-more==1.0\n")
    machine.sets_up()
    assert len(machine.syncs()) == 7


@pytest.mark.parametrize(
    ("failing", "advice"),
    [
        (
            {"UV_EXIT_CODE": "2"},
            "the packages could not be installed; uv says above which one",
        ),
        ({"WITHOUT_INDEX": "1"}, "pip could not install uv. Is the package index reachable?"),
        ({"VENV_FAILS": "1"}, "Remove .venv, and see that this folder may be written."),
        ({"WITHOUT_VENV": "1"}, "lacks its venv module. On Debian: apt-get install python3-venv"),
    ],
    ids=["packages", "uv", "venv", "ensurepip"],
)
def test_a_step_that_fails_says_what_to_do_and_is_done_again(
    machine: Machine, failing: Mapping[str, str], advice: str
) -> None:
    ran = machine.run(**failing)

    assert ran.returncode == 1
    assert "set-up failed: " in ran.stderr
    assert advice in ran.stderr
    machine.sets_up()
    assert machine.sets_up() == ""


def test_an_environment_whose_making_was_broken_off_is_made_whole(machine: Machine) -> None:
    assert machine.run(STOPPED="1").returncode == 1
    assert (machine.checkout / ".venv" / "bin" / "python").exists()

    machine.sets_up()

    assert machine.sets_up() == ""


@pytest.mark.parametrize(
    ("prepare", "options", "advice"),
    [
        (lambda _: None, ["--browser"], "as root: apt-get install chromium"),
        (lambda machine: (machine.commands / "python3").unlink(), [], "apt-get install python3 python3-venv"),
        (lambda machine: machine.has("nvidia-smi", GPU), [], "apt-get install gcc libc6-dev python3-dev"),
    ],
    ids=["chromium", "python", "compiler"],
)
def test_what_only_root_can_install_is_named_to_everybody_else(
    machine: Machine, prepare: Callable[[Machine], None], options: list[str], advice: str
) -> None:
    prepare(machine)

    ran = machine.run(*options)

    assert ran.returncode == 1
    assert advice in ran.stderr


@pytest.mark.parametrize(
    ("options", "variables", "packages"),
    [
        (["--browser"], {}, "chromium"),
        ([], {"HOTLORA_STACK": "cuda", "WITHOUT_HEADERS": "1"}, "gcc libc6-dev python3-dev"),
        ([], {"WITHOUT_VENV": "1"}, "python3-venv"),
    ],
    ids=["chromium", "compiler", "venv"],
)
def test_root_gets_what_the_machine_lacks(
    machine: Machine, options: Sequence[str], variables: Mapping[str, str], packages: str
) -> None:
    machine.has("id", "#!/usr/bin/env bash\necho 0\n")
    machine.has("apt-get", '#!/usr/bin/env bash\necho "$@" >> "$STAND_INS/installed"\n')

    machine.sets_up(*options, **variables)

    installed = (machine.commands / "installed").read_text().splitlines()
    assert installed == ["update -qq", f"install -y -qq --no-install-recommends {packages}"]


def test_root_is_told_where_a_package_of_the_system_could_not_be_installed(machine: Machine) -> None:
    machine.has("id", "#!/usr/bin/env bash\necho 0\n")
    machine.has("apt-get", "#!/usr/bin/env bash\nexit 100\n")

    ran = machine.run("--browser")

    assert ran.returncode == 1
    assert "set-up failed: apt-get could not install chromium. The browser tests need Chromium." in ran.stderr


@pytest.mark.parametrize("target", ["run", "demo", "examples", "test", "check", "bench"])
def test_each_target_sets_up_what_it_needs_first(target: str) -> None:
    make = ["make", "--dry-run", "--no-print-directory", target]
    first, *_ = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

    assert first == ("deploy/setup.sh --browser" if target == "test" else "deploy/setup.sh")


def test_an_unknown_stack_is_refused_with_those_that_there_are(machine: Machine) -> None:
    ran = machine.run(HOTLORA_STACK="rocm")

    assert ran.returncode == 1
    assert "HOTLORA_STACK is 'rocm'; accepted are cpu and cuda." in ran.stderr
    assert machine.syncs() == []
