// listen is an EventSource that does not give up. It reads the stream with fetch, and so it sees what the
// server answers, waits longer from try to try, and can send headers.
//
//   event({ name, data, id })     what arrived
//   waiting(ms, why)              before each new try
//   refused(response)             401, 403 and their like: return true to try again, say with a new token
export async function listen(url, { event, waiting = () => {}, refused = () => false, headers = () => ({}), signal }) {
  let [id, retry, tries, refusals] = ["", 1000, 0, 0];
  while (!signal?.aborted) {
    let [why, least] = ["the connection ended", 0];
    try {
      const resume = id ? { "Last-Event-ID": id } : {};
      const response = await fetch(url, { headers: { ...headers(), ...resume }, cache: "no-store", signal });
      if (response.ok) {
        for await (const arrived of events(response.body)) {
          [id, retry, tries, refusals] = [arrived.id ?? id, arrived.retry ?? retry, 0, 0];
          if (arrived.data !== undefined) event({ ...arrived, id });
        }
      } else if (response.status === 429 || response.status >= 500) {
        why = `the server answered ${response.status}`;
        least = 1000 * (Number(response.headers.get("Retry-After")) || 0);
      } else {
        if (!(await refused(response))) return;
        if (!refusals++) continue; // at once, the first time
        why = `the server answered ${response.status} again`;
      }
    } catch (err) {
      why = err.message;
    }
    // Doubled each time, to half a minute. Chance keeps a crowd from coming back in one moment.
    const wait = Math.max(least, Math.min(retry * 2 ** tries++, 30_000) * (0.75 + Math.random() / 2));
    if (signal?.aborted) return;
    waiting(wait, why);
    await new Promise((done) => setTimeout(done, wait));
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let rest = "", chunk; !(chunk = await reader.read()).done; ) {
      const blocks = (rest + chunk.value).split("\n\n"); // this server ends every line with LF
      rest = blocks.pop();
      for (const block of blocks) {
        const of = (field) => block.split("\n").filter((line) => line.startsWith(`${field}: `)).map((line) => line.slice(field.length + 2));
        const [data, [id], [name = "message"], [retry]] = ["data", "id", "event", "retry"].map(of);
        yield { name, id, data: data.length ? data.join("\n") : undefined, retry: retry && Number(retry) };
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // or the connection stays, if event() fails
  }
}
