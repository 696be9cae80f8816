import { createEventSource } from "eventsource-client";

let text = "";
const source = createEventSource({
  url: process.argv[2],
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ stream: true }),
});
for await (const { data } of source) {
  if (data === "[DONE]") break;
  text += data;
}
source.close();
process.stdout.write(text);
