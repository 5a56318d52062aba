/**
 * Asks a running gate two questions, one that it allows and one that it denies:
 *
 *     npm run example -- http://127.0.0.1:9191 tollgate-quickstart/licenses/raw.license
 */
import { readFile } from "node:fs/promises";

import { type Answer, CouldNotDecide, Gate, type Question } from "./client.js";

/** May Ana of Acme read the EU's orders for this purpose? */
function question(token: string, purpose: string): Question {
  return {
    license: { case: "token", value: token },
    subject: { id: "ana", organization: "acme", roles: ["analyst"] },
    action: "read",
    resource: { id: "sales/eu/orders" },
    purpose,
  };
}

async function ask(url: string, licenseFile: string): Promise<void> {
  const token = (await readFile(licenseFile, "ascii")).trim();
  const gate = new Gate(url);
  try {
    for (const purpose of ["AcademicResearch", "Marketing"]) {
      print(purpose, await gate.check(question(token, purpose)));
    }
  } finally {
    gate.close();
  }
}

function print(purpose: string, answer: Answer): void {
  console.log(`${purpose}: ${answer.allowed ? "allowed" : "denied"}`);
  for (const obligation of answer.obligations) {
    console.log(`  to be done: ${obligation.type}`);
  }
  for (const reason of answer.reasons) {
    console.log(`  ${reason.code}: ${reason.reasonUser}`);
  }
}

const [url, licenseFile] = process.argv.slice(2);
if (url === undefined || licenseFile === undefined) {
  console.error("usage: example GATE LICENSE_FILE");
  process.exit(1);
}
try {
  await ask(url, licenseFile);
} catch (error) {
  if (!(error instanceof CouldNotDecide)) throw error;
  console.log(`denied, for no decision could be had (${error.message})`);
  process.exitCode = 1;
}
