"use strict";
// Filters the table of the atlas by words, kind and verdict. Without it the table is whole.
document.addEventListener("DOMContentLoaded", () => {
  const place = document.getElementById("atlas-filter");
  const table = document.querySelector(".atlas table");
  if (!place || !table) return;
  const rows = [...table.querySelectorAll("tbody tr")];
  const heads = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
  const cell = (row, name) => row.cells[heads.indexOf(name)].textContent.trim();
  for (const row of rows) {
    [...row.cells].forEach((one, index) => { one.dataset.head = heads[index]; });
  }

  const words = document.createElement("input");
  words.type = "search";
  words.placeholder = "words";
  words.setAttribute("aria-label", "words that a system's line holds");
  const choices = ["kind", "verdict"].map((name) => {
    const choice = document.createElement("select");
    choice.setAttribute("aria-label", name);
    choice.append(new Option(`every ${name}`, ""));
    for (const value of new Set(rows.map((row) => cell(row, name)))) {
      choice.append(new Option(value, value));
    }
    return { name, choice };
  });
  const count = document.createElement("output");
  place.append(words, ...choices.map((one) => one.choice), count);

  const show = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = wanted.every((word) => text.includes(word))
        && choices.every((one) => !one.choice.value || cell(row, one.name) === one.choice.value);
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length}`;
  };
  words.addEventListener("input", show);
  choices.forEach((one) => one.choice.addEventListener("change", show));
  const asked = new URLSearchParams(location.search).get("q");
  if (asked) words.value = asked;
  show();
});
