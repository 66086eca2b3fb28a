/**
 * Randomness that is keyed as in Python: the same name draws the same numbers.
 *
 * This is `datasets/rng.py` with those parts of torch that it uses: a hash makes a seed of a name, the Mersenne Twister
 * makes numbers of a seed, and they become normal values in the order in which torch makes them on a CPU.
 */

import { blake2b, sha256 } from "./hashes.js";

/** Return a 63-bit seed for the draw of that name, whose parts are whole numbers and plain words. */
export function deriveSeed(...name) {
  const parts = name.map((part) => (typeof part === "string" ? `'${part}'` : `${part}`));
  const tuple = parts.length === 1 ? `(${parts[0]},)` : `(${parts.join(", ")})`; // as Python writes it
  return blake2b(new TextEncoder().encode(tuple)) >> 1n;
}

/** Return a function that gives the next 32 random bits (Matsumoto & Nishimura 1998, MT19937). Takes a BigInt. */
export function twister(seed) {
  const state = new Uint32Array(624);
  state[0] = Number(seed & 0xffffffffn); // torch takes the last 32 bits of a seed
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  let next = 624;
  return () => {
    if (next === 624) {
      for (let i = 0; i < 624; i++) {
        const joined = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (joined >>> 1) ^ (joined & 1 ? 0x9908b0df : 0);
      }
      next = 0;
    }
    let bits = state[next++];
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    return (bits ^ (bits >>> 18)) >>> 0;
  };
}

/**
 * Return `count` ≥ 16 standard normal values, as torch.randn makes them on a CPU with a generator of that seed.
 *
 * Uniform numbers of 24 bits become normal ones in blocks of 16, the first eight of which are the lengths and the last
 * eight the angles of the method of Box & Muller (1958). What is left over at the end is the end of a block of its own.
 */
export function normalValues(seed, count) {
  if (count < 16) throw new RangeError(`got ${count} values, expected 16 at least`);
  const random = twister(seed);
  const values = new Float32Array(count);
  const fill = (first, last) => {
    for (let i = first; i < last; i++) values[i] = (random() & 0xffffff) / 0x1000000;
  };
  const transform = (first) => {
    for (let i = first; i < first + 8; i++) {
      const length = Math.sqrt(-2 * Math.log(1 - values[i]));
      const angle = 2 * Math.PI * values[i + 8];
      values[i] = length * Math.cos(angle);
      values[i + 8] = length * Math.sin(angle);
    }
  };
  fill(0, count);
  for (let first = 0; first + 16 <= count; first += 16) transform(first);
  if (count % 16) {
    fill(count - 16, count);
    transform(count - 16);
  }
  return values;
}

/** Return the noise that is the whole source of an image of `count` values: of the first one that `sample` makes. */
export function sourceNoise(seed, count) {
  return normalValues(deriveSeed(deriveSeed(seed, "source"), "gaussian", 0), count);
}

/** Return the noise that is added to a picture, given as its bytes [C, H, W]: a function of the seed and of them. */
export function noiseOnPicture(seed, bytes) {
  const row = deriveSeed(sha256(bytes));
  return normalValues(deriveSeed(deriveSeed(seed, "source noise"), "row", row), bytes.length);
}
