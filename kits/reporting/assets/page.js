"use strict";
// Names of cases and texts of reports are put in as text, never as markup.
const header = JSON.parse(document.getElementById("header").textContent);
const AXES = ["axial", "coronal", "sagittal"];
const LETTERS = ["RLAP", "RLSI", "APSI"]; // at the left, right, top and bottom
const LABELS = { kidney: 1, tumor: 2, cyst: 3 };
const SHIFTS = { prediction: 0, truth: 4 }; // of the bits of a label
const SIDES = { front: [0, -1, 0], back: [0, 1, 0], left: [1, 0, 0], right: [-1, 0, 0], top: [0, -0.02, 1] };
const state = { number: null, view: null, shown: new Set(["prediction", "truth", "kidney", "tumor", "cyst"]), solid: new Set(["prediction"]), sort: null };
const find = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// ---- table of cases ----

const scored = header.cases.some((row) => row.scores.composite !== undefined);
const score = (name) => (row) => (row.missing ? 0 : row.scores[name]);
const volume = (name) => (row) => row.volumes.prediction?.[name];
const measured = header.cases.some((row) => row.tumors);
const COLUMNS = [
  { title: "Case", value: (row) => row.name, show: (value) => value, first: 1 },
  ...(scored
    ? ["composite", "kidney", "tumor"].map((name) => ({
      title: name[0].toUpperCase() + name.slice(1), value: score(name), show: (value) => value.toFixed(3), first: 1,
      help: name === "composite" ? "mean Dice of kidney and tumor; 0 without a prediction" : `Dice of the ${name}, its parts included`,
    }))
    : ["kidney", "tumor"].map((name) => ({
      title: `${name[0].toUpperCase()}${name.slice(1)} mL`, value: volume(name), show: (value) => value.toFixed(1), first: -1,
      help: `predicted volume of the ${name}${name === "kidney" ? ", tumors and cysts included" : ""}`,
    }))),
  ...(measured
    ? [{
      title: "Tumor mm", value: (row) => (row.tumors?.length ? Math.max(...row.tumors.map((tumor) => tumor.axial_mm)) : undefined),
      show: (value) => value.toFixed(0), first: -1, help: "largest axial diameter of a tumor, from the run's read-out (kits.predict measure=true)",
    }]
    : []),
  {
    title: "Doubt", value: (row) => (row.missing ? Infinity : row.doubts.length), show: (value) => (value === Infinity ? "missing" : String(value)),
    first: -1, alarm: (value) => value > 0,
    help: "how many warnings: those of the run's report, and what the predicted labels show (number, place and volume of kidneys)",
  },
];

function fillTable() {
  COLUMNS.forEach((column, place) => {
    const button = element("button", { textContent: column.title, title: column.help ?? "name of the case" });
    button.onclick = () => sortBy(place, state.sort?.place === place ? -state.sort.direction : column.first);
    find("heads").append(element("th", { scope: "col" }, button));
  });
  const mean = (name) => header.cases.reduce((sum, row) => sum + (score(name)(row) ?? 0), 0) / header.cases.length;
  const doubtful = header.cases.filter((row) => row.doubts.length).length;
  const complete = header.cases.every((row) => row.missing || row.scores.composite !== undefined);
  find("summary").textContent = `${header.cases.length} case${header.cases.length === 1 ? "" : "s"}`
    + (scored && complete ? `, mean Dice: kidney ${mean("kidney").toFixed(3)}, tumor ${mean("tumor").toFixed(3)}` : "")
    + `; ${doubtful} with warnings`;
}

function sortBy(place, direction) {
  state.sort = { place, direction };
  [...find("heads").children].forEach((head, i) => {
    if (i === place) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  });
  const value = COLUMNS[place].value;
  const compare = (a, b) => {
    const [x, y] = [value(header.cases[a]), value(header.cases[b])];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // what is unknown comes last
    return (x === y ? 0 : direction * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y)) || a - b;
  };
  const order = header.cases.map((_, number) => number).sort(compare);
  find("rows").replaceChildren(...order.map(tableRow));
  return order;
}

function tableRow(number) {
  const row = header.cases[number];
  const line = element("tr", { tabIndex: 0 });
  line.dataset.number = number;
  line.setAttribute("aria-selected", number === state.number);
  for (const column of COLUMNS) {
    const value = column.value(row);
    const cell = element("td", { textContent: value === undefined ? "–" : column.show(value) });
    if (column.alarm?.(value)) cell.className = "alarm";
    if (column.title === "Doubt") cell.title = row.doubts.join("\n");
    if (column.title === "Case") cell.title = row.name;
    line.append(cell);
  }
  line.onclick = () => open(number);
  line.onkeydown = (event) => {
    const next = { ArrowDown: line.nextElementSibling, ArrowUp: line.previousElementSibling, Enter: line, " ": line }[event.key];
    if (!next) return;
    event.preventDefault();
    next.focus();
    open(Number(next.dataset.number));
  };
  return line;
}

// ---- one case ----

async function open(number) {
  state.number = number;
  const row = header.cases[number];
  for (const line of find("rows").children) line.setAttribute("aria-selected", Number(line.dataset.number) === number);
  find("title").textContent = row.name;
  const source = find(`view-${number}`);
  const view = source && JSON.parse(source.textContent);
  find("views").hidden = !view;
  find("message").hidden = Boolean(view);
  if (!view) {
    state.view = null;
    find("message").textContent = row.doubts.join("; ");
    find("details").replaceChildren(element("h3", { textContent: "Warnings" }), list(row.doubts));
    return;
  }
  const [mosaic, wide, bytes] = await Promise.all([picture(view.mosaic), picture(view.overview.picture), unpack(view.content)]);
  if (state.number !== number) return; // another case was opened meanwhile
  const [nz, ny, nx] = view.shape;
  let place = 0;
  const surfaces = view.meshes.map((mesh) => {
    const count = 3 * (mesh.vertices + mesh.triangles);
    const numbers = new Uint16Array(bytes.slice(place, place + 2 * count).buffer);
    place += 2 * count;
    return { ...mesh, ...decodeMesh(numbers, mesh) };
  });
  state.view = { ...view, mosaic, wide, surfaces, labels: bytes.subarray(place, place + nz * ny * nx), index: [...view.focus] };
  fillSwitches();
  fillSolid();
  fillDetails(row);
  for (const figure of planes()) {
    const slider = figure.querySelector("input");
    Object.assign(slider, { min: 0, max: view.shape[figure.dataset.axis] - 1, step: 1 });
  }
  drawAll();
  drawSurfaces();
}

const picture = async (url) => {
  const image = Object.assign(new Image(), { src: url });
  await image.decode();
  return image;
};

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function decodeMesh(numbers, { vertices, triangles }) {
  const mesh = {};
  ["x", "y", "z"].forEach((name, axis) => {
    const running = new Int16Array(1); // wraps as the packing did
    mesh[name] = new Float32Array(vertices);
    for (let i = 0; i < vertices; i++) {
      running[0] += numbers[axis * vertices + i];
      mesh[name][i] = running[0] * header.step_mm;
    }
  });
  const corners = [0, 1, 2].map(() => new Uint32Array(triangles));
  for (let i = 0, sum = 0; i < 3 * triangles; i++) {
    sum = (sum + numbers[3 * vertices + i]) & 0xffff;
    corners[i % 3][(i / 3) | 0] = sum;
  }
  [mesh.i, mesh.j, mesh.k] = corners;
  return mesh;
}

function fillSwitches() {
  const maps = state.view.truth ? ["prediction", "truth"] : ["prediction"];
  const names = Object.keys(LABELS).filter((name) => name !== "cyst" || state.view.labels.some((value) => (value & 15) === 3 || value >> 4 === 3));
  for (const [id, items] of [["maps", maps], ["names", names]]) {
    const boxes = items.map((item) => {
      const box = element("input", { type: "checkbox", checked: state.shown.has(item), name: item });
      box.onchange = () => {
        state.shown[box.checked ? "add" : "delete"](item);
        drawAll();
        if (id === "names") showSurfaces();
      };
      const keys = id === "names" ? maps.map((map) => key(header.colors[map][item], `${item}, ${map}`)) : [];
      return element("label", {}, box, ...keys, item);
    });
    find(id).replaceChildren(find(id).querySelector("legend"), ...boxes);
  }
}

function key(color, title = "") {
  const square = element("span", { className: "key", title });
  square.style.cssText = `background:${color};margin-right:0`;
  return square;
}

function list(texts) {
  return element("ul", { className: "alarm" }, ...texts.map((text) => element("li", { textContent: text })));
}

// Rows of a table with a column a tumor.
function measures(tumors) {
  const number = (value, digits) => value?.toFixed(digits) ?? "–";
  const rows = [
    ["", (tumor) => tumor.id],
    ["volume, mL", (tumor) => number(tumor.volume_ml, 1)],
    ["axial diameter, mm", (tumor) => number(tumor.axial_mm, 1)],
    ["exophytic share", (tumor) => number(tumor.exophytic_share, 2)],
    ["contact area, mm²", (tumor) => number(tumor.contact_mm2, 0)],
    ["to the sinus, mm", (tumor) => number(tumor.sinus_mm, 1)],
    ["C-index", (tumor) => number(tumor.c_index, 2)],
    ["R.E.N.A.L.", (tumor) => tumor.renal.total ?? "–"],
    ["PADUA", (tumor) => `${tumor.padua.at_least} to ${tumor.padua.at_most}`],
  ];
  const cell = (place) => (place ? "td" : "th");
  return rows.map(([name, show], place) => element("tr", {}, element(cell(place), { textContent: name }),
    ...tumors.map((tumor) => element(cell(place), { textContent: show(tumor) }))));
}

function fillDetails(row) {
  const { view } = state;
  const maps = Object.keys(row.volumes);
  const rows = Object.keys(row.volumes.prediction).map((name) => [
    name,
    ...maps.map((map) => row.volumes[map][name].toFixed(1)),
    ...(view.truth ? [signed(row.volumes.prediction[name] - row.volumes.truth[name]), row.scores[name]?.toFixed(3) ?? "–"] : []),
  ]);
  if (view.truth) rows.push(["composite", "", "", "", row.scores.composite.toFixed(3)]);
  const heads = ["", "prediction", ...(view.truth ? ["truth", "difference", "Dice"] : [])];
  const volumes = element("table", {}, element("tr", {}, ...heads.map((text) => element("th", { textContent: text }))));
  volumes.append(...rows.map((cells) => element("tr", {}, ...cells.map((text) => element("td", { textContent: text })))));
  const tumors = element("table", {}, ...measures(row.tumors ?? []));
  const { shape, spacing } = view.volume;
  const boxes = view.boxes.map(([start, stop]) => `${sizes(stop.map((n, a) => (n - start[a]) * spacing[a]), 0)} mm`);
  const seconds = Object.entries(view.seconds).map(([step, value]) => `${step} ${value.toFixed(2)}`);
  const total = Object.values(view.seconds).reduce((sum, value) => sum + value, 0);
  const canvas = element("canvas", { title: "coronal slab through the whole scan; orange: ROIs, blue: the part that the planes show" });
  const facts = [
    ["Scan", sizes(shape, 0)], ["Voxels", `${sizes(spacing, 2)} mm`], ["Shown", `${sizes(view.spacing, 2)} mm`],
    ["Window", `${header.window_hu.join(" to ")} HU`],
    ...(boxes.length ? boxes.map((box, i) => [`ROI ${i + 1}`, box]) : [["ROIs", "no report of a run"]]),
    ...(seconds.length ? [["Time", `${total.toFixed(1)} s`]] : []),
  ];
  find("details").replaceChildren(
    ...(row.doubts.length ? [element("h3", { textContent: "Warnings" }), list(row.doubts)] : []),
    element("h3", { textContent: "Volumes in mL" }),
    volumes,
    ...(row.tumors ? [element("h3", { textContent: row.tumors.length ? "Measurements" : "Measurements: no tumor" }), tumors] : []),
    element("h3", { textContent: "Scan and run" }),
    element("div", { className: "where" }, canvas, element("dl", {}, ...facts.flatMap(([term, text]) => [
      element("dt", { textContent: term }), element("dd", { textContent: text }),
    ]))),
    ...(seconds.length ? [element("p", { className: "faint", textContent: `Seconds: ${seconds.join(", ")}` })] : []),
    element("p", { className: "faint", textContent: "Doubt counts the warnings: those of the run, and what the labels show: other than two kidneys, a kidney at the scan's end, volumes that no kidney has, many tumors." }),
  );
  drawOverview(canvas);
}

const signed = (value) => (value > 0 ? "+" : "") + value.toFixed(1);
const sizes = (zyx, digits) => [...zyx].reverse().map((value) => value.toFixed(digits)).join(" × ");

function drawOverview(canvas) {
  const { view } = state;
  const [width, height] = view.overview.mm;
  const scale = Math.min(120 / width, 150 / height);
  const ratio = devicePixelRatio || 1;
  Object.assign(canvas, { width: width * scale * ratio, height: height * scale * ratio });
  canvas.style.cssText = `width:${width * scale}px;height:${height * scale}px`;
  const pen = canvas.getContext("2d");
  pen.scale(scale * ratio, scale * ratio);
  pen.drawImage(view.wide, 0, 0, width, height);
  const frame = (start, stop, [dz, , dx], color) => {
    Object.assign(pen, { strokeStyle: color, lineWidth: 1.2 / scale });
    pen.strokeRect(start[2] * dx, height - stop[0] * dz, (stop[2] - start[2]) * dx, (stop[0] - start[0]) * dz);
  };
  const end = view.start.map((first, axis) => first + view.shape[axis] * view.factors[axis]);
  frame(view.start, end, view.volume.spacing, "#36b4ff");
  for (const [start, stop] of view.boxes) frame(start, stop, view.volume.spacing, "#ffb454");
}

// ---- planes ----

const planes = () => document.querySelectorAll("figure[data-axis]");

// Columns and rows of a plane: their axes, counts and mm; whether rows run upward.
function geometry(axis) {
  const { shape, spacing } = state.view;
  const [rows, columns] = [0, 1, 2].filter((other) => other !== axis);
  return { rows, columns, w: shape[columns], h: shape[rows], dw: spacing[columns], dh: spacing[rows], upward: axis !== 0 };
}

function drawAll() {
  if (state.view) planes().forEach(drawPlane);
}

function drawPlane(figure) {
  const axis = Number(figure.dataset.axis);
  const { view } = state;
  const canvas = figure.querySelector("canvas");
  const at = view.index[axis];
  const { rows, columns, w, h, dw, dh, upward } = geometry(axis);
  figure.querySelector("input").value = at;
  const voxel = view.start[axis] + at * view.factors[axis] + (view.factors[axis] >> 1);
  figure.querySelector("figcaption").textContent = `${AXES[axis]} ${voxel + 1} of ${view.volume.shape[axis]}`;
  const ratio = devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  const scale = Math.min(width / (w * dw), height / (h * dh)); // pixels of the screen per mm
  const place = { x: (width - w * dw * scale) / 2, y: (height - h * dh * scale) / 2, sx: dw * scale, sy: dh * scale };
  figure.place = place;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(cut(axis, at, w, h), place.x, place.y, w * place.sx, h * place.sy);
  for (const map of view.truth ? ["prediction", "truth"] : ["prediction"]) {
    for (const name of Object.keys(LABELS)) {
      if (!state.shown.has(map) || !state.shown.has(name)) continue;
      Object.assign(pen, { strokeStyle: header.colors[map][name], lineWidth: 1.6 * ratio, lineCap: "round" });
      pen.stroke(outline(axis, at, LABELS[name], SHIFTS[map], place));
    }
  }
  if (find("cross").checked) {
    const [x, row] = [view.index[columns] + 0.5, view.index[rows] + 0.5];
    const y = upward ? h - row : row;
    Object.assign(pen, { strokeStyle: "rgba(255,255,255,.28)", lineWidth: ratio });
    pen.beginPath();
    pen.moveTo(place.x + x * place.sx, place.y);
    pen.lineTo(place.x + x * place.sx, place.y + h * place.sy);
    pen.moveTo(place.x, place.y + y * place.sy);
    pen.lineTo(place.x + w * place.sx, place.y + y * place.sy);
    pen.stroke();
  }
  marks(pen, axis, place, w * place.sx, h * place.sy, scale, ratio);
}

// Letters of the sides, and a bar of 5 cm.
function marks(pen, axis, place, width, height, scale, ratio) {
  const [left, right, top, bottom] = LETTERS[axis];
  const edge = 9 * ratio;
  Object.assign(pen, { font: `${11 * ratio}px sans-serif`, textAlign: "center", textBaseline: "middle", shadowColor: "#000", shadowBlur: 3 * ratio });
  pen.fillStyle = "#f0f0f0";
  pen.fillText(left, place.x + edge, place.y + height / 2);
  pen.fillText(right, place.x + width - edge, place.y + height / 2);
  pen.fillText(top, place.x + width / 2, place.y + edge);
  pen.fillText(bottom, place.x + width / 2, place.y + height - edge);
  const [end, line] = [place.x + width - edge, place.y + height - edge];
  pen.fillRect(end - 50 * scale, line, 50 * scale, 2 * ratio);
  pen.fillText("5 cm", end - 25 * scale, line - 8 * ratio);
  pen.shadowBlur = 0;
}

// A plane at the grid's own size, put together from strips of the mosaic of axial slices.
function cut(axis, at, w, h) {
  const { mosaic, columns, shape: [nz, ny, nx] } = state.view;
  const plane = element("canvas", { width: w, height: h });
  const pen = plane.getContext("2d");
  pen.imageSmoothingEnabled = false;
  const corner = (z) => [(z % columns) * nx, Math.floor(z / columns) * ny];
  if (axis === 0) {
    pen.drawImage(mosaic, ...corner(at), nx, ny, 0, 0, nx, ny);
    return plane;
  }
  if (axis === 2) pen.setTransform(0, 1, 1, 0, 0, 0); // columns of the slices become rows
  for (let z = 0; z < nz; z++) {
    const [x, y] = corner(z);
    if (axis === 1) pen.drawImage(mosaic, x, y + at, nx, 1, 0, nz - 1 - z, nx, 1);
    else pen.drawImage(mosaic, x + at, y, 1, ny, nz - 1 - z, 0, 1, ny);
  }
  return plane;
}

// For each pattern of a square's corners (1 upper left, 2 upper right, 4 lower right, 8 lower left) the sides
// (0 top, 1 right, 2 bottom, 3 left) that the outline joins, by marching squares.
const JOINS = [[], [3, 0], [0, 1], [3, 1], [1, 2], [3, 0, 1, 2], [0, 2], [3, 2], [2, 3], [0, 2], [0, 1, 2, 3], [1, 2], [1, 3], [0, 1], [0, 3], []];
const MIDDLES = [[0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]];

function outline(axis, at, label, shift, place) {
  const { labels, shape: [, ny, nx] } = state.view;
  const { w, h, upward } = geometry(axis);
  const strides = [ny * nx, nx, 1];
  const [step, across] = [0, 1, 2].filter((other) => other !== axis).map((other) => strides[other]);
  const first = at * strides[axis];
  const path = new Path2D();
  const inside = (row, column) =>
    row >= 0 && column >= 0 && row < h && column < w
      && ((labels[first + (upward ? h - 1 - row : row) * step + column * across] >> shift) & 15) === label;
  for (let row = -1; row < h; row++) {
    let [upper, lower] = [false, false];
    for (let column = -1; column < w; column++) {
      const [right, below] = [inside(row, column + 1), inside(row + 1, column + 1)];
      const sides = JOINS[upper + 2 * right + 4 * below + 8 * lower];
      for (let i = 0; i < sides.length; i += 2) {
        for (const [side, draw] of [[sides[i], "moveTo"], [sides[i + 1], "lineTo"]]) {
          path[draw](place.x + (column + 0.5 + MIDDLES[side][0]) * place.sx, place.y + (row + 0.5 + MIDDLES[side][1]) * place.sy);
        }
      }
      [upper, lower] = [right, below];
    }
  }
  return path;
}

function move(axis, to) {
  const { index, shape } = state.view;
  const next = Math.max(0, Math.min(shape[axis] - 1, Math.round(to)));
  if (next === index[axis]) return;
  index[axis] = next;
  drawAll();
}

function listen(figure) {
  const axis = Number(figure.dataset.axis);
  const canvas = figure.querySelector("canvas");
  figure.querySelector("input").oninput = (event) => move(axis, Number(event.target.value));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    move(axis, state.view.index[axis] + (event.deltaY < 0 ? 1 : -1));
  }, { passive: false });
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    point(event);
  };
  canvas.onpointermove = (event) => event.buttons && point(event);
  const point = (event) => {
    const { rows, columns, h, upward } = geometry(axis);
    const ratio = devicePixelRatio || 1;
    const x = (event.offsetX * ratio - figure.place.x) / figure.place.sx - 0.5;
    const y = (event.offsetY * ratio - figure.place.y) / figure.place.sy - 0.5;
    move(columns, x);
    move(rows, upward ? h - 1 - y : y);
  };
}

// ---- surfaces ----

// plotly is packed, a third of its size, and unpacked once the tables are there; the page's policy knows its text.
const loaded = new Promise((done) => addEventListener("load", done)).then(async () => {
  const code = new TextDecoder().decode(await unpack(find("plotly").textContent));
  document.head.append(element("script", { textContent: code }));
});

const camera = ([x, y, z]) => ({ eye: { x: 1.3 * x, y: 1.3 * y, z: 1.3 * z }, up: { x: 0, y: 0, z: 1 }, center: { x: 0, y: 0, z: 0 }, projection: { type: "orthographic" } });
// From above, the left and the viewer, in the coordinates of the screen, whose depth is very flat.
const LIGHT = { x: -1000, y: 2000, z: -5 };
const visible = ({ map, name }) => state.solid.has(map) && state.shown.has(name);

async function drawSurfaces() {
  await loaded;
  if (!state.view) return; // another case was opened meanwhile
  const { surfaces } = state.view;
  const traces = surfaces.map((mesh) => ({
    type: "mesh3d", x: mesh.x, y: mesh.y, z: mesh.z, i: mesh.i, j: mesh.j, k: mesh.k,
    name: `${mesh.name}, ${mesh.map}`, color: header.colors[mesh.map][mesh.name], visible: visible(mesh),
    opacity: mesh.name === "kidney" ? 0.45 : 1, hovertemplate: "%{fullData.name}<extra></extra>",
    lighting: { ambient: 0.45, diffuse: 0.75, specular: 0.25, roughness: 0.5, fresnel: 0.1 }, lightposition: LIGHT,
  }));
  const hidden = { visible: false, showspikes: false };
  const text = surfaces.length ? [] : [{ text: "nothing to show", showarrow: false, font: { size: 14, color: "#a8aeb4" } }];
  const layout = {
    margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "#101214", showlegend: false, annotations: text,
    xaxis: { visible: false }, yaxis: { visible: false }, uirevision: "keep",
    scene: { xaxis: hidden, yaxis: hidden, zaxis: hidden, aspectmode: "data", dragmode: "turntable", bgcolor: "#101214", camera: camera(SIDES.front) },
  };
  Plotly.react("surfaces", traces, layout, { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["pan3d", "orbitRotation", "tableRotation", "zoom3d", "resetCameraLastSave3d", "hoverClosest3d"] });
}

async function showSurfaces() {
  await loaded;
  const { surfaces } = state.view;
  if (surfaces.length) Plotly.restyle("surfaces", { visible: surfaces.map(visible) }, surfaces.map((_, i) => i));
}

function fillSolid() {
  const maps = state.view.truth ? ["prediction", "truth"] : ["prediction"];
  find("solids").hidden = maps.length === 1;
  if (maps.length === 1) state.solid = new Set(maps);
  find("solids").replaceChildren(...maps.map((map) => {
    const box = element("input", { type: "checkbox", checked: state.solid.has(map), name: `solid-${map}` });
    box.onchange = () => {
      state.solid[box.checked ? "add" : "delete"](map);
      showSurfaces();
    };
    return element("label", {}, box, map);
  }));
}

for (const [side, direction] of Object.entries(SIDES)) {
  const button = element("button", { textContent: side });
  button.onclick = () => loaded.then(() => Plotly.relayout("surfaces", { "scene.camera": camera(direction) }));
  find("sides").append(button);
}

// ---- start ----

planes().forEach(listen);
find("cross").onchange = drawAll;
new ResizeObserver(drawAll).observe(find("views"));
fillTable();
const order = sortBy(scored ? 1 : COLUMNS.length - 1, scored ? 1 : -1); // the worst first
open(order.find((number) => header.cases[number].view) ?? order[0]);
