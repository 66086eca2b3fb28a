/** The page: what is done when something is pressed, dropped or chosen. */

import { Journey } from "./journey.js";
import { fromBase64, opened, statesOf, unpacked } from "./network.js";
import { Pad } from "./pad.js";
import { pictureOf } from "./pictures.js";

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const facts = JSON.parse(page.facts.textContent);
const [channels, height, width] = facts.shape;

const journey = new Journey(page, facts);
const pad = facts.picture ? new Pad(page.pad, facts.shape, brush, (text) => (page.status.textContent = text)) : null;

/** Return the color, one byte for each channel, and the radius in pixels that the pad draws with. */
function brush() {
  const colors = page.color.value.match(/[0-9a-f]{2}/g).map((text) => parseInt(text, 16));
  return { color: channels === 1 ? [page.shade.valueAsNumber] : colors, radius: page.radius.valueAsNumber };
}

/** Do something that may fail; show its error in the page. */
async function attempt(action) {
  page.error.hidden = true;
  try {
    await action();
  } catch (error) {
    page.error.textContent = `Error: ${error.message ?? error}`;
    page.error.hidden = false;
    page.status.textContent = "";
  }
}

/** Wait until the browser has shown what was written. */
const shown = () => new Promise((resolve) => setTimeout(resolve, 30));

// --- what the page says ---------------------------------------------------------------------------------

function describe() {
  page.name.textContent = facts.name;
  page.summary.textContent = facts.summary;
  page.told.textContent = facts.told;
  for (const [name, value] of Object.entries(facts.details)) {
    const term = Object.assign(document.createElement("dt"), { textContent: name });
    page["facts-shown"].append(term, Object.assign(document.createElement("dd"), { textContent: value }));
  }
  page.source.hidden = !facts.picture;
  document.body.classList.toggle("from-noise", !facts.picture);
  page["seed-field"].hidden = page.next.hidden = !facts.seed;
  page["label-field"].hidden = !facts.labels.length;
  page["shade-label"].hidden = channels !== 1;
  page["color-label"].hidden = channels === 1;
  page.label.replaceChildren(...facts.labels.map(({ name, value }) => new Option(name, value)));
  Object.assign(page.radius, { max: Math.max(3, width / 8), value: Math.max(1, width / 28) });
  page.licenses.addEventListener("toggle", async () => {
    page["notices-shown"].textContent ||= new TextDecoder().decode(await unpacked("notices"));
  });
}

// --- the source -----------------------------------------------------------------------------------------

async function take(file) {
  pad.replace(await pictureOf(file, facts));
  page.status.textContent = `${file.name} is on the pad.`;
}

/** Return a button that puts a sample picture on the pad. */
function sample(address, index) {
  const image = Object.assign(new Image(width, height), { src: address, alt: `Sample ${index + 1}` });
  const button = Object.assign(document.createElement("button"), { type: "button", className: "sample" });
  button.append(image);
  button.addEventListener("click", () => attempt(() => takeSample(index)));
  return button;
}

async function takeSample(index) {
  const bytes = fromBase64(facts.samples[index].split(",")[1]);
  await take(new File([bytes], `Sample ${index + 1}`, { type: "image/png" }));
}

function listen() {
  page.samples.append(...facts.samples.map(sample));
  page.undo.addEventListener("click", () => pad.undo());
  page.clear.addEventListener("click", () => pad.clear());
  page.file.addEventListener("change", () => {
    const [file] = page.file.files;
    if (file) attempt(() => take(file));
    page.file.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault(); // the browser would leave the page for the file
    const [file] = event.dataTransfer.files;
    if (file) attempt(() => take(file));
  });
}

// --- the run --------------------------------------------------------------------------------------------

async function run(network) {
  const asked = { label: Number(page.label.value), seed: BigInt(page.seed.value || 0) };
  page.run.disabled = page.next.disabled = true;
  page.status.textContent = "Computing …";
  try {
    await shown();
    const begun = performance.now();
    const states = await statesOf(network, facts, { ...asked, picture: pad?.bytes });
    const seconds = ((performance.now() - begun) / 1000).toFixed(2);
    const named = [facts.name, ...(facts.labels.length ? [page.label.selectedOptions[0].text] : []), asked.seed];
    journey.show(states, `${named.join("-")}.png`);
    page.status.textContent = `Done: ${facts.evaluations} in ${seconds} s, in this browser.`;
  } finally {
    page.run.disabled = page.next.disabled = false;
  }
}

async function start() {
  describe();
  if (pad) {
    listen();
    await takeSample(0);
  }
  page.status.textContent = "Opening the network …";
  await shown();
  const network = await opened();
  page.form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => run(network));
  });
  page.next.addEventListener("click", () => {
    if (!page.form.reportValidity()) return;
    page.seed.value = BigInt(page.seed.value || 0) + 1n;
    attempt(() => run(network));
  });
  await run(network);
}

attempt(start);
