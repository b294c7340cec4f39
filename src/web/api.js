// api.js: this device's own server, and nothing else (docs/DEVICE.md).

const TOKEN = 'pdd-token';
const APPROVAL = 'pdd-approval'; // the code by which this page's person says yes to what is sent

export function setApproval(code) {
    try {
        sessionStorage.setItem(APPROVAL, code);
    } catch {}
}

export function approval() {
    try {
        return sessionStorage.getItem(APPROVAL) ?? '';
    } catch {
        return '';
    }
}

// The link that the program printed brings it, and is no address to keep.
if (location.hash.startsWith('#allow=')) {
    setApproval(location.hash.slice(7));
    history.replaceState(null, '', location.pathname);
}

export class ApiError extends Error {
    constructor(status, code, message, retryAfter) {
        super(message);
        this.status = status;   // 0: no response came
        this.code = code;
        this.retryAfter = retryAfter;
    }
}

function headers(more) {
    let token = null;
    try {
        token = sessionStorage.getItem(TOKEN);
    } catch {}
    return {'X-PDD-Client': 'page', ...(token ? {Authorization: 'Bearer ' + token} : {}), ...more};
}

export function setToken(token) {
    try {
        sessionStorage.setItem(TOKEN, token);
    } catch {}
}

async function fail(response) {
    let said = null;
    try {
        said = (await response.json()).error;
    } catch {}
    const wait = Number(response.headers.get('Retry-After'));
    throw new ApiError(response.status, said?.code ?? '', said?.message ?? `status ${response.status}`, wait || 1);
}

export async function call(method, path, body, signal, more = {}) {
    let response;
    try {
        response = await fetch(path, {
            method, signal, headers: headers(body === undefined ? more : {'Content-Type': 'application/json', ...more}),
            body: body === undefined ? undefined : JSON.stringify(body), cache: 'no-store',
        });
    } catch (e) {
        if (e.name === 'AbortError') throw e;
        throw new ApiError(0, 'away', 'the device\'s server does not answer', 1);
    }
    if (!response.ok) await fail(response);
    return response;
}

export async function json(method, path, body) {
    const response = await call(method, path, body);
    return response.status === 204 ? null : response.json();
}

/** The JSON of each server-sent event of a response. It ends with [DONE], or it was cut. */
export async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (;;) {
        let piece;
        try {
            piece = await reader.read();
        } catch (e) {
            if (e.name === 'AbortError') throw e;
            throw new ApiError(0, 'cut', 'the connection was cut', 1);
        }
        if (piece.done) throw new ApiError(0, 'cut', 'the connection was cut', 1);
        text += piece.value;
        let from = 0;
        for (let end; (end = text.indexOf('\n\n', from)) >= 0; from = end + 2) {
            const data = text.slice(from, end).split('\n').filter((l) => l.startsWith('data:')).map((l) => l.slice(5).trimStart()).join('\n');
            if (data === '[DONE]') return;
            if (data) yield JSON.parse(data);
        }
        text = text.slice(from);
    }
}
