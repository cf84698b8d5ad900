"""``python -m tests.chaos --tasks N --minutes M --seed S``: exit code 1 where the audit isn't clean."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.chaos.run import ChaosConfig, run_chaos


def main() -> int:
    """Run once and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Real processes under random faults.")
    parser.add_argument("--tasks", type=int, default=1000, help="tasks to hand in (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the attack (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of orders, faults and victims (default: %(default)s)")
    parser.add_argument("--keep-logs", type=Path, help="directory for the processes' logs if the audit isn't clean")
    args = parser.parse_args()
    report = run_chaos(ChaosConfig(args.tasks, 60 * args.minutes, args.seed, keep_logs=args.keep_logs))
    report.print()
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
