"use strict";
// Text of models reaches the document through textContent only, never as markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
let current = 0;
let order = { key: "id", down: false };

const ALL_COLUMNS = [
  { key: "id", name: "#" },
  { key: "problem", name: "Problem" },
  { key: "reference", name: "Reference" },
  { key: "correct", name: "Correct", show: (row) => `${row.correct} of ${row.rollouts}` },
  { key: "majority", name: "Majority", show: (row) => (row.majority === null ? "–" : row.majority ? "right" : "wrong"),
    tone: (row) => (row.majority === null ? "none" : row.majority ? "right" : "wrong") },
  { key: "solved", name: "Solved by", grid: true },
  { key: "answers", name: "Answers" },
  { key: "unanswered", name: "No answer" },
  { key: "truncated", name: "Cut off" },
  { key: "entropy", name: "Entropy" },
];

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  if (className) element.className = className;
  return element;
}

let columns = ALL_COLUMNS;

// Figures

function colours() {
  const style = getComputedStyle(document.documentElement);
  return style.getPropertyValue("--soft").trim();
}

const loaded = new Promise((resolve) => addEventListener("load", resolve));

async function draw() {
  await loaded;
  const section = document.querySelector(`.run[data-run="${current}"]`);
  for (const place of section.querySelectorAll(".plot")) {
    const plot = DATA.runs[current].plots[place.dataset.plot];
    const layout = structuredClone(plot.layout);
    layout.font = { ...layout.font, color: colours() };
    Plotly.react(place, plot.data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
  }
}

// Table of problems

function matches(row) {
  const wanted = byId("search").value.trim().toLowerCase();
  const solved = byId("solved").value;
  const majority = byId("majority").value;
  if (wanted && !`${row.id} ${row.problem} ${row.reference}`.toLowerCase().includes(wanted)) return false;
  if (solved && row.solved !== solved) return false;
  if (majority && String(row.majority) !== majority) return false;
  for (const select of byId("facets").querySelectorAll("select")) {
    if (select.value && row.facets[select.dataset.facet] !== select.value) return false;
  }
  return true;
}

function compare(a, b) {
  const [x, y] = [a[order.key], b[order.key]];
  if (x === y) return a.id - b.id;
  if (x === null || x === undefined) return 1;
  if (y === null || y === undefined) return -1;
  const sign = order.down ? -1 : 1;
  return sign * (typeof x === "string" ? x.localeCompare(String(y), undefined, { numeric: true }) : x - y);
}

function fill() {
  const rows = DATA.runs[current].problems;
  const kept = rows.map((row, place) => ({ ...row, place })).filter(matches).sort(compare);
  const body = document.createDocumentFragment();
  for (const row of kept) {
    const line = make("tr");
    for (const column of columns) {
      const value = column.show ? column.show(row) : row[column.key];
      const cell = make("td", column.key === "id" ? null : value ?? "–", column.tone ? column.tone(row) : "");
      if (column.key === "id") {
        const button = make("button", String(row.id));
        button.setAttribute("aria-label", `Open the pool of problem ${row.id}`);
        button.addEventListener("click", () => open(row));
        cell.append(button);
      }
      line.append(cell);
    }
    body.append(line);
  }
  byId("problems").replaceChildren(body);
  byId("shown").textContent = `${kept.length} of ${rows.length} problems`;
}

function head() {
  byId("columns").replaceChildren(...columns.map((column) => {
    const cell = make("th");
    const chosen = order.key === column.key;
    const button = make("button", column.name + (chosen ? (order.down ? " ▾" : " ▴") : ""));
    button.addEventListener("click", () => {
      order = { key: column.key, down: chosen ? !order.down : false };
      head();
      fill();
      byId("columns").children[columns.indexOf(column)].firstChild.focus();
    });
    cell.scope = "col";
    cell.setAttribute("aria-sort", chosen ? (order.down ? "descending" : "ascending") : "none");
    cell.append(button);
    return cell;
  }));
}

function facets() {
  const { facets: names, problems } = DATA.runs[current];
  byId("facets").replaceChildren(...names.map((name) => {
    const select = make("select");
    select.dataset.facet = name;
    const values = [...new Set(problems.map((row) => row.facets[name]))];
    values.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    select.append(new Option("any", ""), ...values.map((value) => new Option(value, value)));
    const label = make("label", name);
    label.append(select);
    return label;
  }));
}

// One problem's pool

async function unpack(place) {
  const packed = atob(byId(`chunk-${current}-${place}`).textContent);
  const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const pool = JSON.parse(await new Response(stream).text());
  for (const rollout of pool.rollouts) {
    // What a rollout has in common with an earlier one is kept once.
    const [source, same] = rollout.like ?? [0, 0];
    if (!rollout.pieces) {
      if (same) rollout.text = pool.rollouts[source].text.slice(0, same) + rollout.text;
      continue;
    }
    if (same) rollout.pieces = pool.rollouts[source].pieces.slice(0, same).concat(rollout.pieces);
    if (rollout.heat !== undefined && rollout.heat.length < rollout.pieces.length) {
      rollout.heat = pool.rollouts[source].heat.slice(0, same) + rollout.heat;
    }
  }
  return pool;
}

function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

function textOf(rollout) {
  const block = make("pre");
  if (!rollout.pieces) {
    block.append(visible(rollout.text));
    return block;
  }
  rollout.pieces.forEach((piece, place) => {
    const heat = Number(rollout.heat?.[place] ?? 0);
    const mark = rollout.steps[place] ?? "0";
    const changed = mark >= "a";
    const steps = changed ? mark.charCodeAt(0) - 97 : Number(mark);
    const token = make("span", visible(piece), "token");
    if (heat) token.style.backgroundColor = `rgba(var(--heat), ${heat / 11})`;
    if (steps) token.classList.add("recursed");
    if (changed) token.classList.add("changed");
    const facts = rollout.heat === undefined ? [] : [`entropy ${(heat * DATA.step).toFixed(2)} nats or more`];
    if (steps) facts.push(`${steps} iteration${steps > 1 ? "s" : ""}`);
    if (changed) facts.push("another token without the recursion");
    token.title = facts.join(", ");
    block.append(token);
  });
  return block;
}

function entry(rollout) {
  const details = make("details");
  const summary = make("summary");
  const words = { right: "right", wrong: "wrong", none: "no answer", "?": "not graded" };
  summary.append(make("b", rollout.cell));
  summary.append(make("span", words[rollout.verdict], rollout.verdict === "?" ? "none" : rollout.verdict));
  summary.append(make("span", rollout.answer === null ? "" : visible(rollout.answer)));
  const facts = rollout.count ? [`${rollout.count} tokens`] : [];
  if (rollout.end !== "unknown") facts.push(rollout.end === "length" ? "cut off" : rollout.end);
  if (rollout.entropy !== undefined) facts.push(`${rollout.entropy} nats`);
  if (rollout.gated) {
    const changed = rollout.changed === undefined ? "" : `, ${rollout.changed} of them changed`;
    facts.push(`${rollout.gated} recursed${changed}`);
  }
  summary.append(make("span", facts.join(" · "), "none"));
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(textOf(rollout));
  });
  return details;
}

async function open(row) {
  byId("pool-title").textContent = `Problem ${row.id}`;
  byId("pool-body").replaceChildren(make("p", "Unpacking …"));
  byId("pool").showModal();
  await loaded;
  const pool = await unpack(row.place);
  const legend = make("div", null, "legend");
  legend.append(make("span", `Reference: ${pool.reference === null ? "none" : visible(pool.reference)}`));
  if (pool.rollouts.some((rollout) => rollout.pieces)) {
    if (pool.rollouts.some((rollout) => rollout.heat)) {
      const most = (9 * DATA.step).toFixed(2);
      legend.append(make("span", `entropy of the token: 0 to ${most} nats and more`, "scale"));
    }
    if (pool.rollouts.some((rollout) => rollout.steps)) legend.append(make("span", "recursed token", "recursed"));
    if (pool.rollouts.some((rollout) => /[a-j]/.test(rollout.steps))) {
      legend.append(make("span", "token that recursion changed", "changed"));
    }
  }
  const all = make("button", "Open all rollouts");
  all.type = "button";
  all.addEventListener("click", () => {
    const closed = [...byId("pool-body").querySelectorAll("details")].some((each) => !each.open);
    for (const each of byId("pool-body").querySelectorAll("details")) each.open = closed;
    all.textContent = closed ? "Close all rollouts" : "Open all rollouts";
  });
  byId("pool-body").replaceChildren(make("pre", visible(pool.problem)), legend, all, ...pool.rollouts.map(entry));
}

// Start

function theme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
  draw();
}

function show(number) {
  current = number;
  const grid = DATA.runs[number].grid;
  columns = ALL_COLUMNS.filter((column) => grid || !column.grid);
  byId("solved-label").hidden = !grid;
  if (!grid) byId("solved").value = "";
  for (const section of document.querySelectorAll(".run")) {
    section.hidden = Number(section.dataset.run) !== number;
  }
  facets();
  head();
  fill();
  draw();
}

byId("run").addEventListener("change", (event) => show(Number(event.target.value)));
byId("filters").addEventListener("input", fill);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("close").addEventListener("click", () => byId("pool").close());
byId("theme").addEventListener("click", () => {
  theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
});
const dark = matchMedia("(prefers-color-scheme: dark)");
document.documentElement.dataset.theme = dark.matches ? "dark" : "light";
byId("theme").textContent = dark.matches ? "Light" : "Dark";
show(0);
// Milliseconds from the opening of the page to its first use.
document.documentElement.dataset.ready = Math.round(performance.now());
