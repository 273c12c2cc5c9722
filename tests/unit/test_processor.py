"""Which CPUs multiply bfloat16 natively, by what they say of themselves."""

from pathlib import Path

import pytest

from trainer.processor import has_native_bfloat16


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512f avx512bw avx512_vnni avx512_bf16", True),
        ("flags\t\t: fpu sse2 avx2 avx512f amx_bf16 amx_tile", True),
        ("Features\t: fp asimd sve i8mm bf16 dgh", True),
        ("flags\t\t: fpu sse2 fma avx2", False),
        ("flags\t\t: fpu sse2 avx2 avx512f avx512bw avx512_vnni", False),
    ],
)
def test_a_cpu_is_known_by_its_flags(tmp_path: Path, flags: str, native: bool) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nmodel name\t: A CPU\n{flags}\n")
    assert has_native_bfloat16(info) is native


def test_a_machine_that_says_nothing_computes_in_32_bits(tmp_path: Path) -> None:
    assert has_native_bfloat16(tmp_path / "nothing") is False
