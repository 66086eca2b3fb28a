/** The network: unpacked from the page, and run by ONNX Runtime Web on the processor, in this thread. */

import { noiseOnPicture, sourceNoise } from "./randomness.js";

/** Return the bytes that a text is the base64 of. */
export function fromBase64(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i); // 20 times as fast as Uint8Array.from
  return bytes;
}

/** Return the bytes that the page holds in the element of that name, gzipped and in base64. */
export async function unpacked(name) {
  const packed = fromBase64(document.getElementById(name).textContent.trim());
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Return ONNX Runtime Web and a session of the page's network, for `statesOf`. */
export async function opened() {
  const address = URL.createObjectURL(new Blob([await unpacked("runtime")], { type: "text/javascript" }));
  const ort = await import(address);
  URL.revokeObjectURL(address);
  ort.env.wasm.numThreads = 1; // more need headers that only a server sends
  ort.env.wasm.wasmBinary = await unpacked("wasm");
  return { ort, session: await ort.InferenceSession.create(await unpacked("network")) };
}

/** Return bytes [H, W, C] as [C, H, W]. */
export function planes(bytes, channels) {
  const size = bytes.length / channels;
  return Uint8Array.from(bytes, (_, index) => bytes[(index % size) * channels + Math.floor(index / size)]);
}

/**
 * Return the states of a trajectory, bytes [H, W, C] at each of the times.
 *
 * picture: bytes [H, W, C], where the source is not noise. label: the class to ask for. seed: of the noise. All else is
 * in the network's file: noise is added to the picture, the solver takes its steps, and the states become pixels.
 */
export async function statesOf({ ort, session }, { shape, times, noise }, { picture, label, seed }) {
  const [channels, height, width] = shape;
  const count = channels * height * width;
  const drawn = () =>
    picture
      ? noiseOnPicture(seed, planes(picture, channels))
      : sourceNoise(seed, count).map((value) => noise.mean + noise.std * value);
  const tensors = {
    image: () => new ort.Tensor("uint8", Uint8Array.from(picture), [1, height, width, channels]),
    noise: () => new ort.Tensor("float32", drawn(), [1, channels, height, width]),
    label: () => new ort.Tensor("int64", [BigInt(label)], [1]),
  };
  const inputs = Object.fromEntries(session.inputNames.map((name) => [name, tensors[name]()]));
  const { states } = await session.run(inputs, ["states"]);
  return times.map((_, index) => Uint8ClampedArray.from(states.data.subarray(index * count, (index + 1) * count)));
}
