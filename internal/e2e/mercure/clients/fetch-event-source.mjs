// @microsoft/fetch-event-source as it comes, with as much of a browser as it looks for. It hands over whatever it takes
// for a message, and a page would parse that.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
const { fetchEventSource } = await import("@microsoft/fetch-event-source");

const [url, token] = process.argv.slice(2);
const ended = new AbortController();
fetchEventSource(url, {
  headers: { Authorization: `Bearer ${token}` },
  openWhenHidden: true,
  signal: ended.signal,
  async onopen() {
    console.error("open");
  },
  onmessage({ data }) {
    console.log(data);
    if (data === "end") ended.abort();
  },
  onclose() {
    throw new Error("the stream has ended: come back");
  },
  onerror() {
    return 100; // ms
  },
});
