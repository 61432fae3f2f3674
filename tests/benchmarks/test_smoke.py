"""The benchmarks that need hardware of their own, run small on a CPU."""

import sys

from benchmarks import gpu


def test_the_gpu_benchmark_runs_and_prints_a_table(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--smoke", "--device", "cpu"])
    gpu.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| conv3d")]
    assert [line.split(" | ")[1] for line in lines] == ["as given", "folded", "folded, bf16"]
    off = [float(line.rstrip(" |").split(" | ")[-1]) for line in lines]
    assert off[0] == 0
    assert off[1] < 1e-4 < off[2] < 0.2
