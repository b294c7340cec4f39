#!/usr/bin/env python3
"""Whether the simulator tells the truth: 200 requests of a trace, run by processes and by `pdd sim`.

    bench/truth.py --pdd build/release/pdd --trace TRACE.csv [--requests 200] [--seconds 400] [--save FILE]

Real: `pdd cloud`, `pdd link` and a `pdd chat` for each request, with HTTP, processes and threads. Engines are fake
ones with emulated speeds (src/engine/emulated.h): they sleep, so that two CPUs run them all. The same requests, at
the same times, go through `pdd sim --fresh`. Compared are the median and the 95th percentile of the time to the first
token, of the cloud's tokens, of all gaps shown and of each answer's largest gap. Exit status 1: they differ by more
than 5 % in a median or 10 % at a 95th percentile (a millisecond or a token is always allowed).

Requests are the trace's first that fit the fake engine's context; their times are stretched to --seconds. Run it on a
quiet machine: the report says how busy it was.
"""
import argparse
import csv
import datetime
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time

CONTEXT = 4096  # of the fake engine
TEMPLATE = 19   # tokens that the chat template adds to a prompt
PROFILES = {"device": ("s24-ultra-cpu", "s24-cpu"), "cloud": ("m3-max", "m3-max")}  # as pdd names them; as pdd sim does
START_S = 1.6   # a chat measures its engine before it asks


def requests_of(path, n, seconds):
    rows = []
    with open(path, newline="") as f:
        for row in csv.DictReader(f):
            at = datetime.datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
            prompt, answer = int(row["ContextTokens"]), int(row["GeneratedTokens"])
            if TEMPLATE < prompt and prompt + answer + 2 < CONTEXT:
                rows.append((at, prompt, answer))
            if len(rows) == n:
                break
    first, last = rows[0][0], rows[-1][0]
    return [((at - first) / (last - first) * seconds, prompt, answer) for at, prompt, answer in rows]


def write_trace(path, rows):
    begin = datetime.datetime(2026, 1, 1)
    with open(path, "w") as f:
        f.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for at, prompt, answer in rows:
            f.write(f"{(begin + datetime.timedelta(seconds=at)).isoformat(sep=' ', timespec='microseconds')},{prompt},{answer}\n")


def start(command):
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in p.stdout:
        found = re.search(r"listening on (http://\S+)", line)
        if found:
            threading.Thread(target=lambda: [None for _ in p.stdout], daemon=True).start()
            return p, found[1]
    raise SystemExit(f"{' '.join(command)}: does not listen")


def report_of(folder, i):
    return os.path.join(folder, f"{i}.json")


def ask(pdd, url, folder, i, prompt, answer):
    text = os.path.join(folder, f"{i}.txt")
    r = random.Random(i)
    with open(text, "w") as f:
        f.write("".join(r.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(prompt - TEMPLATE)))
    subprocess.run([pdd, "chat", "--fake", str(CONTEXT), "--profile", PROFILES["device"][0], "--cloud", url, "--prompt-file", text,
                    "--max-tokens", str(answer), "--no-state", "--idle-fill", "off", "--refine", "off", "--verify", "off",
                    "--stats-json", report_of(folder, i)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def run_real(pdd, rows, rtt):
    with tempfile.TemporaryDirectory() as folder:
        cloud, url = start([pdd, "cloud", "--fake", str(CONTEXT), "--profile", PROFILES["cloud"][0], "--listen", "127.0.0.1:0"])
        link, url = start([pdd, "link", "--to", url.removeprefix("http://"), "--rtt", str(rtt)])
        threads, begin, loads = [], time.monotonic() + START_S, []
        try:
            for i, (at, prompt, answer) in enumerate(rows):
                time.sleep(max(0.0, begin + at - START_S - time.monotonic()))
                loads.append(os.getloadavg()[0])
                t = threading.Thread(target=ask, args=(pdd, url, folder, i, prompt, answer))
                t.start()
                threads.append(t)
            for t in threads:
                t.join()
        finally:
            for p in (link, cloud):
                p.terminate()
                p.wait()
        answers = []
        for i in range(len(rows)):
            if os.path.exists(report_of(folder, i)):  # else its chat failed
                with open(report_of(folder, i)) as f:
                    answers.append(json.load(f))
        return answers, sum(loads) / len(loads)


def quantile(values, q):
    values = sorted(values)
    return values[int(q * (len(values) - 1) + 0.5)] if values else 0.0


def figures_of(answers):
    shown = [[t["shown_ms"] for t in a["tokens"]] for a in answers]
    gaps = [[b - a for a, b in zip(s, s[1:])] for s in shown]
    figures = {"first": [a["ttft_ms"] for a in answers if a["ttft_ms"] is not None],
               "tokens": [a["cloud_tokens"] for a in answers],
               "gap": [g for of in gaps for g in of],
               "widest": [max(of) for of in gaps if of]}
    return {f"{name}_{p}": quantile(v, q) for name, v in figures.items() for p, q in (("p50", 0.5), ("p95", 0.95))}


def run_sim(pdd, rows, rtt):
    with tempfile.TemporaryDirectory() as folder:
        trace = os.path.join(folder, "truth.csv")
        write_trace(trace, rows)
        out = subprocess.run([pdd, "sim", "--trace", trace, "--method", "planned", "--fresh", "--rtt", str(rtt), "--up", "0",
                              "--down", "0", "--engine", PROFILES["cloud"][1], "--engines", "1", "--queue", "256", "--mix",
                              PROFILES["device"][1], "--context", str(CONTEXT), "--json"], capture_output=True, text=True, check=True)
        return json.loads(out.stdout)["runs"][0]


TITLES = {"first": "first token, ms", "tokens": "cloud tokens of an answer", "gap": "gap, ms", "widest": "largest gap of an answer, ms"}


def compare(real, sim):
    lines, good = [], True
    for name in ("first", "tokens", "gap", "widest"):
        for p, most in (("p50", 0.05), ("p95", 0.10)):
            a, b = real[f"{name}_{p}"], sim[f"{name}_{p}"]
            off = b / a - 1.0 if a else 0.0
            ok = abs(b - a) <= max(most * a, 1.0)
            good = good and ok
            lines.append(f"| {TITLES[name]} | {p} | {a:.1f} | {b:.1f} | {100 * off:+.1f} % | {100 * most:.0f} % | {'yes' if ok else '**no**'} |")
    return lines, good


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--pdd", required=True)
    p.add_argument("--trace", required=True, help="Azure's CSV")
    p.add_argument("--requests", type=int, default=200)
    p.add_argument("--seconds", type=float, default=400.0, help="over which they arrive")
    p.add_argument("--rtt", type=int, default=150, help="round trip of the link, ms")
    p.add_argument("--keep", help="folder for the reports of all answers, and the trace")
    p.add_argument("--save", help="write the table to this file, too")
    a = p.parse_args()
    rows = requests_of(a.trace, a.requests, a.seconds)
    answers, load = run_real(a.pdd, rows, a.rtt)
    real, sim = figures_of(answers), run_sim(a.pdd, rows, a.rtt)
    lines, good = compare(real, sim)
    handed = sum(1 for x in answers if x["handover"] is not None)
    text = "\n".join([
        f"{len(answers)} requests over {a.seconds:.0f} s, device {PROFILES['device'][0]}, cloud {PROFILES['cloud'][0]}, "
        f"round trip {a.rtt} ms, commit {answers[0]['commit']}; load of the machine {load:.1f} on {os.cpu_count()} CPUs; "
        f"{handed} answers were handed over ({sim['handed_over'] / 100 * len(rows):.0f} in the simulator).", "",
        "| | | processes | simulator | | allowed | kept |", "|---|---|--:|--:|--:|--:|---|", *lines, ""])
    print(text)
    if a.keep:
        os.makedirs(a.keep, exist_ok=True)
        for i, x in enumerate(answers):
            with open(os.path.join(a.keep, f"{i}.json"), "w") as f:
                json.dump(x, f)
        write_trace(os.path.join(a.keep, "truth.csv"), rows)
    if a.save:
        with open(a.save, "w") as f:
            f.write(text)
    if len(answers) < len(rows):
        print(f"{len(rows) - len(answers)} answers are missing", file=sys.stderr)
    return 0 if good and len(answers) == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
