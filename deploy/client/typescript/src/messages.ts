import type { Message } from "@bufbuild/protobuf";
import type { StreamRequest, UnaryRequest } from "@connectrpc/connect";
import type { AdaptStreamRequest } from "./gen/hope/v1/adaptation_pb.js";
import type { GenerateStreamRequest } from "./gen/hope/v1/inference_pb.js";
import type { ImportMemoryRequest } from "./gen/hope/v1/memory_pb.js";

/** What a call says of its user, and its own name. */
export interface Named {
  userId?: string;
  requestId?: string;
}

/** The part of a call's first message that names its user: the message itself, or what it wraps. */
export function namedIn(message: Message): Named {
  switch (message.$typeName) {
    case "hope.v1.GenerateStreamRequest":
      return (message as GenerateStreamRequest).request ?? {};
    case "hope.v1.AdaptStreamRequest": {
      const { event } = message as AdaptStreamRequest;
      return event.case === "start" ? event.value : {};
    }
    case "hope.v1.ImportMemoryRequest": {
      const { part } = message as ImportMemoryRequest;
      return part.case === "start" ? part.value : {};
    }
    default:
      return message as Named;
  }
}

/** The request, after `look` had its first message and before anything is sent. */
export async function withFirst(
  request: UnaryRequest | StreamRequest,
  look: (named: Named) => void,
): Promise<UnaryRequest | StreamRequest> {
  if (!request.stream) {
    look(namedIn(request.message));
    return request;
  }
  const messages = request.message[Symbol.asyncIterator]();
  const first = await messages.next();
  if (!first.done) {
    look(namedIn(first.value));
  }
  return { ...request, message: startingWith(first, messages) };
}

async function* startingWith<T>(first: IteratorResult<T>, rest: AsyncIterator<T>): AsyncGenerator<T> {
  for (let each = first; !each.done; each = await rest.next()) {
    yield each.value;
  }
}
