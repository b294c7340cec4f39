// strip.js: the thin strip above an answer that is being given: who reads, who answers, how far they are.
import {count, el, say} from './dom.js';

const percent = (p) => p && p[1] ? Math.floor(100 * p[0] / p[1]) : 0;

function lane(name, label) {
    const fill = el('div', {class: 'fill'});
    const node = el('div', {class: 'lane ' + name, role: 'progressbar', 'aria-label': label, 'aria-valuemin': '0', 'aria-valuemax': '100'}, fill);
    return {node, fill};
}

/** What an ask is doing: [phase, words, words for the right]. `local`: the cloud has no part in it. */
function describe(ask, local) {
    const cloud = ask.progress.cloud, device = ask.progress.device;
    const reads = device && device[0] < device[1] ? `this device reads along, ${percent(device)} %` : '';
    if (ask.state === 'away') return ['away', 'This device\'s server does not answer. It is asked again', ''];
    if (ask.state === 'busy') return ['waiting', 'The queue is full. It is asked again', ''];
    if (ask.state === 'held') return ['held', 'Waits for your word', ''];
    if (ask.state === 'waiting') return ['waiting', 'Waiting', ask.waiting > 1 ? `${count(ask.waiting)} in the queue` : ''];
    if (ask.n === 0) {
        const of = (p) => `${count(p[0])} of ${count(p[1])}`;
        const right = [cloud ? `cloud ${of(cloud)}` : '', device ? `device ${of(device)}` : ''].filter(Boolean).join(' · ');
        if (ask.trouble) return ['device', 'The cloud is away. This device reads the prompt', right];
        return [local ? 'device' : 'reading', right ? 'Reading the prompt' : 'Asking', right];
    }
    const does = ask.thinks ? 'thinks' : 'answers';
    if (ask.source === 'cloud') {
        if (ask.trouble) return ['lost', 'The cloud is lost. This device takes over', reads];
        return ['cloud', `The cloud ${does}`, reads];
    }
    if (ask.handover && ask.n - ask.handover < 24)
        return ['handover', ask.trouble ? 'The cloud is lost. This device goes on' : 'Handed over to this device', `at token ${count(ask.handover)}`];
    return ['device', `This device ${does}`, ask.handover ? `since token ${count(ask.handover)}` : local ? 'nothing leaves it' : ''];
}

export class Strip {
    constructor(ask, context) {
        this.ask = ask;
        this.context = context;
        this.words = el('span', {class: 'words'});
        this.right = el('span', {class: 'right'});
        this.cloud = lane('cloud', 'The cloud\'s reading of the prompt');
        this.device = lane('device', 'This device\'s reading of the prompt');
        this.node = el('div', {class: 'strip', role: 'group', 'aria-label': 'Progress'},
            el('div', {class: 'strip-text'}, el('span', {class: 'dot', 'aria-hidden': 'true'}), this.words, this.right),
            el('div', {class: 'lanes'}, this.cloud.node, this.device.node));
        this.told = null;
        this.update();
    }

    setLane({node, fill}, value, busy) {
        fill.style.transform = `scaleX(${value / 100})`;
        node.setAttribute('aria-valuenow', String(value));
        node.classList.toggle('busy', busy);
    }

    update() {
        const {ask} = this, local = this.context.local || ask.local;
        const [phase, words, right] = describe(ask, local);
        if (this.words.textContent !== words) this.words.textContent = words;
        if (this.right.textContent !== right) this.right.textContent = right;
        const {source} = ask;
        const cloud = ask.first === 'cloud' ? 100 : percent(ask.progress.cloud);
        const device = source === 'device' ? 100 : percent(ask.progress.device);
        this.cloud.node.hidden = local;
        this.setLane(this.cloud, cloud, phase === 'cloud' || (phase === 'reading' && cloud < 100));
        this.setLane(this.device, device, source === 'device');
        const told = phase + ask.thinks;
        if (told === this.told) return;
        this.told = told;
        this.node.dataset.phase = phase;
        // One sentence for each change, and none for each token.
        if (phase !== 'reading') say(words);
    }
}
