#!/usr/bin/env python3
"""versus.py: pdd beside llama.cpp and ik_llama.cpp, in one interleaved run.

    bench/versus.py tune --work DIR --llama BUILD[,BUILD] --ik BUILD [--llama-avx2 BUILD]
    bench/versus.py run  --work DIR ... [--minutes 25] [--quick]
    bench/versus.py report --work DIR [--markdown FILE] [--svg FILE]
    bench/versus.py all ...                      run, then report

BUILD is a build folder that holds bin/llama-bench (and bin/llama-batched-bench). DIR is for random
model files, flags and results: nothing is written elsewhere. Every BUILD that you name for --llama is
a candidate; `tune` tries builds and flags once for each model and keeps the fastest for prompts and
for answers; without it -fa 1, and -rtr 1 for ik_llama.cpp. `run` measures group by group, in each
group A B C, then B C A, ... and says first what it will do and how long it takes;
called again it goes on where it stopped (--fresh starts anew). `report` prints medians over rounds of
the per-round ratios as Markdown, writes DIR/versus.json, and draws.

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
import time

SHAPES = ("smollm2-135m", "qwen2.5-0.5b")
TYPES = ("Q8_0", "Q4_0", "Q4_K_M")
ANSWER = 64
BATCHES = (2, 8, 32)
BATCH_DEPTH, BATCH_ANSWER = 128, 32
TRIAL_DEPTH = 1024
WARM = 32  # a first short prompt in each process, not counted
WARM_MAX = 2048  # up to so many tokens a prompt runs before it counts, so that first touches of memory are not timed
NAMES = {"pdd": "pdd", "llama": "llama.cpp", "ik": "ik_llama.cpp", "pdd-avx2": "pdd (AVX2)",
         "llama-avx2": "llama.cpp (AVX2)", "pdd-batch": "pdd", "llama-batch": "llama.cpp"}


def say(text):
    print(text, file=sys.stderr, flush=True)


def command_output(command, timeout=1500):
    """Standard output, or None with a word on what failed."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        say(f"  timed out: {' '.join(command)}")
        return None
    if done.returncode != 0:
        say(f"  failed ({done.returncode}): {' '.join(command)}\n  {done.stderr.decode(errors='replace')[-300:]}")
        return None
    return done.stdout.decode(errors="replace")


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


def run_pdd(site, model, threads, tests, isa=None):
    result = {}
    extra = ["--isa", isa] if isa else []
    base = site.nice + [site.o.pdd, "bench", "engine", "--model", model, "--threads", str(threads), "--repeat", "1",
                        "--json", "--quiet", "--beyond", "--generate", str(ANSWER)] + extra
    prompts = [t[1] for t in tests if t[0] == "prefill"]
    depths = [t[1] for t in tests if t[0] == "decode"]
    runs = []
    if prompts:
        runs_of_each = 2 if runs_warm(prompts) else 1  # the last counts
        runs.append(["--prompt", ",".join(map(str, [WARM] + prompts * runs_of_each)), "--batch", "0"])
    if depths:
        runs.append(["--prompt", "0", "--depth", ",".join(map(str, depths)), "--batch", "1"])
    for arguments in runs:
        text = command_output(base + arguments)
        for case in json.loads(text)["cases"] if text else []:
            key = ("prefill", case["n"]) if case["kind"] == "prefill" else ("decode", case["depth"])
            result[key] = {"tps": case["tps"], "vnni": case["gops_part_vnni"], "read": case.get("gbs_part"),
                           "gbs": case.get("gbs"), "gops": case["gops"]}
    return result


def run_llama(site, model, threads, tests, build, flags):
    result = {}
    program = site.program(build, "llama-bench")
    base = site.nice + [program, "-m", model, "-t", str(threads), "-r", "1", "-o", "jsonl"] + flags
    prompts = [t[1] for t in tests if t[0] == "prefill"]
    depths = [t[1] for t in tests if t[0] == "decode"]
    runs = []
    if prompts:
        cold = [] if runs_warm(prompts) else ["--no-warmup"]
        runs.append(["-p", ",".join(map(str, [WARM] + prompts)), "-n", "0"] + cold)
    if depths:
        runs.append(["--no-warmup", "-p", "0", "-n", f"2,{ANSWER}", "-d", ",".join(map(str, depths))])
    for arguments in runs:
        text = command_output(base + arguments)
        for case in json_values(text or ""):
            if case["n_gen"] == 2:
                continue
            key = ("decode", case["n_depth"]) if case["n_gen"] else ("prefill", case["n_prompt"])
            result[key] = {"tps": case["avg_ts"]}
    return result


def run_ik(site, model, threads, tests, build, flags):
    result = {}
    program = site.program(build, "llama-bench")
    base = site.nice + [program, "-m", model, "-t", str(threads), "-r", "1", "-o", "json"] + flags
    prompts = [t[1] for t in tests if t[0] == "prefill"]
    depths = [t[1] for t in tests if t[0] == "decode"]
    runs = []
    if prompts:
        warm = "1" if runs_warm(prompts) else "0"
        runs.append(["-w", warm, "-p", ",".join(map(str, [WARM] + prompts)), "-n", "0"])
    if depths:
        runs.append(["-w", "0", "-p", str(WARM), "-n", str(ANSWER if 0 in depths else 0)] +
                    [x for d in depths if d for x in ("-gp", f"{d},{ANSWER}")])
    for arguments in runs:
        text = command_output(base + arguments)
        for case in json_values(text or ""):
            found = re.match(r"(pp|tg)(\d+)(?:@pp(\d+))?$", case["test"])
            if found:
                key = ("prefill", int(found[2])) if found[1] == "pp" else ("decode", int(found[3] or 0))
                result[key] = {"tps": case["avg_ts"]}
    return result


def run_pdd_batch(site, model, threads, tests):
    batches = ",".join(str(t[1]) for t in tests)
    text = command_output(site.nice + [site.o.pdd, "bench", "engine", "--model", model, "--threads", str(threads),
                                       "--repeat", "1", "--json", "--quiet", "--prompt", "0", "--batch", batches,
                                       "--depth", str(BATCH_DEPTH), "--generate", str(BATCH_ANSWER)])
    return {("batch", c["n"]): {"tps": c["tps"]} for c in json.loads(text)["cases"]} if text else {}


def run_pdd_alone(site, model, threads, tests):
    """What has no counterpart: mixed steps (a chunk of 512 beside n decodes), and the load of a fresh process."""
    base = site.nice + [site.o.pdd, "bench", "engine", "--model", model, "--threads", str(threads), "--json", "--quiet",
                        "--prompt", "0", "--batch", "0"]
    result = {}
    for kind, n in tests:
        more = ["--load", "--repeat", "3"] if kind == "load" else ["--mixed", str(n), "--depth", "128", "--repeat", "2"]
        text = command_output(base + more)
        if not text:
            continue
        found = json.loads(text)
        result[(kind, n)] = found["cases"][0] if kind == "mixed" else dict(found["load"], tps=0)
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

def make_groups(site):
    """Groups of tests by importance; a group is what one A B C turn measures."""
    everyone = ["pdd"] + [w for w in ("llama", "ik") if getattr(site.o, w)]
    groups = []

    def add(rounds, shapes, kinds, threads, tests, who):
        for r in range(rounds):
            groups.extend((r, s, k, t, tests, who) for s in shapes for k in kinds for t in threads)

    core = [("prefill", 512), ("decode", 0)]
    add(1, SHAPES, TYPES, (1, 2), core, everyone)
    middle = [("prefill", 2048), ("decode", 2048)]
    far_in, far_out = [("prefill", 8192)], [("decode", 8192)]
    if site.o.quick:
        return groups
    batch = [("batch", b) for b in BATCHES]
    alone = [("load", 0), ("mixed", 16)]

    def again(r, shapes, kinds, threads, tests):
        groups.extend((r, s, k, t, tests, everyone) for s in shapes for k in kinds for t in threads)

    add(1, SHAPES, ("Q8_0",), (1, 2), alone, ["pdd-alone"])
    add(1, SHAPES, ("Q8_0",), (1,), middle, everyone)
    again(1, SHAPES, TYPES, (1, 2), core)
    if site.o.llama:
        add(1, SHAPES, ("Q8_0",), (1, 2), batch, ["pdd-batch", "llama-batch"])
    for far in (far_in, far_out):
        add(1, SHAPES, ("Q8_0",), (1,), far, everyone)
    if site.o.llama_avx2:
        add(1, SHAPES, TYPES, (1,), core, ["pdd-avx2", "llama-avx2"])
    add(1, SHAPES, ("Q4_0", "Q4_K_M"), (1,), middle, everyone)
    again(2, SHAPES, TYPES, (1, 2), core)
    add(1, SHAPES, ("Q8_0",), (2,), middle, everyone)
    for far in (far_in, far_out):
        add(1, SHAPES, ("Q8_0",), (2,), far, everyone)
        add(1, SHAPES, ("Q4_0", "Q4_K_M"), (1,), far, everyone)
    again(1, SHAPES, ("Q8_0",), (1,), middle)
    if site.o.llama:
        add(1, SHAPES, ("Q4_0", "Q4_K_M"), (1, 2), batch, ["pdd-batch", "llama-batch"])
    for tests in (middle, far_in, far_out):
        add(1, SHAPES, ("Q4_0", "Q4_K_M"), (2,), tests, everyone)
    for r in (3, 4):
        again(r, SHAPES, TYPES, (1, 2), core)
    return groups


def group_id(group):
    r, shape, kind, threads, tests, who = group
    return f"{who[0]} {shape} {kind} {threads} {tests[0][0]}{tests[0][1]} round {r}"


def estimate(group, times):
    """Seconds: what the same group took before, or a guess from the tokens at cautious speeds."""
    r, shape, kind, threads, tests, who = group
    known = times.get(group_id(group).rsplit(" round", 1)[0], [])
    if known:
        return min(known)
    slow = (120.0 if shape == SHAPES[1] else 350.0) * (1.6 if threads > 1 else 1.0)
    tokens = sum(t[1] for t in tests if t[0] != "batch") + (8000 if tests[0][0] == "batch" else 0)
    return len(who) * (3 + (tokens / slow + 8) * 0.7)


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
    done = {line["group"] for line in lines}
    times_path = os.path.join(site.work, "times.json")
    times = json.load(open(times_path)) if os.path.exists(times_path) else {}
    groups = [g for g in make_groups(site) if group_id(g) not in done and
              re.search(site.o.only, group_id(g))]
    total = sum(estimate(g, times) for g in groups)
    say(f"{len(groups)} groups to do, {len(done)} done; all would take about {total / 60:.0f} min; "
        f"this call stops after {site.o.minutes:g} min")
    start = time.time()
    for n, group in enumerate(groups):
        r, shape, kind, threads, tests, who = group
        expected = estimate(group, times)
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
        name = group_id(group).rsplit(" round", 1)[0]
        times[name] = (times.get(name, []) + [took])[-3:]
        with open(times_path, "w") as f:
            json.dump(times, f, indent=1)
        say(f"[{(time.time() - start) / 60:5.1f} min, {n + 1}/{len(groups)}] {group_id(group)}: {took:.0f} s; " +
            ", ".join(f"{k} {v['tps']:.0f}" for k, v in rows.items()))


# ---- report ----

def collect(site):
    """{(shape, type, threads, kind, n, avx2): {who: {round: value}}}, without rounds in which other work took more
    of the CPUs than --noise; how much it took; how many groups were left out."""
    cells, others, left_out = {}, [], 0
    for line in map(json.loads, open(os.path.join(site.work, "results.jsonl"))):
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
    return cells, others or [0.0], left_out


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
    cells, others, left_out = collect(site)
    commit = (command_output(["git", "-C", os.path.dirname(os.path.abspath(__file__)), "describe", "--always",
                              "--dirty"]) or "?").strip()
    head = (f"{time.strftime('%Y-%m-%d %H:%M')}, {cpu_name()}, {os.cpu_count()} CPUs, commit {commit}; other work took "
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
    if site.o.markdown:
        with open(site.o.markdown, "w") as f:
            f.write("# pdd beside llama.cpp and ik_llama.cpp\n\nWritten by `bench/versus.py`; what it says about the "
                    "engine stands in [SPEED.md](SPEED.md).\n\n" + text)
    if site.o.svg:
        svg(cells, site.o.svg)
    rows = [{"shape": k[0], "type": k[1], "threads": k[2], "test": k[3], "n": k[4], "avx2": k[5],
             "tps": {w: middle(c, w) for w in c}, "over_llama": ratio(c, "llama"), "over_ik": ratio(c, "ik"),
             "rounds": c} for k, c in sorted(cells.items())]
    with open(os.path.join(site.work, "versus.json"), "w") as f:
        json.dump({"head": head, "commit": commit, "flags": site.flags, "cells": rows}, f, indent=1)


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
    p.add_argument("--markdown", help="write the report here, too")
    p.add_argument("--svg", help="draw it here")
    site = Site(p.parse_args())
    steps = {"tune": (tune,), "run": (run,), "report": (report,), "all": (run, report)}
    for step in steps[site.o.action]:
        step(site)


if __name__ == "__main__":
    main()
