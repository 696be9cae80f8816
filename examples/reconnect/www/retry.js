// listen is an EventSource that does not give up. It reads the stream with fetch, and so it sees what the
// server answers, waits longer from try to try, and can send headers.
//
//   event({ name, data, id })     what arrived
//   waiting(ms, why)              before each new try
//   refused(response)             401, 403 and their like, or no event stream: return true to try again, say with a new token
//
// It ends when the signal aborts, when it is refused, and when the server answers 204: there is nothing more to come.
export async function listen(url, { event, waiting = () => {}, refused = () => false, headers = () => ({}), signal }) {
  let [id, retry, tries, refusals] = ["", 1000, 0, 0];
  while (!signal?.aborted) {
    let [why, least] = ["the connection ended", 0];
    try {
      const resume = id ? { "Last-Event-ID": id } : {};
      const response = await fetch(url, { headers: { ...headers(), ...resume }, cache: "no-store", signal });
      if (response.status === 204) return;
      if (response.status === 200 && /^text\/event-stream *(;|$)/i.test(response.headers.get("Content-Type"))) {
        for await (const arrived of events(response.body)) {
          [id, retry, tries, refusals] = [arrived.id ?? id, arrived.retry ?? retry, 0, 0];
          if (arrived.data !== undefined) event({ ...arrived, id });
        }
      } else if (response.status === 429 || response.status >= 500) {
        why = `the server answered ${response.status}`;
        least = retryAfter(response.headers.get("Retry-After"));
      } else {
        if (!(await refused(response))) return;
        if (!refusals++) continue; // at once, the first time
        why = `the server answered ${response.status} again`;
      }
    } catch (err) {
      if (err instanceof RangeError) throw err; // it would come again
      why = err.message;
    }
    const wait = pause(retry, tries++, least);
    if (signal?.aborted) return;
    waiting(wait, why);
    await new Promise((done) => setTimeout(done, wait));
  }
}

const mostWait = 3_600_000; // ms that a server may ask for
const within = (ms) => Math.min(Math.max(ms, 100), mostWait);

// pause doubles the wait from try to try, to half a minute or what the server asks for. Chance keeps a crowd from
// coming back in one moment.
export function pause(retry, tries, least) {
  const wait = Math.min(within(retry) * 2 ** Math.min(tries, 10), Math.max(30_000, within(retry)));
  return Math.max(least, wait * (0.75 + Math.random() / 2));
}

// retryAfter reads seconds or a date.
export function retryAfter(header) {
  const ms = /^\d+$/.test(header) ? 1000 * Number(header) : Date.parse(header) - Date.now();
  return ms > 0 ? Math.min(ms, mostWait) : 0;
}

const largest = 256 << 20; // of a message, in characters

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let [rest, afterCR, size, arrived, data] = ["", false, 0, { name: "message" }, []];
  try {
    for (let chunk; !(chunk = await reader.read()).done; ) {
      const text = afterCR && chunk.value.startsWith("\n") ? chunk.value.slice(1) : chunk.value;
      afterCR = chunk.value.endsWith("\r");
      const lines = text.split(/\r\n|\r|\n/);
      lines[0] = rest + lines[0];
      rest = lines.pop();
      for (const line of lines) {
        if (line) {
          const [, field, value] = /^([^:]*)(?:: ?)?([^]*)$/.exec(line);
          if (field === "data") data.push(value);
          else if (field === "event") arrived.name = value || "message";
          else if (field === "id" && !value.includes("\0")) arrived.id = value; // an empty one clears the last
          else if (field === "retry" && /^\d+$/.test(value)) arrived.retry = Number(value);
          size += field === "data" ? value.length : 0;
        } else {
          yield { ...arrived, data: data.length ? data.join("\n") : undefined };
          [size, arrived, data] = [0, { name: "message" }, []];
        }
      }
      if (size + rest.length > largest) throw new RangeError("a message is too large");
    }
  } finally {
    reader.cancel().catch(() => {}); // or the connection stays, if event() fails
  }
}
