// harness.mjs: what the tests of real clients share: `pdd` processes, and cases with cmocka's marks, so that test.sh counts them.
import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';

const running = new Set();
const complaints = []; // of the processes, for a case that fails

/** A `pdd COMMAND`, once it listens: {url, port, kill()}. */
export function start(pdd, command, ...args) {
    const listen = args.includes('--listen') ? [] : ['--listen', '127.0.0.1:0'];
    const child = spawn(pdd, [command, '--log-level', 'error', ...listen, ...args], {stdio: ['ignore', 'pipe', 'pipe']});
    running.add(child);
    return new Promise((resolve, reject) => {
        let text = '';
        const look = (data) => {
            text += data;
            const found = text.match(/listening on (http:\/\/[^\s:]+:(\d+))/);
            if (found) resolve({url: found[1], port: Number(found[2]), said: () => text, kill: () => new Promise((gone) => {
                running.delete(child);
                child.once('exit', gone);
                child.kill('SIGKILL');
            })});
        };
        child.stdout.on('data', look);
        child.stderr.on('data', look);
        child.stderr.on('data', (data) => complaints.push(`${command} ${child.pid}: ${data}`));
        child.on('exit', (code) => reject(new Error(`pdd ${command} ended with ${code}: ${text}`)));
    });
}

/** End every process that still runs. */
export function end() {
    for (const child of running) child.kill('SIGKILL');
}

/** Wait until `test` holds, for about ten seconds. */
export async function until(what, test) {
    for (let i = 0; i < 1000; i++, await new Promise((r) => setTimeout(r, 10))) if (await test()) return;
    assert.fail('never: ' + what);
}

/** The value of a metric of a server, which may want a key. */
export async function metric(url, name, key) {
    const page = await (await fetch(url + '/metrics', {headers: key ? {Authorization: `Bearer ${key}`} : {}})).text();
    const line = page.split('\n').find((l) => l.startsWith(name + ' '));
    assert.ok(line, 'no ' + name + ' in /metrics');
    return Number(line.slice(name.length));
}

/** How many cases follow. */
export const announce = (n) => console.log(`[==========] Running ${n} test(s).`);

/** How many cases failed. `n += await run()` would lose some of those that run at the same time. */
export let failed = 0;

/** Run a case, and say how it ended. */
export async function run(name, test) {
    const begun = Date.now();
    try {
        await test();
        console.log(`[       OK ] ${name} (${((Date.now() - begun) / 1000).toFixed(1)} s)`);
    } catch (e) {
        failed++;
        console.log(`${e.stack}\n${complaints.join('')}[  FAILED  ] ${name}`);
    }
}
