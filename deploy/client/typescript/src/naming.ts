import { createHash, randomUUID } from "node:crypto";
import type { Interceptor } from "@connectrpc/connect";
import { withFirst } from "./messages.js";

const AFFINITY_KEY = "x-hope-user";
const HEX_DIGITS = 4;

/**
 * Gives calls without a request id one, so that a repeated call counts once, and tells proxies which pod a user's calls
 * go to: by a short digest of the user's id, which names nobody.
 */
export const withNames: Interceptor = (next) => async (request) => {
  const named = await withFirst(request, (message) => {
    if (message.requestId === "") {
      message.requestId = randomUUID().replaceAll("-", "");
    }
    if (message.userId) {
      request.header.set(AFFINITY_KEY, affinityOf(message.userId));
    }
  });
  return next(named);
};

/** As the Python clients compute it. */
export function affinityOf(userId: string): string {
  return createHash("sha256").update(userId, "utf8").digest("hex").slice(0, HEX_DIGITS);
}
