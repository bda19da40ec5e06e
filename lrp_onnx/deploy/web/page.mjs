// The page: photos in, explanations out. The work itself is done in worker.mjs.

import { best, measured, named } from "./answer.mjs";
import { Painter, outline, place, scaleOf, scaled } from "./drawing.mjs";

const SIDES = [640, 1024]; // the photo's longer side on the page, in pixels
const OUTSIDE = "rgb(0 0 0 / 0.5)"; // over what the model does not see
const DISTRUST =
  "Of a drawn picture this browser computes something else than Python does, or it keeps pages from " +
  "reading pixels (a protection against tracking): answers and maps may be wrong. Allow canvas data " +
  "for this site, or try another browser.";
const MOST_NAMES = 5000; // more are not offered while one writes

const at = (id) => document.getElementById(id);
const worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
const waiting = new Map();
let facts, painter, photo, shown, camera;
let distrust = ""; // why this browser's answers cannot be relied on

worker.addEventListener("message", ({ data: { id, result, error, loaded } }) => {
  if (loaded !== undefined) return sayLoaded(loaded);
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  return error === undefined ? resolve(result) : reject(new Error(error));
});
worker.addEventListener("error", (event) => fail(`the page's worker failed: ${event.message}`));

let count = 0;
function ask(task, message = {}) {
  return new Promise((resolve, reject) => {
    count += 1;
    waiting.set(count, { resolve, reject });
    worker.postMessage({ id: count, task, ...message });
  });
}

function say(text) {
  at("status").textContent = text;
}

function fail(text) {
  at("fault").textContent = text;
  at("fault").hidden = !text;
}

function describe(list, entries) {
  list.replaceChildren(
    ...entries.flatMap(([name, text]) => {
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      [term.textContent, value.textContent] = [name, text];
      return [term, value];
    }),
  );
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

// How much of the model is there: at every tenth, as screen readers read each text.
function sayLoaded(loaded) {
  const tenths = Math.floor((10 * loaded) / facts.bytes);
  const runtime = facts.runtime.base.startsWith("http") ? "jsDelivr" : "this site";
  const rest = `its runtime, onnxruntime-web from ${runtime}`;
  const text =
    tenths < 10
      ? `Loading the model: ${10 * tenths} % of ${megabytes(facts.bytes)}; then ${rest} …`
      : `The model is there; loading ${rest}, and trying both …`;
  if (at("status").textContent !== text) say(text);
}

// The session of the chosen kind.
async function load(processor) {
  sayLoaded(0);
  const found = await ask("load", { facts, processor });
  const threads = `WebAssembly, ${found.threads} ${found.threads === 1 ? "thread" : "threads"}`;
  const where = found.provider === "webgpu" ? "WebGPU" : threads;
  describe(at("facts"), [
    ["Model", `${facts.model}, ${facts.classes} classes, ${megabytes(facts.bytes)}`],
    ["Method", `${facts.composite}, post-processing ${facts.post}`],
    ["Input", `${facts.input.width} × ${facts.input.height} pixels: ${facts.prepared}`],
    ["Computed by", `onnxruntime-web ${facts.runtime.version} on ${where}`],
    [
      "Compared with Python",
      `scores and map of a drawn picture differ by ${found.difference.toExponential(0)} of their largest`,
    ],
    ...(found.refused ? [["Not used", found.refused]] : []),
  ]);
  distrust = found.same ? "" : DISTRUST;
  say(`Ready, on ${where}.`);
}

// The photo on the canvas in the size of the page, and the box of what the model sees in it.
function onPage(bitmap, box) {
  const side = Math.max(bitmap.width, bitmap.height);
  const scale = Math.min(Math.max(side, SIDES[0]), SIDES[1]) / side;
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const left = Math.round(box.left * scale);
  const top = Math.round(box.top * scale);
  const right = Math.min(width, Math.max(left + 1, Math.round((box.left + box.width) * scale)));
  const bottom = Math.min(height, Math.max(top + 1, Math.round((box.top + box.height) * scale)));
  return { width, height, left, top, columns: right - left, rows: bottom - top };
}

function context(canvas) {
  return canvas.getContext("2d", { willReadFrequently: true });
}

function draw() {
  const { bitmap, size, shares, scale, path } = shown;
  const canvas = at("canvas");
  [canvas.width, canvas.height] = [size.width, size.height];
  const brush = context(canvas);
  brush.imageSmoothingQuality = "high";
  brush.fillStyle = "white";
  brush.fillRect(0, 0, size.width, size.height);
  brush.drawImage(bitmap, 0, 0, size.width, size.height);
  const image = brush.getImageData(size.left, size.top, size.columns, size.rows);
  const opacity = at("opacity").value / 100;
  painter.paint(image, shares, scale.scheme, { opacity, dim: at("dim").checked });
  brush.fillStyle = OUTSIDE;
  brush.fillRect(0, 0, size.width, size.height);
  brush.putImageData(image, size.left, size.top);
  if (path && at("outline").checked) {
    const shrunk = Math.max(1, size.width / (canvas.clientWidth || size.width));
    const line = shrunk * Math.max(1, Math.round(Math.min(size.rows, size.columns) / 200));
    brush.save();
    brush.translate(size.left, size.top);
    brush.lineCap = "round";
    for (const [color, wide] of [["#111", 3 * line], ["#fff", line]]) {
      [brush.strokeStyle, brush.lineWidth] = [color, wide];
      brush.stroke(path);
    }
    brush.restore();
  }
  at("opacity-is").textContent = `${at("opacity").value} %`;
}

// The class's button, or its line where the file explains the predicted class alone.
function classButton(entry, explained) {
  const item = document.createElement("li");
  const inner = document.createElement(facts.target ? "button" : "div");
  inner.className = "class";
  if (facts.target) {
    inner.type = "button";
    inner.setAttribute("aria-pressed", String(entry.index === explained));
    inner.addEventListener("click", () => explainClass(entry.index, true));
  }
  const [share, name, value] = ["share", "name", "value"].map((kind) => {
    const part = document.createElement("span");
    part.className = kind;
    return part;
  });
  share.style.width = `${100 * Math.min(1, Math.max(0, entry.value))}%`;
  name.textContent = named(entry);
  value.textContent = measured(entry.value, facts.scores.kind);
  inner.append(share, name, value);
  item.append(inner);
  return item;
}

function show(found, target, bitmap) {
  const { probabilities, heatmap, region, box, seconds } = found;
  const ranked = best(probabilities, facts.labels, probabilities.length);
  const explained = target < 0 ? ranked[0] : ranked.find(({ index }) => index === target);
  const size = onPage(bitmap, box);
  const scale = scaleOf(heatmap.values, facts.look);
  shown = {
    bitmap,
    size,
    scale,
    shares: scaled(heatmap, scale, size.rows, size.columns),
    path: region && outline(region, size.rows, size.columns),
  };
  const name = named(explained);
  const first = named(ranked[0]);
  at("verdict").replaceChildren();
  const answer = document.createElement("b");
  answer.textContent = first;
  at("verdict").append(answer, `, ${measured(ranked[0].value, facts.scores.kind)}`);
  if (explained !== ranked[0]) at("verdict").append(` – shown: what speaks for ${name}`);
  at("for").textContent = name;
  at("against").hidden = scale.scheme !== "diverging";
  painter.bar(at("bar"), scale.scheme);
  const start = scale.scheme === "diverging" ? "relevance against the class" : "none";
  at("bar").setAttribute("aria-label", `The colours, from ${start} to most relevance for it`);
  const where = place(heatmap);
  at("where").textContent = `Where the relevance for ${name} lies: ${where}.`;
  at("canvas").setAttribute("aria-label", `${photo.name} with the relevance for ${name}`);
  at("classes").replaceChildren(
    ...ranked.slice(0, 5).map((entry) => classButton(entry, explained.index)),
  );
  const milliseconds = (value) => `${Math.round(1000 * value)} ms`;
  const reading = seconds.prepare ? `Reading and preparing ${milliseconds(seconds.prepare)}, ` : "";
  const running = `${reading ? "prediction" : "Prediction"} and map ${milliseconds(seconds.run)}.`;
  at("time").textContent = reading + running;
  at("empty").hidden = true;
  at("explained").hidden = false;
  draw();
  if (!at("live").checked) say(`${photo.name}: ${first}, ${measured(ranked[0].value, facts.scores.kind)}.`);
}

// Whether the work was done; what failed is said.
async function busy(work) {
  document.body.classList.add("busy");
  try {
    await work();
    fail(distrust);
    return true;
  } catch (error) {
    fail(`${error.message}.`.replace(/\.\.$/, "."));
    say("");
    return false;
  } finally {
    document.body.classList.remove("busy");
  }
}

// A photo: `get` gives a file, or a picture of the camera.
function explainPhoto(get, name) {
  return busy(async () => {
    const source = await get();
    const bitmap = await bitmapOf(source, name);
    const found = await ask("explain", { source, target: -1 });
    photo?.bitmap.close();
    photo = { bitmap, name };
    show(found, -1, bitmap);
    if (!at("live").checked) at("result").scrollIntoView({ block: "nearest" });
  });
}

async function bitmapOf(source, name) {
  if (source instanceof ImageBitmap) return createImageBitmap(source);
  try {
    return await createImageBitmap(source, { imageOrientation: "from-image" });
  } catch {
    throw new Error(`${name} is no picture that this browser can read: convert it to JPEG or PNG`);
  }
}

function explainClass(target, keepFocus) {
  return busy(async () => {
    show(await ask("explain", { source: null, target }), target, photo.bitmap);
    if (keepFocus) at("classes").querySelector('[aria-pressed="true"]')?.focus();
  });
}

// The class that was written: a name, or an index.
function written(text) {
  const index = facts.labels.findIndex((name) => name.toLowerCase() === text.toLowerCase());
  if (index >= 0) return index;
  const number = /^\d+$/.test(text) ? Number(text) : NaN;
  return number < facts.classes ? number : -1;
}

function chooseOther(event) {
  event.preventDefault();
  const text = at("class").value.trim();
  const target = written(text);
  if (target >= 0) explainClass(target, false);
  else fail(`There is no class “${text}”: write a name, or an index from 0 to ${facts.classes - 1}.`);
}

function takeFile(file) {
  if (file) explainPhoto(() => file, file.name || "the pasted picture");
}

function offerSamples() {
  at("samples").hidden = facts.samples.length === 0;
  const list = at("samples").querySelector("ul");
  for (const { name, file } of facts.samples) {
    const [item, button, image] = ["li", "button", "img"].map((tag) => document.createElement(tag));
    button.type = "button";
    [image.src, image.alt, image.loading] = [file, name, "lazy"];
    button.append(image);
    const get = async () => (await fetch(file)).blob();
    button.addEventListener("click", () => explainPhoto(get, name));
    item.append(button);
    list.append(item);
  }
}

function film() {
  return busy(async () => {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("this browser gives pages no camera, or the page is not served over https");
    }
    const wanted = { video: { facingMode: "environment", width: { ideal: 1280 } } };
    camera = await navigator.mediaDevices.getUserMedia(wanted).catch((error) => {
      throw new Error(`the camera cannot be used: ${error.message}`);
    });
    at("video").srcObject = camera;
    await at("video").play();
    at("filming").hidden = false;
    at("camera").setAttribute("aria-expanded", "true");
    at("take").focus();
  });
}

function stopFilming() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = undefined;
  at("video").srcObject = null;
  at("live").checked = false;
  at("filming").hidden = true;
  at("camera").setAttribute("aria-expanded", "false");
}

function take() {
  return explainPhoto(() => createImageBitmap(at("video")), "the camera's picture");
}

async function keepExplaining() {
  while (camera && at("live").checked && (await take()));
}

// Photos that are dropped or pasted anywhere on the page.
function takeTransfers() {
  const over = (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", event.type === "dragover");
  };
  for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, over);
  document.addEventListener("drop", ({ dataTransfer }) => takeFile(dataTransfer.files[0]));
  document.addEventListener("paste", ({ clipboardData }) => takeFile(clipboardData.files[0]));
}

function listen() {
  at("choose").addEventListener("click", () => at("file").click());
  at("file").addEventListener("change", ({ target }) => {
    takeFile(target.files[0]);
    target.value = "";
  });
  at("camera").addEventListener("click", () => (camera ? stopFilming() : film()));
  at("take").addEventListener("click", take);
  at("live").addEventListener("change", keepExplaining);
  at("stop").addEventListener("click", stopFilming);
  at("other").addEventListener("submit", chooseOther);
  at("processor").addEventListener("change", ({ target }) => busy(() => load(target.value)));
  for (const id of ["opacity", "dim", "outline"]) at(id).addEventListener("input", draw);
  takeTransfers();
}

async function start() {
  const response = await fetch("model.json");
  if (!response.ok) throw new Error(`model.json is not there (${response.status})`);
  facts = await response.json();
  painter = new Painter(facts.look);
  document.title = `Why ${facts.model} decides so`;
  at("model").textContent = facts.model;
  at("opacity").value = Math.round(100 * facts.look.opacity);
  at("other").hidden = !facts.target || facts.classes <= 5;
  at("ask").hidden = !facts.target;
  at("outlined").hidden = at("c3").hidden = !facts.region;
  at("names").append(...facts.labels.slice(0, MOST_NAMES).map((name) => new Option(name)));
  offerSamples();
  await load("auto");
  fail(distrust);
  document.querySelector("main").hidden = false;
  listen();
}

start().catch((error) => {
  fail(`The page cannot be used: ${error.message}.`);
  say("");
});
