// Calls a server at HOPE_TARGET that refuses everything; prints the code and reason of each refusal as JSON.
import { HopeClient, HopeError } from "hope-serve-client";

const client = new HopeClient(process.env.HOPE_TARGET, { credential: "key" });
const prompt = { case: "text", value: "tea" } as const;
const seen: Record<string, string> = {};

async function note(name: string, call: Promise<unknown>) {
  await call.catch((error: HopeError) => {
    seen[name] = `${error.status} ${error.reason}`;
  });
}

await note("Adapt", client.adaptation.adapt({ userId: "Zoë", input: prompt }));
await note("Generate", client.inference.generate({ userId: "Zoë", prompt }));
await note("GenerateStream", client.inference.generateStream({ request: { userId: "Zoë", prompt } })[Symbol.asyncIterator]().next());
await note("GetModel", client.inference.getModel({}));
console.log(JSON.stringify(seen));
