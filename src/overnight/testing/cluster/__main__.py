"""`python -m overnight.testing.cluster show|faults`: a cluster at work while it is broken, and the verdict."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from overnight.testing.cluster.databases import Unavailable
from overnight.testing.cluster.figures import told
from overnight.testing.cluster.layout import Layout
from overnight.testing.cluster.plots import LONG_S, at_random, one_of_each, valkey_away
from overnight.testing.cluster.trial import Trial, carry_out
from overnight.testing.history import History


def main() -> int:
    """Carry out one trial; 0 when every promise was kept, 1 when not, 2 when it could not be tried."""
    asked = _arguments()
    seed = asked.seed if asked.seed is not None else secrets.randbelow(1 << 31)
    root = Path(tempfile.mkdtemp(prefix="ovn-"))
    say(f"seed {seed}; everything lies in {root}")
    trial = _show(root, seed, asked.runs) if asked.what == "show" else _faults(root, seed, asked)
    try:
        verdict = asyncio.run(carry_out(trial, say))
    except Unavailable as missing:
        shutil.rmtree(root, ignore_errors=True)
        return end(f"cannot be tried here: {missing}", 2)
    except KeyboardInterrupt:
        return 130
    history = History.load(trial.layout.history, trial.layout.agents)
    for line in told(trial.layout, history):
        say(line)
    say(str(verdict))
    if verdict.good and not asked.keep:
        shutil.rmtree(root, ignore_errors=True)
        return 0
    say(f"the history, the agents' record and all logs are kept in {root}")
    return 0 if verdict.good else end(f"again: {_again(asked, seed)}", 1)


def _show(root: Path, seed: int, runs: int) -> Trial:
    layout = Layout(root=root, servers=2, workers=3, lease_s=8, grace_s=1)
    return Trial(layout=layout, seed=seed, runs=runs, plot=one_of_each, over_s=40, at_once=24, bound_s=90)


def _faults(root: Path, seed: int, asked: argparse.Namespace) -> Trial:
    seconds = asked.minutes * 60
    layout = Layout(
        root=root, servers=3, workers=3, remote_workers=1, lease_s=8, grace_s=1, own_clocks=frozenset({"s2", "w2"}),
        namespaces=frozenset({"w3"}),
        small_disks={"w3": 256, "postgres": 1024},
    )  # fmt: skip
    if asked.plan == "valkey":
        seconds, plot = LONG_S, valkey_away()
        layout = replace(layout, own_clocks=frozenset())
    else:
        plot = at_random(seconds, side_by_side=asked.side_by_side)
    return Trial(
        layout=layout, seed=seed, runs=asked.runs, plot=plot, over_s=seconds, at_once=32, bound_s=120
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="overnight.testing.cluster", description=__doc__)
    modes = parser.add_subparsers(dest="what", required=True)
    show = modes.add_parser("show", help="two servers, three workers, one of each kind is killed")
    faults = modes.add_parser("faults", help="three servers, four workers, nemeses by chance")
    for mode, runs in ((show, 100), (faults, 500)):
        mode.add_argument("--seed", type=int, help="draw the same work and nemeses again")
        mode.add_argument("--runs", type=int, default=runs)
        mode.add_argument("--keep", action="store_true", help="leave the folder, also when all went well")
    faults.add_argument("--minutes", type=float, default=5)
    faults.add_argument(
        "--plan",
        choices=("random", "valkey"),
        default="random",
        help="valkey: it is away for a minute, and no more",
    )
    faults.add_argument("--side-by-side", type=int, default=1, help="nemeses at any time")
    return parser.parse_args()


def _again(asked: argparse.Namespace, seed: int) -> str:
    more = f"--minutes {asked.minutes:g} " if asked.what == "faults" else ""
    more += f"--plan {asked.plan} " if getattr(asked, "plan", "random") != "random" else ""
    target = "faults" if asked.what == "faults" else "cluster"
    return f"make {target} ARGS='{more}--runs {asked.runs} --seed {seed}'"


def say(words: str) -> None:
    """A line for whoever watches."""
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def end(words: str, status: int) -> int:
    """The last line, and the exit status."""
    say(words)
    return status


if __name__ == "__main__":
    sys.exit(main())
