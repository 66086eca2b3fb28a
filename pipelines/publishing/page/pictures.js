/**
 * Picture files become pictures of the network's size, as the verb `translate` frames them.
 *
 * A picture is {width, height, channels, bytes}, with bytes [H, W, C] in 0 … 255. The browser decodes the file; all that
 * follows is Pillow's arithmetic, so that the bytes are those of Python.
 */

const MOST_PIXELS = 2 ** 26;
const NEARLY = 8; // values of 256, by which the pixels of one color may differ

/** Return a file as a picture in red, green, blue and alpha: upright, in sRGB. Throws for what is no picture. */
async function decoded(file) {
  const bitmap = await createImageBitmap(file, { premultiplyAlpha: "none" }).catch(() => {
    throw new Error(`${file.name ?? "the picture"}: got something that this browser cannot open, expected a picture`);
  });
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) {
    throw new Error(`got ${width} × ${height} pixels, expected ${MOST_PIXELS / 2 ** 20} million at most`);
  }
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return { width, height, channels: 4, bytes: context.getImageData(0, 0, width, height).data };
}

/** Return a picture in RGBA laid on a color [R, G, B]: in RGB. */
function laidOn(picture, color) {
  const bytes = new Uint8ClampedArray(3 * picture.width * picture.height);
  for (let from = 0, to = 0; to < bytes.length; from += 4) {
    const alpha = picture.bytes[from + 3];
    for (let c = 0; c < 3; c++, to++) {
      bytes[to] = Math.floor((picture.bytes[from + c] * alpha + color[c] * (255 - alpha)) / 255 + 0.5);
    }
  }
  return { ...picture, channels: 3, bytes };
}

/** Return whether all pixels of a picture in RGB have nearly the same color. */
function isOneColor({ bytes }) {
  const low = [255, 255, 255];
  const high = [0, 0, 0];
  bytes.forEach((value, index) => {
    low[index % 3] = Math.min(low[index % 3], value);
    high[index % 3] = Math.max(high[index % 3], value);
  });
  return high.every((value, c) => value - low[c] <= NEARLY);
}

/**
 * Return the color [R, G, B] behind a picture in RGBA: `color`, unless that is null.
 *
 * Then it is black; but white behind a transparent picture, unless that can be seen on black alone.
 */
function backgroundOf(picture, color) {
  const [black, white] = [[0, 0, 0], [255, 255, 255]];
  if (color) return color;
  if (picture.bytes.every((value, index) => index % 4 < 3 || value === 255)) return black;
  return isOneColor(laidOn(picture, white)) && !isOneColor(laidOn(picture, black)) ? black : white;
}

/** Return a picture in RGB as gray, by Pillow's whole-number weights of ITU-R 601-2. */
function inGray(picture) {
  const bytes = new Uint8ClampedArray(picture.width * picture.height);
  for (let i = 0; i < bytes.length; i++) {
    const [red, green, blue] = picture.bytes.subarray(3 * i, 3 * i + 3);
    bytes[i] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16;
  }
  return { ...picture, channels: 1, bytes };
}

// --- scaling --------------------------------------------------------------------------------------------

const sinc = (x) => (x ? Math.sin(Math.PI * x) / (Math.PI * x) : 1);
const lanczos = (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0);

/** Return for each of `wanted` values the first of `length` values that it is a mean of, and their weights · 2²². */
function kernels(length, wanted) {
  const scale = length / wanted;
  const width = Math.max(scale, 1);
  return Array.from({ length: wanted }, (_, index) => {
    const center = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - 3 * width + 0.5));
    const last = Math.min(length, Math.trunc(center + 3 * width + 0.5));
    const weights = Array.from({ length: last - first }, (_, k) => lanczos((first + k - center + 0.5) / width));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    const whole = weights.map((weight) => (weight / sum) * 2 ** 22);
    return { first, weights: whole.map((weight) => Math.trunc(weight + Math.sign(weight) * 0.5)) };
  });
}

/** Return bytes [outer, length, inner] scaled along their middle axis to `wanted` values, each rounded to a byte. */
function scaledAlong(bytes, outer, length, inner, wanted) {
  if (length === wanted) return bytes;
  const scaled = new Uint8ClampedArray(outer * wanted * inner);
  kernels(length, wanted).forEach(({ first, weights }, index) => {
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < inner; i++) {
        let sum = 2 ** 21;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * bytes[(o * length + first + k) * inner + i];
        scaled[(o * wanted + index) * inner + i] = Math.floor(sum / 2 ** 22);
      }
    }
  });
  return scaled;
}

/** Return a picture scaled to a size by Pillow's filter LANCZOS, first along its rows. */
export function resized({ width, height, channels, bytes }, [toWidth, toHeight]) {
  const rows = scaledAlong(bytes, height, width, channels, toWidth);
  const both = scaledAlong(rows, 1, height, toWidth * channels, toHeight);
  return { width: toWidth, height: toHeight, channels, bytes: both };
}

// --- framing --------------------------------------------------------------------------------------------

/** Return x rounded to a whole number, a half to the even one, as Python does. */
function rounded(x) {
  const below = Math.floor(x);
  return x - below === 0.5 ? below + (below % 2) : Math.round(x);
}

/** Return the left, upper corner that puts a size in the middle of another one. */
const centered = ([w, h], [width, height]) => [Math.floor((width - w) / 2), Math.floor((height - h) / 2)];

/** Return the part of a picture of this size at a corner; a pixel outside of it has `color`. */
function cut(picture, [left, top], [width, height], color) {
  const { channels } = picture;
  const bytes = new Uint8ClampedArray(width * height * channels);
  for (let i = 0; i < bytes.length; i++) {
    const [c, x, y] = [i % channels, left + (Math.floor(i / channels) % width), top + Math.floor(i / channels / width)];
    const inside = x >= 0 && x < picture.width && y >= 0 && y < picture.height;
    bytes[i] = inside ? picture.bytes[(y * picture.width + x) * channels + c] : color[c];
  }
  return { width, height, channels, bytes };
}

/** Return a picture of the frame's size, as `resize` says: see `boxes` in datasets/framing.py. */
export function framed(picture, frame, resize, color) {
  const size = [picture.width, picture.height];
  if (size[0] === frame[0] && size[1] === frame[1]) return picture;
  if (resize === "none") throw new Error(`got ${size.join(" × ")} pixels, expected ${frame.join(" × ")}`);
  const within = (side) => Math.max(1, rounded(side));
  if (resize === "fit") {
    const scale = Math.min(frame[0] / size[0], frame[1] / size[1]);
    const inner = size.map((side) => within(side * scale));
    const [left, top] = centered(inner, frame);
    return cut(resized(picture, inner), [-left, -top], frame, color);
  }
  if (resize === "stretch") return resized(picture, frame);
  const scale = Math.min(size[0] / frame[0], size[1] / frame[1], resize === "crop" ? 1 : Infinity);
  const used = frame.map((side) => within(side * scale));
  return resized(cut(picture, centered(used, size), used, color), frame);
}

/** Return the bytes [H, W, C] of a picture file as the network takes them. Throws where it cannot be read. */
export async function pictureOf(file, { shape: [channels, height, width], resize, background }) {
  const picture = await decoded(file);
  const color = backgroundOf(picture, background);
  const opaque = laidOn(picture, color);
  const inChannels = channels === 1 ? inGray(opaque) : opaque;
  const behind = channels === 1 ? [...inGray({ width: 1, height: 1, bytes: Uint8Array.from(color) }).bytes] : color;
  return framed(inChannels, [width, height], resize, behind).bytes;
}
