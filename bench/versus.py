#!/usr/bin/env python3
"""versus.py: pdd beside llama.cpp and ik_llama.cpp, in one interleaved run.

    bench/versus.py tune --work DIR --llama BUILD[,BUILD] --ik BUILD [--llama-avx2 BUILD]
    bench/versus.py run  --work DIR ... [--minutes 25] [--quick]
    bench/versus.py report --work DIR [--save DATE-CPU]
    bench/versus.py all ...                      run, then report

BUILD is a build folder that holds bin/llama-bench (and bin/llama-batched-bench). DIR is for random
model files, flags and results: nothing is written elsewhere. Every BUILD that you name for --llama is
a candidate; `tune` tries builds and flags once for each model and keeps the fastest for prompts and
for answers; without it -fa 1, and -rtr 1 for ik_llama.cpp. `run` measures group by group, in each
group A B C, then B C A, ... and says first what it will do and how long it takes;
called again it goes on where it stopped (--fresh starts anew), with what has fewest rounds first. `report`
prints medians over rounds of the per-round ratios as Markdown and writes DIR/versus.json;
--save 2026-11-28-zen4 writes bench/results/2026-11-28-zen4-versus.md and a picture beside it.

Every program measures in a process of its own that loads the file, so a ratio compares numbers taken
within a minute of each other. Beside other work, programs that spin (llama.cpp with as many threads as
CPUs) suffer more than others: each group notes what other work took, and `report` leaves noisy ones out.
Python's standard library only.
"""
import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, namedtuple

RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results")
SHAPES = ("smollm2-135m", "qwen2.5-0.5b")
TYPES = ("Q8_0", "Q4_0", "Q4_K_M")
ANSWER = 64
BATCHES = (2, 8, 32)
WORK = {"prefill512": [("prefill", 512), ("decode", 0)], "prefill2048": [("prefill", 2048), ("decode", 2048)],
        "far8192": [("prefill", 8192), ("decode", 8192)], "batch2": [("batch", b) for b in BATCHES],
        "load0": [("load", 0), ("mixed", 16)]}
BATCH_DEPTH, BATCH_ANSWER = 128, 32
TRIAL_DEPTH = 1024
WARM = 32  # a first short prompt in each process, not counted
WARM_MAX = 2048  # up to so many tokens a prompt runs before it counts, so that first touches of memory are not timed
MADE_BY = ("commit", "kv_type")  # of pdd's report, kept with each row
NAMES = {"pdd": "pdd", "llama": "llama.cpp", "ik": "ik_llama.cpp", "pdd-avx2": "pdd (AVX2)",
         "llama-avx2": "llama.cpp (AVX2)", "pdd-batch": "pdd", "llama-batch": "llama.cpp"}


def say(text):
    print(text, file=sys.stderr, flush=True)


def command_lines(command, timeout=1500):
    """Standard output, or None with a word on what failed; the lines of standard error, each with when it came."""
    with tempfile.TemporaryFile() as out, subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE) as child:
        timer = threading.Timer(timeout, child.kill)
        timer.daemon = True
        timer.start()
        lines = [(time.monotonic(), line.decode(errors="replace")) for line in child.stderr]
        status = child.wait()
        timer.cancel()
        if status == 0:
            out.seek(0)
            return out.read().decode(errors="replace"), lines
    words = "".join(line for _, line in lines)[-300:]
    say(f"  failed or out of time ({status}): {' '.join(command)}\n  {words}")
    return None, lines


def command_output(command):
    return command_lines(command)[0]


def json_values(text):
    """All JSON values in a text: one array, or lines, or objects with other words between."""
    decoder, at, values = json.JSONDecoder(), 0, []
    while (found := re.compile(r"[\[{]").search(text, at)) is not None:
        try:
            value, at = decoder.raw_decode(text, found.start())
            values += value if isinstance(value, list) else [value]
        except ValueError:
            at = found.start() + 1
    return values


class Site:
    """Where programs, models and results are."""

    def __init__(self, options):
        self.o = options
        self.work = os.path.abspath(options.work)
        os.makedirs(self.work, exist_ok=True)
        self.flags_path = os.path.join(self.work, "flags.json")
        self.flags = json.load(open(self.flags_path)) if os.path.exists(self.flags_path) else {}
        self.nice = ["nice", "-n", "-10"] if os.geteuid() == 0 else []

    def model(self, shape, kind):
        path = os.path.join(self.work, f"{shape}-{kind}.gguf")
        if not os.path.exists(path):
            command = [self.o.pdd, "model", "random", "--shape", shape, "--type", kind, "-o", path]
            if command_output(command) is None:
                sys.exit("versus: no model file")
        return path

    def program(self, build, name):
        for path in (os.path.join(build, "bin", name), os.path.join(build, name)):
            if os.access(path, os.X_OK):
                return path
        sys.exit(f"versus: {build} holds no {name}")


class Others:
    """How many CPUs other work takes, from the system's clock ticks less those of our own processes."""

    def __init__(self):
        self.began, self.busy, self.own = time.time(), self.system(), self.children()

    @staticmethod
    def system():
        try:
            ticks = [int(x) for x in open("/proc/stat").readline().split()[1:9]]
        except OSError:
            return None
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def children():
        t = os.times()
        return t.user + t.system + t.children_user + t.children_system

    def cpus(self):
        if self.busy is None:
            return 0.0
        spent = self.system() - self.busy - (self.children() - self.own)
        return max(0.0, spent / max(time.time() - self.began, 0.1))


def wait_for_quiet(limit, seconds):
    """Until other work takes less than `limit` CPUs for a second, at most so many seconds."""
    end = time.time() + seconds
    while time.time() < end:
        others = Others()
        time.sleep(1.0)
        if others.cpus() < limit:
            return


# ---- one process of one program; each returns {test: {"tps": ..., ...}} ----

def runs_warm(prompts):
    """Whether these prompts run once before they count; the same answer for every program."""
    return max(prompts) <= WARM_MAX


def sort_tests(tests):
    """Prompts; depths of answers; and long prompts whose answer is wanted, too, which are read once for both (a short
    one counts when it is read for the second time)."""
    prompts, depths = ([n for k, n in tests if k == kind] for kind in ("prefill", "decode"))
    both = [n for n in prompts if n in depths and not runs_warm([n])]
    return [n for n in prompts if n not in both], [n for n in depths if n not in both], both


def commas(numbers):
    return ",".join(map(str, numbers))


def bench_engine(site, model, threads, more):
    """The report of `pdd bench engine`, and what of it is kept with each row."""
    text = command_output(site.nice + [site.o.pdd, "bench", "engine", "--model", model, "--threads", str(threads),
                                       "--json", "--quiet"] + more)
    found = json.loads(text) if text else {"cases": [], "load": None}
    return found, {key: found[key] for key in MADE_BY if key in found}


def run_pdd(site, model, threads, tests, isa=None):
    result = {}
    prompts, depths, both = sort_tests(tests)
    base = ["--repeat", "1", "--beyond", "--generate", str(ANSWER)] + (["--isa", isa] if isa else [])
    runs = []
    if prompts:
        runs_of_each = 2 if runs_warm(prompts) else 1  # the last counts
        runs.append(["--prompt", commas([WARM] + prompts * runs_of_each), "--batch", "0"])
    if depths:
        runs.append(["--prompt", "0", "--depth", commas(depths), "--batch", "1"])
    if both:
        runs.append(["--prompt", "0", "--depth", commas(both), "--batch", "1", "--fill"])
    for arguments in runs:
        found, made_by = bench_engine(site, model, threads, base + arguments)
        for case in found["cases"]:
            key = ("decode", case["depth"]) if case["kind"] == "decode" else ("prefill", case["n"])
            result[key] = {"tps": case["tps"], "vnni": case["gops_part_vnni"], "read": case.get("gbs_part"),
                           "gbs": case.get("gbs"), "gops": case["gops"], **made_by}
    return result


def run_llama(site, model, threads, tests, build, flags):
    result = {}
    program = site.program(build, "llama-bench")
    base = site.nice + [program, "-m", model, "-t", str(threads), "-r", "1", "-o", "jsonl", "--progress"] + flags
    prompts, depths, both = sort_tests(tests)
    runs = []
    if prompts:
        cold = [] if runs_warm(prompts) else ["--no-warmup"]
        runs.append(["-p", commas([WARM] + prompts), "-n", "0"] + cold)
    if depths:
        runs.append(["--no-warmup", "-p", "0", "-n", f"2,{ANSWER}", "-d", commas(depths)])
    runs += [["--no-warmup", "-p", "0", "-n", f"2,{ANSWER}", "-d", str(n)] for n in both]
    for arguments in runs:
        text, lines = command_lines(base + arguments)
        for case in json_values(text or ""):
            if case["n_gen"] == 2:
                continue
            depth = case["n_depth"]
            result[("decode", depth) if case["n_gen"] else ("prefill", case["n_prompt"])] = {"tps": case["avg_ts"]}
            if depth in both:  # read from one line to the next; a copy of the state is in it, 0.2 % at 8192
                at = [when for when, line in lines if re.search("benchmark .* run ", line)]
                result[("prefill", depth)] = {"tps": depth / (at[1] - at[0])}
    return result


def run_ik(site, model, threads, tests, build, flags):
    result = {}
    program = site.program(build, "llama-bench")
    base = site.nice + [program, "-m", model, "-t", str(threads), "-r", "1", "-o", "json"] + flags
    prompts, depths, both = sort_tests(tests)
    runs = []
    if prompts:
        warm = "1" if runs_warm(prompts) else "0"
        runs.append(["-w", warm, "-p", commas([WARM] + prompts), "-n", "0"])
    if depths:
        runs.append(["-w", "0", "-p", str(WARM), "-n", str(ANSWER if 0 in depths else 0)] +
                    [x for d in depths if d for x in ("-gp", f"{d},{ANSWER}")])
    runs += [["-v", "-w", "0", "-p", str(WARM), "-n", "0", "-gp", f"{n},{ANSWER}"] for n in both]
    for arguments in runs:
        text, lines = command_lines(base + arguments)
        for case in json_values(text or ""):
            found = re.match(r"(pp|tg)(\d+)(?:@pp(\d+))?$", case["test"])
            if found:
                key = ("prefill", int(found[2])) if found[1] == "pp" else ("decode", int(found[3] or 0))
                result[key] = {"tps": case["avg_ts"]}
        for _, line in lines:  # with -v it tells, for each test, how long it read
            found = re.search(r"prompt eval time = +([\d.]+) ms / +(\d+) tokens", line)
            if found and int(found[2]) in both:
                result[("prefill", int(found[2]))] = {"tps": int(found[2]) / float(found[1]) * 1e3}
    return result


def run_pdd_batch(site, model, threads, tests):
    found, made_by = bench_engine(site, model, threads, [
        "--repeat", "1", "--prompt", "0", "--batch", commas(t[1] for t in tests), "--depth", str(BATCH_DEPTH),
        "--generate", str(BATCH_ANSWER)])
    return {("batch", c["n"]): {"tps": c["tps"], **made_by} for c in found["cases"]}


def run_pdd_alone(site, model, threads, tests):
    """What has no counterpart: mixed steps (a chunk of 512 beside n decodes), and the load of a fresh process."""
    result = {}
    for kind, n in tests:
        more = ["--load", "--repeat", "3"] if kind == "load" else ["--mixed", str(n), "--depth", "128", "--repeat", "2"]
        found, made_by = bench_engine(site, model, threads, ["--prompt", "0", "--batch", "0"] + more)
        if found["load"] or found["cases"]:
            result[(kind, n)] = {"tps": 0, **(found["load"] or found["cases"][0]), **made_by}
    return result


def run_llama_batch(site, model, threads, tests, build, flags):
    batches = [t[1] for t in tests]
    room = max(batches) * (BATCH_DEPTH + BATCH_ANSWER) + 256
    flags = [{"0": "off", "1": "on"}.get(f, f) for f in flags]
    text = command_output(site.nice + [site.program(build, "llama-batched-bench"), "-m", model, "-t", str(threads),
                                       "-npp", str(BATCH_DEPTH), "-ntg", str(BATCH_ANSWER), "-npl",
                                       ",".join(map(str, batches)), "-c", str(room), "--output-format", "jsonl"] +
                          flags)
    return {("batch", c["pl"]): {"tps": c["speed_tg"]} for c in json_values(text or "") if "pl" in c}


# ---- choosing flags ----

def candidates(site, who):
    if who == "llama":
        return [[b, ["-fa", fa]] for b in site.o.llama.split(",") for fa in ("1", "0")]
    if who == "llama-avx2":
        return [[site.o.llama_avx2, ["-fa", fa]] for fa in ("1", "0")]
    return [[site.o.ik, ["-rtr", rtr, "-fa", fa]] for rtr, fa in (("1", "1"), ("1", "0"), ("0", "1"))]


def peers(site):
    found = [w for w, d in (("llama", site.o.llama), ("ik", site.o.ik), ("llama-avx2", site.o.llama_avx2)) if d]
    return found or sys.exit("versus: name at least one of --llama, --ik, --llama-avx2")


def flags_key(who, model):
    return f"{who} {os.path.basename(model)}"


def class_of(test):
    """Flags are chosen by the kind of work; attention decides at depth."""
    return f"{test[0]} {'deep' if test[1] >= 2048 else 'flat'}"


def try_llama(site, model, build, flags, deep):
    """Short prompts and answers, at the start and at a depth where attention counts."""
    program = site.nice + [site.program(build, "llama-bench"), "-m", model, "-t", "1", "-r", "1", "--no-warmup"]
    text = command_output(program + ["-o", "jsonl", "-p", "256", "-n", "16", "-d", f"0,{TRIAL_DEPTH}" if deep else "0"]
                          + flags)
    return {f"{'decode' if c['n_gen'] else 'prefill'} {'deep' if c['n_depth'] else 'flat'}": c["avg_ts"]
            for c in json_values(text or "")}


def try_ik(site, model, build, flags):
    program = site.nice + [site.program(build, "llama-bench"), "-m", model, "-t", "1", "-r", "1", "-w", "0"]
    text = command_output(program + ["-o", "json", "-p", f"32,256,{TRIAL_DEPTH}", "-n", "16", "-gp",
                                     f"{TRIAL_DEPTH},16"] + flags)
    names = {"pp256": "prefill flat", f"pp{TRIAL_DEPTH}": "prefill deep", "tg16": "decode flat",
             f"tg16@pp{TRIAL_DEPTH}": "decode deep"}
    return {names[c["test"]]: c["avg_ts"] for c in json_values(text or "") if c["test"] in names}


def tune(site):
    for shape in SHAPES:
        for kind in TYPES:
            model = site.model(shape, kind)
            for who in peers(site):
                key = flags_key(who, model)
                if key in site.flags and not site.o.fresh:
                    continue
                best = {}
                for build, flags in candidates(site, who):
                    got = (try_ik(site, model, build, flags) if who == "ik" else
                           try_llama(site, model, build, flags, who == "llama"))
                    for name, tps in got.items():
                        if tps > best.get(name, {"tps": 0})["tps"]:
                            best[name] = {"tps": tps, "build": build, "flags": flags}
                site.flags[key] = best
                with open(site.flags_path, "w") as f:
                    json.dump(site.flags, f, indent=1)
                for name, b in best.items():
                    say(f"{key}, {name}: {b['tps']:.1f} tok/s with {os.path.basename(b['build'])} "
                        f"{' '.join(b['flags'])}")


# ---- the plan ----

Group = namedtuple("Group", "round shape type threads work who")  # what one A B C turn measures; work is of WORK


def make_groups(site):
    """Groups by importance: (rounds, types, threads, work, who)."""
    everyone = ("pdd",) + tuple(w for w in ("llama", "ik") if getattr(site.o, w))
    eight, four = ("Q8_0",), ("Q4_0", "Q4_K_M")
    batch = ("pdd-batch", "llama-batch") if site.o.llama else ()
    avx2 = ("pdd-avx2", "llama-avx2") if site.o.llama_avx2 else ()
    plan = [(1 if site.o.quick else 5, TYPES, (1, 2), "prefill512", everyone)]
    if not site.o.quick:
        plan += [(1, eight, (1, 2), "load0", ("pdd-alone",)), (2, eight, (1,), "prefill2048", everyone),
                 (1, eight, (1, 2), "batch2", batch), (1, eight, (1,), "far8192", everyone),
                 (1, TYPES, (1,), "prefill512", avx2), (1, four, (1,), "prefill2048", everyone),
                 (1, four, (1, 2), "batch2", batch), (1, four, (1, 2), "load0", ("pdd-alone",)),
                 (1, eight, (2,), "prefill2048", everyone), (1, eight, (2,), "far8192", everyone),
                 (1, four, (1,), "far8192", everyone), (1, four, (2,), "prefill2048", everyone),
                 (1, four, (2,), "far8192", everyone)]
    return [Group(r, shape, kind, threads, work, who) for rounds, kinds, all_threads, work, who in plan if who
            for r in range(rounds) for shape in SHAPES for kind in kinds for threads in all_threads]


def group_name(g):
    return f"{g.who[0]} {g.shape} {g.type} {g.threads} {g.work}"


def group_id(g):
    return f"{group_name(g)} round {g.round}"


def cells_of(g):
    return {(g.shape, g.type, g.threads, g.round, f"{who} {kind} {n}") for who in g.who for kind, n in WORK[g.work]}


def still_to_do(site, lines):
    """Groups that were not measured, neither as they are nor cell by cell; what has fewest rounds comes first."""
    names = {line["group"] for line in lines}
    cells = {(m["shape"], m["type"], m["threads"], m["round"], row) for m in lines for row in m["rows"]}
    groups = make_groups(site)
    done = {g for g in groups if group_id(g) in names or cells_of(g) <= cells}
    rounds, turn = Counter(map(group_name, done)), {}
    for g in groups:
        if g not in done:
            turn[g] = rounds[group_name(g)]
            rounds[group_name(g)] += 1
    return sorted(turn, key=turn.get)


def guess(group):
    """Seconds from the tokens at cautious speeds; a shape's attention costs as much as the rest at so many tokens."""
    speed, even = (120.0, 3200) if group.shape == SHAPES[1] else (350.0, 1850)
    tokens = sum(n * (1 + n / even) for kind, n in WORK[group.work] if kind in ("prefill", "decode")) or 8000
    return len(group.who) * (3 + (tokens / speed / (1.6 if group.threads > 1 else 1.0) + 8) * 0.7)


def estimate(group, times, groups):
    """Seconds: what the same group took before, or a guess, put right by what groups of the same work took (else
    all)."""
    known = {group_name(g): g for g in groups if group_name(g) in times}
    took = {g: statistics.median(times[name]) for name, g in known.items()}
    if group_name(group) in times:
        return statistics.median(times[group_name(group)])
    same = [g for g in took if g.work == group.work] or took
    return guess(group) * (sum(took[g] for g in same) / sum(map(guess, same)) if same else 1.0)


def measure(site, who, model, threads, tests):
    if who == "pdd":
        return run_pdd(site, model, threads, tests)
    if who == "pdd-avx2":
        return run_pdd(site, model, threads, tests, "avx2")
    if who == "pdd-alone":
        return run_pdd_alone(site, model, threads, tests)
    if who == "pdd-batch":
        return run_pdd_batch(site, model, threads, tests)
    result = {}
    by_flags = {}
    chosen = site.flags.get(flags_key("llama" if who == "llama-batch" else who, model), {})
    for test in tests:
        best = chosen.get("decode flat" if test[0] == "batch" else class_of(test))
        best = best or dict(zip(("build", "flags"), candidates(site, who.replace("-batch", ""))[0]))
        by_flags.setdefault((best["build"], tuple(best["flags"])), []).append(test)
    for (build, flags), part in by_flags.items():
        runner = {"ik": run_ik, "llama-batch": run_llama_batch}.get(who, run_llama)
        result.update(runner(site, model, threads, part, build, list(flags)))
    return result


def run(site):
    path = os.path.join(site.work, "results.jsonl")
    if site.o.fresh and os.path.exists(path):
        os.rename(path, path + time.strftime(".%H%M%S"))
    lines = [json.loads(line) for line in open(path)] if os.path.exists(path) else []
    times_path = os.path.join(site.work, "times.json")
    times = json.load(open(times_path)) if os.path.exists(times_path) else {}
    every = make_groups(site)
    groups = [g for g in still_to_do(site, lines) if re.search(site.o.only, group_id(g))]
    total = sum(estimate(g, times, every) for g in groups)
    say(f"{len(groups)} groups to do, {len(lines)} done; all would take about {total / 60:.0f} min; "
        f"this call stops after {site.o.minutes:g} min")
    start = time.time()
    for n, group in enumerate(groups):
        r, shape, kind, threads, work, who = group
        tests, expected = WORK[work], estimate(group, times, every)
        if time.time() - start + expected > site.o.minutes * 60:
            say(f"  no time for {group_id(group)} (about {expected:.0f} s)")
            continue
        wait_for_quiet(site.o.noise, site.o.wait)
        began, model, others = time.time(), site.model(shape, kind), Others()
        turn = who[r % len(who):] + who[:r % len(who)]
        results = {w: measure(site, w, model, threads, tests) for w in turn}
        took = time.time() - began
        rows = {f"{w} {t[0]} {t[1]}": v for w, got in results.items() for t, v in got.items() if t in tests}
        with open(path, "a") as f:
            f.write(json.dumps({"group": group_id(group), "round": r, "shape": shape, "type": kind, "threads": threads,
                                "who": turn, "others": round(others.cpus(), 2),
                                "at": time.strftime("%Y-%m-%d %H:%M:%S"), "rows": rows}) + "\n")
        name = group_name(group)
        times[name] = (times.get(name, []) + [took])[-3:]
        with open(times_path, "w") as f:
            json.dump(times, f, indent=1)
        say(f"[{(time.time() - start) / 60:5.1f} min, {n + 1}/{len(groups)}] {group_id(group)}: {took:.0f} s; " +
            ", ".join(f"{k} {v['tps']:.0f}" for k, v in rows.items()))


# ---- report ----

def collect(site):
    """{(shape, type, threads, kind, n, avx2): {who: {round: value}}}, without rounds in which other work took more
    of the CPUs than --noise; how much it took; how many groups were left out; the commits and types of KV of pdd, each
    once, in order of time."""
    cells, others, left_out, made_by = {}, [], 0, {what: {} for what in MADE_BY}
    lines = map(json.loads, open(os.path.join(site.work, "results.jsonl")))
    for line in sorted(lines, key=lambda found: found["at"]):
        if line["others"] > site.o.noise:
            left_out += 1
            continue
        others.append(line["others"])
        for name, value in line["rows"].items():
            who, kind, n = name.split()
            base = who.replace("-batch", "").replace("-alone", "")
            key = (line["shape"], line["type"], line["threads"], kind, int(n), base.endswith("avx2"))
            cell = cells.setdefault(key, {})
            cell.setdefault(base.replace("-avx2", ""), {})[line["round"]] = value
            for what in MADE_BY if base.startswith("pdd") else ():
                if value.get(what) != "":  # to load a file is to keep no keys
                    made_by[what][value.get(what, "unknown")] = True
    return cells, others or [0.0], left_out, {what: list(found) for what, found in made_by.items()}


def ratio(cell, peer):
    common = [r for r in cell.get("pdd", {}) if r in cell.get(peer, {})]
    values = [cell["pdd"][r]["tps"] / cell[peer][r]["tps"] for r in common if cell[peer][r]["tps"] > 0]
    return statistics.median(values) if values else None


def middle(cell, who, what="tps"):
    values = [v[what] for v in cell.get(who, {}).values() if v.get(what) is not None]
    return statistics.median(values) if values else None


def summary(cells):
    """The targets of the engine: how many cells meet each, and the worst and median of them."""
    wanted = [("prefill", "llama", False, 4.0, "prefill over llama.cpp"),
              ("prefill", "ik", False, 2.0, "prefill over ik_llama.cpp"),
              ("decode", "llama", False, 1.3, "decode over llama.cpp"),
              ("decode", "ik", False, None, "decode over ik_llama.cpp"),
              ("batch", "llama", False, 2.0, "batched decode over llama.cpp"),
              ("prefill", "llama", True, 2.0, "AVX2 prefill over llama.cpp for AVX2"),
              ("decode", "llama", True, 2.0, "AVX2 decode over llama.cpp for AVX2")]
    rows = [(title, [r for k, c in cells.items() if k[3] == kind and k[5] == avx2 and (r := ratio(c, peer))], target)
            for kind, peer, avx2, target, title in wanted]
    rows.append(("decode, part of the read bandwidth", [v for k, c in cells.items() if k[3] == "decode" and not k[5]
                                                        and (v := middle(c, "pdd", "read"))], 0.85))
    out = ["| target | wanted | met in | worst | median | best |", "|---|--:|--:|--:|--:|--:|"]
    for title, values, target in rows:
        if values:
            met = f"{sum(v >= target for v in values)} of {len(values)}" if target else ""
            out.append(f"| {title} | {show(target, '{:g}')} | {met} | {min(values):.2f} | "
                       f"{statistics.median(values):.2f} | {max(values):.2f} |")
    for key, c in sorted(cells.items()):
        if key[3] == "load":
            out.append(f"| first token of a fresh process, {key[0]} {key[1]}, {key[2]} threads | 1000 ms | | | "
                       f"{middle(c, 'pdd', 'first_token_ms'):.0f} ms | |")
            out.append(f"| its peak memory over the file | 1.15 | | | {middle(c, 'pdd', 'peak_over_file'):.2f} | |")
        if key[3] == "mixed":
            chunk = middle(c, "pdd", "chunk_alone_ms")
            out.append(f"| a decode row added to a chunk of 512, {key[0]} {key[1]}, {key[2]} threads | | | | "
                       f"{middle(c, 'pdd', 'us_per_row') / 1e3:.2f} ms (chunk {chunk:.0f} ms) | |")
    return "\n".join(out)


TARGETS = {("prefill", "llama"): 4.0, ("prefill", "ik"): 2.0, ("decode", "llama"): 1.3, ("batch", "llama"): 2.0}


def show(value, form="{:.0f}"):
    return form.format(value) if value is not None else ""


def show_ratio(value, kind, peer, avx2):
    target = 2.0 if avx2 else TARGETS.get((kind, peer))
    if value is None:
        return ""
    return f"{value:.2f}" + (" ok" if target and value >= target else f" (of {target:g})" if target else "")


def markdown(cells):
    out = []
    titles = {"prefill": "prompts", "decode": "answers", "batch": "batches"}
    for avx2 in (False, True):
        for kind in ("prefill", "decode", "batch"):
            rows = [(k, c) for k, c in sorted(cells.items()) if k[3] == kind and k[5] == avx2]
            if not rows:
                continue
            first = {"prefill": "tokens", "decode": "depth", "batch": "sequences"}[kind]
            out.append(f"\n{titles[kind]}{', AVX2 only' if avx2 else ''}, tok/s\n")
            out.append(f"| shape | type | threads | {first} | pdd | llama.cpp | ik_llama.cpp | pdd / llama.cpp | "
                       f"pdd / ik | of the roof | rounds |")
            out.append("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
            for (shape, quant, threads, _, n, _), c in rows:
                part = middle(c, "pdd", "read" if kind == "decode" else "vnni")
                out.append(f"| {shape} | {quant} | {threads} | {n} | {show(middle(c, 'pdd'))} | "
                           f"{show(middle(c, 'llama'))} | {show(middle(c, 'ik'))} | "
                           f"{show_ratio(ratio(c, 'llama'), kind, 'llama', avx2)} | "
                           f"{show_ratio(ratio(c, 'ik'), kind, 'ik', avx2)} | "
                           f"{show(part and part * 100, '{:.0f} %')} | {len(c.get('pdd', {}))} |")
    return "\n".join(out)


def bar(x, y, width, color, text):
    return (f'<rect x="{x}" y="{y}" width="{max(width, 1):.1f}" height="15" rx="2" fill="{color}"/>'
            f'<text x="{x + max(width, 1) + 6:.1f}" y="{y + 12}" class="n">{text}</text>')


def svg(cells, path):
    """Two panels of bars, one thread: prompts of 512 and answers at depth 0. Each shape has its own scale."""
    colors = {"pdd": "#2f9e5f", "ik": "#d98a2b", "llama": "#7a86a8"}
    parts, y = [], 64
    panels = (("prefill", 512, "Reading 512 tokens, tokens/s"), ("decode", 0, "Writing, tokens/s"))
    for column, (kind, n, title) in enumerate(panels):
        rows = [(k, c) for k, c in sorted(cells.items(), key=lambda kc: (SHAPES.index(kc[0][0]), TYPES.index(kc[0][1])))
                if k[2] == 1 and k[3] == kind and k[4] == n and not k[5]]
        x, top = 130 + column * 350, 64
        parts.append(f'<text x="{x}" y="44" class="t">{title}</text>')
        most = {s: max([middle(c, w) or 0 for k, c in rows if k[0] == s for w in colors] or [1]) for s in SHAPES}
        for key, c in rows:
            if column == 0:
                parts.append(f'<text x="{x - 10}" y="{top + 20}" text-anchor="end" class="l">{key[0]}</text>')
                parts.append(f'<text x="{x - 10}" y="{top + 36}" text-anchor="end" class="s">{key[1]}</text>')
            for i, who in enumerate(colors):
                value = middle(c, who)
                if value:
                    parts.append(bar(x, top + i * 18, value / most[key[0]] * 250, colors[who], f"{value:.0f}"))
            top += 66
        y = max(y, top)
    legend = "".join(f'<rect x="{130 + i * 130}" y="{y}" width="12" height="12" rx="2" fill="{c}"/>'
                     f'<text x="{148 + i * 130}" y="{y + 11}" class="s">{NAMES[w]}</text>'
                     for i, (w, c) in enumerate(colors.items()))
    with open(path, "w") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {y + 30}" font-family="sans-serif">'
                '<style>.t{font-size:15px;font-weight:600}.l{font-size:13px}.s{font-size:12px;opacity:.75}'
                '.n{font-size:12px}text{fill:#24292f}@media(prefers-color-scheme:dark){text{fill:#e6edf3}}</style>'
                f'<text x="130" y="18" class="s">random weights in real shapes, one thread, {cpu_name()}</text>'
                + "".join(parts) + legend + "</svg>\n")


def cpu_name():
    try:
        return re.search(r"model name\s*:\s*(.*)", open("/proc/cpuinfo").read())[1]
    except (OSError, TypeError):
        return platform.processor()


def report(site):
    cells, others, left_out, made_by = collect(site)
    commits, types = (", ".join(made_by[what]) for what in MADE_BY)
    head = (f"{time.strftime('%Y-%m-%d %H:%M')}, {cpu_name()}, {os.cpu_count()} CPUs; pdd at "
            f"{'commits' if len(made_by['commit']) > 1 else 'commit'} {commits}, its KV {types}; other work took "
            f"{statistics.median(others):.2f} CPUs (at most {max(others):.2f}) while measuring"
            + (f", {left_out} groups with more than {site.o.noise:g} are left out" if left_out else "") +
            ". Medians over rounds; ratios are medians of the ratios within a round.")
    legend = ('"ok": the target is met. The roof of prompts is 512-bit VNNI (tile units may pass it), that of answers '
              "the read bandwidth of so many threads.")
    chosen = []
    for key, best in sorted(site.flags.items()):
        words = (f"{name}: {os.path.basename(b['build'])} {' '.join(b['flags'])}" for name, b in best.items())
        chosen.append(f"- {key}: " + "; ".join(words))
    text = "\n".join([head, "", summary(cells), "", legend, markdown(cells), "", "Builds and flags chosen:", ""] +
                     chosen + [""])
    print(text)
    if site.o.save:
        path = os.path.join(RESULTS, site.o.save + "-versus")
        with open(path + ".md", "w") as f:
            f.write("# pdd beside llama.cpp and ik_llama.cpp\n\nWritten by `bench/versus.py`; what it says about the "
                    f"engine is in [{site.o.save}.md]({site.o.save}.md).\n\n" + text)
        svg(cells, path + ".svg")
    rows = [{"shape": k[0], "type": k[1], "threads": k[2], "test": k[3], "n": k[4], "avx2": k[5],
             "tps": {w: middle(c, w) for w in c}, "over_llama": ratio(c, "llama"), "over_ik": ratio(c, "ik"),
             "rounds": c} for k, c in sorted(cells.items())]
    with open(os.path.join(site.work, "versus.json"), "w") as f:
        json.dump({"head": head, **made_by, "flags": site.flags, "cells": rows}, f, indent=1)


def main():
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("action", choices=("tune", "run", "report", "all"))
    p.add_argument("--work", required=True, help="folder for models and results")
    p.add_argument("--pdd", default=os.path.join(here, "build/release/pdd"))
    p.add_argument("--llama", help="build folders of llama.cpp, with commas between them")
    p.add_argument("--ik", help="build folder of ik_llama.cpp")
    p.add_argument("--llama-avx2", help="build folder of llama.cpp for AVX2 only")
    p.add_argument("--minutes", type=float, default=25.0)
    p.add_argument("--quick", action="store_true", help="prompts of 512 and answers at depth 0, one round")
    p.add_argument("--fresh", action="store_true", help="forget what is there")
    p.add_argument("--noise", type=float, default=0.3,
                   help="report: leave out groups beside which other work took more CPUs (0.3)")
    p.add_argument("--wait", type=float, default=60.0,
                   help="seconds a group waits for other work to end before it starts all the same (60)")
    p.add_argument("--only", default="", help="run: only groups whose name this regular expression finds")
    p.add_argument("--save", metavar="DATE-CPU", help="report: write bench/results/DATE-CPU-versus.md and .svg")
    site = Site(p.parse_args())
    steps = {"tune": (tune,), "run": (run,), "report": (report,), "all": (run, report)}
    for step in steps[site.o.action]:
        step(site)


if __name__ == "__main__":
    main()
