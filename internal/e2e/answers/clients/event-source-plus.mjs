import { EventSourcePlus } from "event-source-plus";

let text = "";
const source = new EventSourcePlus(process.argv[2], {
  method: "post",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ stream: true }),
  retryStrategy: "on-error",
});
source
  .listen({
    onMessage({ data }) {
      if (data !== "[DONE]") text += data;
    },
  })
  .onAbort(({ type }) => {
    process.stdout.write(text);
    if (type !== "end-of-stream") process.exitCode = 1;
  });
