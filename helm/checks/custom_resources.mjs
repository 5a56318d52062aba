// Validates objects of other people's kinds against the types that are published for them.
// Refuses a kind that it does not know: then nobody would have looked at it.
//
//   node custom_resources.mjs FILE.yaml...
import { readFileSync } from 'node:fs';
import * as certificates from '@kubernetes-models/cert-manager/cert-manager.io/v1';
import * as monitoring from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1';
import { parseAllDocuments } from 'yaml';

const groups = { 'cert-manager.io/v1': certificates, 'monitoring.coreos.com/v1': monitoring };
const builtIn = /^(v1|apps\/v1|autoscaling\/v2|policy\/v1|networking\.k8s\.io\/v1|(admissionregistration|coordination|rbac\.authorization)\.k8s\.io\/v1)$/;

let lookedAt = 0;
const wrong = [];
for (const file of process.argv.slice(2)) {
  for (const document of parseAllDocuments(readFileSync(file, 'utf8'))) {
    const object = document.toJS();
    if (!object || builtIn.test(object.apiVersion)) continue;
    const name = `${file}: ${object.kind}/${object.metadata?.name}`;
    const Kind = groups[object.apiVersion]?.[object.kind];
    if (!Kind) {
      wrong.push(`${name}: ${object.apiVersion} is not known here`);
      continue;
    }
    lookedAt += 1;
    try {
      new Kind(object).validate();
    } catch (error) {
      wrong.push(`${name}: ${error.message}`);
    }
  }
}
if (lookedAt === 0) wrong.push('there was nothing to look at');
for (const words of wrong) console.error(words);
console.log(`${lookedAt} objects of other kinds`);
process.exit(wrong.length ? 1 : 0);
