/** The two hash functions that name randomness in Python's hashlib: BLAKE2b and SHA-256. */

// --- BLAKE2b --------------------------------------------------------------------------------------------

const WORD = (1n << 64n) - 1n;

/** The fractional parts of the square roots of the first eight primes: where BLAKE2b begins (RFC 7693, section 2.6). */
const BEGINNING = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
];

/** In which order each round takes the 16 words of the message, as hexadecimal digits (RFC 7693, section 2.7). */
const ORDERS = [
  "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
  "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
].map((row) => [...row].map((digit) => parseInt(digit, 16)));

/** Which four of the 16 words of the state are mixed: the columns of a square, then its diagonals. */
const QUARTERS = [
  [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
  [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
];

const rotated = (word, bits) => (word >> bits) | ((word << (64n - bits)) & WORD);

/** Return the first 8 bytes of BLAKE2b of at most 128 bytes, as a whole number, big-endian (RFC 7693). */
export function blake2b(bytes) {
  if (bytes.length > 128) throw new RangeError(`got ${bytes.length} bytes, expected 128 at most`);
  const block = new DataView(new ArrayBuffer(128));
  bytes.forEach((byte, index) => block.setUint8(index, byte));
  const message = ORDERS[0].map((index) => block.getBigUint64(8 * index, true));
  const start = [BEGINNING[0] ^ 0x01010008n, ...BEGINNING.slice(1)]; // 8 bytes are wanted, and there is no key
  const state = [...start, ...BEGINNING];
  state[12] ^= BigInt(bytes.length);
  state[14] ^= WORD; // this block is the last one
  for (let round = 0; round < 12; round++) {
    const order = ORDERS[round % 10];
    QUARTERS.forEach(([a, b, c, d], quarter) => {
      const mix = (word, first, second) => {
        state[a] = (state[a] + state[b] + word) & WORD;
        state[d] = rotated(state[d] ^ state[a], first);
        state[c] = (state[c] + state[d]) & WORD;
        state[b] = rotated(state[b] ^ state[c], second);
      };
      mix(message[order[2 * quarter]], 32n, 24n);
      mix(message[order[2 * quarter + 1]], 16n, 63n);
    });
  }
  const digest = new DataView(new ArrayBuffer(8));
  digest.setBigUint64(0, start[0] ^ state[0] ^ state[8], true);
  return digest.getBigUint64(0, false);
}

// --- SHA-256 --------------------------------------------------------------------------------------------

const primes = Array.from({ length: 310 }, (_, n) => n + 2).filter((n) => {
  for (let divisor = 2; divisor * divisor <= n; divisor++) if (n % divisor === 0) return false;
  return true;
});
const fraction = (x) => Math.floor((x % 1) * 2 ** 32);
const ROUNDS = primes.map((prime) => fraction(Math.cbrt(prime)));
const turned = (word, bits) => (word >>> bits) | (word << (32 - bits));

/** Return SHA-256 of bytes in hexadecimal (FIPS 180-4), also where a page without a secure address has no `crypto`. */
export function sha256(bytes) {
  const padded = new DataView(new ArrayBuffer(64 * Math.ceil((bytes.length + 9) / 64)));
  new Uint8Array(padded.buffer).set(bytes);
  padded.setUint8(bytes.length, 0x80);
  padded.setBigUint64(padded.byteLength - 8, 8n * BigInt(bytes.length));
  const hash = Uint32Array.from(primes.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));
  const words = new Uint32Array(64);
  for (let block = 0; block < padded.byteLength; block += 64) {
    for (let i = 0; i < 16; i++) words[i] = padded.getUint32(block + 4 * i);
    for (let i = 16; i < 64; i++) {
      const [early, late] = [words[i - 15], words[i - 2]];
      const fromEarly = turned(early, 7) ^ turned(early, 18) ^ (early >>> 3);
      const fromLate = turned(late, 17) ^ turned(late, 19) ^ (late >>> 10);
      words[i] = words[i - 16] + fromEarly + words[i - 7] + fromLate;
    }
    let [a, b, c, d, e, f, g, h] = hash;
    for (let i = 0; i < 64; i++) {
      const chosen = (e & f) ^ (~e & g);
      const majority = (a & b) ^ (a & c) ^ (b & c);
      const first = h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + chosen + ROUNDS[i] + words[i];
      const second = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + majority;
      [a, b, c, d, e, f, g, h] = [(first + second) | 0, a, b, c, (d + first) | 0, e, f, g];
    }
    [a, b, c, d, e, f, g, h].forEach((word, i) => (hash[i] += word));
  }
  return [...hash].map((word) => word.toString(16).padStart(8, "0")).join("");
}
