// @microsoft/fetch-event-source with the two lines that make it exact, and as much of a browser as it looks for.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
const { fetchEventSource } = await import("@microsoft/fetch-event-source");

let text = "";
let last;
await fetchEventSource(process.argv[2], {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ stream: true }),
  openWhenHidden: true,
  fetch: (url, init) => fetch(url, last ? { ...init, headers: { ...init.headers, "last-event-id": last } } : init),
  onmessage: ({ id, data }) => {
    last = id;
    if (data !== "[DONE]") text += data;
  },
});
process.stdout.write(text);
