#!/usr/bin/env python3
"""readme_demo.py [FOLDER [OTHER...]]: writes the README's section about the demonstration, and docs/demo.svg, from the
reports that `./demo.sh` left in FOLDER (build/demo); how far they vary, from the OTHER folders of the same program, too
(`pdd demo --out OTHER`). What was measured is written, met or missed; answers that differ are refused."""
import datetime
import hashlib
import json
import pathlib
import re
import shutil
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- written by tools/readme_demo.py -->", "<!-- end of what it writes -->"

HEAD = """| | first token after | mean gap | largest gap | at the handover | tokens from the cloud | a slot of the cloud for |
|---|---|---|---|---|---|---|"""


def asked(question):
    """A question as the README quotes it: of a list, how many and the first."""
    listed = [line.split(". ", 1)[1] for line in question.split("\n") if line[:1].isdigit()]
    return f'{len(listed)} questions in one message ("{listed[0]}" and so on)' if listed else f'"{question}"'


def ms(value):
    return "" if value is None else f"{value:,.0f} ms"


def row(run):
    share = f" ({100 * run['cloud_tokens'] / run['tokens']:.0f} %)" if 0 < run["cloud_tokens"] < run["tokens"] else ""
    slot = f"{run['cloud_slot_ms'] / 1000:.1f} s" if run["cloud_slot_ms"] else "0 s"
    return (f"| {run['label']} | {ms(run['ttft_ms'])} | {ms(run['tpot_mean_ms'])} | {ms(run['tpot_max_ms'])} "
            f"| {ms(run['handover_gap_ms'])} | {run['cloud_tokens']} of {run['tokens']}{share} | {slot} |")


def aim(met):
    return "" if met else ", **missed**"


def speed(p):
    return f"`{p['profile']}`: {p['prefill_tps']:,.0f} tok/s prefill, {p['decode_tps']:g} tok/s decode; {p['source']}"


def refined(r):
    """What the last two runs show, where there are some."""
    if len(r["runs"]) < 5:
        return []
    whole, part = r["runs"][3:]
    return [f"""**The last two rows** are of a slower phone ({speed(r['slow'])}, emulated) and a prompt of {part['prompt_tokens']:,}
        tokens (the logbook and [minutes.txt](demo/minutes.txt)). With the whole prompt the phone is ready too late, and
        {whole['cloud_tokens']} of {whole['tokens']} tokens come from the cloud, {whole['facts_found']} of {r['facts']} facts
        right. Refined, it reads the {part['read_tokens']:,} tokens that the cloud marks, {part['cloud_tokens']} of
        {part['tokens']} tokens come from the cloud, {part['facts_found']} of {r['facts']} facts are right, and the slot is free after
        {part['cloud_slot_ms'] / 1000:.1f} s instead of {whole['cloud_slot_ms'] / 1000:.1f} s. That is lossy
        ([REFINE.md](docs/REFINE.md))."""]


def from_to(values, form):
    """The range of some figures; one figure where they are the same to the digits that are shown."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def varying(reports):
    """What repeated runs show of the third row."""
    if len(reports) < 2:
        return []
    runs = [r["runs"][2] for r in reports]
    gaps = [run["tpot_max_ms"] for run in runs]
    own = 1000 / reports[0]["device"]["decode_tps"]
    met = max(gaps) <= 1.1 * own
    return [f"""{len(runs)} such runs gave {from_to([run['cloud_tokens'] for run in runs], 'd')} tokens from the cloud, the first
        token {from_to([r['wait_less_percent'] for r in reports], '.0f')} % sooner and largest gaps of {from_to(gaps, '.0f')} ms,
        {from_to([gap / own for gap in gaps], '.2f')} of the device's own{aim(met)}; all answers are identical."""]


def section(r, others, sha, day, cpu):
    device, cloud, both = r["runs"][:3]
    own = 1000 / r["device"]["decode_tps"]
    gap, least, plan = both["tpot_max_ms"] / own, r["wait_less_percent"], r["plan_tokens"] or 0
    more = both["cloud_tokens"] / plan if plan else 0
    parts = [
        f"""`./demo.sh` on {day} at commit {r['commit']}, numerics {r['numerics']}, `models/{r['model']}` (SHA-256 {sha[:16]})
        on both ends: {asked(r['question'])}, asked about [{r['document']}](demo/{r['document']}), a prompt of {r['prompt_tokens']:,}
        tokens. The answer has {r['answer_tokens']} tokens and {r['facts_found']} of the {r['facts']} facts.""",
        "\n".join([HEAD] + [row(run) for run in r["runs"]]),
        *refined(r),
        f"""The first three answers are identical. With P/D-Device the first token comes {least:.0f} % sooner than on the device alone
        (aim: 80 %{aim(least >= 80)}). The largest gap is {gap:.2f} of the device's own {own:.1f} ms (aim: 1.1{aim(gap <= 1.1)}).
        The cloud gives {both['cloud_tokens']} tokens where the plan's formula asks for {plan:.0f} (aim: at most a fifth
        more{aim(0 < more <= 1.2)}), and its slot is free after {both['cloud_slot_ms'] / 1000:.1f} s,
        {100 * both['cloud_slot_ms'] / cloud['cloud_slot_ms']:.0f} % of what the whole answer takes there. Machine:
        {r['cpus']} CPUs, {cpu}, load {r['load']:.1f}.""",
        *varying([r, *others]),
        f"""**Emulated:** the device ({speed(r['device'])}), the cloud ({speed(r['cloud'])}) and the link ({r['rtt_ms']} ms round
        trip). This machine does not prefill like a provider: it prefills the prompt for the cloud once, before the clock
        runs ({r['machine_prefill_ms'] / 1000:.1f} s), and each run then waits as long as the provider would. **Real:** the
        model, its tokens, the device's prefill, processes, HTTP, cancellation."""]
    return "\n\n".join(p if p.startswith("|") else textwrap.fill(" ".join(p.split()), 118, break_long_words=False,
                                                                   break_on_hyphens=False) for p in parts)


def cpu_name():
    found = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else "of an unknown kind"


def read(folder):
    report = pathlib.Path(folder) / "demo.json"
    r = json.loads(report.read_text())
    if not r["identical"]:
        sys.exit(f"{report}: the answers differ; nothing is written")
    if not 0 < r["runs"][2]["cloud_tokens"] < r["answer_tokens"]:
        sys.exit(f"{report}: no handover, as on a busy machine; nothing is written: run ./demo.sh again")
    return r


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/demo")
    report = folder / "demo.json"
    r, others = read(folder), [read(other) for other in sys.argv[2:]]
    sha = hashlib.sha256((ROOT / "models" / r["model"]).read_bytes()).hexdigest()
    day = datetime.date.fromtimestamp(report.stat().st_mtime)
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{section(r, others, sha, day, cpu_name())}\n{END}{after}")
    shutil.copyfile(folder / "timeline.svg", ROOT / "docs/demo.svg")
    print(f"README.md and docs/demo.svg: from {report}")


main()
