// Reads a run with the official JavaScript client, and prints what it gets, a JSON line each.
// node reader.mjs PACKAGE BASE_URL KEY RUN (retrieve | stream [AFTER] | helper)
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const [pkg, baseURL, apiKey, run, how, after] = process.argv.slice(2);
const { default: OpenAI } = await import(pathToFileURL(join(dirname(pkg), "index.mjs")).href);
const client = new OpenAI({ apiKey, baseURL, maxRetries: 0 });
const print = (kind, value) => process.stdout.write(JSON.stringify({ kind, value }) + "\n");

try {
  if (how === "retrieve") {
    print("response", await client.responses.retrieve(run));
  } else if (how === "stream") {
    const options = { stream: true, ...(after ? { starting_after: Number(after) } : {}) };
    for await (const event of await client.responses.retrieve(run, options)) print("event", event);
  } else {
    const stream = client.responses.stream({ response_id: run });
    for await (const event of stream) print("event", event);
    print("response", await stream.finalResponse());
  }
} catch (error) {
  print("error", { name: error.constructor.name, status: error.status ?? null, code: error.code ?? null, message: error.message });
}
