// @microsoft/fetch-event-source as it comes, with as much of a browser as it looks for.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
const { fetchEventSource } = await import("@microsoft/fetch-event-source");

let text = "";
await fetchEventSource(process.argv[2], {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ stream: true }),
  openWhenHidden: true,
  onmessage: ({ data }) => {
    if (data !== "[DONE]") text += data;
  },
});
process.stdout.write(text);
