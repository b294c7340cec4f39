// facts.js: the report of an answer (docs/DEVICE.md) in words.
import {bytes, count, el, ms, plural} from './dom.js';
import {json} from './api.js';

const matches = {
    exact: 'bit for bit: both ends compute the same',
    weights: 'same weights, other numerics',
    tokens: 'same tokenizer, other weights',
    text: 'by text alone: another tokenizer',
    refined: 'this device read a shortened prompt, so its words may differ',
};
const modes = {auto: 'cloud and device', local: 'this device only', cloud: 'cloud only'};
const ends = {stop: 'it was complete', length: 'the longest answer was reached', cancelled: 'it was stopped', failed: 'it failed'};

export function summary(report) {
    const {tokens, cloud_tokens: cloud, device_tokens: device} = report;
    if (!tokens) return 'no tokens';
    const who = cloud && device ? `${count(cloud)} from the cloud, ${count(device)} from this device` :
        cloud ? 'all from the cloud' : 'all from this device';
    return `${plural(tokens, 'token')}, ${who} · first after ${ms(report.ttft_ms)}`;
}

function rows(r) {
    const out = [];
    const put = (name, value) => value !== null && value !== undefined && value !== '' && out.push([name, value]);
    put('First token', `after ${ms(r.ttft_ms)}`);
    put('Pace', r.tpot_mean_ms ? `${ms(r.tpot_mean_ms)} a token, largest gap ${ms(r.gap_max_ms)}` : null);
    put('Handover', r.handover ? `at token ${count(r.handover)}, a gap of ${ms(r.handover_gap_ms)}` : null);
    put('Plan', r.plan?.why);
    put('Mode', modes[r.mode]);
    put('Agreement', r.match ? matches[r.match] ?? r.match : null);
    put('Prompt', `${plural(r.prompt_tokens || r.cloud?.prompt_tokens || 0, 'token')}${r.kept_tokens ? `, ${count(r.kept_tokens)} of them already read here` : ''}`);
    put('Kept of the prompt', r.ratio && r.ratio < 1 ? `${Math.round(100 * r.ratio)} %` : null);
    put('Speed here', r.prefill_tps ? `reads ${count(Math.round(r.prefill_tps))} tokens a second, writes one in ${ms(r.decode_ms)}` : null);
    put('Cloud', r.cloud?.requests ? `${plural(r.cloud.requests, 'request')}, its slot for ${ms(r.cloud.slot_ms)}` : null);
    put('Left this device', r.sent_bytes ? `${bytes(r.sent_bytes)} out, ${bytes(r.received_bytes)} back` : 'nothing');
    put('Energy', r.energy ? `${Number(r.energy.joules.toPrecision(3))} J, ${r.energy.how}` : null);
    put('Stalls', r.stalls ? plural(r.stalls, 'gap') + ' above 200 ms' : null);
    put('End', ends[r.reason]);
    put('On the way', r.trouble);
    put('Emulated', r.emulated);
    return out;
}

async function putEgress(list, id, grew) {
    let sent;
    try {
        sent = (await json('GET', '/v1/egress?answer=' + id)).data;
    } catch {
        return; // a device that keeps no record
    }
    for (const s of (sent ?? []).reverse()) {
        const how = s.protected === 'none' ? 'not encrypted' : 'encrypted';
        const what = s.form === 'text' ? plural(s.n, 'message') : plural(s.n, 'token');
        list.append(el('dt', {}, 'Sent to'), el('dd', {}, el('bdi', {}, `${s.host}`), `, ${how}: ${what}${s.have ? ` and ${plural(s.have, 'token')} of the answer` : ''}`));
    }
    grew();
}

/** `grew` is called when what the device recorded has been added. */
export function facts(report, grew) {
    const list = el('dl', {class: 'facts'});
    for (const [name, value] of rows(report)) list.append(el('dt', {}, name), el('dd', {}, value));
    if (report.sent_bytes) putEgress(list, report.id, grew);
    return list;
}
