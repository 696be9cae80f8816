// Listens to all streams at once, and prints what each brought when it is over: node wire.mjs URL...
import { subscribe } from "../dist/caddy-sse.js";

for (const url of process.argv.slice(2)) {
  const got = [];
  const subscription = subscribe(url, {
    event: ({ event, data, id }) => got.push(`${event}|${data}|${id}`),
    state: (state) => state === "closed" && console.log(JSON.stringify({ url, got, id: subscription.lastEventId })),
  });
}
