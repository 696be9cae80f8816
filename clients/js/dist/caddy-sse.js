// Listens to event streams with fetch. It comes back where it was, and gives up only if asking again could not help.
// The format is that of the WHATWG: https://html.spec.whatwg.org/multipage/server-sent-events.html
const leastWait = 100, mostWait = 3_600_000; // ms that a server may ask for
const usualMost = 30_000; // ms between two tries, unless it asks for more
const lastsFor = 5_000; // ms after which a connection was none that fails at once
const mostData = 256 << 20; // of a message, in characters
/** Listens to a stream until it is closed, by the caller or by the server. */
export function subscribe(url, options = {}) {
    const address = new URL(url, globalThis.document?.baseURI);
    for (const topic of [options.topics ?? []].flat())
        address.searchParams.append("topic", topic);
    if (options.since)
        address.searchParams.set("since", options.since);
    const client = identity(address, options.clientId);
    const page = options.pauseWhileHidden ? globalThis.document : undefined;
    const { token, silence = 90_000 } = options;
    let state = "connecting", ended = false;
    let lastEventId = options.lastEventId ?? "";
    let retry = 2000, failures = 0, refusals = 0, renew = false, otherId = false;
    let interrupt = () => { }; // what runs now
    function become(next, why = {}) {
        if (ended)
            return;
        state = next;
        call(options.state, next, why);
    }
    function close(why) {
        if (why)
            become("closed", why);
        [state, ended] = ["closed", true];
        interrupt();
        globalThis.removeEventListener?.("online", hurry);
        page?.removeEventListener("visibilitychange", onVisibility);
    }
    // hurry ends a wait: the network has come back.
    function hurry() {
        if (state === "waiting")
            interrupt();
    }
    function onVisibility() {
        if (page.hidden || state === "paused")
            interrupt();
    }
    // interruptible runs something that has to end when `interrupt` is called.
    async function interruptible(run) {
        const controller = new AbortController();
        interrupt = () => controller.abort();
        try {
            return await run(controller.signal);
        }
        finally {
            interrupt = () => { };
        }
    }
    async function run() {
        while (!ended) {
            if (page?.hidden) {
                become("paused");
                await interruptible(sleep);
                continue;
            }
            become("connecting");
            let outcome;
            try {
                outcome = await interruptible(connect);
            }
            catch (err) {
                outcome = { why: String(err?.message ?? err) };
                if (err instanceof RangeError)
                    close(outcome); // it would come again
            }
            if (ended || page?.hidden)
                continue;
            const wait = pause(retry, failures++, outcome.least);
            if (outcome.atOnce)
                continue;
            become("waiting", { why: outcome.why, status: outcome.status, wait });
            await interruptible((signal) => sleep(signal, wait));
        }
    }
    // connect is one connection, from the request to its end.
    async function connect(signal) {
        const headers = new Headers(options.request?.headers);
        headers.set("Accept", "text/event-stream");
        if (lastEventId)
            headers.set("Last-Event-ID", header(lastEventId));
        const bearer = typeof token === "function" ? await token(renew) : token;
        if (bearer)
            headers.set("Authorization", `Bearer ${bearer}`);
        if (client.id)
            address.searchParams.set("client_id", client.id);
        signal.throwIfAborted();
        const line = new AbortController();
        const cut = () => line.abort();
        signal.addEventListener("abort", cut);
        let watch, lasts = Infinity;
        const heard = () => {
            clearTimeout(watch);
            if (silence)
                watch = setTimeout(() => line.abort(new Error("the line is silent")), silence);
        };
        try {
            heard();
            const response = await fetch(address, { ...options.request, headers, cache: "no-store", signal: line.signal });
            if (response.status !== 200)
                return await refused(response);
            const type = response.headers.get("Content-Type") ?? "";
            if (!/^text\/event-stream *(;|$)/i.test(type)) {
                close({ status: 200, why: `the answer is ${type || "of no type"}, not text/event-stream: is the URL right?` });
                return {};
            }
            become("live");
            renew = false;
            lasts = Date.now() + lastsFor;
            const feed = parser(lastEventId, dispatch, (ms) => (retry = ms));
            const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
            for (let chunk; !(chunk = await reader.read()).done;) {
                heard();
                feed(chunk.value);
            }
            return { why: "the connection ended", atOnce: renew && (failures === 0 || Date.now() > lasts) };
        }
        finally {
            if (Date.now() > lasts)
                failures = refusals = 0;
            clearTimeout(watch);
            signal.removeEventListener("abort", cut);
            line.abort(); // or the connection stays, if it was left early
        }
    }
    // refused says what to do about an answer other than 200.
    async function refused(response) {
        const { status } = response;
        if (status === 429 || status >= 500 || status === 408) {
            return { status, why: `the server answered ${status}`, least: retryAfter(response.headers.get("Retry-After")) };
        }
        if (status === 401 && typeof token === "function") {
            renew = true;
            return { status, why: "the server does not take the token", atOnce: refusals++ === 0 };
        }
        if (status === 403 && client.kept && !otherId) { // it may be that of who used this tab before
            otherId = true;
            client.renew();
            return { atOnce: true };
        }
        close({ status, why: status === 204 ? "there is nothing more to come" : await detail(response) });
        return {};
    }
    function dispatch(id, message) {
        if (ended)
            return;
        lastEventId = id;
        switch (message?.event) {
            case undefined:
                return;
            case "connected": {
                const hello = parsed(message.data);
                if (hello)
                    call(options.connected, hello);
                if (hello?.resume === "gap")
                    call(options.gap, "resume");
                return;
            }
            case "gap":
                return call(options.gap, field(message.data, "reason") ?? "unknown");
            case "expired":
                if (typeof token === "function")
                    renew = true;
                return;
            case "closed":
                return close({ why: field(message.data, "reason") ?? "the server closed it" });
            default:
                failures = refusals = 0;
                call(options.event, message);
        }
    }
    globalThis.addEventListener?.("online", hurry);
    page?.addEventListener("visibilitychange", onVisibility);
    void Promise.resolve().then(run); // so that nothing is called before this returns
    return {
        get clientId() { return client.id; },
        get lastEventId() { return lastEventId; },
        get state() { return state; },
        close: () => close(),
    };
}
// parser returns what takes the text of a stream, in pieces of any size.
function parser(id, dispatch, retry) {
    let rest = "", afterCR = false, size = 0, event = "", data = [];
    return (text) => {
        if (!text)
            return;
        const whole = afterCR && text[0] === "\n" ? text.slice(1) : text;
        afterCR = text.endsWith("\r");
        const lines = whole.split(/\r\n|\r|\n/);
        lines[0] = rest + lines[0];
        rest = lines.pop();
        for (const line of lines) {
            if (!line) {
                dispatch(id, data.length ? { event: event || "message", data: data.join("\n"), id } : undefined);
                [size, event, data] = [0, "", []];
                continue;
            }
            const colon = line.indexOf(":");
            const name = colon < 0 ? line : line.slice(0, colon);
            const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
            if (name === "data")
                size += data.push(value) && value.length;
            else if (name === "event")
                event = value;
            else if (name === "id" && !value.includes("\0"))
                id = value;
            else if (name === "retry" && /^\d+$/.test(value))
                retry(Number(value));
        }
        if (size + rest.length > mostData)
            throw new RangeError("a message is too large");
    };
}
// identity chooses the client_id, and keeps one that it made up for the tab.
function identity(address, given) {
    const key = `caddy-sse ${address.origin}${address.pathname}`;
    const self = {
        id: given || "",
        kept: false, // whether it was made up earlier
        renew() {
            self.id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
            self.kept = false;
            try {
                sessionStorage.setItem(key, self.id);
            }
            catch { } // there is none, or it is full
        },
    };
    if (given !== undefined || address.searchParams.has("client_id"))
        return self;
    try {
        self.id = sessionStorage.getItem(key) ?? "";
    }
    catch { }
    self.kept = self.id !== "";
    if (!self.kept)
        self.renew();
    return self;
}
// pause doubles the wait from try to try. Chance keeps a crowd from coming back in one moment.
function pause(retry, failures, least = 0) {
    const asked = Math.min(Math.max(retry, leastWait), mostWait);
    const wait = Math.min(asked * 2 ** Math.min(failures, 10), Math.max(asked, usualMost));
    return Math.max(least, wait) * (least > wait ? 1 + Math.random() / 4 : 0.75 + Math.random() / 2);
}
// retryAfter reads seconds or a date, and returns milliseconds.
function retryAfter(text) {
    const ms = /^\d+$/.test(text ?? "") ? 1000 * Number(text) : Date.parse(text ?? "") - Date.now();
    return ms > 0 ? Math.min(ms, mostWait) : 0;
}
// header writes text as bytes of UTF-8, which is what fetch takes and servers read.
const header = (text) => String.fromCharCode(...new TextEncoder().encode(text));
// parsed reads JSON; what is none is undefined.
function parsed(json) {
    try {
        return JSON.parse(json) ?? undefined;
    }
    catch {
        return undefined;
    }
}
// field returns a member of an object in JSON, if it is a string.
function field(json, name) {
    const value = parsed(json)?.[name];
    return typeof value === "string" ? value : undefined;
}
// detail returns what a refusal says of itself.
async function detail(response) {
    const body = await response.text().catch(() => "");
    return field(body, "detail") ?? `the server answered ${response.status}`;
}
// call calls what the user gave. What it throws is reported as if nobody had called it.
function call(f, ...args) {
    try {
        f?.(...args);
    }
    catch (err) {
        setTimeout(() => { throw err; });
    }
}
// sleep ends after a time, if there is one, or when the signal aborts.
const sleep = (signal, ms) => new Promise((done) => {
    const timer = ms === undefined ? undefined : setTimeout(done, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
});
