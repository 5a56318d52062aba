/**
 * A thin client of a Tollgate gate, for enforcement points written in TypeScript.
 *
 * It fails closed: only a decision that says ALLOW is allowed, and whatever kept the gate from
 * deciding is thrown as CouldNotDecide, which the caller treats as a denial. It never retries and
 * never waits longer than its deadline.
 */
import type { SecureClientSessionOptions } from "node:http2";

import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

import {
  type CheckRequestSchema,
  type CheckResponse,
  Decision,
  DecisionService,
  EvaluationSemantic,
  type Obligation,
  type Reason,
} from "./gen/tollgate/v1/decision_pb.js";

/** One question, in the words of the protos; what is left out is empty. */
export type Question = MessageInitShape<typeof CheckRequestSchema>;

/** A decision of the gate: allowed, with obligations to fulfil, or denied, with reasons. */
export interface Answer {
  readonly allowed: boolean;
  /** Also the id of the decision's audit record. */
  readonly decisionId: string;
  readonly reasons: readonly Reason[];
  readonly obligations: readonly Obligation[];
}

/** The gate gave no decision. Treat it as a denial, one that may be asked again. */
export class CouldNotDecide extends Error {
  override readonly name = "CouldNotDecide";
  readonly code: Code;

  constructor(cause: unknown) {
    const error = ConnectError.from(cause);
    super(`${Code[error.code]}: ${error.rawMessage}`, { cause });
    this.code = error.code;
  }
}

export interface GateOptions {
  /** The deadline of each call, in whole milliseconds; 1000 when left out. */
  timeoutMs?: number;
  /** Whom to trust and who we are (mTLS); without it, the authorities that Node ships with. */
  tls?: SecureClientSessionOptions;
}

/**
 * A connection to a gate, opened at the first call and again when it was lost; close it when done.
 *
 * Its address is `http://HOST:PORT` for clear text, which suits a gate on this machine only, or
 * `https://HOST:PORT`.
 */
export class Gate {
  readonly #session: Http2SessionManager;
  readonly #client: Client<typeof DecisionService>;

  constructor(url: string, { timeoutMs = 1000, tls }: GateOptions = {}) {
    // Connect takes 0 for "no deadline"; a gate that hangs must not hang its callers.
    if (!Number.isInteger(timeoutMs) || timeoutMs < 1) {
      throw new RangeError(`timeoutMs is \`${timeoutMs}\`; it must be a whole number of milliseconds over 0`);
    }
    if (!isAddress(url, tls)) {
      throw new TypeError(
        `\`${url}\` is not the address of a gate: write \`https://HOST:PORT\`, or \`http://HOST:PORT\` without \`tls\``,
      );
    }
    this.#session = new Http2SessionManager(url, {}, tls);
    const transport = createGrpcTransport({
      baseUrl: url,
      defaultTimeoutMs: timeoutMs,
      sessionManager: this.#session,
    });
    this.#client = createClient(DecisionService, transport);
  }

  /** Asks one question. Throws CouldNotDecide. */
  async check(question: Question): Promise<Answer> {
    try {
      return answerOf(await this.#client.check(question));
    } catch (error) {
      throw new CouldNotDecide(error);
    }
  }

  /**
   * Asks several questions, answered in their order. Throws CouldNotDecide.
   *
   * Where the semantic stops early there are fewer answers than questions. A question without an
   * answer was not decided: it is not allowed.
   */
  async checkBatch(
    questions: readonly Question[],
    semantic: EvaluationSemantic = EvaluationSemantic.EXECUTE_ALL,
  ): Promise<Answer[]> {
    try {
      const batch = await this.#client.checkBatch({ requests: [...questions], semantic });
      return batch.responses.map(answerOf);
    } catch (error) {
      throw new CouldNotDecide(error);
    }
  }

  /** Ends the connection, and calls that are under way. */
  close(): void {
    this.#session.abort();
  }
}

/** Reads a response. Unspecified, or a decision newer than this client, is not an allow. */
export function answerOf(response: CheckResponse): Answer {
  return {
    allowed: response.decision === Decision.ALLOW,
    decisionId: response.decisionId,
    reasons: response.reasons,
    obligations: response.obligations,
  };
}

function isAddress(url: string, tls: SecureClientSessionOptions | undefined): boolean {
  const scheme = URL.canParse(url) ? new URL(url).protocol : "";
  return scheme === "https:" || (scheme === "http:" && tls === undefined);
}
