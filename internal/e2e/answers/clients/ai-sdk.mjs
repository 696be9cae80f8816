// What useChat does: ask, and when the line breaks, resumeStream, which gets the whole answer again.
import { DefaultChatTransport } from "ai";

const transport = new DefaultChatTransport({ api: process.argv[2] });
const chatId = "c1";
const messages = [{ id: "u1", role: "user", parts: [{ type: "text", text: "hello" }] }];
let stream = await transport.sendMessages({ chatId, messages, trigger: "submit-message" });
let text;
while (stream) {
  text = "";
  let finished = false;
  try {
    for await (const part of stream) {
      if (part.type === "text-delta") text += part.delta;
      if (part.type === "finish") finished = true;
    }
  } catch (error) {
    process.stderr.write(`${error}\n`);
  }
  if (finished) break;
  stream = await transport.reconnectToStream({ chatId });
}
process.stdout.write(text);
if (await transport.reconnectToStream({ chatId })) throw new Error("after the end there is still an answer");
