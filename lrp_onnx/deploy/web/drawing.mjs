// The map over the photo, as lrp_onnx/report/render.py and colors.py draw it.

const { abs, floor, max, min, round } = Math;

// NumPy's percentile, linear between neighbours.
function percentile(values, share) {
  const sorted = Float64Array.from(values).sort();
  const place = (share / 100) * (sorted.length - 1);
  const below = floor(place);
  const next = sorted[min(below + 1, sorted.length - 1)];
  return sorted[below] + (place - below) * (next - sorted[below]);
}

// Which relevance has the full colour, and whether the colours have two sides.
export function scaleOf(values, look) {
  const largest = values.reduce((most, value) => max(most, abs(value)), 0);
  const lowest = values.reduce((least, value) => min(least, value), Infinity);
  const signed = lowest < -look.signed_from * largest;
  const scheme = look.colors === "auto" ? (signed ? "diverging" : "sequential") : look.colors;
  const sizes = values.map((value) => (scheme === "diverging" ? abs(value) : max(value, 0)));
  return { scheme, full: percentile(sizes, look.percentile) || sizes.reduce((a, b) => max(a, b), 0) };
}

// Linear interpolation along one side, half-pixel centres, the last value beyond the border.
function places(target, source) {
  return Array.from({ length: target }, (_, i) => {
    const place = min(source - 1, max(0, (i + 0.5) * (source / target) - 0.5));
    const below = min(floor(place), source - 1);
    return [below, min(below + 1, source - 1), place - below];
  });
}

// A map in another size.
export function enlarged({ height, width, values }, rows, columns) {
  const across = places(columns, width);
  const out = new Float32Array(rows * columns);
  places(rows, height).forEach(([top, bottom, down], y) => {
    across.forEach(([left, right, over], x) => {
      const upper = values[top * width + left] * (1 - over) + values[top * width + right] * over;
      const lower =
        values[bottom * width + left] * (1 - over) + values[bottom * width + right] * over;
      out[y * columns + x] = upper * (1 - down) + lower * down;
    });
  });
  return out;
}

// Shares of the full colour: -1 to 1, or 0 to 1.
export function scaled(heatmap, scale, rows, columns) {
  const lowest = scale.scheme === "diverging" ? -1 : 0;
  const shares = heatmap.values.map((value) =>
    scale.full ? min(1, max(lowest, value / scale.full)) : 0,
  );
  return enlarged({ ...heatmap, values: shares }, rows, columns);
}

const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const linear = (byte) => {
  const share = byte / 255;
  return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
};
const LINEAR = Float64Array.from({ length: 256 }, (_, byte) => linear(byte));

// The grey byte of a photo's pixel in dark greys: its lightness L* between those of `ground`.
function darkTable([low, high]) {
  return Uint8Array.from({ length: 4097 }, (_, step) => {
    const light = step / 4096;
    const lightness = light > 0.008856 ? 116 * Math.cbrt(light) - 16 : 903.3 * light;
    const dark = low + ((high - low) * lightness) / 100;
    const y = dark > 8 ? ((dark + 16) / 116) ** 3 : dark / 903.3;
    return round(255 * (y <= 0.0031308 ? 12.92 * y : 1.055 * y ** (1 / 2.4) - 0.055));
  });
}

// How maps are painted, from the numbers of model.json.
export class Painter {
  constructor(look) {
    this.look = look;
    this.tables = Object.fromEntries(
      Object.entries(look.tables).map(([name, text]) => [name, bytes(text)]),
    );
    this.dark = darkTable(look.ground);
  }

  // The map's colours over the photo's pixels, in place. `shares` has a value a pixel.
  paint(image, shares, scheme, { opacity, dim }) {
    const { gamma, vivid } = this.look;
    const table = this.tables[scheme];
    const steps = table.length / 3 - 1;
    const { data } = image;
    shares.forEach((share, pixel) => {
      const at = 4 * pixel;
      if (dim) {
        const light =
          0.212671 * LINEAR[data[at]] + 0.71516 * LINEAR[data[at + 1]] + 0.072169 * LINEAR[data[at + 2]];
        data.fill(this.dark[round(4096 * light)], at, at + 3);
      }
      const size = abs(share);
      const alpha = opacity * size ** gamma;
      const strong = Math.sign(share) * (vivid[0] + (vivid[1] - vivid[0]) * size);
      const position = scheme === "diverging" ? (strong + 1) / 2 : strong;
      const color = 3 * round(position * steps);
      for (let c = 0; c < 3; c++) {
        data[at + c] = (1 - alpha) * data[at + c] + alpha * table[color + c];
      }
    });
  }

  // The colours from one end to the other, as a bar on a canvas.
  bar(canvas, scheme) {
    const image = new ImageData(canvas.width, canvas.height);
    const ends = scheme === "diverging" ? [-1, 2] : [0, 1];
    const shares = new Float32Array(canvas.width * canvas.height).map(
      (_, pixel) => ends[0] + (ends[1] * (pixel % canvas.width)) / (canvas.width - 1),
    );
    const dark = this.dark[2048];
    for (let pixel = 0; pixel < shares.length; pixel++) {
      image.data.set([dark, dark, dark, 255], 4 * pixel);
    }
    this.paint(image, shares, scheme, { opacity: this.look.opacity, dim: false });
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
}

// The outline of a region as a path of line segments: where its enlarged form crosses one half
// (marching squares; around the picture there is nothing).
export function outline(region, rows, columns) {
  const field = enlarged(region, rows, columns);
  const at = (y, x) =>
    y < 0 || x < 0 || y >= rows || x >= columns ? 0 : field[y * columns + x];
  const path = new Path2D();
  for (let y = -1; y < rows; y++) {
    for (let x = -1; x < columns; x++) {
      const corners = [at(y, x), at(y, x + 1), at(y + 1, x + 1), at(y + 1, x)];
      const crossings = [];
      const sides = [[0, 0, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 0, 0]];
      sides.forEach(([x0, y0, x1, y1], side) => {
        const [first, second] = [corners[side], corners[(side + 1) % 4]];
        if (first > 0.5 === second > 0.5) return;
        const share = (0.5 - first) / (second - first);
        crossings.push([x + 0.5 + x0 + share * (x1 - x0), y + 0.5 + y0 + share * (y1 - y0)]);
      });
      for (let pair = 0; pair + 1 < crossings.length; pair += 2) {
        path.moveTo(...crossings[pair]);
        path.lineTo(...crossings[pair + 1]);
      }
    }
  }
  return path;
}

const ROWS = ["top", "middle", "bottom"];
const COLUMNS = ["left", "centre", "right"];

// Where the relevance for the class lies, in words.
export function place({ height, width, values }) {
  const sums = new Float64Array(9);
  values.forEach((value, index) => {
    const [y, x] = [floor(index / width), index % width];
    sums[3 * floor((3 * y) / height) + floor((3 * x) / width)] += max(value, 0);
  });
  const most = sums.indexOf(max(...sums));
  const all = sums.reduce((a, b) => a + b, 0);
  if (!all) return "nowhere, as nothing speaks for it";
  const share = round((100 * sums[most]) / all);
  const [row, column] = [ROWS[floor(most / 3)], COLUMNS[most % 3]];
  const where = row === "middle" && column === "centre" ? "in the middle" : `${row} ${column}`;
  return `${where} first, with ${share} % of it in this ninth of what the model sees`;
}
