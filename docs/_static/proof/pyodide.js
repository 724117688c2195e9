// Pyodide: CPython and NumPy as WebAssembly for the browser, from where its authors publish it.

export const VERSION = "314.0.6";  // Python 3.14, NumPy 2.4.6
const PUBLISHED = `https://cdn.jsdelivr.net/pyodide/v${VERSION}/full/`;

// Start Python; `place` is a folder of this site that holds Pyodide, or null. See worker.js.
export async function start(place, files, step) {
  const from = place ?? PUBLISHED;
  step(`fetching Pyodide ${VERSION} from ${new URL(from).host}`);
  let python;
  try {
    const { loadPyodide } = await import(`${from}pyodide.mjs`);
    python = await loadPyodide({ indexURL: from });
  } catch (error) {
    throw new Error(`Pyodide could not be had from ${from}: is there a network? (${error.message})`);
  }
  step("fetching NumPy");
  const said = [];
  const keep = (line) => said.push(line);
  await python.loadPackage("numpy", { messageCallback: () => {}, errorCallback: keep })
    .catch((error) => keep(error.message));
  if (!python.loadedPackages.numpy) {  // which is not always an error of its own
    throw new Error(`NumPy could not be had from ${from}: ${said.at(-1) ?? "is there a network?"}`);
  }
  python.FS.mkdir("/minikv");
  for (const [name, bytes] of Object.entries(files)) python.FS.writeFile(`/minikv/${name}`, bytes);
  return async ({ program, argument, out, err }) => {
    python.setStdout({ batched: out });
    python.setStderr({ batched: err });
    python.globals.set("argument", argument);
    python.runPython(`import sys; sys.argv = ["-c", argument]\n${program}`);
    return 0;
  };
}
