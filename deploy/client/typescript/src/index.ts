/** The TypeScript client of hope-serve. `HopeClient` has every call of the contract; refusals are `HopeError`. */
export { HopeClient, type HopeOptions } from "./client.js";
export { HopeError } from "./errors.js";
export * from "./gen/hope/v1/adaptation_pb.js";
export * from "./gen/hope/v1/content_pb.js";
export * from "./gen/hope/v1/inference_pb.js";
export * from "./gen/hope/v1/memory_pb.js";
