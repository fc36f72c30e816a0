import { readFileSync } from "node:fs";
import { type Client, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { withTypedErrors } from "./errors.js";
import { AdaptationService } from "./gen/hope/v1/adaptation_pb.js";
import { InferenceService } from "./gen/hope/v1/inference_pb.js";
import { MemoryService } from "./gen/hope/v1/memory_pb.js";
import { withNames } from "./naming.js";
import { withRetries } from "./retries.js";

const DEFAULT_TIMEOUT_MS = 120_000;

/** How a client connects. */
export interface HopeOptions {
  /** Deadline of a call that names none, in milliseconds. Default 120,000. */
  timeoutMs?: number;
  /** Repeat what may be repeated. Default true. */
  retries?: boolean;
  /** An API key or token, sent with every call. */
  credential?: string;
  /** Speak TLS; `roots` is a PEM file of the authorities that may vouch for the server, instead of the system's. */
  tls?: { roots?: string };
  /** Send the credential in the clear, even to other machines. */
  insecure?: boolean;
}

/** A connection to one server: the calls of each service of the contract. */
export class HopeClient {
  /** Generate, GenerateStream, Score, Tokenize, Detokenize, GetModel. */
  readonly inference: Client<typeof InferenceService>;
  /** Adapt, AdaptStream. */
  readonly adaptation: Client<typeof AdaptationService>;
  /** Memories: their versions, copies and erasure. */
  readonly memory: Client<typeof MemoryService>;

  /** `target`: host:port. Throws an Error for a credential that would travel in the clear to another machine. */
  constructor(target = "127.0.0.1:50051", options: HopeOptions = {}) {
    checkWay(target, options);
    const transport = withTypedErrors(
      createGrpcTransport({
        baseUrl: `${options.tls ? "https" : "http"}://${target}`,
        defaultTimeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
        nodeOptions: options.tls?.roots ? { ca: readFileSync(options.tls.roots) } : {},
        interceptors: interceptorsOf(options),
      }),
    );
    this.inference = createClient(InferenceService, transport);
    this.adaptation = createClient(AdaptationService, transport);
    this.memory = createClient(MemoryService, transport);
  }
}

function interceptorsOf({ credential, retries = true }: HopeOptions): Interceptor[] {
  return [withNames, ...(credential ? [withCredential(credential)] : []), ...(retries ? [withRetries] : [])];
}

function withCredential(credential: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${credential}`);
    return next(request);
  };
}

function checkWay(target: string, options: HopeOptions): void {
  const host = target.slice(0, target.lastIndexOf(":")).replace(/^\[|\]$/g, "");
  const near = host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
  if (options.credential && !options.tls && !options.insecure && !near) {
    throw new Error(
      `the credential would travel to ${target} in the clear; use tls, or say insecure where something else guards it`,
    );
  }
}
