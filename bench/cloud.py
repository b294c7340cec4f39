#!/usr/bin/env python3
"""cloud.py: the figures of `pdd cloud`, one command each.

    bench/cloud.py streams    --work DIR    5,000 open streams at 10 tokens/s, server on one core       1 min
    bench/cloud.py leave      --work DIR    how soon the server sees a client leave, in every phase     1 min
    bench/cloud.py costs      --work DIR    of an idle connection, a token over TLS, a TLS handshake    2 min
    bench/cloud.py throughput --work DIR    assists against whole answers of a trace, by offered load  60 min
    bench/cloud.py overload   --work DIR    three times what it can do                                 11 min
    bench/cloud.py soak       --work DIR --build build/asan [--minutes 30]   bad clients and reloads   30 min
    bench/cloud.py report     --work DIR [--save DATE-CPU]

Build first (cmake --build --preset release). Each command starts its servers, puts them on one CPU and
the client (build/release/bench_cloud) on another, prints what it measured and keeps it in
DIR/results.json; nothing else is written. `throughput` notes each point as it is done and, called again, goes
on where it stopped (--at-most N: stop after so many seconds; --fresh: from the start); it needs a
trace (--trace, CSV: time, prompt tokens, answer tokens) and says so where there is none. `report` prints
what is there as Markdown; --save 2026-11-25-zen5 writes bench/results/2026-11-25-zen5-cloud.md and a
picture. Python's standard library and the openssl program only.
"""
import argparse
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TRACE = os.path.join(os.path.dirname(HERE), "shared/traces/AzureLLMInferenceTrace_conv.csv")
BEAT_US = 5000
ASSIST = 24  # tokens, the reference
SANITIZER = re.compile(rb"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|CHECK failed|LeakSanitizer")

# What is served in `throughput`. Rates: loads tried, as parts of an estimate of what whole answers reach.
# Limits: of 95 in 100 requests, the first token and the mean gap. Prompts are cut to prompt_max tokens.
SITES = {
    "pdd-read-small": {"shape": None, "limit": (2000, 150), "prompt_max": 3000, "answer_max": 1000, "vocab": 8000,
                 "context": 8192, "seconds": 20, "kv_mb": 1024, "streams": 256, "estimate": 6.0},
    "135m": {"shape": "smollm2-135m", "limit": (10000, 150), "prompt_max": 4096, "answer_max": 1000,
             "vocab": 40000, "context": 8192, "seconds": 60, "kv_mb": 4096, "streams": 64, "estimate": 0.8},
}
SITES["fake"] = dict(SITES["pdd-read-small"], vocab=250)  # in `overload`
FAKE_STEP, FAKE_REQUEST = 64, 1120  # tokens a beat; of a mean request, prompt and assist
LOADS = (0.8, 1.0, 1.25)
COMMON = {"cold": 0.0, "shared": 0.9}  # part of each prompt that is the same for all, so that it is cached


def say(text):
    print(text, file=sys.stderr, flush=True)


def fail(text):
    sys.exit(f"cloud.py: {text}")


class Others:
    """How many CPUs work takes that is neither ours nor the server's: from the system's clock ticks."""

    def __init__(self, running=None):
        self.running = running  # a server that goes on and is not among our ended children
        self.began, self.busy, self.own = time.time(), self.system(), self.children()

    @staticmethod
    def system():
        ticks = [int(x) for x in open("/proc/stat").readline().split()[1:9]]
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")

    def children(self):
        t = os.times()
        own = t.user + t.system + t.children_user + t.children_system
        if self.running:
            ticks = open(f"/proc/{self.running.pid}/stat").read().rpartition(")")[2].split()
            own += (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
        return own

    def cpus(self):
        spent = self.system() - self.busy - (self.children() - self.own)
        return round(max(0.0, spent / max(time.time() - self.began, 0.1)), 2)


class Site:
    def __init__(self, options):
        self.o = options
        self.work = os.path.abspath(options.work)
        os.makedirs(self.work, exist_ok=True)
        self.path = os.path.join(self.work, "results.json")
        self.results = json.load(open(self.path)) if os.path.exists(self.path) else {}
        self.build = os.path.abspath(options.build)
        self.server_cpu, self.client_cpu = options.cpus.split(",")
        self.nice = ["nice", "-n", str(options.nice)] if options.nice >= 0 or os.geteuid() == 0 else []
        self.load_program = os.path.join(HERE, "build/release/bench_cloud")
        for program in (os.path.join(self.build, "pdd"), self.load_program):
            if not os.access(program, os.X_OK):
                fail(f"{program} is missing: cmake --preset release && cmake --build --preset release")

    def keep(self, name, value, others):
        commit = subprocess.run(["git", "-C", HERE, "describe", "--always", "--dirty"], stdout=subprocess.PIPE,
                                check=False).stdout.decode().strip()
        self.results[name] = dict(value, when=time.strftime("%Y-%m-%d %H:%M"), commit=commit, other_cpus=others)
        with open(self.path + ".new", "w") as f:
            json.dump(self.results, f, indent=1)
        os.replace(self.path + ".new", self.path)

    def certificate(self, kind):
        base = os.path.join(self.work, f"tls-{kind}")
        if not os.path.exists(base + ".key"):
            key = ["-newkey", "rsa:2048"] if kind == "rsa" else ["-newkey", "ec", "-pkeyopt",
                                                                 "ec_paramgen_curve:P-256"]
            subprocess.run(["openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost",
                            "-out", base + ".pem", "-keyout", base + ".key"] + key, check=True,
                           stderr=subprocess.DEVNULL)
        return ["--tls-cert", base + ".pem", "--tls-key", base + ".key"]

    def model(self, name):
        shape = SITES[name]["shape"]
        if not shape:
            return os.path.join(HERE, "models/pdd-read-small-q6_k.gguf")
        path = os.path.join(self.work, f"{shape}-Q8_0.gguf")
        if not os.path.exists(path):
            say(f"making {path}")
            subprocess.run([os.path.join(self.build, "pdd"), "model", "random", "--shape", shape, "--type", "Q8_0",
                            "-o", path], check=True, stdout=subprocess.DEVNULL)
        return path


class Server:
    """A `pdd cloud` on the first CPU, with /metrics on a port of its own."""

    def __init__(self, site, arguments, pinned=True, name="server"):
        self.log_path = os.path.join(site.work, f"{name}.log")
        self.log = open(self.log_path, "wb")
        command = site.nice + ["taskset", "-c", site.server_cpu] if pinned else []
        command += [os.path.join(site.build, "pdd"), "cloud", "--listen", "127.0.0.1:0", "--metrics-listen",
                    "127.0.0.1:0", "--drain-seconds", "2"] + arguments
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log)
        self.port = self.read_port(rb"cloud listening on \w+://[^:]*:(\d+)")
        self.metrics_port = self.read_port(rb"metrics on \w+://[^:]*:(\d+)")
        self.pid = self.process.pid

    def read_port(self, pattern):
        line = self.process.stdout.readline()
        found = re.match(pattern, line)
        if not found:
            self.process.kill()
            fail(f"the server did not start: {line.decode()}{open(self.log_path, 'rb').read().decode()[-500:]}")
        return int(found[1])

    def metrics(self):
        page = urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30).read().decode()
        return {k: float(v) for k, v in re.findall(r"^([a-z_]+(?:\{[^}]*\})?) ([0-9.e+-]+)$", page, re.M)}

    def stop(self):
        """Its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.log.close()
        return code


def tokenizer_of(server, key=None, tls=False):
    """The hash that lets the client send token ids."""
    address = f"{'https' if tls else 'http'}://127.0.0.1:{server.port}/v1/models"
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {key}"} if key else {})
    context = ssl._create_unverified_context() if tls else None  # our own certificate of a minute ago
    found = urllib.request.urlopen(request, timeout=60, context=context).read()
    return json.loads(found)["data"][0]["hashes"]["tokenizer"]


def load(site, server, what, arguments, tokenizer="bytes", must=True, pinned=True):
    """One run of bench_cloud against the server."""
    command = (site.nice + ["taskset", "-c", site.client_cpu] if pinned else []) + [
        site.load_program, what, "--to", f"127.0.0.1:{server.port}", "--pid", str(server.pid), "--tokenizer",
        tokenizer] + [str(x) for x in arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if not done.stdout or (done.returncode and must):
        server.process.kill()
        fail(f"{' '.join(command)}\nfailed ({done.returncode}); the server's log is {server.log_path}")
    return dict(json.loads(done.stdout), good_run=done.returncode == 0)


# ---- streams ----

def fake_server(site, streams, context, more=(), step=None, name="server"):
    """Its engine gives each of so many streams a token every 100 ms, a twentieth of them at each beat."""
    return Server(site, ["--fake", "1000000", "--fake-beat-us", str(BEAT_US), "--step-tokens",
                         str(step or max(streams // 20, 1)), "--streams-max", str(streams), "--queue-max", "64",
                         "--connections-max", str(streams + 1000), "--context", str(context), "--tokens-max",
                         str(context), "--prefix-cache", "0", "--log-level", "warn", *more], name=name)


def delivery(metrics):
    """From the engine's report to the socket, by the server's own histogram: the bounds that hold 50, 99, 99.9 %."""
    buckets = [(float(found[1]), v) for k, v in metrics.items()
               if (found := re.match(r'pdd_token_delivery_seconds_bucket\{le="([0-9.e+-]+)"\}', k))]
    total = metrics.get("pdd_token_delivery_seconds_count", 0)
    return {f"p{p}_ms_at_most": next((b * 1e3 for b, v in sorted(buckets) if v >= total * p / 100), None)
            for p in (50, 99, 99.9)} if total else {}


def measure_streams(site, streams, tls=None):
    server = fake_server(site, streams, 640, site.certificate(tls) if tls else ())
    found = load(site, server, "streams",
                 ["--streams", streams, "--prompt", 8, "--tokens", 620, "--seconds", site.o.seconds, "--per-second",
                  2000, "--beat-us", BEAT_US, "--period-us", 100000] + (["--tls"] if tls else []), must=False)
    found["delivery"] = delivery(server.metrics())
    found["engine_bytes_per_stream"] = 640 * 4 + (640 // 64) * 256
    server.stop()
    return found


def streams(site):
    say(f"{site.o.streams} streams, each 10 tokens/s; about {site.o.streams // 2000 + site.o.seconds + 5} s")
    others = Others()
    found = measure_streams(site, site.o.streams)
    site.keep("streams", found, others.cpus())
    d = found["delay_ms"]
    print(f"{found['flowing']} of {found['streams']} streams, {found['tokens_per_s']:.0f} tokens/s, lost "
          f"{found['lost_tokens']}, ended early {found['ended_early']}\n"
          f"added delay ms: p50 {d['p50']:.1f}  p95 {d['p95']:.1f}  p99 {d['p99']:.1f}  max {d['max']:.1f}\n"
          f"server: {found['server_cpu']:.2f} of its core, {found['server_us_per_token']:.1f} us a token, "
          f"{found['bytes_per_stream']:.0f} bytes a stream (about {found['engine_bytes_per_stream']} of them the "
          f"fake engine's)")


# ---- leaving ----

def leave(site):
    others = Others()
    found = {}
    for name, n, step in (("alone", 16, 64), ("beside", site.o.streams, None)):
        say(f"{site.o.times} clients leave in each phase, beside {n - 1} streams")
        context = 65536 if n < 100 else 4096
        server = fake_server(site, n, context, ["--log-level", "debug"], step=step, name=f"leave-{name}")
        found[name] = load(site, server, "leave",
                           ["--streams", n, "--prompt", 3000, "--tokens", context - 100, "--times", site.o.times,
                            "--per-second", 500, "--log", server.log_path], must=False)
        server.stop()
    site.keep("leave", found, others.cpus())
    for name in found:
        for phase in ("queue", "prefill", "decode"):
            s = found[name][phase]
            print(f"beside {found[name]['streams'] - 1} streams, {phase:8}: seen after {s['p50']:.2f} ms, p99 "
                  f"{s['p99']:.2f}, max {s['max']:.2f} ({s['n']} times)")


# ---- costs ----

def costs(site):
    others = Others()
    found = {}
    for name, tls in (("plain", None), ("tls", "ec")):
        say(f"5000 idle connections, {name}")
        server = fake_server(site, 6000, 512, site.certificate(tls) if tls else ())
        found[f"idle_{name}"] = load(site, server, "connections", ["--streams", 5000, "--per-second", 1000] +
                                     (["--tls"] if tls else []))
        server.stop()
    for kind in ("ec", "rsa"):
        server = fake_server(site, 100, 512, site.certificate(kind))
        for how, more in (("full", []), ("resumed", ["--resume"])):
            say(f"2000 TLS handshakes, {kind}, {how}")
            found[f"handshake_{kind}_{how}"] = load(site, server, "connections", ["--times", 2000, "--tls"] + more)
        server.stop()
    server = fake_server(site, 100, 512)
    say("2000 connections without TLS")
    found["connect_plain"] = load(site, server, "connections", ["--times", 2000])
    server.stop()
    say("1000 streams over TLS")
    found["streams_tls"] = measure_streams(site, 1000, "ec")
    say("1000 streams without")
    found["streams_plain"] = measure_streams(site, 1000)
    site.keep("costs", found, others.cpus())
    for name, value in found.items():
        if "bytes_per_connection" in value:
            print(f"{name:22} {value['bytes_per_connection']:8.0f} bytes  {value['server_us_per_connection']:8.1f} us CPU")
        else:
            print(f"{name:22} {value['bytes_per_stream']:8.0f} bytes  {value['server_us_per_token']:8.1f} us CPU a token")


# ---- throughput ----

def trace_of(site):
    if not os.path.exists(site.o.trace):
        fail(f"no trace at {site.o.trace}: skipped; --trace FILE names one (CSV: time, prompt tokens, answer tokens)")
    return site.o.trace


def native_server(site, name, more=()):
    at = SITES[name]
    return Server(site, ["--model", site.model(name), "--threads", "1", "--context", str(at["context"]), "--kv-mb",
                         str(at["kv_mb"]), "--streams-max", str(at["streams"]), "--queue-max", "256", "--log-level",
                         "warn", *more], name=f"throughput-{name}")


def arrivals(site, server, name, tokenizer, rate, tokens, common, seconds, warm):
    at = SITES[name]
    return load(site, server, "arrivals",
                ["--trace", trace_of(site), "--rate", rate, "--tokens", tokens, "--common", common, "--seconds", seconds,
                 "--warm", warm, "--prompt-max", at["prompt_max"], "--answer-max", at["answer_max"], "--vocab",
                 at["vocab"], "--ttft-ms", at["limit"][0], "--tpot-ms", at["limit"][1], "--seed", 7,
                 "--prompt-seed", int(time.time())], tokenizer)  # nothing of another point is in the prefix cache


def capacity(points):
    """The highest load of which 95 % are within limits, between the points around it; 0 when none is."""
    best, before = 0.0, None
    for p in sorted(points, key=lambda p: p["rate"]):
        part = p["good"] / max(p["arrived"], 1)
        if part >= 0.95:
            best = p["rate"]
        elif before and before[1] >= 0.95:
            best = before[0] + (p["rate"] - before[0]) * (before[1] - 0.95) / max(before[1] - part, 1e-9)
            break
        before = (p["rate"], part)
    return best


def next_point(points, estimate):
    """The next load to try, or None: the ladder first, then up while all is well, then the gap around the limit."""
    done = {round(p["rate"], 4): p["good"] / max(p["arrived"], 1) for p in points}
    for part in LOADS:
        rate = round(part * estimate, 4)
        if rate not in done:
            return rate
        if done[rate] < 0.5:
            break
    if min(done.values()) >= 0.95 and len(done) < 12:
        return round(max(done) * 1.4, 4)
    if max(done.values()) < 0.95 and min(done) > estimate / 20:
        return round(min(done) / 2, 4)
    good, bad = [r for r in done if done[r] >= 0.95], [r for r in done if done[r] < 0.95]
    if good and bad and min(b for b in bad if b > 0) > max(good) * 1.15 and len(done) < 10:
        return round((max(good) + min(bad)) / 2, 4)
    return None


def throughput(site):
    trace_of(site)
    ends = time.time() + site.o.at_most
    wanted = [(n, c, m) for c in COMMON for n in SITES if n != "fake" for m in ("assist", "whole")
              if not site.o.only or site.o.only in f"{n}/{c}/{m}"]
    if site.o.fresh:
        for key in wanted:
            site.results.pop("throughput/" + "/".join(key), None)
    for name, common, mode in wanted:
        key = f"throughput/{name}/{common}/{mode}"
        estimate = SITES[name]["estimate"] * (3 if common == "shared" else 1)
        points = site.results.get(key, {}).get("points", [])
        server = None
        while (rate := next_point(points, estimate)) is not None:
            need = SITES[name]["seconds"] * 1.35 + 8
            if time.time() + need > ends:
                say(f"stopping before {key} at {rate:g}/s, which takes {need:.0f} s; call again to go on")
                if server:
                    server.stop()
                return
            say(f"{key}: {rate:g} requests/s, {need:.0f} s")
            server = server or native_server(site, name)
            tokenizer = tokenizer_of(server)
            others = Others(server)
            point = arrivals(site, server, name, tokenizer, rate, ASSIST if mode == "assist" else 0, COMMON[common],
                             SITES[name]["seconds"], SITES[name]["seconds"] // 4)
            if not point["whole"]:
                fail(f"no request was answered: {point['other']} refused, {point['cut']} cut; see {server.log_path}")
            point.update(rss_kb=max(point["rss_kb"]), other_cpus=others.cpus())
            points.append(point)
            site.keep(key, {"points": points, "capacity": capacity(points), "limit": SITES[name]["limit"]},
                      max(p["other_cpus"] for p in points))
            print(f"{key}: {rate:.3g}/s offered, {point['good']} of {point['arrived']} within limits, TTFT p95 "
                  f"{point['ttft_ms']['p95']:.0f} ms, TPOT p95 {point['tpot_ms']['p95']:.0f} ms, answers of "
                  f"{point['answer_mean']:.0f}", flush=True)
        if server:
            server.stop()
    for name, common, mode in wanted:
        print(f"{name}/{common}/{mode}: {site.results[f'throughput/{name}/{common}/{mode}']['capacity']:.3g} requests/s")


# ---- overload ----

def overload(site):
    """Assists at three times what the server does: of pdd-read-small, or of the fake engine, whose speed is exact. The
    queue is as short as the limit asks for: whoever is accepted waits for what is done within half of it."""
    name, minutes, fake = "pdd-read-small", site.o.minutes, site.o.fake
    known = site.results.get(f"throughput/{name}/cold/assist", {}).get("capacity") or SITES[name]["estimate"]
    rate = FAKE_STEP * 1e6 / BEAT_US / FAKE_REQUEST if fake else known
    room = max(int(rate * SITES[name]["limit"][0] / 1000 * 0.5), 2)
    bounds = ["--streams-max", str(room), "--queue-max", str(max(room // 4, 1))]
    say(f"{3 * rate:.3g} requests/s, three times {rate:.3g}, for {minutes:g} min")
    if fake:
        server = fake_server(site, room, SITES[name]["context"], bounds, FAKE_STEP, "overload-fake")
    else:
        server = native_server(site, name, bounds + ["--kv-mb", "64"])
    others = Others()
    found = arrivals(site, server, "fake" if fake else name, tokenizer_of(server), 3 * rate, ASSIST, 0.0,
                     int(minutes * 60), 20)
    server.stop()
    rss = found["rss_kb"]
    found.update(capacity=rate, streams_max=room, rss_first_kb=rss[min(60, len(rss) - 1)], rss_last_kb=rss[-1],
                 rss_kb=rss[::10], engine="fake" if fake else name)
    site.keep("overload/fake" if fake else "overload", found, others.cpus())
    print(f"{found['arrived']} requests in {minutes:g} min: {found['whole']} whole, of them {found['good']} within "
          f"{found['ttft_limit_ms']} and {found['tpot_limit_ms']} ms; {found['busy']} heard 429, {found['other']} else, "
          f"{found['cut']} cut\nTTFT p95 {found['ttft_ms']['p95']:.0f}, p99 {found['ttft_ms']['p99']:.0f} ms; TPOT p95 "
          f"{found['tpot_ms']['p95']:.0f} ms; 429 after p50 {found['refused_ms']['p50']:.1f}, p99 "
          f"{found['refused_ms']['p99']:.1f}, max {found['refused_ms']['max']:.1f} ms\nmemory after 60 s "
          f"{found['rss_first_kb']:.0f} KB, at the end {found['rss_last_kb']:.0f} KB")


# ---- soak ----

def soak(site):
    """Half of the time over TLS on the fake engine, which is quick, half without on a model; keys; SIGHUP every 5 s."""
    minutes, kind = site.o.minutes, os.path.basename(site.build)
    keys = os.path.join(site.work, f"soak-{kind}.keys")
    with open(keys, "w") as f:  # the file holds hashes only
        subprocess.run([os.path.join(site.build, "pdd"), "cloud", "key", "soak", "--hash"], input=b"soak-key-1\n",
                       stdout=f, check=True)
    found, failures = {}, []
    for door in ("tls", "plain"):
        say(f"{kind}, {door}: {minutes / 2:g} min")
        tls = site.certificate("ec") + site.certificate("rsa") if door == "tls" else []
        engine = ["--fake", "100000", "--fake-beat-us", "2000"] if tls else ["--model", site.model("pdd-read-small"), "--threads",
                                                                         "2", "--kv-mb", "16"]
        server = Server(site, [*engine, "--context", "1024", "--streams-max", "16", "--queue-max", "16",
                               "--connections-max", "250", "--key-file", keys, *tls], pinned=False, name=f"soak-{kind}-{door}")
        found[door] = load(site, server, "chaos",
                           ["--streams", 60, "--seconds", int(minutes * 30), "--hup", 5, "--vocab", 250 if tls else 4000, "--key",
                            "soak-key-1", "--seed", 1 if tls else 2] + (["--tls"] if tls else []),
                           tokenizer_of(server, "soak-key-1", bool(tls)), must=False, pinned=False)
        if not found[door]["good_run"]:
            failures.append(f"{door}: {found[door]['failed']} clients met what no client should")
        failures += [f"{door}: {x}" for x in check_idle(server)]
        code = server.stop()
        log = open(server.log_path, "rb").read()
        if code != 0 or SANITIZER.search(log):
            failures.append(f"{door}: exit status {code}, see {server.log_path}")
    found["failures"] = failures
    site.keep(f"soak/{kind}", found, 0)
    for door in ("tls", "plain"):
        f = found[door]
        print(f"{kind}, {door}: {sum(f['deeds'].values())} deeds, {f['tokens']} tokens, {f['reloads']} reloads, "
              f"statuses {f['statuses']}")
    print("no error" if not failures else "\n".join(failures))
    return 1 if failures else 0


def check_idle(server):
    """Nothing may be left of anybody a while after all have gone."""
    for _ in range(40):
        time.sleep(0.5)
        m = server.metrics()
        busy = [k for k in ("pdd_num_requests_running", "pdd_num_requests_waiting") if m.get(k, 0) != 0]
        if not busy and m["pdd_kv_pages_free"] + m["pdd_kv_pages_prefix_cache"] >= m["pdd_kv_pages"]:
            return []
    return [f"not idle: running {m['pdd_num_requests_running']}, waiting {m['pdd_num_requests_waiting']}, KV pages "
            f"{m['pdd_kv_pages_free']} + {m['pdd_kv_pages_prefix_cache']} of {m['pdd_kv_pages']}"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = {"streams": streams, "leave": leave, "costs": costs, "throughput": throughput, "overload": overload,
               "soak": soak, "report": None}
    p.add_argument("action", choices=actions)
    p.add_argument("--work", required=True, help="folder for results, logs, certificates and models")
    p.add_argument("--build", default=os.path.join(HERE, "build/release"), help="where the server's pdd is")
    p.add_argument("--cpus", default="0,1", help="of server and client (0,1)")
    p.add_argument("--nice", type=int, default=-10, help="of both, where root may set it (-10: other work disturbs less)")
    p.add_argument("--streams", type=int, default=5000, help="streams, leave: open at once (5000)")
    p.add_argument("--seconds", type=int, default=20, help="streams: of measuring (20)")
    p.add_argument("--times", type=int, default=200, help="leave: in each phase (200)")
    p.add_argument("--minutes", type=float, default=10, help="overload, soak (10)")
    p.add_argument("--fake", action="store_true", help="overload: the fake engine, which takes no CPU")
    p.add_argument("--trace", default=TRACE, help="throughput, overload: CSV of prompt and answer lengths")
    p.add_argument("--at-most", type=float, default=1e9, help="throughput: stop after so many seconds")
    p.add_argument("--only", help="throughput: of model/prompts/mode those that hold this text")
    p.add_argument("--fresh", action="store_true", help="throughput: forget the points that are there")
    p.add_argument("--save", metavar="DATE-CPU", help="report: write bench/results/DATE-CPU-cloud.md and .svg")
    site = Site(p.parse_args())
    if site.o.action == "report":
        import cloud_report
        return cloud_report.report(site.results, site.o.save, os.path.join(HERE, "bench/results"))
    return actions[site.o.action](site)


if __name__ == "__main__":
    sys.exit(main() or 0)
