// One or two volumes in three planes, at one position and one zoom. Positions are in mm of the scanner, so that volumes
// of different grids can be compared; each is drawn by an instance of NiiVue in the planes of its own voxels.
"use strict";

const { Niivue, NVImage, DRAG_MODE, SLICE_TYPE, SHOW_RENDER } = niivue;
const ZOOM_STEP = 1.25;
const CROSSHAIR_PIXELS = 1.2;
const DRAG_PIXELS = 200; // to the right for a window twice as wide, up for one that begins where this one ends
const RIGHT_BUTTON = 2; // in MouseEvent.buttons
const RELOAD_AFTER = 3 / 8; // of a box's side: the crosshair is then an eighth from the box's face
const RELOAD_DELAY_MS = 250;

const page = Object.fromEntries(["step", "together", "smooth", "radiological"].map((id) => [id, document.getElementById(id)]));
const panes = [];
// What every pane shows: the crosshair and the middle of the picture (mm), and how many mm a pixel is.
let view = null;

class Pane {
  constructor(volume, number) {
    Object.assign(this, volume, { number });
    const section = document.getElementById("pane").content.cloneNode(true).firstElementChild;
    document.getElementById("panes").append(section);
    for (const part of ["name", "level", "canvas", "message", "low", "high"]) {
      this[`${part}Element`] = section.querySelector(`.${part}`);
    }
    this.canvas = section.querySelector("canvas");
    this.output = section.querySelector("output");
    this.nameElement.textContent = this.name;
  }

  async open() {
    this.nv = new Niivue({
      sliceType: SLICE_TYPE.MULTIPLANAR,
      multiplanarShowRender: SHOW_RENDER.NEVER,
      multiplanarEqualSize: true, // so that planes lie in the same places for volumes of different shapes
      multiplanarPadPixels: 4,
      showAllOrientationMarkers: true,
      fontColor: [0.4, 0.85, 1, 1],
      fontMinPx: 16,
      crosshairColor: [1, 0.7, 0.2, 0.8],
      crosshairWidthUnit: "mm",
      crosshairGap: 12, // times half its width: the voxel under it is seen
      dragAndDropEnabled: false,
      loadingText: "",
      logLevel: "error",
    });
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser has no WebGL 2");
    await this.nv.attachToCanvas(this.canvas, false);
    this.canvas.addEventListener("webglcontextlost", () => {
      this.say("The graphics card has no memory for this level. Load the page again and stay with coarser ones.", true);
    });
    this.nv.setMouseEventConfig({
      leftButton: { primary: DRAG_MODE.crosshair, withShift: DRAG_MODE.pan, withCtrl: DRAG_MODE.crosshair },
      rightButton: DRAG_MODE.none,
      centerButton: DRAG_MODE.pan,
    });
    this.nv.onLocationChange = (place) => this.tell(place);
    this.setWindow(...this.window, false);
    for (const element of [this.lowElement, this.highElement]) {
      element.addEventListener("change", () => this.setWindow(Number(this.lowElement.value), Number(this.highElement.value)));
    }
    for (const kind of ["mousedown", "mouseup", "mousemove", "dblclick", "wheel", "touchmove", "touchend"]) {
      this.canvas.addEventListener(kind, (event) => {
        // A mouse that only passes over moves nothing.
        if (kind !== "mousemove" || event.buttons) follow(this);
      });
    }
    this.canvas.addEventListener("mousemove", (event) => {
      if (event.buttons & RIGHT_BUTTON) this.dragWindow(event.movementX, event.movementY);
    });
    this.canvasElement.addEventListener("wheel", (event) => zoomByWheel(event), { capture: true, passive: false });
    // Keys are the page's: NiiVue has others of its own.
    for (const kind of ["keydown", "keyup"]) {
      this.canvasElement.addEventListener(kind, (event) => event.stopPropagation(), true);
    }
  }

  // The level nearest to the voxel size that is asked for.
  levelFor(size) {
    const distances = this.levels.map((level) => Math.abs(Math.log(voxelSize(level) / size)));
    return distances.indexOf(Math.min(...distances));
  }

  // Show the level for a voxel size: whole, or the box of it around a point.
  async load(size, point) {
    this.loading?.abort();
    clearTimeout(this.reloading);
    const loading = (this.loading = new AbortController());
    const number = this.levelFor(size);
    const level = this.levels[number];
    this.say("reading …");
    try {
      const response = await fetch(`${this.number}/level-${number}.nii${level.whole ? "" : `?at=${point.join(",")}`}`, {
        signal: loading.signal,
      });
      if (!response.ok) throw new Error((await response.text()).trim(), { cause: "refused" });
      const image = await NVImage.loadFromUrl({ url: await response.arrayBuffer(), name: "level.nii" });
      if (loading.signal.aborted) return;
      [image.cal_min, image.cal_max] = this.window;
      this.nv.volumes = []; // addVolume alone would lay it over the one before, in that one's grid
      this.nv.addVolume(image);
      this.shown = number;
      view ??= this.whatIsShown();
      this.show();
      this.boxPoint = level.whole ? null : point;
      const part = level.whole ? "" : `, ${this.box} voxels around the crosshair`;
      this.levelElement.textContent = `level ${number} (of 0 to ${this.levels.length - 1}): ${level.shape.join(" × ")} voxels of ${millimetres(level)}${part}`;
      this.say("");
    } catch (error) {
      if (loading.signal.aborted) return;
      const hint = error.cause === "refused" ? "" : " The terminal of headsr view may say why.";
      this.say(`level ${number} cannot be shown: ${error.message}.${hint}`, true);
    }
    this.loading = null;
    tellTitle();
  }

  say(text, failed = false) {
    this.messageElement.textContent = text;
    this.messageElement.classList.toggle("failed", failed);
  }

  get volume() {
    return this.nv.volumes[0];
  }

  // The voxel (of what is loaded) that a point in mm lies in.
  voxelAt(point) {
    return Array.from(this.nv.frac2vox(this.nv.mm2frac(point, 0, true)));
  }

  // The point (mm) so many voxels (of what is loaded) beside the crosshair.
  beside(step) {
    const dims = this.volume.dimsRAS;
    const frac = this.nv.mm2frac(view.crosshair, 0, true).map((x, axis) => x + step[axis] / dims[axis + 1]);
    return toList(this.nv.frac2mm(frac, 0, true));
  }

  // Whether a point in mm lies in what is loaded.
  holds(point) {
    return toList(this.nv.mm2frac(point, 0, true)).every((x) => x >= 0 && x <= 1);
  }

  // NiiVue pans and zooms in the millimetres of the volume's own axes ("ortho"): a tile shows, along each axis, what
  // lies between (first - pan) / zoom and (last - pan) / zoom.
  whatIsShown() {
    const [first, last] = [this.volume.extentsMinOrtho, this.volume.extentsMaxOrtho];
    const [panX, panY, panZ, zoom] = this.nv.scene.pan2Dxyzmm;
    const middle = [panX, panY, panZ].map((pan, axis) => ((first[axis] + last[axis]) / 2 - pan) / zoom);
    return {
      crosshair: toList(this.nv.frac2mm(this.nv.scene.crosshairPos, 0, true)),
      middle: toList(this.nv.frac2mm(this.nv.mm2frac(middle), 0, true)),
      mmPerPixel: this.mmPerPixel(),
    };
  }

  mmPerPixel() {
    const tile = this.nv.screenSlices[0];
    return Math.abs(tile.fovMM[0]) / tile.leftTopWidthHeight[2];
  }

  show() {
    if (!this.volume) return;
    this.nv.scene.crosshairPos = this.nv.mm2frac(view.crosshair, 0, true);
    this.nv.drawScene(); // so that the tiles are those of this volume and this window
    const [first, last] = [this.volume.extentsMinOrtho, this.volume.extentsMaxOrtho];
    const scale = (this.nv.scene.pan2Dxyzmm[3] * this.mmPerPixel()) / view.mmPerPixel;
    const middle = this.nv.frac2mm(this.nv.mm2frac(view.middle, 0, true));
    const pan = [0, 1, 2].map((axis) => (first[axis] + last[axis]) / 2 - middle[axis] * scale);
    this.nv.scene.pan2Dxyzmm = [...pan, scale];
    this.drawCrosshair();
    this.nv.createOnLocationChange();
  }

  // A thin line however near one looks.
  drawCrosshair() {
    this.nv.setCrosshairWidth(CROSSHAIR_PIXELS * view.mmPerPixel);
  }

  tell(place) {
    const mm = toList(place.mm).map((x) => x.toFixed(1)).join(", ");
    const inside = toList(place.frac).every((x) => x >= 0 && x <= 1);
    this.output.textContent = `${mm} mm: ${inside ? `intensity ${Number(place.values[0].value.toPrecision(7))}` : "outside"}`;
  }

  // In parts of the window itself: NiiVue's own windowing is in whole intensities, too coarse for some scans.
  dragWindow(right, down) {
    const [low, high] = this.window;
    const middle = (low + high) / 2 - ((high - low) * down) / DRAG_PIXELS;
    const half = ((high - low) / 2) * 2 ** (right / DRAG_PIXELS);
    this.setWindow(middle - half, middle + half);
  }

  setWindow(low, high, shared = page.together.checked) {
    if (!(low < high)) [low, high] = this.window;
    for (const pane of shared ? panes : [this]) {
      pane.window = [low, high];
      [pane.lowElement.value, pane.highElement.value] = [low, high].map((x) => Number(x.toPrecision(4)));
      const volume = pane.nv?.volumes[0];
      if (volume && (volume.cal_min !== low || volume.cal_max !== high)) {
        [volume.cal_min, volume.cal_max] = [low, high];
        pane.nv.updateGLVolume();
      }
    }
  }
}

function toList(vector) {
  return Array.from(vector).slice(0, 3);
}

function voxelSize(level) {
  return Math.cbrt(level.voxel_mm.reduce((product, mm) => product * mm, 1));
}

function millimetres(level) {
  const sizes = level.voxel_mm.map((mm) => Number(mm.toPrecision(3)));
  return `${new Set(sizes).size === 1 ? sizes[0] : sizes.join(" × ")} mm`;
}

// The volume with the finest voxels, which also says which sizes there are to choose from.
function finest(among = panes) {
  return among.reduce((best, pane) => (voxelSize(pane.levels[0]) < voxelSize(best.levels[0]) ? pane : best));
}

// After someone moved something in a pane, show the same in all panes.
function follow(moved) {
  if (!moved.volume) return;
  requestAnimationFrame(() => {
    view = moved.whatIsShown();
    moved.drawCrosshair();
    moved.setWindow(moved.volume.cal_min, moved.volume.cal_max);
    for (const pane of panes) {
      if (pane !== moved) pane.show();
      reloadNearTheEdge(pane);
    }
  });
}

// A box follows the crosshair.
function reloadNearTheEdge(pane) {
  if (!pane.boxPoint || pane.loading) return;
  const [here, centre] = [view.crosshair, pane.boxPoint].map((point) => pane.voxelAt(point));
  const far = here.some((index, axis) => Math.abs(index - centre[axis]) > RELOAD_AFTER * pane.box);
  clearTimeout(pane.reloading);
  if (far) pane.reloading = setTimeout(() => pane.load(Number(page.step.value), view.crosshair), RELOAD_DELAY_MS);
}

function showAll() {
  for (const pane of panes) {
    pane.show();
    reloadNearTheEdge(pane);
  }
}

async function choose(step) {
  if (step < 0 || step >= page.step.length) return;
  page.step.selectedIndex = step;
  const size = Number(page.step.value);
  const pane = finest();
  if (view && !pane.levels[pane.levelFor(size)].whole) {
    // Of a level that is not shown whole, begin with what its box fills.
    const pixels = Math.max(...pane.nv.screenSlices.map((tile) => tile.leftTopWidthHeight[2]));
    view.middle = view.crosshair;
    view.mmPerPixel = Math.min(view.mmPerPixel, (pane.box * size) / pixels);
  }
  document.body.dataset.state = "reading";
  const others = view ? panes : panes.slice(1);
  if (!view) await panes[0].load(size, panes[0].middle_mm); // the first volume says what is shown at first
  await Promise.all(others.map((pane) => pane.load(size, view?.crosshair ?? pane.middle_mm)));
  if (!panes.some((pane) => pane.loading)) document.body.dataset.state = "shown";
}

function tellTitle() {
  document.title = `headsr: ${panes.map((pane) => `${pane.name} (level ${pane.shown ?? "–"})`).join(" | ")}`;
}

function zoom(factor) {
  view.middle = view.middle.map((mm, axis) => view.crosshair[axis] + (mm - view.crosshair[axis]) / factor);
  view.mmPerPixel /= factor;
  showAll();
}

function zoomByWheel(event) {
  if (!event.ctrlKey) return;
  event.preventDefault();
  event.stopPropagation();
  if (view) zoom(event.deltaY < 0 ? ZOOM_STEP : 1 / ZOOM_STEP);
}

function showWhole() {
  const pane = panes[0];
  pane.nv.setPan2Dxyzmm([0, 0, 0, 1]);
  view = { ...pane.whatIsShown(), crosshair: view.crosshair };
  showAll();
}

// A voxel of the finest volume under the crosshair that goes on that way; outside of all volumes one of the first.
function move(x, y, z) {
  const step = [page.radiological.checked ? -x : x, y, z];
  const under = panes.filter((pane) => pane.volume && pane.holds(view.crosshair));
  const going = under.filter((pane) => pane.holds(pane.beside(step)));
  if (going.length) {
    const pane = finest(going);
    pane.nv.moveCrosshairInVox(...step);
    follow(pane);
  } else if (!under.length && panes[0].volume) {
    view.crosshair = panes[0].beside(step);
    showAll();
  }
}

function toggle(box) {
  box.checked = !box.checked;
  box.dispatchEvent(new Event("change"));
}

const KEYS = {
  ArrowLeft: () => move(-1, 0, 0),
  ArrowRight: () => move(1, 0, 0),
  ArrowUp: () => move(0, 1, 0),
  ArrowDown: () => move(0, -1, 0),
  PageUp: () => move(0, 0, 1),
  PageDown: () => move(0, 0, -1),
  "+": () => zoom(ZOOM_STEP),
  "=": () => zoom(ZOOM_STEP),
  "-": () => zoom(1 / ZOOM_STEP),
  0: () => showWhole(),
  c: () => {
    view.middle = view.crosshair;
    showAll();
  },
  "]": () => choose(page.step.selectedIndex - 1),
  "[": () => choose(page.step.selectedIndex + 1),
  i: () => toggle(page.smooth),
  r: () => toggle(page.radiological),
};

function listen() {
  window.addEventListener("keydown", (event) => {
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const typing = event.target.closest("select, input:not([type=checkbox])");
    if (!action || !view || event.ctrlKey || event.metaKey || event.altKey || typing) return;
    event.preventDefault();
    action();
  }, true);
  page.step.addEventListener("change", () => choose(page.step.selectedIndex));
  page.smooth.addEventListener("change", () => panes.forEach((pane) => pane.nv.setInterpolation(!page.smooth.checked)));
  page.radiological.addEventListener("change", () => {
    panes.forEach((pane) => pane.nv.setRadiologicalConvention(page.radiological.checked));
  });
  page.together.addEventListener("change", () => panes[0].setWindow(...panes[0].window));
  const resized = new ResizeObserver(() => requestAnimationFrame(() => view && showAll()));
  panes.forEach((pane) => resized.observe(pane.canvasElement));
}

async function start() {
  const volumes = await (await fetch("volumes.json")).json();
  panes.push(...volumes.map((volume, number) => new Pane(volume, number)));
  document.getElementById("together-label").hidden = panes.length < 2;
  for (const pane of panes) await pane.open();
  panes[0].setWindow(...panes[0].window);
  const { levels, first } = finest();
  for (const level of levels) {
    page.step.add(new Option(`${millimetres(level)}${level.whole ? "" : ", around the crosshair"}`, voxelSize(level)));
  }
  listen();
  await choose(first);
}

start().catch((error) => {
  document.body.dataset.state = "failed";
  document.getElementById("panes").textContent = `The volumes cannot be shown: ${error.message}`;
});
