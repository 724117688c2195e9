// The names in a zip file, and the bytes of those that are asked for: a wheel of 98 MB is not
// unpacked as a whole.

const END = 0x06054b50, ENTRY = 0x02014b50;
const STORED = 0, DEFLATED = 8;
const END_SIZE = 22, LONGEST_COMMENT = 65535;

async function view(blob, from, to) {
  return new DataView(await blob.slice(from, to).arrayBuffer());
}

// Functions that give an entry's bytes, by the entry's name; null where the blob is no zip file.
export async function entries(blob) {
  const from = Math.max(0, blob.size - END_SIZE - LONGEST_COMMENT);
  const tail = await view(blob, from);
  let end = tail.byteLength - END_SIZE;
  while (end >= 0 && tail.getUint32(end, true) !== END) end--;
  if (end < 0) return null;
  const start = tail.getUint32(end + 16, true);
  const list = await view(blob, start, start + tail.getUint32(end + 12, true));
  const found = new Map();
  let at = 0;
  while (at + 46 <= list.byteLength && list.getUint32(at, true) === ENTRY) {
    const [length, extra, comment] = [28, 30, 32].map((place) => list.getUint16(at + place, true));
    const name = new TextDecoder().decode(new Uint8Array(list.buffer, at + 46, length));
    const method = list.getUint16(at + 10, true);
    const size = list.getUint32(at + 20, true);
    const place = list.getUint32(at + 42, true);
    found.set(name, () => read(blob, name, { method, size, place }));
    at += 46 + length + extra + comment;
  }
  return found;
}

async function read(blob, name, { method, size, place }) {
  const head = await view(blob, place, place + 30);
  const start = place + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const packed = blob.slice(start, start + size);
  if (method === STORED) return new Uint8Array(await packed.arrayBuffer());
  if (method !== DEFLATED) throw new Error(`${name} is packed in a way that is not known here`);
  const unpacked = packed.stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}
