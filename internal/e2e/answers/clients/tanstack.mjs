// What TanStack AI's chat client does with its connection: ask; and with a second argument, what it does after a
// reload of the page.
import { fetchServerSentEvents } from "@tanstack/ai-client";

const [url, rejoin] = process.argv.slice(2);
const connection = fetchServerSentEvents(url);
const run = { threadId: "t1", runId: "r1" };
const messages = [{ id: "u1", role: "user", parts: [{ type: "text", content: "hello" }] }];
const stream = rejoin ? connection.joinRun(run.runId) : connection.connect(messages, {}, undefined, run);
let text = "";
for await (const chunk of stream) {
  if (chunk.type === "TEXT_MESSAGE_CONTENT") text += chunk.delta;
  if (chunk.type === "RUN_ERROR") throw new Error(chunk.message);
}
process.stdout.write(text);
