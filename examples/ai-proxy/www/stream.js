// Reading an answer over as many connections as it takes. All that is special to Caddy's sse_resume stands here.

// ask sends a question and returns where the answer is from now on, and the first connection to it.
export async function ask(url, body, signal) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const at = response.headers.get("Content-Location");
  if (!response.ok || !at) throw new Error(`${response.status}: ${(await response.text()).slice(0, 300)}`);
  return { at, response };
}

// follow gives each event to take, once and in order, and returns at the end: done, stopped, aborted or unknown.
// While the line is broken it says so by lost, and waits for comeBack.
export async function follow({ at, response, take, lost, comeBack, signal }) {
  for (let last = ""; ; ) {
    try {
      response ??= await fetch(at, { headers: last ? { "Last-Event-ID": last } : {}, cache: "no-store", signal });
      if (response.status >= 400 && response.status < 500) return "unknown"; // it is kept no longer
      if (!response.ok) throw new Error(`${response.status}`);
      for await (const event of events(response)) {
        last = event.id ?? last;
        take(event);
      }
      const status = await fetch(`${at}&sse_status`, { cache: "no-store" });
      return status.ok ? (await status.json()).state : "unknown";
    } catch (error) {
      response = undefined;
      lost(error);
      signal = await comeBack();
    }
  }
}

// stop ends the answer for everybody: the model is told.
export async function stop(at) {
  await fetch(at, { method: "DELETE" });
}

// events are the server-sent events of a response. It throws if the line breaks.
async function* events(response) {
  if (!response.body) return; // 204: there is nothing left
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split(/\r?\n\r?\n/);
    text = blocks.pop();
    for (const block of blocks) {
      const event = { data: [] };
      for (const line of block.split(/\r?\n/)) {
        const [, field, content] = line.match(/^([^:]*):? ?(.*)$/);
        if (field === "data") event.data.push(content);
        else if (field) event[field] = content;
      }
      if (event.data.length) yield { ...event, data: event.data.join("\n") };
    }
  }
}
