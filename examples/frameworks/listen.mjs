// Listens with the package eventsource, which is the browser's EventSource for Node:
//
//	node examples/frameworks/listen.mjs [URL]

import { EventSource } from "eventsource";

const source = new EventSource(process.argv[2] ?? "http://localhost:8080/events?topic=news");

// It reconnects by itself and hands over the last ID. Then this tells whether anything was missed.
source.addEventListener("connected", (e) => console.log("connected", JSON.parse(e.data).resume));
source.addEventListener("gap", (e) => console.log("gap", JSON.parse(e.data).reason));

source.addEventListener("message", (e) => console.log("message", e.data));

// On an answer such as 401 or 503 it has given up, and says why. See examples/reconnect for one that does not.
source.addEventListener("error", (e) => {
  if (source.readyState !== EventSource.CLOSED) return;
  console.error("refused:", e.code, e.message);
  process.exitCode = 1;
});
