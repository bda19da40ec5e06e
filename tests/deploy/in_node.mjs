// Runs functions of the page's modules in Node: a list of jobs as JSON on standard input, answers on
// standard output. Arrays are base64.

import { readFileSync } from "node:fs";

const modules = {};
for (const name of ["pixels", "answer", "drawing"]) {
  Object.assign(modules, await import(new URL(`${name}.mjs`, process.argv[2])));
}
const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));
const text = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64");
const floats = (text_) => new Float32Array(bytes(text_).buffer);

const DOES = {
  prepare({ picture, width, height, spec, size }) {
    const rgb = bytes(picture);
    const data = new Uint8ClampedArray(4 * width * height).fill(255);
    for (let i = 0; i < width * height; i++) data.set(rgb.subarray(3 * i, 3 * i + 3), 4 * i);
    const { values, box } = modules.prepare({ width, height, data }, spec, ...size);
    return { values: text(values), box };
  },
  answer({ values, type, dims, facts, labels }) {
    const ARRAYS = {
      float32: Float32Array, float16: Uint16Array, float64: Float64Array,
      uint8: Uint8Array, int8: Int8Array,
    };
    const tensor = { type, dims, data: new ARRAYS[type](bytes(values).buffer) };
    const scores = modules.scoresOf(tensor, facts);
    const probabilities = modules.probabilitiesOf(scores, facts.kind, type);
    return { scores, probabilities, best: modules.best(probabilities, labels, 5) };
  },
  paint({ look, picture, heatmap, map, width, height }) {
    const plane = { height: map[0], width: map[1], values: floats(heatmap) };
    const rgb = bytes(picture);
    const data = new Uint8ClampedArray(4 * width * height).fill(255);
    for (let i = 0; i < width * height; i++) data.set(rgb.subarray(3 * i, 3 * i + 3), 4 * i);
    const scale = modules.scaleOf(plane.values, look);
    const shares = modules.scaled(plane, scale, height, width);
    new modules.Painter(look).paint({ data }, shares, scale.scheme, { opacity: look.opacity, dim: true });
    return { scale, shares: text(shares), data: text(data), place: modules.place(plane) };
  },
  halves: ({ values }) => Array.from(floats(values), modules.halfBits),
};

const jobs = JSON.parse(readFileSync(0, "utf-8"));
process.stdout.write(JSON.stringify(jobs.map(({ does, ...job }) => DOES[does](job))));
