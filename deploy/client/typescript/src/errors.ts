import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";

/** A refusal. `reason` is stable and for programs; the message names the field, the value, the limit and the remedy. */
export class HopeError extends ConnectError {
  /** Told from other errors of Connect, which passes on what has its own name and wraps everything else. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === "object" && value !== null && HopeError.prototype.isPrototypeOf(value);
  }

  /** The status by its name, such as `NOT_FOUND`; `code` is its number. */
  readonly status: string;
  /** As the server gives it; `UNREACHABLE` or the status where a proxy or the network refuses. */
  readonly reason: string;
  /** Further facts, such as `correlation_id` and `head_version`. */
  readonly facts: Readonly<Record<string, string>>;
  /** The field that is refused, by its name in the contract. */
  readonly field: string | undefined;
  /** When there may be room again, in seconds. */
  readonly retryAfterSeconds: number | undefined;

  constructor(cause: ConnectError) {
    super(cause.rawMessage, cause.code, cause.metadata, undefined, cause);
    this.details = cause.details;
    const [info] = this.findDetails(ErrorInfoSchema);
    const delay = this.findDetails(RetryInfoSchema)[0]?.retryDelay;
    this.status = nameOf(this.code);
    this.reason = info?.reason ?? (this.code === Code.Unavailable ? "UNREACHABLE" : this.status);
    this.facts = info?.metadata ?? {};
    this.field = this.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field;
    this.retryAfterSeconds = delay && Number(delay.seconds) + delay.nanos / 1e9;
  }
}

/** The transport, whose every error, before an answer or in a stream of them, is a HopeError. */
export function withTypedErrors(transport: Transport): Transport {
  return {
    unary: (...call) => transport.unary(...call).catch(rethrow),
    stream: async (...call) => {
      const response = await transport.stream(...call).catch(rethrow);
      return { ...response, message: typed(response.message) };
    },
  };
}

async function* typed<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
  try {
    yield* messages;
  } catch (error) {
    rethrow(error);
  }
}

function rethrow(error: unknown): never {
  throw new HopeError(ConnectError.from(error));
}

function nameOf(code: Code): string {
  return code === Code.Canceled ? "CANCELLED" : Code[code].replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}
