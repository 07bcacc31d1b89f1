// Loads every proto file of a folder with `@grpc/proto-loader`, makes its clients with `@grpc/grpc-js`, and prints the
// methods of its services.
import { readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { relative, join } from "node:path";

const require = createRequire(new URL("../../../js/package.json", import.meta.url));
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const folder = process.argv[2];
const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
const files = entries.filter((entry) => entry.isFile());
// A file that imports another one brings its services along.
const methods = new Set();

for (const file of files) {
  const name = relative(folder, join(file.parentPath ?? file.path, file.name));
  const definition = loader.loadSync(name, { includeDirs: [folder] });
  grpc.loadPackageDefinition(definition);
  for (const part of Object.values(definition)) {
    // A message or an enum has a format; a service is a table of methods.
    if ("format" in part) continue;
    for (const method of Object.values(part)) {
      methods.add(`${method.path} ${method.requestStream} ${method.responseStream}`);
    }
  }
}
for (const method of methods) console.log(method);
console.log(`${files.length} files`);
