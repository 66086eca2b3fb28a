/** The pad: a picture of the network's size that is drawn pixel by pixel, by pointer or by keyboard. */

const MOST_UNDONE = 50;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Pad {
  /** canvas: where the picture is shown. shape: [C, H, W]. brush: () -> {color, radius}, of C bytes and in pixels. */
  constructor(canvas, shape, brush, tell) {
    [this.channels, this.height, this.width] = shape;
    Object.assign(this, { canvas, brush, tell, undone: [], cursor: null, isDown: false });
    this.bytes = new Uint8ClampedArray(this.channels * this.height * this.width);
    Object.assign(canvas, { width: this.width, height: this.height });
    this.context = canvas.getContext("2d");
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.go(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (this.from = null));
    canvas.addEventListener("keydown", (event) => this.press(event));
    canvas.addEventListener("focus", () => this.show());
    canvas.addEventListener("blur", () => this.lift());
    this.show();
  }

  /** Show other bytes [H, W, C]; `undo` brings back those from before. */
  replace(bytes) {
    this.remember();
    this.bytes = Uint8ClampedArray.from(bytes);
    this.show();
  }

  clear() {
    this.replace(new Uint8ClampedArray(this.bytes.length));
  }

  undo() {
    this.bytes = this.undone.pop() ?? this.bytes;
    this.show();
  }

  remember() {
    this.undone = [...this.undone.slice(1 - MOST_UNDONE), this.bytes.slice()];
  }

  // --- by pointer ---

  begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.cursor = null;
    this.remember();
    this.from = this.placeOf(event);
    this.stroke(this.from, this.from);
  }

  go(event) {
    if (!this.from) return;
    for (const one of event.getCoalescedEvents?.() ?? [event]) {
      const to = this.placeOf(one);
      this.stroke(this.from, to);
      this.from = to;
    }
  }

  placeOf(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return [x * this.width - 0.5, y * this.height - 0.5];
  }

  // --- by keyboard ---

  press(event) {
    const way = ARROWS[event.key];
    this.cursor ??= [Math.floor(this.width / 2), Math.floor(this.height / 2)];
    if (way) {
      const far = event.shiftKey ? Math.max(1, Math.round(this.width / 8)) : 1;
      const last = [this.width - 1, this.height - 1];
      const to = this.cursor.map((value, k) => Math.min(last[k], Math.max(0, value + far * way[k])));
      if (this.isDown) this.stroke(this.cursor, to);
      this.cursor = to;
    } else if (event.key === " ") {
      this.isDown = !this.isDown;
      if (this.isDown) {
        this.remember();
        this.stroke(this.cursor, this.cursor);
      }
    } else {
      return;
    }
    event.preventDefault(); // the page does not scroll
    this.show();
    const [x, y] = this.cursor;
    this.tell(`Brush ${this.isDown ? "down" : "up"}, column ${x + 1} of ${this.width}, row ${y + 1} of ${this.height}`);
  }

  lift() {
    this.isDown = false;
    this.show();
  }

  // --- pixels ---

  /** Draw a line with the brush, whose edge is half transparent, between two places [x, y] in pixels. */
  stroke(from, to) {
    const { color, radius } = this.brush();
    for (let y = 0; y < this.height; y++) {
      for (let x = 0; x < this.width; x++) {
        const cover = Math.min(1, Math.max(0, radius + 0.5 - distance([x, y], from, to)));
        for (let c = 0; c < this.channels && cover; c++) {
          const at = (y * this.width + x) * this.channels + c;
          this.bytes[at] += cover * (color[c] - this.bytes[at]);
        }
      }
    }
    this.show();
  }

  /** Show the picture and, while the keyboard draws, a frame around the brush's pixel. */
  show() {
    paint(this.context, this.bytes, this.channels);
    if (!this.cursor || document.activeElement !== this.canvas) return;
    const [x, y] = this.cursor;
    this.context.fillStyle = this.isDown ? "#ff5a36" : "#2f9bff";
    this.context.fillRect(x, y, 1, 1);
  }
}

/** Return the distance of a point from a line between two others. */
function distance([x, y], [x0, y0], [x1, y1]) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const along = dx || dy ? Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy))) : 0;
  return Math.hypot(x - x0 - along * dx, y - y0 - along * dy);
}

/** Show bytes [H, W, C] on a canvas of their size. */
export function paint(context, bytes, channels) {
  const { width, height } = context.canvas;
  const image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = bytes[channels * i + (channels === 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}
