/**
 * The client against a real gate: the one of `tollgate quickstart`, with its licenses.
 *
 * TOLLGATE_GATE is its HOST:PORT, TOLLGATE_LICENSES its folder of licenses; ../run.sh sets both.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { test, type TestContext } from "node:test";

import { create } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";

import { answerOf, CouldNotDecide, Gate, type Question } from "../src/client.js";
import { CheckResponseSchema, Decision, EvaluationSemantic } from "../src/gen/tollgate/v1/decision_pb.js";

const HOST = env("TOLLGATE_GATE");
const RAW = readFileSync(join(env("TOLLGATE_LICENSES"), "raw.license"), "ascii").trim();
const ALLOWED = question(RAW, "AcademicResearch");
const DENIED = question(RAW, "Marketing");

test("a licensed use is allowed", async (t) => {
  const answer = await connect(t).check(ALLOWED);
  assert.equal(answer.allowed, true);
  assert.notEqual(answer.decisionId, "");
  assert.deepEqual(answer.reasons, []);
});

test("an unlicensed purpose is denied with its code", async (t) => {
  const answer = await connect(t).check(DENIED);
  assert.equal(answer.allowed, false);
  assert.deepEqual(codes(answer), ["PURPOSE_NOT_LICENSED"]);
  assert.notEqual(answer.reasons[0]?.reasonUser, "");
});

test("a token of garbage is a denial and no error", async (t) => {
  const answer = await connect(t).check(question("garbage", "AcademicResearch"));
  assert.equal(answer.allowed, false);
  assert.deepEqual(codes(answer), ["LICENSE_MALFORMED"]);
});

test("a batch is answered in order", async (t) => {
  const answers = await connect(t).checkBatch([DENIED, ALLOWED]);
  assert.deepEqual(answers.map(({ allowed }) => allowed), [false, true]);
});

test("a batch may end at its first denial", async (t) => {
  const answers = await connect(t).checkBatch([ALLOWED, DENIED, ALLOWED], EvaluationSemantic.DENY_ON_FIRST_DENY);
  assert.deepEqual(answers.map(({ allowed }) => allowed), [true, false]);
});

test("a batch that is no request could not be decided", async (t) => {
  await assert.rejects(connect(t).checkBatch([]), couldNotDecide(Code.InvalidArgument));
});

test("a gate that is not there could not decide", async (t) => {
  const server = await listen();
  const url = address(server);
  await new Promise((resolve) => server.close(resolve));
  await assert.rejects(connect(t, url).check(ALLOWED), couldNotDecide(Code.Unavailable));
});

test("a gate that is silent could not decide", async (t) => {
  const server = await listen((socket) => t.after(() => socket.destroy()));
  t.after(() => server.close());
  const call = connect(t, address(server), 100).check(ALLOWED);
  await assert.rejects(call, couldNotDecide(Code.DeadlineExceeded));
});

test("a deadline that passed could not decide", async (t) => {
  // Connecting and writing fifty questions takes longer than the one millisecond.
  const questions = new Array<Question>(50).fill(ALLOWED);
  const call = connect(t, `http://${HOST}`, 1).checkBatch(questions);
  await assert.rejects(call, couldNotDecide(Code.DeadlineExceeded));
});

test("tls that the gate does not speak could not decide", async (t) => {
  await assert.rejects(connect(t, `https://${HOST}`).check(ALLOWED), CouldNotDecide);
});

test("no call goes without a deadline", () => {
  for (const timeoutMs of [0, -1, 0.5, Infinity, NaN]) {
    assert.throws(() => new Gate(`http://${HOST}`, { timeoutMs }), RangeError, String(timeoutMs));
  }
});

test("an address says whether it is in clear text", () => {
  for (const url of ["127.0.0.1:9191", "ftp://127.0.0.1:9191", ""]) {
    assert.throws(() => new Gate(url), /not the address of a gate/, url);
  }
  assert.throws(() => new Gate(`http://${HOST}`, { tls: {} }), /not the address of a gate/);
});

// A gate sends neither the first nor the last; a proxy, a fault or a later version might.
test("only allow is an allow", () => {
  for (const decision of [Decision.UNSPECIFIED, Decision.DENY, 99 as Decision]) {
    assert.equal(answerOf(create(CheckResponseSchema, { decision })).allowed, false, String(decision));
  }
});

test("an allow brings its obligations", () => {
  const obligations = [{ id: "tell", type: "notify" }];
  const answer = answerOf(create(CheckResponseSchema, { decision: Decision.ALLOW, obligations }));
  assert.equal(answer.allowed, true);
  assert.deepEqual(answer.obligations.map(({ type }) => type), ["notify"]);
});

function connect(t: TestContext, url = `http://${HOST}`, timeoutMs = 10_000): Gate {
  const gate = new Gate(url, { timeoutMs });
  t.after(() => gate.close());
  return gate;
}

function question(token: string, purpose: string): Question {
  return {
    license: { case: "token", value: token },
    subject: { id: "ana", organization: "acme", roles: ["analyst"] },
    action: "read",
    resource: { id: "sales/eu/orders" },
    purpose,
  };
}

function codes(answer: { reasons: readonly { code: string }[] }): string[] {
  return answer.reasons.map(({ code }) => code);
}

function couldNotDecide(code: Code): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof CouldNotDecide, String(error));
    assert.equal(Code[error.code], Code[code], error.message);
    return true;
  };
}

function listen(accept: (socket: Socket) => void = () => {}): Promise<Server> {
  return new Promise((resolve) => {
    const server = createServer(accept).listen(0, "127.0.0.1", () => resolve(server));
  });
}

function address(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function env(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set; ../run.sh sets it`);
  return value;
}
