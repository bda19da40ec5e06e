// From the model's outputs to classes and probabilities, as lrp_onnx/runtime/explanation.py has them.

const WITHOUT_PROBABILITIES = ["features", "other"];

// A half-precision number, from its 16 bits.
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = (bits & 0x3ff) / 1024;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14);
}

// The 16 bits of the half-precision number nearest to a value; ties go to the even one.
export function halfBits(value) {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  const exponent = Math.max(-14, Math.floor(Math.log2(size || 2 ** -24)));
  const steps = size / 2 ** (exponent - 10);
  const below = Math.floor(steps);
  const up = steps - below > 0.5 || (steps - below === 0.5 && below % 2 === 1);
  return sign | (((exponent + 14) << 10) + below + up);
}

// A tensor's values as numbers of double precision.
export function numbers({ type, data }) {
  if (type === "float16" && data instanceof Uint16Array) return Float64Array.from(data, half);
  return Float64Array.from(data, Number);
}

// The scores of the first picture, one a class, of an output of `kind`; {scores, counts from}.
export function scoresOf(tensor, { kind, selection }) {
  const values = numbers(tensor);
  const [, classes, height, width] = tensor.dims;
  if (selection || kind === "features") {
    const whole = { channels: [0, classes], rows: [0, height], columns: [0, width] };
    return means(values, height, width, selection ?? whole);
  }
  const count = tensor.dims.slice(1).reduce((product, size) => product * size, 1);
  const row = Array.from(values.subarray(0, count));
  if (kind === "logit") return [-row[0], row[0]];
  if (kind === "probability") return [Math.fround(1 - row[0]), row[0]];
  return row;
}

// The mean of every channel over some rows and columns.
function means(values, height, width, { channels, rows, columns }) {
  const found = [];
  for (let c = channels[0]; c < channels[1]; c++) {
    let sum = 0;
    for (let y = rows[0]; y < rows[1]; y++) {
      for (let x = columns[0]; x < columns[1]; x++) sum += values[(c * height + y) * width + x];
    }
    found.push(sum / ((rows[1] - rows[0]) * (columns[1] - columns[0])));
  }
  return found;
}

const LOWEST = { int8: -128, int16: -32768, int32: -(2 ** 31) };

// Probabilities of scores; those of `WITHOUT_PROBABILITIES` stay as they are.
export function probabilitiesOf(scores, kind, type) {
  if (kind === "logit") return scores.map((z) => 1 / (1 + Math.exp(-z)));
  if (kind === "logits") {
    const most = scores.reduce((a, b) => Math.max(a, b));
    return shares(scores.map((score) => Math.exp(score - most)));
  }
  if (kind === "log-probabilities") return scores.map(Math.exp);
  if (kind === "probabilities" && /^u?int/.test(type)) {
    return shares(scores.map((count) => count - (LOWEST[type] ?? 0)), 1);
  }
  return scores;
}

function shares(values, least = 0) {
  const sum = Math.max(least, values.reduce((a, b) => a + b, 0));
  return values.map((value) => value / sum);
}

// The best classes, best first: {index, name, value}. Equal ones stay in their order.
export function best(probabilities, labels, count) {
  const order = probabilities.map((value, index) => ({ index, value, name: labels[index] ?? "" }));
  return order.sort((a, b) => b.value - a.value).slice(0, count);
}

// A class as people read it.
export const named = ({ index, name }) => (name ? name : `class ${index}`);

// What stands behind a class: a percentage, or the score of a model without probabilities.
export function measured(value, kind) {
  if (WITHOUT_PROBABILITIES.includes(kind)) return value.toPrecision(4);
  return `${(100 * value).toFixed(1)} %`;
}
