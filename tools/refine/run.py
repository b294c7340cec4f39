#!/usr/bin/env python3
"""Runs `pdd bench refine` in several processes of one thread each, then writes the report.

run.py MODEL.gguf SETS_FOLDER RESULTS_FOLDER [--jobs N] [--minutes M] [--page docs/REFINE.md]

The first --deep questions of each set are asked in full, the others of relevance and words at 30 and 10 % only.
Stopped or out of time, it goes on where it was when it is started again with the same folders.
"""
import argparse
import glob
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def run(options, files, more):
    """All parts of one call, side by side."""
    shared = [x for f in files for x in ("--set", f)] + more
    jobs = [subprocess.Popen([*options.pdd.split(), "bench", "refine", "--model", options.model, "--threads", "1", *shared,
                              "--part", f"{i}/{options.jobs}", "--out", os.path.join(options.results, f"{i}.jsonl")])
            for i in range(1, options.jobs + 1)]
    failed = [i + 1 for i, code in enumerate([j.wait() for j in jobs]) if code != 0]
    if failed:
        sys.exit(f"parts {', '.join(map(str, failed))} failed")


def main():
    p = argparse.ArgumentParser(description="Runs pdd bench refine in several processes.")
    p.add_argument("model")
    p.add_argument("sets", help="the folder that sets.py wrote")
    p.add_argument("results", help="a folder, made where it is missing")
    p.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--minutes", type=int)
    p.add_argument("--deep", type=int, default=128)
    p.add_argument("--page")
    p.add_argument("--pdd", default=os.environ.get("PDD_BIN") or os.path.join(ROOT, "build", "release", "pdd"))
    options = p.parse_args()
    files = sorted(glob.glob(os.path.join(options.sets, "*.jsonl")))
    if not files:
        sys.exit(f"no sets in {options.sets}: run sets.py first")
    os.makedirs(options.results, exist_ok=True)
    begun = time.time()
    for more in (["--questions", str(options.deep)], ["--methods", "relevance,words", "--ratios", ".3,.1"]):
        left = options.minutes and options.minutes - int((time.time() - begun) / 60)
        if left is None or left > 0:
            run(options, files, more + (["--minutes", str(left)] if left else []))
    if options.page:
        found = sorted(glob.glob(os.path.join(options.results, "*.jsonl")))
        subprocess.run([sys.executable, os.path.join(HERE, "report.py"), *found, "--page", options.page], check=True)


if __name__ == "__main__":
    main()
