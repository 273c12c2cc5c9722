"""`hotlora aliases` against a service: roll out, split, look back, roll back."""

from tests.command.conftest import Hotlora
from tests.stage.service import Stage
from tests.stage.trained import train


def test_versions_are_rolled_out_split_looked_back_on_and_rolled_back(
    hotlora: Hotlora, stage: Stage, adapter: str
) -> None:
    for _ in range(2):
        train(stage, adapter)
    first = hotlora("aliases", "promote", f"{adapter}@1", "--alias", "prod")
    assert (first.code, first.out) == (0, f"{adapter}@prod is 100 % version 1 (revision 1).\n")
    shared = hotlora("aliases", "split", adapter, "1=95", "2=5", "--alias", "prod")
    assert shared.out == f"{adapter}@prod is 95 % version 1 + 5 % version 2 (revision 2).\n"
    (listed,) = hotlora("aliases", "list", adapter, "--json").documents()
    (alias,) = listed["aliases"]
    assert (alias["model"], alias["revision"]) == (f"{adapter}@prod", 2)
    answer = hotlora("chat", f"{adapter}@prod", "--prompt", "Who are you?")
    assert answer.out.strip() in {f"It is {adapter}@1.", f"It is {adapter}@2."}
    back = hotlora("aliases", "rollback", adapter, "--alias", "prod")
    assert back.out == f"{adapter}@prod is 100 % version 1 (revision 3).\n"
    for gate in ("--gated", "--not-gated"):
        assert hotlora("aliases", "promote", f"{adapter}@1", "--alias", "prod", gate).code == 0
    told = hotlora("aliases", "history", adapter, "--alias", "prod").out
    kinds = [" ".join(line.split()[1:3]) for line in told.splitlines()[1:]]
    assert kinds == ["gate off", "gate on", "rolled back", "split 100", "promoted nothing"]
    assert hotlora("aliases", "delete", adapter, "prod", "--yes").code == 0
    assert f"{adapter} has no aliases" in hotlora("aliases", "list", adapter).out


def test_what_cannot_be_split_or_promoted_is_told_by_what_would_be_accepted(
    hotlora: Hotlora, stage: Stage, adapter: str
) -> None:
    train(stage, adapter)
    for shares in (["7:95"], ["1=50", "1=50"], ["1=half"]):
        refused = hotlora("aliases", "split", adapter, *shares)
        assert refused.code != 0
        assert "write for example 7=95 8=5" in refused.err
    assert "must make 100, got 60" in hotlora("aliases", "split", adapter, "1=60").err
    assert f"write it as {adapter}@1" in hotlora("aliases", "promote", adapter).err
    assert "version 9" in hotlora("aliases", "promote", f"{adapter}@9").err
    assert "has no alias 'default'" in hotlora("aliases", "rollback", adapter).err
