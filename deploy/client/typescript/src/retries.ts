import { setTimeout } from "node:timers/promises";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";

const MAX_ATTEMPTS = 5;
const INITIAL_MS = 100;
const MAX_MS = 2_000;

/**
 * Sends again what was refused for want of room, when there may be some, and what was UNAVAILABLE if it is a read or a
 * request id makes it exactly-once. A turn that may have been taken is not taken twice: Generate is sent again only
 * when it was refused for want of room. Streams are left to the caller, who knows what has been read of them.
 */
export const withRetries: Interceptor = (next) => async (request) => {
  if (request.stream) {
    return next(request);
  }
  for (let attempt = 1; ; attempt++) {
    try {
      return await next(request);
    } catch (error) {
      const refusal = ConnectError.from(error);
      if (attempt === MAX_ATTEMPTS || !mayRepeat(request.method.name, refusal.code)) {
        throw error;
      }
      await setTimeout(pauseMs(refusal, attempt), undefined, { signal: request.signal });
    }
  }
};

function mayRepeat(method: string, code: Code): boolean {
  return code === Code.ResourceExhausted || (code === Code.Unavailable && method !== "Generate");
}

function pauseMs(refusal: ConnectError, attempt: number): number {
  const delay = refusal.findDetails(RetryInfoSchema)[0]?.retryDelay;
  if (delay) {
    return Number(delay.seconds) * 1_000 + delay.nanos / 1e6;
  }
  return Math.random() * Math.min(MAX_MS, INITIAL_MS * 2 ** (attempt - 1));
}
