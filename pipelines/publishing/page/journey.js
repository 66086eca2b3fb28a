/** The journey: the states of a trajectory with a slider over t, and a strip of all that were computed. */

import { paint } from "./pad.js";

const SECONDS = 3; // from source to target
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Journey {
  /** page: id -> element. facts: what the page knows of its pipeline. */
  constructor(page, facts) {
    Object.assign(this, { page, facts, times: facts.times, states: [], playing: 0 });
    const [, height, width] = facts.shape;
    Object.assign(page.view, { width, height });
    this.context = page.view.getContext("2d");
    page.ticks.replaceChildren(...this.times.map(tick));
    page.time.addEventListener("input", () => {
      this.stop();
      this.go(page.time.valueAsNumber);
    });
    page.play.addEventListener("click", () => (this.playing ? this.stop() : this.play()));
  }

  /** Show other states, bytes [H, W, C], one at each of the times, from the first on. fileName: of the result. */
  show(states, fileName) {
    this.states = states;
    const [channels] = this.facts.shape;
    this.page.states.replaceChildren(...states.map((state, index) => this.thumbnail(state, index)));
    this.page.time.disabled = this.page.play.disabled = this.page.save.hidden = false;
    paint(this.context, states.at(-1), channels);
    Object.assign(this.page.save, { href: this.page.view.toDataURL(), download: fileName });
    this.play();
  }

  /** Return an item of the strip: a button that goes to a state. */
  thumbnail(state, index) {
    const [channels, height, width] = this.facts.shape;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    paint(canvas.getContext("2d"), state, channels);
    const button = Object.assign(document.createElement("button"), { type: "button" });
    const text = `t = ${shortened(this.times[index])}`;
    button.append(canvas, text);
    button.addEventListener("click", () => {
      this.stop();
      this.go(this.times[index]);
    });
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  /** Show the image at time t: a state that was computed, or what lies on the straight line between two of them. */
  go(t) {
    const [channels] = this.facts.shape;
    const { index, between } = this.place(t);
    const [here, there] = [this.states[index], this.states[index + 1]];
    const state = between ? here.map((value, i) => value + between * (there[i] - value)) : here;
    paint(this.context, state, channels);
    this.page.time.value = t;
    const caption = `t = ${shortened(t)}: ${this.told(index, between)}`;
    this.page.caption.textContent = caption;
    this.page.time.setAttribute("aria-valuetext", caption);
    this.page.view.setAttribute("aria-label", `The image at ${caption}`);
    [...this.page.states.children].forEach((item, k) => {
      if (k === index && !between) item.firstChild.setAttribute("aria-current", "step");
      else item.firstChild.removeAttribute("aria-current");
    });
  }

  /** Return the number of the last state at or before t, and how far t lies on the way to the next one, 0 to below 1. */
  place(t) {
    const away = this.times.map((time) => Math.abs(time - t));
    const nearest = Math.min(...away);
    if (nearest < 5e-3) return { index: away.indexOf(nearest), between: 0 }; // within half a step of the slider
    const index = this.times.findLastIndex((time) => time < t);
    if (index < 0) return { index: 0, between: 0 };
    return { index, between: (t - this.times[index]) / (this.times[index + 1] - this.times[index]) };
  }

  /** Return in words what is seen at a place. */
  told(index, between) {
    if (between) return `on the straight line between states ${index} and ${index + 1}, as the solver goes.`;
    if (index === 0) return this.facts.start;
    return index + 1 < this.times.length ? `state ${index} of ${this.times.length - 1}.` : this.facts.end;
  }

  // --- playing ---

  play() {
    const begun = performance.now();
    const [first, last] = [this.times[0], this.times.at(-1)];
    const step = (now) => {
      const done = Math.min(1, (now - begun) / 1000 / SECONDS);
      this.go(first + done * (last - first));
      if (done < 1) this.playing = requestAnimationFrame(step);
      else this.stop();
    };
    this.stop();
    if (calm.matches) return this.go(last);
    this.page.play.textContent = "Stop";
    this.playing = requestAnimationFrame(step);
    this.go(first);
  }

  stop() {
    cancelAnimationFrame(this.playing);
    this.playing = 0;
    this.page.play.textContent = "Play";
  }
}

/** Return a mark on the slider at a time. */
function tick(t) {
  const mark = document.createElement("span");
  mark.style.left = `${100 * t}%`;
  return mark;
}

/** Return a number with three decimals at most. */
function shortened(number) {
  return String(Number(number.toFixed(3)));
}
