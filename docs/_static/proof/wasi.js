// A Python with NumPy in one WebAssembly file, for WASI preview 1: the operating system that it asks
// for is below. It has arguments, a clock, random numbers, standard output, and a few files in
// memory that can be read and not written. What a program for numbers does not need says "no such
// call" (ENOSYS).

const OK = 0, BAD_FILE = 8, INVALID = 28, IS_FOLDER = 31, NO_ENTRY = 44, NO_CALL = 52;
const NOT_A_FOLDER = 54, READ_ONLY = 69, NO_SEEK = 70;
const TERMINAL = 2, FOLDER = 3, FILE = 4;  // types of files
const CREATE = 1, ONLY_FOLDERS = 2;  // flags of path_open
const FROM_HERE = 1, FROM_END = 2;  // of fd_seek
const ALL_RIGHTS = 0xffffffffffffffffn;
const ROOTS = 3;  // the first file descriptor that is no stream
const NANOSECONDS = 1e6;  // in a millisecond
const RANDOM_AT_ONCE = 65536;  // bytes

export class Exit extends Error {
  constructor(code) {
    super(`Python ended with exit code ${code}`);
    this.code = code;
  }
}

// A folder is a Map of names, a file is a Uint8Array.
function typeOf(entry) {
  return entry instanceof Map ? FOLDER : FILE;
}

// The entry at a path below a folder, or undefined.
function entryAt(folder, path) {
  let entry = folder;
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    entry = entry instanceof Map ? entry.get(part) : undefined;
  }
  return entry;
}

// Calls `line` with each whole line of what is written.
export function byLine(line) {
  const decoder = new TextDecoder();
  let rest = "";
  return (bytes) => {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop();
    lines.forEach(line);
  };
}

export class System {
  // `roots` are folders by their path; `out` and `err` take the bytes of the two streams.
  constructor({ argv, environment, roots, out, err }) {
    const texts = (list) => list.map((text) => new TextEncoder().encode(`${text}\0`));
    this.argv = texts(argv);
    this.environment = texts(Object.entries(environment).map(([name, value]) => `${name}=${value}`));
    this.writers = [null, out, err];
    this.open = new Map([0, 1, 2].map((fd) => [fd, { stream: true }]));
    Object.entries(roots).forEach(([path, entry], index) => {
      this.open.set(ROOTS + index, { entry, at: 0, root: new TextEncoder().encode(path) });
    });
    this.memory = null;  // of the instance, once there is one
  }

  // What a module imports: our calls by their names, and for all other names one that says no.
  imports(module) {
    const found = {};
    for (const { module: group, name, kind } of WebAssembly.Module.imports(module)) {
      if (kind !== "function") throw new Error(`the module imports ${group}.${name}, a ${kind}`);
      found[group] ??= {};
      const known = group === "wasi_snapshot_preview1" && typeof System.prototype[name] === "function";
      found[group][name] = known ? this[name].bind(this) : () => NO_CALL;
    }
    return found;
  }

  // Run it to its end; the answer is the exit code.
  run(instance) {
    this.memory = instance.exports.memory;
    const begin = instance.exports.run ?? instance.exports._start;
    try {
      if (instance.exports.run) instance.exports._initialize?.();
      return begin() ?? 0;
    } catch (error) {
      if (error instanceof Exit) return error.code;
      throw error;
    }
  }

  get view() {
    return new DataView(this.memory.buffer);  // growing the memory makes another buffer
  }

  bytes(at, length) {
    return new Uint8Array(this.memory.buffer, at, length);
  }

  text(at, length) {
    return new TextDecoder().decode(this.bytes(at, length).slice());
  }

  *vectors(at, count) {
    for (let number = 0; number < count; number++) {
      const place = at + 8 * number;
      yield this.bytes(this.view.getUint32(place, true), this.view.getUint32(place + 4, true));
    }
  }

  number(at, value) {
    this.view.setUint32(at, value, true);
    return OK;
  }

  large(at, value) {
    this.view.setBigUint64(at, BigInt(value), true);
    return OK;
  }

  // --- arguments, clock, chance -----------------------------------------------------------------

  sizes(list, count, size) {
    this.number(count, list.length);
    return this.number(size, list.reduce((sum, text) => sum + text.length, 0));
  }

  put(list, pointers, buffer) {
    let at = buffer;
    list.forEach((text, index) => {
      this.number(pointers + 4 * index, at);
      this.bytes(at, text.length).set(text);
      at += text.length;
    });
    return OK;
  }

  args_sizes_get(count, size) { return this.sizes(this.argv, count, size); }
  args_get(pointers, buffer) { return this.put(this.argv, pointers, buffer); }
  environ_sizes_get(count, size) { return this.sizes(this.environment, count, size); }
  environ_get(pointers, buffer) { return this.put(this.environment, pointers, buffer); }

  clock_res_get(clock, at) { return this.large(at, NANOSECONDS); }

  clock_time_get(clock, precision, at) {
    const since = clock === 0 ? performance.timeOrigin : 0;
    return this.large(at, Math.round((since + performance.now()) * NANOSECONDS));
  }

  random_get(at, length) {
    for (let start = 0; start < length; start += RANDOM_AT_ONCE) {
      crypto.getRandomValues(this.bytes(at + start, Math.min(RANDOM_AT_ONCE, length - start)));
    }
    return OK;
  }

  sched_yield() { return OK; }
  proc_exit(code) { throw new Exit(code); }

  // --- files ------------------------------------------------------------------------------------

  fd_prestat_get(fd, at) {
    const root = this.open.get(fd)?.root;
    if (!root) return BAD_FILE;
    this.number(at, 0);  // a folder
    return this.number(at + 4, root.length);
  }

  fd_prestat_dir_name(fd, at, length) {
    const root = this.open.get(fd)?.root;
    if (!root) return BAD_FILE;
    this.bytes(at, length).set(root.subarray(0, length));
    return OK;
  }

  fd_fdstat_get(fd, at) {
    const file = this.open.get(fd);
    if (!file) return BAD_FILE;
    this.bytes(at, 24).fill(0);
    this.view.setUint8(at, file.stream ? TERMINAL : typeOf(file.entry));
    this.large(at + 8, ALL_RIGHTS);
    return this.large(at + 16, ALL_RIGHTS);
  }

  fd_fdstat_set_flags() { return OK; }
  fd_advise() { return OK; }

  about(entry, type, at) {
    this.bytes(at, 64).fill(0);
    this.view.setUint8(at + 16, type);
    this.large(at + 24, 1);  // links
    return this.large(at + 32, entry?.length ?? 0);
  }

  fd_filestat_get(fd, at) {
    const file = this.open.get(fd);
    if (!file) return BAD_FILE;
    return this.about(file.entry, file.stream ? TERMINAL : typeOf(file.entry), at);
  }

  path_filestat_get(fd, flags, path, length, at) {
    const folder = this.open.get(fd);
    if (!folder) return BAD_FILE;
    const entry = entryAt(folder.entry, this.text(path, length));
    return entry ? this.about(entry, typeOf(entry), at) : NO_ENTRY;
  }

  path_readlink() { return INVALID; }  // nothing is a link

  path_open(fd, lookup, path, length, how, rights, inherited, flags, at) {
    const folder = this.open.get(fd);
    if (!folder) return BAD_FILE;
    const entry = entryAt(folder.entry, this.text(path, length));
    if (!entry) return how & CREATE ? READ_ONLY : NO_ENTRY;
    if (how & ONLY_FOLDERS && !(entry instanceof Map)) return NOT_A_FOLDER;
    let next = ROOTS;
    while (this.open.has(next)) next++;
    this.open.set(next, { entry, at: 0 });
    return this.number(at, next);
  }

  fd_close(fd) { return this.open.delete(fd) ? OK : BAD_FILE; }

  fd_write(fd, vectors, count, written) {
    const writer = this.writers[fd];
    if (!writer) return this.open.has(fd) ? READ_ONLY : BAD_FILE;
    let total = 0;
    for (const part of this.vectors(vectors, count)) {
      writer(part.slice());
      total += part.length;
    }
    return this.number(written, total);
  }

  // Bytes of a file from a place on, into the vectors; the answer is how many.
  read(entry, from, vectors, count) {
    let total = 0;
    for (const part of this.vectors(vectors, count)) {
      const piece = entry.subarray(from + total, from + total + part.length);
      part.set(piece);
      total += piece.length;
    }
    return total;
  }

  fd_read(fd, vectors, count, read) {
    const file = this.open.get(fd);
    if (!file) return BAD_FILE;
    if (file.stream) return this.number(read, 0);  // at its end
    if (file.entry instanceof Map) return IS_FOLDER;
    const total = this.read(file.entry, file.at, vectors, count);
    file.at += total;
    return this.number(read, total);
  }

  fd_pread(fd, vectors, count, from, read) {
    const file = this.open.get(fd);
    if (!file || file.stream) return BAD_FILE;
    if (file.entry instanceof Map) return IS_FOLDER;
    return this.number(read, this.read(file.entry, Number(from), vectors, count));
  }

  fd_seek(fd, offset, from, at) {
    const file = this.open.get(fd);
    if (!file) return BAD_FILE;
    if (file.stream) return NO_SEEK;
    let start = 0;
    if (from === FROM_HERE) start = file.at;
    if (from === FROM_END) start = file.entry.length;
    const place = start + Number(offset);
    if (!(place >= 0)) return INVALID;
    file.at = place;
    return this.large(at, place);
  }

  fd_tell(fd, at) {
    const file = this.open.get(fd);
    if (!file) return BAD_FILE;
    return file.stream ? NO_SEEK : this.large(at, file.at);
  }

  // Entries of a folder, as many as fit; the last one may be cut, and is then asked for again.
  fd_readdir(fd, buffer, size, cookie, used) {
    const file = this.open.get(fd);
    if (!file) return BAD_FILE;
    if (!(file.entry instanceof Map)) return NOT_A_FOLDER;
    const entries = [...file.entry];
    let filled = 0;
    for (let number = Number(cookie); number < entries.length && filled < size; number++) {
      const name = new TextEncoder().encode(entries[number][0]);
      const record = new Uint8Array(24 + name.length);
      const view = new DataView(record.buffer);
      view.setBigUint64(0, BigInt(number + 1), true);
      view.setBigUint64(8, BigInt(number + 1), true);
      view.setUint32(16, name.length, true);
      view.setUint8(20, typeOf(entries[number][1]));
      record.set(name, 24);
      const piece = record.subarray(0, size - filled);
      this.bytes(buffer + filled, piece.length).set(piece);
      filled += piece.length;
    }
    return this.number(used, filled);
  }
}

// Start Python from a module and its library; `files` are put into /minikv. See worker.js.
export async function start({ module, library, libraryName }, files) {
  const roots = {
    "/usr/local/lib": new Map([[libraryName, library]]),
    "/minikv": new Map(Object.entries(files)),
  };
  return async ({ program, argument, out, err }) => {
    const system = new System({
      argv: ["python", "-c", program, argument],
      environment: { HOME: "/nonexistent", TMPDIR: "/tmp", PYTHONTZPATH: "" },
      roots,
      out: byLine(out),
      err: byLine(err),
    });
    const instance = await WebAssembly.instantiate(module, system.imports(module));
    return system.run(instance);
  };
}
