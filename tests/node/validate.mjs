// Checks custom resources against their definitions; run by `node --eval` in the folder that has node_modules, with the
// path of a JSON list of objects. Prints a JSON list: for each object null, or what is wrong with it.
import { readFileSync } from "node:fs";

const homes = {
  "keda.sh/v1alpha1": "@kubernetes-models/keda/keda.sh/v1alpha1",
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
};

async function fault(object) {
  const { [object.kind]: Kind } = await import(`${homes[object.apiVersion]}/${object.kind}`);
  try {
    new Kind(object).validate();
    return null;
  } catch (error) {
    return error.message;
  }
}

const objects = JSON.parse(readFileSync(process.argv[1], "utf8"));
console.log(JSON.stringify(await Promise.all(objects.map(fault))));
