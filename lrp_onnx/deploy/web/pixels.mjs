// From a picture's pixels to the model's input, with the very numbers of lrp_onnx/runtime/preprocess.py.
// The browser's own resampling would give others: OpenCV's is written out here, in whole numbers and
// float32 as there. Pictures are {width, height, data} with RGBA bytes.

const { floor, ceil, min, max, fround } = Math;

// Python's round: halves go to the even neighbour.
export function rounded(value) {
  const below = floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below;
}

// The part of a picture that a model of height × width sees.
export function cropBox(picture, spec, height, width) {
  let sides;
  if (spec.resize === "stretch") {
    sides = [picture.height * spec.crop_fraction, picture.width * spec.crop_fraction];
  } else {
    const scale = spec.crop_fraction * min(picture.height / height, picture.width / width);
    sides = [height * scale, width * scale];
  }
  const [rows, columns] = sides.map((side) => max(1, rounded(side)));
  return {
    left: floor((picture.width - columns) / 2),
    top: floor((picture.height - rows) / 2),
    width: columns,
    height: rows,
  };
}

// OpenCV's linear interpolation: places in float32, weights in 1/2048.
const LINEAR = {
  reach: 2,
  precision: fround,
  weights: (x) => [rounded(fround(1 - x) * 2048), rounded(x * 2048)],
  blend: ([first, second], [a, b], i) =>
    (((a * (first[i] >> 4)) >> 16) + ((b * (second[i] >> 4)) >> 16) + 2) >> 2,
};

// The cubic with A = -0.75. OpenCV on x86 resizes so by Intel's library; elsewhere its own code
// rounds these weights to 1/2048, and 4 % of the bytes are one level off.
const CUBIC = {
  reach: 4,
  precision: (place) => place,
  weights: (x) => {
    const a = -0.75;
    const outer = (t) => ((a * t - 5 * a) * t + 8 * a) * t - 4 * a;
    const inner = (t) => ((a + 2) * t - (a + 3)) * t * t + 1;
    const [first, second, third] = [outer(x + 1), inner(x), inner(1 - x)];
    return [first, second, third, 1 - first - second - third];
  },
  blend: (rows, weights, i) => {
    let sum = 0;
    for (let k = 0; k < 4; k++) sum += rows[k][i] * weights[k];
    return max(0, min(255, rounded(fround(sum))));
  },
};

// The source pixels of every target pixel along one side, `reach` of them, and their weights.
function taps(target, source, { reach, precision, weights: weightsAt }) {
  const scale = 1 / (target / source);
  const places = new Int32Array(target * reach);
  const weights = new Float64Array(target * reach);
  for (let i = 0; i < target; i++) {
    const centre = precision((i + 0.5) * scale - 0.5);
    const first = floor(centre);
    weights.set(weightsAt(precision(centre - first)), i * reach);
    for (let k = 0; k < reach; k++) {
      places[i * reach + k] = max(0, min(source - 1, first + k - (reach / 2 - 1)));
    }
  }
  return { places, weights };
}

// One row of the picture, resized along its width.
function across(data, start, { places, weights }, reach, row) {
  for (let x = 0; 3 * x < row.length; x++) {
    let [r, g, b] = [0, 0, 0];
    for (let k = x * reach; k < (x + 1) * reach; k++) {
      const at = start + 4 * places[k];
      r += data[at] * weights[k];
      g += data[at + 1] * weights[k];
      b += data[at + 2] * weights[k];
    }
    row.set([r, g, b], 3 * x);
  }
}

// Both sides by the weights of a kernel, along the width first.
function weighted(picture, box, height, width, kernel) {
  const { reach, blend } = kernel;
  const columns = taps(width, box.width, kernel);
  const rows = taps(height, box.height, kernel);
  const out = new Uint8Array(3 * height * width);
  const known = new Map();
  const rowAt = (y) => {
    if (!known.has(y)) {
      const row = new Float64Array(3 * width);
      const start = 4 * ((box.top + y) * picture.width + box.left);
      across(picture.data, start, columns, reach, row);
      known.set(y, row);
    }
    return known.get(y);
  };
  for (let y = 0; y < height; y++) {
    const places = rows.places.subarray(y * reach, (y + 1) * reach);
    const weights = rows.weights.subarray(y * reach, (y + 1) * reach);
    for (const old of known.keys()) if (old < places[0]) known.delete(old);
    const needed = Array.from(places, rowAt);
    for (let i = 0; i < 3 * width; i++) out[3 * y * width + i] = blend(needed, weights, i);
  }
  return out;
}

// The mean over every target pixel's area where both sides are whole multiples.
function wholeArea(picture, box, height, width) {
  const [down, right] = [box.height / height, box.width / width];
  const out = new Uint8Array(3 * height * width);
  const share = fround(1 / (down * right));
  const four = down === 2 && right === 2;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const sums = [0, 0, 0];
      for (let j = 0; j < down; j++) {
        let at = 4 * ((box.top + y * down + j) * picture.width + box.left + x * right);
        for (let i = 0; i < right; i++, at += 4) {
          for (let c = 0; c < 3; c++) sums[c] += picture.data[at + c];
        }
      }
      for (let c = 0; c < 3; c++) {
        const value = four ? (sums[c] + 2) >> 2 : rounded(fround(sums[c] * share));
        out[3 * (y * width + x) + c] = value;
      }
    }
  }
  return out;
}

// Which source pixels make a target pixel along one side, and how much of each: [target, source, share].
function areaTaps(target, source) {
  const scale = 1 / (target / source);
  const found = [];
  for (let i = 0; i < target; i++) {
    const start = i * scale;
    const end = start + scale;
    const size = min(scale, source - start);
    const last = min(floor(end), source - 1);
    const first = min(ceil(start), last);
    if (first - start > 1e-3) found.push([i, first - 1, fround((first - start) / size)]);
    for (let k = first; k < last; k++) found.push([i, k, fround(1 / size)]);
    if (end - last > 1e-3) {
      found.push([i, last, fround(min(min(end - last, 1), size) / size)]);
    }
  }
  return found;
}

// The mean over every target pixel's area, in float32 and in OpenCV's order.
function anyArea(picture, box, height, width) {
  const columns = areaTaps(width, box.width);
  const out = new Uint8Array(3 * height * width);
  const sums = new Float32Array(3 * width);
  const row = new Float32Array(3 * width);
  let current = 0;
  const emit = () => {
    for (let i = 0; i < sums.length; i++) {
      out[3 * current * width + i] = max(0, min(255, rounded(sums[i])));
    }
    sums.fill(0);
  };
  for (const [y, source, share] of areaTaps(height, box.height)) {
    if (y !== current) {
      emit();
      current = y;
    }
    row.fill(0);
    const start = 4 * ((box.top + source) * picture.width + box.left);
    for (const [x, place, part] of columns) {
      const at = start + 4 * place;
      for (let c = 0; c < 3; c++) row[3 * x + c] += fround(picture.data[at + c] * part);
    }
    for (let i = 0; i < sums.length; i++) sums[i] += fround(share * row[i]);
  }
  emit();
  return out;
}

function nearest(picture, box, height, width) {
  const places = (target, source) => {
    const scale = 1 / (target / source);
    return Array.from({ length: target }, (_, i) => min(floor(i * scale), source - 1));
  };
  const columns = places(width, box.width);
  const out = new Uint8Array(3 * height * width);
  places(height, box.height).forEach((row, y) => {
    columns.forEach((column, x) => {
      const at = 4 * ((box.top + row) * picture.width + box.left + column);
      for (let c = 0; c < 3; c++) out[3 * (y * width + x) + c] = picture.data[at + c];
    });
  });
  return out;
}

// A part of a picture as height × width × RGB bytes, as cv2.resize gives it.
export function resized(picture, box, height, width, interpolation) {
  if (box.height === height && box.width === width) return nearest(picture, box, height, width);
  const enlarges = height > box.height || width > box.width;
  const whole = box.height % height === 0 && box.width % width === 0;
  if (interpolation === "nearest") return nearest(picture, box, height, width);
  if (interpolation === "cubic") {
    return weighted(picture, box, height, width, CUBIC);
  }
  const halves = box.height === 2 * height && box.width === 2 * width;
  if (halves || (interpolation === "area" && !enlarges)) {
    return (whole ? wholeArea : anyArea)(picture, box, height, width);
  }
  return weighted(picture, box, height, width, LINEAR);
}

// The model's input of one picture: float32 numbers in the order of its layout.
export function prepare(picture, spec, height, width) {
  const box = cropBox(picture, spec, height, width);
  const rgb = resized(picture, box, height, width, spec.interpolation);
  const size = height * width;
  const gray = spec.channels === "GRAY";
  const order = gray ? [0] : spec.channels === "BGR" ? [2, 1, 0] : [0, 1, 2];
  const of = (values, c) => fround(values[values.length === 1 ? 0 : c]);
  const values = new Float32Array(size * order.length);
  order.forEach((source, c) => {
    const [mean, std, divisor] = [of(spec.mean, c), of(spec.std, c), fround(spec.divisor)];
    const table = Float32Array.from({ length: 256 }, (_, byte) =>
      fround(fround(fround(byte / divisor) - mean) / std),
    );
    const [step, first] = spec.layout === "NHWC" ? [order.length, c] : [1, c * size];
    for (let i = 0; i < size; i++) {
      const byte = gray ? grayOf(rgb, 3 * i) : rgb[3 * i + source];
      values[first + step * i] = table[byte];
    }
  });
  return { values, box };
}

// OpenCV's RGB to grey.
function grayOf(rgb, at) {
  return (rgb[at] * 9798 + rgb[at + 1] * 19235 + rgb[at + 2] * 3735 + 16384) >> 15;
}
