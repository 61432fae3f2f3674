"""What do several processes win that measure one run together?

    python -m benchmarks.together --processes 2 --clips 80
    python -m benchmarks.together --processes 4 --clips all -- --model torchvision:r3d_18 --data ucf101

The same ``robustvid attack`` in one process and under torchrun, in turns; told is the wall-clock time of the whole
command, start and report included, and the median ratio over the rounds. On a CPU one process may use all cores, while
each of several uses one. What is found has to be the same to the last bit, or the benchmark fails.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import command_line
from robustvid.evaluation.journal import read_rows


def seconds(launcher: list[str], arguments: list[str], out: Path) -> float:
    """Return how long an attack takes that writes the run folder ``out``."""
    command = [*launcher, "robustvid", "attack", *arguments, "--mlflow", "off", "--out", str(out)]
    alone = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    begin = time.perf_counter()
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - begin


def found(out: Path) -> set[tuple[object, ...]]:
    """Return what a run has measured, without what it cost."""
    return {
        (r.index, r.card_key, r.norm, r.eps_frame, r.eps_clip, r.frames, r.robust, r.margin) for r in read_rows(out)
    }


def main() -> None:
    """Run the benchmark."""
    parser = command_line("together", __doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", default="80")
    parser.add_argument("rest", nargs="*", help="further options of robustvid attack, after --")
    args = parser.parse_args()
    rest = args.rest or ["--model", "conv3d-pgd", "--battery", "standard", "--eps-frame", "2/255,4/255,8/255,12/255"]
    arguments = [*rest, "--clips", args.clips]
    alone = [sys.executable, "-m"]
    together = [*alone, "torch.distributed.run", "--standalone", f"--nproc-per-node={args.processes}", "-m"]
    ratios = []
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            one, many = Path(folder, "one"), Path(folder, "many")
            took = seconds(alone, arguments, one), seconds(together, arguments, many)
            if found(one / "rows.jsonl") != found(many / "rows.jsonl"):
                sys.exit("the processes did not find what one finds")
        ratios.append(took[0] / took[1])
        print(f"round {number + 1}: one {took[0]:.0f} s, {args.processes} together {took[1]:.0f} s", flush=True)
    print(f"{args.processes} processes: {statistics.median(ratios):.2f} times as fast as one, the same rows")


if __name__ == "__main__":
    main()
