"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const root = document.documentElement;
  const tools = at("tools");
  const list = at("list");
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const parse = (element) => JSON.parse(element.textContent);
  const chosen = (name) => tools.elements[name].value;

  // A map's byte is 127 for zero, up to 254 for the class and down to 0 against it.
  const ZERO = 127;
  const colors = bytes(parse(at("settings")).colors);

  const photos = [...list.children].map((item, order) => ({
    item, order, maps: null, drawn: false,
    name: item.dataset.name, text: item.dataset.text, says: item.dataset.says, is: item.dataset.is,
    class: item.dataset.class, value: Number(item.dataset.value), right: item.dataset.right,
  }));
  const photoOf = new Map(photos.map((photo) => [photo.item, photo]));
  const visible = new Set();

  // RGBA of every byte under the present settings.
  function palette() {
    const opacity = at("opacity").value / 100;
    const least = Math.max(1, (at("threshold").value / 100) * ZERO);
    const sign = chosen("sign");
    const table = colors.slice();
    for (let value = -ZERO; value <= ZERO; value++) {
      const alpha = 4 * (value + ZERO) + 3;
      const shown = Math.abs(value) >= least && (sign === "both" || (sign === "for") === value > 0);
      table[alpha] = shown ? Math.round(table[alpha] * opacity) : 0;
    }
    return new Uint32Array(table.buffer);
  }
  let current = palette();

  // The maps of a photo: decoded, each with the photo and an empty canvas, once.
  function open(photo) {
    if (photo.maps) return photo.maps;
    const data = parse(photo.item.querySelector("script"));
    const figures = [...photo.item.querySelectorAll("figure")];
    const first = figures[0].querySelector("img");
    const [width, height] = data.size;
    const [left, top, across, down] = data.box;
    const percent = (part, whole) => `${(100 * part) / whole}%`;
    photo.maps = figures.map((figure, index) => {
      const stage = figure.querySelector(".stage");
      if (index > 0) {
        const copy = first.cloneNode();
        copy.alt = stage.dataset.alt;
        stage.prepend(copy);
      }
      const canvas = document.createElement("canvas");
      canvas.setAttribute("aria-hidden", "true");
      [canvas.width, canvas.height] = data.maps[index].size;
      Object.assign(canvas.style, {
        left: percent(left, width), top: percent(top, height),
        width: percent(across, width), height: percent(down, height),
      });
      stage.querySelector("svg").before(canvas);
      const outline = stage.querySelector(".outline path");
      const path = outline && new Path2D();
      if (path) {
        const toCanvas = new DOMMatrix().scale(canvas.width / 1000, canvas.height / 1000);
        path.addPath(new Path2D(outline.getAttribute("d")), toCanvas);
      }
      return { stage, canvas, path, values: bytes(data.maps[index].values) };
    });
    return photo.maps;
  }

  function draw(photo) {
    if (photo.drawn) return;
    photo.drawn = true;
    for (const { stage, canvas, path, values } of open(photo)) {
      const context = canvas.getContext("2d", { willReadFrequently: true });
      const image = context.createImageData(canvas.width, canvas.height);
      const pixels = new Uint32Array(image.data.buffer);
      for (let index = 0; index < pixels.length; index++) pixels[index] = current[values[index]];
      context.putImageData(image, 0, 0);
      if (path && at("region").value === "inside") {
        context.globalCompositeOperation = "destination-in";
        context.fill(path, "evenodd");
        context.globalCompositeOperation = "source-over";
      }
      stage.classList.add("drawn");
    }
  }

  const drawAll = () => photos.forEach((photo) => photo.item.hidden || draw(photo));

  let waiting = false;
  function redraw() {
    current = palette();
    for (const photo of photos) photo.drawn = false;
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      visible.forEach(draw);
    });
  }

  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const photo = photoOf.get(target);
        if (isIntersecting) draw(photo);
        visible[isIntersecting ? "add" : "delete"](photo);
      }
    },
    { rootMargin: "400px" },
  );

  const compare = new Intl.Collator(undefined, { numeric: true }).compare;
  const orders = {
    given: () => 0,
    name: (a, b) => compare(a.name, b.name),
    class: (a, b) => compare(a.class, b.class),
    sure: (a, b) => b.value - a.value,
    unsure: (a, b) => a.value - b.value,
    wrong: (a, b) => (b.right === "0") - (a.right === "0"),
  };

  function filter() {
    const words = at("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [kind, index] = at("class").value.split(" ");
    const answer = chosen("answer");
    let count = 0;
    for (const photo of photos) {
      const fits =
        words.every((word) => photo.text.includes(word)) &&
        (!kind || photo[kind] === index) &&
        (!answer || photo.right === answer);
      photo.item.hidden = !fits;
      count += fits;
    }
    const all = `${photos.length} ${photos.length === 1 ? "photo" : "photos"}`;
    at("count").textContent = count === photos.length ? `${all} shown` : `${count} of ${all} shown`;
    describe();
  }

  function sort() {
    const order = orders[at("sort").value];
    const sorted = [...photos].sort((a, b) => order(a, b) || a.order - b.order);
    list.append(...sorted.map((photo) => photo.item));
  }

  // What a printed page says about filters and settings.
  function describe() {
    const opacity = `${at("opacity").value}%`;
    const threshold = `${at("threshold").value}%`;
    at("opacity-is").textContent = opacity;
    at("threshold-is").textContent = threshold;
    const relevance = { both: "for and against", for: "for", against: "against" }[chosen("sign")];
    const hidden = at("threshold").value === "0" ? "" : `, below ${threshold} of full colour hidden`;
    at("view").textContent =
      `${at("count").textContent}. Relevance shown: ${relevance}; opacity ${opacity}${hidden}.`;
  }

  function view() {
    root.classList.toggle("dim", at("dim").checked);
    root.classList.toggle("side", at("side").checked);
    root.classList.toggle("plain", at("region").value === "off");
    root.style.setProperty("--size", `${at("size").value}px`);
    for (const { item } of photos) choose(item);
    describe();
  }

  // Of several maps of a photo, the one whose button is chosen, or all.
  function choose(item) {
    const button = item.querySelector(".choice input:checked");
    if (!button) return;
    const all = at("side").checked;
    item.querySelectorAll("figure").forEach((figure, index) => {
      figure.hidden = !all && index !== Number(button.value);
    });
  }

  function everything() {
    sort();
    filter();
    view();
    redraw();
  }

  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("reset", () => setTimeout(everything));
  tools.addEventListener("input", ({ target }) => {
    if (["find", "class"].includes(target.id) || target.name === "answer") filter();
    else if (target.id === "sort") sort();
    else {
      view();
      if (!["size", "dim", "side"].includes(target.id)) redraw();
    }
  });
  list.addEventListener("change", ({ target }) => choose(target.closest("li")));
  at("print").addEventListener("click", () => window.print());
  window.addEventListener("beforeprint", drawAll);
  matchMedia("print").addEventListener("change", ({ matches }) => matches && drawAll());

  root.classList.add("js");
  if (matchMedia("(max-width: 45rem)").matches) tools.querySelector("details").open = false;
  for (const { item } of photos) {
    const image = item.querySelector("img");
    const ratio = image.getAttribute("width") / image.getAttribute("height");
    item.style.setProperty("--ratio", ratio);
    watcher.observe(item);
  }
  filter();
  view();
})();
