// Runs a file on onnxruntime-node or on onnxruntime-web's wasm, in Node:
// node run_node.mjs FOLDER PACKAGE MODEL REQUEST ANSWER, where FOLDER has node_modules.

import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { answer } from "./exchange.mjs";

const [folder, name, model, request, out] = process.argv.slice(2);
const find = createRequire(pathToFileURL(join(folder, "package.json")));
const loaded = find(name);
const ort = loaded.default ?? loaded;
const options = { executionProviders: [name === "onnxruntime-node" ? "cpu" : "wasm"], logSeverityLevel: 3 };
const session = await ort.InferenceSession.create(await readFile(model), options);
const said = await answer(ort, session, JSON.parse(await readFile(request, "utf-8")));
const described = join(folder, "node_modules", name, "package.json");
said.version = JSON.parse(await readFile(described, "utf-8")).version;
await writeFile(out, JSON.stringify(said));
process.exit(0);
