// The Vercel AI SDK with its provider for Ollama: every call that the test checks, as one JSON object.
import { createOllama } from "ai-sdk-ollama";
import { embedMany, generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [baseURL, model, embedder] = process.argv.slice(2);
const ollama = createOllama({ baseURL });
const chat = ollama(model, { options: { num_ctx: 1024 } });
const asked = [];
const tools = {
  get_weather: tool({
    description: "The weather of a city",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      asked.push(city);
      return `Sunny in ${city}`;
    },
  }),
};
const question = { model: chat, tools, stopWhen: stepCountIs(3), prompt: "How is the weather?" };

const whole = await generateText(question);
const streamed = streamText(question);
const parts = [];
for await (const part of streamed.fullStream) parts.push(part.type);

const plain = { model: chat, prompt: "Say hi.", maxOutputTokens: 8 };
const object = await generateObject({ ...plain, maxOutputTokens: 64, schema: z.object({ sunny: z.boolean() }) });
const vectors = await embedMany({ model: ollama.embedding(embedder), values: ["sun", "rain"] });

let missing;
try {
  await generateText({ ...plain, model: ollama("absent"), maxRetries: 0 });
} catch (error) {
  missing = { status: error.statusCode ?? error.cause?.status_code, message: error.message };
}

console.log(
  JSON.stringify({
    asked,
    whole: whole.text,
    usage: whole.usage,
    steps: whole.steps.map((step) => step.finishReason),
    results: whole.steps.flatMap((step) => step.toolResults.map((result) => result.output)),
    streamed: await streamed.text,
    parts,
    object: object.object,
    lengths: vectors.embeddings.map((vector) => vector.length),
    missing,
  }),
);
