// Prints what a subscription tells, an object a line: node listen.mjs URL OPTIONS. It closes when its input ends.
import { createInterface } from "node:readline";
import { subscribe } from "../dist/caddy-sse.js";

const say = (what) => console.log(JSON.stringify(what));
const { tokens, ...options } = JSON.parse(process.argv[3] ?? "{}");
if (tokens) options.token = (renew) => (say({ renew }), tokens.length > 1 ? tokens.shift() : tokens[0]);
const subscription = subscribe(process.argv[2], {
  ...options,
  event: (message) => say(message),
  connected: ({ resume }) => say({ greeting: resume }),
  gap: (gap) => say({ gap }),
  state: (state, why) => say({ state, ...why }),
});
createInterface(process.stdin).on("close", () => {
  subscription.close();
  say({ left: subscription.state, at: subscription.lastEventId });
});
