// It does not resume. An app that repeats its request with the same key gets the same answer.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
let text;
for (let finished = false; !finished; ) {
  text = "";
  try {
    const stream = await client.chat.completions.create(
      { model: "fake", stream: true, messages: [{ role: "user", content: "hello" }] },
      { headers: { "Idempotency-Key": "k1" } },
    );
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? "";
      finished ||= chunk.choices[0]?.finish_reason === "stop";
    }
  } catch (error) {
    process.stderr.write(`${error}\n`);
    if (error.code) throw error; // it is the stream that tells it
  }
}
process.stdout.write(text);
