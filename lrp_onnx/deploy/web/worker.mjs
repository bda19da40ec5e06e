// Everything that takes long, beside the page: the runtime, the model, and pictures on their way into it.
//
// A message {id, task, …} is answered by {id, result} or {id, error}; before that perhaps by
// {loaded}: bytes of the model that are there.

import { halfBits, numbers, probabilitiesOf, scoresOf } from "./answer.mjs";
import { cropBox, prepare } from "./pixels.mjs";

const OTHER = "model.onnx is not the file that model.json describes: upload the whole site again";
const MOST_THREADS = 4;
const BAND = 4_000_000; // pixels that are read at once: canvases have limits
const CHECKED = 8; // the check compares means over so many rows and columns
const SAME = 0.05; // the largest difference of a check that is passed
const BLOCKS_ALIKE = 0.9; // a threshold in the post-processing may fall otherwise in the other blocks

let facts, ort, session, provider, prepared;

// A file of the runtime, which the browser refuses unless it has the stated hash.
async function verified(name) {
  const { base, integrity } = facts.runtime;
  const url = new URL(base + name, import.meta.url);
  const response = await fetch(url, { integrity: integrity[name], credentials: "omit" });
  if (!response.ok) throw new Error(`${url} is not there (${response.status})`);
  return response;
}

async function script(name) {
  const blob = new Blob([await (await verified(name)).text()], { type: "text/javascript" });
  return URL.createObjectURL(blob);
}

async function loadRuntime(kind) {
  const { module, loader, binary } = facts.runtime.files[kind];
  const [code, mjs, wasm] = await Promise.all([
    script(module),
    script(loader),
    verified(binary).then((response) => response.arrayBuffer()),
  ]);
  ort = await import(code);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = { mjs };
  ort.env.wasm.wasmBinary = wasm;
  const cores = navigator.hardwareConcurrency ?? 1;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, cores) : 1;
}

async function loadModel() {
  const response = await fetch(new URL(facts.file, import.meta.url));
  if (!response.ok) throw new Error(`${facts.file} is not there (${response.status})`);
  const model = new Uint8Array(facts.bytes);
  const reader = response.body.getReader();
  let loaded = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (loaded + part.value.length > model.length) throw new Error(OTHER);
    model.set(part.value, loaded);
    loaded += part.value.length;
    self.postMessage({ loaded });
  }
  if (loaded !== model.length) throw new Error(OTHER);
  return model;
}

async function open(kind, model) {
  await loadRuntime(kind);
  const options = { executionProviders: [kind], logSeverityLevel: 3 };
  session = await ort.InferenceSession.create(model, options);
  provider = kind;
  return check();
}

// Whether there is a WebGPU worth its download: one that the processor imitates is slower than
// WebAssembly, and is taken only where it is asked for.
async function hasWebGpu(processor) {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    const imitated = adapter?.info?.isFallbackAdapter ?? adapter?.isFallbackAdapter;
    return Boolean(adapter) && (processor === "webgpu" || !imitated);
  } catch {
    return false;
  }
}

// The session, on WebGPU where there is one and its check is passed, else on the processor.
async function load(message) {
  facts = message.facts;
  const model = await loadModel();
  const started = performance.now();
  let refused = "";
  if (message.processor !== "wasm" && (await hasWebGpu(message.processor))) {
    try {
      const difference = await open("webgpu", model);
      if (difference <= SAME) return loaded(difference, started, "");
      refused = `WebGPU computes something else here (by ${difference.toPrecision(2)})`;
    } catch (error) {
      refused = `WebGPU failed: ${error.message}`;
    }
    await session?.release().catch(() => {});
  } else if (message.processor === "webgpu") {
    refused = "this browser has no WebGPU";
  }
  const difference = await open("wasm", model);
  return loaded(difference, started, refused);
}

function loaded(difference, started, refused) {
  const threads = provider === "wasm" ? ort.env.wasm.numThreads : 0;
  const seconds = (performance.now() - started) / 1000;
  return { provider, threads, difference, same: difference <= SAME, refused, seconds };
}

// The difference from Python's scores and map of a picture that both draw, relative to the largest of
// them: of the map that of most blocks. The picture goes the way of every photo.
async function check() {
  const { height, width } = facts.input;
  const image = new ImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const bytes = [0, 1, 2].map((c) => x * (7 + 2 * c) + y * (13 - 3 * c) + ((x * y) >> 3));
      image.data.set([...bytes.map((byte) => byte % 256), 255], 4 * (y * width + x));
    }
  }
  const { values } = await read(await createImageBitmap(image));
  const found = await run(values, facts.check.target);
  return Math.max(
    apart(found.scores, facts.check.scores, 1),
    apart(blocks(found.heatmap), facts.check.heatmap, BLOCKS_ALIKE),
  );
}

// The difference that a share of the values does not exceed.
function apart(found, expected, share) {
  const most = expected.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0) || 1;
  const differences = expected.map((value, index) => Math.abs(value - found[index]) / most);
  if (differences.some(Number.isNaN)) return Infinity;
  return differences.sort((a, b) => a - b)[Math.ceil(share * differences.length) - 1];
}

// The means of a map over blocks.
function blocks({ height, width, values }) {
  const sums = new Float64Array(CHECKED ** 2);
  const counts = new Float64Array(CHECKED ** 2);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const block =
        Math.floor((y * CHECKED) / height) * CHECKED + Math.floor((x * CHECKED) / width);
      sums[block] += values[y * width + x];
      counts[block] += 1;
    }
  }
  return Array.from(sums, (sum, block) => sum / (counts[block] || 1));
}

// The part of a picture that the model sees, as RGBA bytes; transparent pixels lie on white.
function pixels(bitmap) {
  const { height, width } = facts.input;
  const box = cropBox(bitmap, facts.preprocessing, height, width);
  const data = new Uint8ClampedArray(4 * box.width * box.height);
  const rows = Math.max(1, Math.min(box.height, Math.floor(BAND / box.width)));
  const canvas = new OffscreenCanvas(box.width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < box.height; top += rows) {
    context.fillStyle = "white";
    context.fillRect(0, 0, box.width, rows);
    context.drawImage(bitmap, -box.left, -box.top - top);
    const band = context.getImageData(0, 0, box.width, Math.min(rows, box.height - top));
    data.set(band.data, 4 * top * box.width);
  }
  return { box, width: box.width, height: box.height, data };
}

async function decoded(source) {
  if (source instanceof ImageBitmap) return source;
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
  return createImageBitmap(source, options);
}

// A picture as the model's input; it is kept for further classes.
async function read(source) {
  const bitmap = await decoded(source);
  const seen = pixels(bitmap);
  bitmap.close();
  const { height, width } = facts.input;
  // What is cut out already is not cut again.
  const spec = { ...facts.preprocessing, resize: "stretch", crop_fraction: 1 };
  return { ...prepare(seen, spec, height, width), box: seen.box };
}

const ARRAYS = { float32: Float32Array, float64: Float64Array, uint8: Uint8Array, int8: Int8Array };

// The model's inputs: the picture, zeros up to a fixed batch, and the class.
function feeds(values, target) {
  const { name, type, batch, dims } = facts.input;
  const size = values.length;
  const all = type === "float16" ? new Uint16Array(batch * size) : new ARRAYS[type](batch * size);
  all.set(type === "float16" ? Uint16Array.from(values, halfBits) : values);
  const given = { [name]: new ort.Tensor(type, all, [batch, ...dims]) };
  if (facts.target) {
    const targets = new BigInt64Array(facts.many_targets ? 1 : batch).fill(-1n);
    targets[0] = BigInt(target);
    given[facts.target] = new ort.Tensor("int64", targets, [targets.length]);
    if (facts.start) {
      const zeros = new Float32Array(targets.length * facts.classes);
      given[facts.start] = new ort.Tensor("float32", zeros, [targets.length, facts.classes]);
    }
  }
  return given;
}

// The scores, the map and the region of one picture.
async function run(values, target) {
  const wanted = [facts.scores.name, facts.heatmap, ...(facts.region ? [facts.region] : [])];
  const outputs = await session.run(feeds(values, target), wanted);
  const tensor = outputs[facts.scores.name];
  const scores = scoresOf(tensor, facts.scores);
  const probabilities = probabilitiesOf(scores, facts.scores.kind, tensor.type);
  const plane = (name) => {
    const [, height, width] = outputs[name].dims;
    const all = numbers(outputs[name]);
    return { height, width, values: Float32Array.from(all.subarray(0, height * width)) };
  };
  return {
    scores,
    probabilities,
    heatmap: plane(facts.heatmap),
    region: facts.region ? plane(facts.region) : null,
  };
}

async function explain({ source, target }) {
  const started = performance.now();
  if (source) prepared = await read(source);
  const ready = performance.now();
  const found = await run(prepared.values, target);
  const ended = performance.now();
  if (!found.heatmap.values.every(Number.isFinite)) {
    throw new Error("the model's values are not finite for this picture");
  }
  const seconds = { prepare: source ? (ready - started) / 1000 : 0, run: (ended - ready) / 1000 };
  return { ...found, input: prepared.values, box: prepared.box, seconds };
}

const TASKS = { load, explain };
let last = Promise.resolve();

// One task at a time: a session runs one picture at once.
self.addEventListener("message", ({ data }) => {
  last = last.then(async () => {
    try {
      self.postMessage({ id: data.id, result: await TASKS[data.task](data) });
    } catch (error) {
      self.postMessage({ id: data.id, error: `${error?.message ?? error}` });
    }
  });
});
