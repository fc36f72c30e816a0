// A program that uses the packed client against the server at HOPE_TARGET; it ends with an error when a promise is broken.
import assert from "node:assert/strict";
import { AdaptMode, FinishReason, HopeClient, HopeError, Role } from "hope-serve-client";

const client = new HopeClient(process.env.HOPE_TARGET);
const sampling = { maxTokens: 4, ignoreEos: true, temperature: 0 };
const messages = [{ role: Role.USER, text: "My dog?" }];
const prompt = { case: "messages", value: { messages } } as const;

// Adapt, and the same again.
const lesson = { userId: "ann", requestId: "one", input: { case: "text", value: "My dog is called Biscuit. ".repeat(8) } } as const;
const taught = await client.adaptation.adapt(lesson);
assert.equal(taught.version, 1n);
assert.ok(taught.metrics && taught.metrics.nllAfter < taught.metrics.nllBefore);
assert.ok((await client.adaptation.adapt(lesson)).duplicate);
const dry = await client.adaptation.adapt({ ...lesson, requestId: "", options: { mode: AdaptMode.DRY_RUN } });
assert.equal(dry.duplicate, false);

// Generate reads what was taught.
const answer = await client.inference.generate({ userId: "ann", prompt, sampling, memory: { minVersion: taught.version } });
assert.equal(answer.memoryVersion, 1n);
assert.match(answer.requestId, /^[0-9a-f]{32}$/);
assert.equal(answer.choices[0]?.tokenIds.length, 4);
assert.equal(answer.choices[0]?.finishReason, FinishReason.LENGTH);

// GenerateStream says the same, piece by piece.
const events = [];
let text = "";
for await (const { event } of client.inference.generateStream({ request: { userId: "ann", prompt, sampling } })) {
  events.push(event.case);
  text += event.case === "delta" ? event.value.text : "";
}
assert.equal(events[0], "started");
assert.equal(events.at(-1), "ended");
assert.equal(text, answer.choices[0]?.text);

// AdaptStream: a history in parts.
async function* history() {
  yield { event: { case: "start", value: { userId: "ann", requestId: "two" } } } as const;
  for (const value of ["I live in Bergen.", "I like tea."]) {
    yield { event: { case: "part", value: { input: { case: "text", value } } } } as const;
  }
  yield { event: { case: "end", value: { numParts: 2 } } } as const;
}
assert.equal((await client.adaptation.adaptStream(history())).result?.version, 2n);

// Refusals carry what the server says of them.
const missing = await refusal(client.memory.getMemory({ userId: "nobody" }));
assert.equal(missing.status, "NOT_FOUND");
assert.match(missing.facts.correlation_id ?? "", /^[0-9a-f]{32}$/);
const stale = await refusal(client.adaptation.adapt({ ...lesson, requestId: "three", expectedVersion: 1n }));
assert.deepEqual([stale.status, stale.facts.head_version], ["ABORTED", "2"]);
const hot = await refusal(client.inference.generate({ prompt, sampling: { temperature: 101 } }));
assert.deepEqual([hot.status, hot.field], ["INVALID_ARGUMENT", "sampling.temperature"]);
const late = await refusal(client.inference.generate({ prompt, sampling: { maxTokens: 2000, ignoreEos: true } }, { timeoutMs: 20 }));
assert.equal(late.status, "DEADLINE_EXCEEDED");
const cold = await refusal((async () => {
  for await (const _ of client.inference.generateStream({ request: { userId: "a\0b", prompt } })) assert.fail();
})());
assert.deepEqual([cold.status, cold.field], ["INVALID_ARGUMENT", "user_id"]);
assert.throws(() => new HopeClient("example.org:50051", { credential: "secret" }), /in the clear/);

async function refusal(call: Promise<unknown>): Promise<HopeError> {
  try {
    await call;
  } catch (error) {
    assert.ok(error instanceof HopeError, String(error));
    return error;
  }
  assert.fail("it was not refused");
}
