"""cloud_report: what bench/cloud.py measured, as Markdown and a picture. Judges by the aims of the project."""
import os
import re

AIMS = "Aims: p99 of the added delay under 20 ms, under 10 KB a plain connection, none lost; leaving seen within 5 ms; " \
       "429 within 50 ms; memory flat."


def cpu_name():
    try:
        return re.search(r"model name\s*:\s*(.*)", open("/proc/cpuinfo").read())[1]
    except (OSError, TypeError):
        return "unknown CPU"


def stamp(r):
    return f"*{r['when']}, commit {r['commit']}, other work took {r['other_cpus']} CPUs*\n"


def met(good):
    return "met" if good else "**missed**"


def streams_text(r):
    d, g = r["delay_ms"], r["gap_ms"]
    own = r["bytes_per_stream"] - r["engine_bytes_per_stream"]
    lost = r["lost_tokens"] + r["ended_early"] + r["streams"] - r["flowing"]
    by_server = ", ".join(f"{k.split('_')[0][1:]} % within {v:g} ms" for k, v in r["delivery"].items() if v)
    return [f"## {r['streams']} streams at 10 tokens/s, the server on one core\n", stamp(r),
            "| | p50 | p95 | p99 | p99.9 | max | |", "|---|--:|--:|--:|--:|--:|---|",
            f"| added delay, ms | {d['p50']:.1f} | {d['p95']:.1f} | {d['p99']:.1f} | {d['p999']:.1f} | {d['max']:.1f} | "
            f"20 ms: {met(d['n'] and d['p99'] < 20)} |",
            f"| gap between tokens, ms | {g['p50']:.1f} | {g['p95']:.1f} | {g['p99']:.1f} | {g['p999']:.1f} | "
            f"{g['max']:.1f} | |", "",
            f"{r['tokens_per_s']:.0f} tokens/s, {r['server_cpu']:.2f} of the core, {r['server_us_per_token']:.1f} us of CPU "
            f"a token (the kernel's TCP included); lost or ended early: {lost}. A stream takes "
            f"{r['bytes_per_stream']:.0f} bytes of the server's own memory, about {own:.0f} of them without the fake "
            f"engine's session (10 KB: {met(own < 10240)}). By the server's own histogram, from the engine's report of a "
            f"token to the socket: {by_server}.\n",
            "The fake engine ends a step every 5 ms, on a beat of the machine's clock, and serves a twentieth of the "
            "streams in it. Added delay is what a token comes after that beat: the engine's thread, the queue, the loop, "
            "TCP on loopback, and the client on the other core.\n"]


def leave_text(r):
    out = ["## A client leaves: until the server has seen it, ms\n", stamp(r),
           "| beside | phase | times | p50 | p99 | max | 5 ms |", "|--:|---|--:|--:|--:|--:|---|"]
    for name in ("alone", "beside"):
        for phase in ("queue", "prefill", "decode"):
            s = r[name][phase]
            out.append(f"| {r[name]['streams'] - 1} streams | {phase} | {s['n']} | {s['p50']:.2f} | {s['p99']:.2f} | "
                       f"{s['max']:.2f} | {met(s['n'] and s['max'] <= 5)} |")
    return out + ["", "From the client's `close` to the log line \"gone\", both on the machine's monotonic clock. The engine "
                      "stops within the step that is running.\n"]


def costs_text(r):
    names = (("idle_plain", "idle connection, plain (it has asked once)"), ("idle_tls", "idle connection, TLS 1.3"),
             ("connect_plain", "opening and closing, plain"), ("handshake_ec_full", "TLS 1.3 handshake, ECDSA P-256"),
             ("handshake_ec_resumed", "the same, resumed"), ("handshake_rsa_full", "TLS 1.3 handshake, RSA 2048"),
             ("handshake_rsa_resumed", "the same, resumed"))
    out = ["## What things cost the server\n", stamp(r), "| | bytes | us of CPU |", "|---|--:|--:|"]
    for key, title in names:
        v = r[key]
        memory = f"{v['bytes_per_connection']:.0f}" if key.startswith("idle") else ""
        out.append(f"| {title} | {memory} | {v['server_us_per_connection']:.0f} |")
    for key, title in (("streams_plain", "a token of 1,000 streams, plain"), ("streams_tls", "the same over TLS")):
        out.append(f"| {title} | {r[key]['bytes_per_stream']:.0f} a stream | {r[key]['server_us_per_token']:.1f} |")
    return out + ["", "CPU includes the kernel's part, accepting and closing. Bytes are the process's own memory, without the "
                      "kernel's socket.\n"]


def throughput_text(results):
    groups = {}
    for key, r in results.items():
        if key.startswith("throughput/"):
            _, name, common, mode = key.split("/")
            groups.setdefault((name, common), {})[mode] = r
    if not groups:
        return []

    def cpu_ms(modes):
        """Of the server for a request, by mode, at the loads that both could carry; a load decides how full steps are."""
        carried = [{p["rate"]: p for p in r["points"] if p["good"] >= 0.95 * p["arrived"]} for r in modes.values()]
        rates = set(carried[0]).intersection(*carried)
        return {m: 1e3 * sum(c[x]["server_cpu"] * c[x]["seconds"] for x in rates) / sum(c[x]["arrived"] for x in rates)
                for m, c in zip(modes, carried)} if rates else {}

    out = ["## Assists of 24 tokens against whole answers\n",
           "Requests a second of which 95 in 100 keep the limits of first token and mean gap (the same for both). Lengths "
           "are those of the Azure conversation trace; requests arrive at random (Poisson, one seed), open loop; engine on "
           "one thread.\n",
           "| model | prompts | limits, ms | whole | assists | ratio | CPU ms a request, whole and assist | ratio | "
           "tokens of an answer |", "|---|---|--:|--:|--:|--:|--:|--:|--:|"]
    for (name, common), modes in sorted(groups.items()):
        cap = {m: modes[m]["capacity"] if m in modes else None for m in ("whole", "assist")}
        ratio = f"**{cap['assist'] / cap['whole']:.2f}**" if cap["whole"] and cap["assist"] else ""
        limit = next(iter(modes.values()))["limit"]
        answers = " and ".join(f"{modes[m]['points'][0]['answer_mean']:.0f}" if m in modes else "?"
                               for m in ("whole", "assist"))
        shown = {m: f"{v:.3g}" if v else "not measured" if v is None else "below the least load tried"
                 for m, v in cap.items()}
        cpu = cpu_ms(modes)
        costs = f"{cpu['whole']:.0f} and {cpu['assist']:.0f} | **{cpu['whole'] / cpu['assist']:.2f}**" if len(cpu) == 2 \
            else " | "
        out.append(f"| {name} | {common} | {limit[0]}, {limit[1]} | {shown['whole']} | {shown['assist']} | {ratio} | "
                   f"{costs} | {answers} |")
    out += ["", "| | offered/s | within limits | TTFT p95, ms | gap p95, ms | answers/s | prompt, cached | other CPUs |",
            "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for (name, common), modes in sorted(groups.items()):
        for mode, r in sorted(modes.items()):
            for p in sorted(r["points"], key=lambda p: p["rate"]):
                out.append(f"| {name}, {common}, {mode} | {p['rate']:.3g} | {p['good'] / max(p['arrived'], 1):.0%} of "
                           f"{p['arrived']} | {p['ttft_ms']['p95']:.0f} | {p['tpot_ms']['p95']:.0f} | "
                           f"{p['whole_per_s']:.2f} | {p['prompt_mean']:.0f}, {p['cached_mean']:.0f} | "
                           f"{p['other_cpus']} |")
    return out + [""]


def overload_text(r):
    accepted = r["good"] / max(r["whole"], 1)
    growth = r["rss_last_kb"] / max(r["rss_first_kb"], 1) - 1
    return [f"## Three times what it can do: {r['engine']}\n", stamp(r),
            f"{r['arrived']} assists in {r['seconds'] / 60:g} min, {r['rate']:.3g} a second (three times {r['capacity']:.3g}); "
            f"`--streams-max {r['streams_max']}`.\n", "| | | |", "|---|--:|---|",
            f"| accepted and whole | {r['whole']} | |",
            f"| of them within {r['ttft_limit_ms']} ms and {r['tpot_limit_ms']} ms | {accepted:.1%} | "
            f"{met(accepted >= 0.95)} |",
            f"| TTFT p50, p95, p99, ms | {r['ttft_ms']['p50']:.0f}, {r['ttft_ms']['p95']:.0f}, {r['ttft_ms']['p99']:.0f} | |",
            f"| gap p95, ms | {r['tpot_ms']['p95']:.0f} | |",
            f"| refused with 429 | {r['busy']} | |", f"| refused otherwise, cut | {r['other']}, {r['cut']} | |",
            f"| 429 after p50, p99, max, ms | {r['refused_ms']['p50']:.1f}, {r['refused_ms']['p99']:.1f}, "
            f"{r['refused_ms']['max']:.1f} | 50 ms: {met(r['refused_ms']['p99'] <= 50)} at p99 |",
            f"| memory after 60 s, when the prefix cache is full, and at the end, MB | {r['rss_first_kb'] / 1024:.1f}, {r['rss_last_kb'] / 1024:.1f} | "
            f"{met(growth < 0.05)} |", ""]


def soak_text(results):
    rows = {k.split("/")[1]: r for k, r in results.items() if k.startswith("soak/")}
    if not rows:
        return []
    out = ["## Soak: bad clients and reloads\n",
           "| build | minutes | deeds | tokens | reloads | answers by status | result |", "|---|--:|--:|--:|--:|---|---|"]
    for kind, r in sorted(rows.items()):
        doors = [r[d] for d in ("tls", "plain")]
        statuses = {}
        for d in doors:
            for s, n in d["statuses"].items():
                statuses[s] = statuses.get(s, 0) + n
        out.append(f"| {kind} | {sum(d['seconds'] for d in doors) / 60:g} | {sum(sum(d['deeds'].values()) for d in doors)} | "
                   f"{sum(d['tokens'] for d in doors)} | {sum(d['reloads'] for d in doors)} | "
                   f"{', '.join(f'{s}: {n}' for s, n in sorted(statuses.items()))} | "
                   f"{'no leak, no error' if not r['failures'] else '; '.join(r['failures'])} |")
    return out + ["", "Half of the time over TLS on the fake engine, half without on pdd-read-small; keys, `SIGHUP` every five seconds. Clients leave, "
                      "reset, half-close, stop reading, send drop by drop, send malformed heads and bodies and flipped bytes "
                      "to every face.\n"]


def svg(results, path):
    """A panel for each model and kind of prompts: part within limits, by offered load."""
    colors = {"assist": "#2f9e5f", "whole": "#7a86a8"}
    groups = sorted({tuple(k.split("/")[1:3]) for k in results if k.startswith("throughput/")})
    parts = []
    for i, (name, common) in enumerate(groups):
        x0, y0, w, h = 60 + (i % 2) * 370, 60 + (i // 2) * 250, 290, 160
        lines = {m: sorted(results[k]["points"], key=lambda p: p["rate"]) for m in colors
                 if (k := f"throughput/{name}/{common}/{m}") in results}
        most = max(p["rate"] for points in lines.values() for p in points)
        parts.append(f'<text x="{x0}" y="{y0 - 14}" class="t">{name}, {common} prompts</text>')
        for part in (0, 0.5, 1.0):
            y = y0 + h - part * h
            parts.append(f'<line x1="{x0}" y1="{y}" x2="{x0 + w}" y2="{y}" class="g"/>'
                         f'<text x="{x0 - 6}" y="{y + 4}" text-anchor="end" class="s">{part:.0%}</text>')
        parts.append(f'<text x="{x0 + w}" y="{y0 + h + 16}" text-anchor="end" class="s">{most:.3g} requests/s offered</text>'
                     f'<text x="{x0}" y="{y0 + h + 16}" class="s">0</text>')
        for mode, points in lines.items():
            at = [(x0 + p["rate"] / most * w, y0 + h - p["good"] / max(p["arrived"], 1) * h) for p in points]
            parts.append(f'<polyline fill="none" stroke="{colors[mode]}" stroke-width="2.5" points="' +
                         " ".join(f"{x:.1f},{y:.1f}" for x, y in at) + '"/>' +
                         "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colors[mode]}"/>' for x, y in at))
    height = 60 + (len(groups) + 1) // 2 * 250
    legend = "".join(f'<rect x="{60 + i * 190}" y="{height - 24}" width="12" height="12" rx="2" fill="{c}"/>'
                     f'<text x="{78 + i * 190}" y="{height - 13}" class="s">{n}</text>'
                     for i, (n, c) in enumerate((("assists of 24 tokens", colors["assist"]),
                                                 ("whole answers", colors["whole"]))))
    with open(path, "w") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" font-family="sans-serif">'
                '<style>.t{font-size:15px;font-weight:600}.s{font-size:12px;opacity:.75}.g{stroke:#8886;stroke-width:1}'
                'text{fill:#24292f}@media(prefers-color-scheme:dark){text{fill:#e6edf3}}</style>'
                '<text x="60" y="20" class="s">requests within the limits of first token and pace, by offered load</text>'
                + "".join(parts) + legend + "</svg>\n")


def report(results, save, folder):
    """Prints the report; `save`: the first part of the names of its files in `folder`, or None."""
    said = f"; what they mean is in [{save}.md]({save}.md)" if save else ""
    path = os.path.join(folder, f"{save}-cloud")
    lines = ["# Figures of pdd cloud\n", f"Written by `bench/cloud.py`, which says how to repeat each{said}.\n", f"{cpu_name()}, {os.cpu_count()} CPUs; the server on one, the client on the other. "
             f"{AIMS}\n"]
    for key, text in (("streams", streams_text), ("leave", leave_text), ("costs", costs_text)):
        if key in results:
            lines += text(results[key])
    lines += throughput_text(results)
    if save and any(k.startswith("throughput/") for k in results):
        svg(results, path + ".svg")
        lines.append(f"![requests within limits by offered load]({save}-cloud.svg)\n")
    for key in ("overload", "overload/fake"):
        lines += overload_text(results[key]) if key in results else []
    lines += soak_text(results)
    text = "\n".join(lines)
    print(text)
    if save:
        with open(path + ".md", "w") as f:
            f.write(text)
    return 0
