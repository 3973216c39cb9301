"use strict";
// Shows, filters and searches the predictions that #data holds. Whatever they say becomes text,
// never HTML.

const { models, folders, rows } = JSON.parse(document.getElementById("data").textContent);
const STEP = 100; // rows that are added to the table at a time
const [search, domain, type, kind, model, outcome] = ["search", "domain", "type", "kind", "model",
  "outcome"].map(id => document.getElementById(id));
const disagree = document.getElementById("disagree"), more = document.getElementById("more");
const body = document.querySelector("tbody");
let texts = null; // of each row in lower case, made for the first search
let shown = []; // the rows that pass the filters
let kept = 0; // how many of them stand in the table

function add(parent, tag, text = "", about = {}) {
  const element = Object.assign(document.createElement(tag), about);
  element.textContent = text;
  parent.append(element);
  return element;
}

// The parts of a row, by the names that `browser._row` gives them in this order.
function parts(row) {
  const [dataset, id, domain, type, kind, question, options, gold, confidence, images, answers] = row;
  return { dataset, id, domain, type, kind, question, options, gold, confidence, images, answers };
}

function passes(row, i, wanted) {
  const { dataset, domain: of, type: is, kind: about, answers } = parts(row);
  if (domain.value && of !== domain.value) return false;
  if (type.value && is !== type.value) return false;
  if (kind.value && JSON.stringify([dataset, about]) !== kind.value) return false;
  if (outcome.value) {
    const looked = model.value ? [answers[Number(model.value)]] : answers;
    if (!looked.some(([, , word]) => word === outcome.value)) return false;
  }
  if (disagree.checked && new Set(answers.map(([, , word]) => word)).size < 2) return false;
  return !wanted || texts[i].includes(wanted);
}

function update() {
  const wanted = search.value.trim().toLowerCase();
  if (wanted && !texts) {
    texts = rows.map(row => {
      const { id, question, options, gold, answers } = parts(row);
      return [id, question, options, gold, ...answers.map(([said]) => said)].join("\n").toLowerCase();
    });
  }
  shown = rows.filter((row, i) => passes(row, i, wanted));
  document.getElementById("count").textContent =
    `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} questions`;
  body.replaceChildren();
  kept = 0;
  showMore();
}

function showMore() {
  shown.slice(kept, kept + STEP).forEach(showRow);
  kept = Math.min(kept + STEP, shown.length);
  more.hidden = kept === shown.length;
}

function showRow(row) {
  const { question, type: is, confidence, answers } = parts(row);
  const line = add(body, "tr");
  const head = add(line, "th", "", { scope: "row" });
  const button = add(head, "button", question, { type: "button", dir: "auto" });
  button.setAttribute("aria-expanded", "false");
  add(line, "td", is).dataset.label = "type";
  add(line, "td", confidence === null ? "–" : confidence.toFixed(2)).dataset.label = "confidence";
  answers.forEach(([said, sign, word, colour], i) => {
    const cell = add(line, "td", "", { className: colour });
    cell.dataset.label = models[i];
    add(cell, "bdi", said.length > 80 ? `${said.slice(0, 80)}…` : said);
    add(cell, "span", ` ${sign} ${word}`, { className: "word" });
  });
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) line.nextSibling.remove();
    else line.after(details(row));
  });
}

// All that is known of a question, and its pictures.
function details(row) {
  const { dataset, id, domain: of, kind: about, options, gold, images, answers } = parts(row);
  const line = document.createElement("tr");
  const cell = add(line, "td", "", { colSpan: 3 + models.length, className: "details" });
  for (const image of dataset in folders ? images : []) {
    const path = `${folders[dataset]}/${image}`.split("/").map(part => encodeURIComponent(part.toWellFormed())).join("/");
    add(cell, "img", "", { src: path, alt: `The picture ${image}` });
  }
  const list = add(cell, "dl");
  const known = { question: `${dataset} · ${id}`, domain: of, kind: about, options, gold };
  for (const [name, text] of Object.entries(known)) {
    if (text) { add(list, "dt", name); add(list, "dd", text, { dir: "auto" }); }
  }
  answers.forEach(([said, sign, word, colour, rule], i) => {
    add(list, "dt", models[i]);
    add(list, "dd", `${said}  ${sign} ${word}${rule && `, by the rule ${rule}`}`,
      { className: colour, dir: "auto" });
  });
  return line;
}

function choices(select, names, values = names) {
  names.forEach((name, i) => add(select, "option", name, { value: values[i] }));
  select.addEventListener("change", update);
}

const different = place => [...new Set(rows.map(row => parts(row)[place]))].sort();
choices(domain, different("domain"));
choices(type, different("type"));
const kinds = [...new Set(rows.map(row => JSON.stringify([row[0], row[4]])))].sort();
choices(kind, kinds.map(pair => JSON.parse(pair).filter(Boolean).join(": ")), kinds);
choices(model, models, models.map((_, i) => i));
const outcomes = new Set(rows.flatMap(row => parts(row).answers.map(([, , word]) => word)));
choices(outcome, [...outcomes].sort());
for (const name of models) add(document.querySelector("thead tr"), "th", name, { scope: "col" });
let waiting = 0;
search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(update, 150); });
disagree.addEventListener("change", update);
more.addEventListener("click", showMore);
update();
