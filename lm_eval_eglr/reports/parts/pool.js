"use strict";
// One problem's pool: the matrix of its answers, and every rollout token by token.

const WORDS = { right: "right", wrong: "wrong", none: "no answer", "?": "not graded" };
const toneOf = (rollout) => (rollout.verdict === "?" ? "none" : rollout.verdict);

async function unpack(run, place) {
  const packed = atob(byId(`chunk-${run}-${place}`).textContent);
  const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const pool = JSON.parse(await new Response(stream).text());
  for (const rollout of pool.rollouts) {
    rollout.baseline = pool.baseline;
    // Recurrences iterate on every token: what is worth a mark is that the exit rule was not met, if one ever was.
    const early = pool.axis === "R" && rollout.iterations < rollout.depth;
    rollout.marked = (steps) => (pool.axis === "R" ? early && steps >= Math.min(rollout.depth, 35) : steps > 0);
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

function answerOf(pool, text) {
  if (text === null) return document.createTextNode("");
  return nodeOf(pool.formulas[text] ?? text);
}

// Tokens

function factsOf(rollout, place) {
  const heat = Number(rollout.heat?.[place] ?? 0);
  const mark = rollout.steps[place] ?? "0";
  const changed = mark >= "a";
  const steps = changed ? mark.charCodeAt(0) - 97 : parseInt(mark, 36);
  const words = [`token ${place}`];
  if (rollout.heat !== undefined) words.push(`entropy ${(heat * DATA.step).toFixed(2)} nats or more`);
  if (steps) words.push(`${steps} iteration${steps > 1 ? "s" : ""}`);
  if (changed) words.push("another token without the recursion");
  if (rollout.leaves === place) words.push(`here the rollout leaves that of ${rollout.baseline}`);
  return { heat, steps, changed, words: words.join(", ") };
}

function textOf(rollout) {
  const block = make("pre");
  if (!rollout.pieces) {
    block.append(visible(rollout.text));
    return [block];
  }
  rollout.pieces.forEach((piece, place) => {
    const { heat, steps, changed, words } = factsOf(rollout, place);
    const token = make("span", visible(piece), "token");
    if (heat) token.style.backgroundColor = `rgba(var(--heat), ${heat / 11})`;
    if (rollout.marked(steps)) token.classList.add("recursed");
    if (changed) token.classList.add("changed");
    if (rollout.leaves === place) token.classList.add("leaves");
    token.title = words;
    block.append(token);
  });
  // The same facts for keyboard and touch: a token is chosen by a tap, or by the arrow keys inside the text.
  const told = make("output", "Tap a token, or use the arrow keys here, to read its figures.", "note told");
  let at = -1;
  function choose(place) {
    block.children[at]?.classList.remove("at");
    at = Math.max(0, Math.min(block.children.length - 1, place));
    const token = block.children[at];
    if (!token) return;
    token.classList.add("at");
    token.scrollIntoView({ block: "nearest" });
    told.textContent = `“${visible(rollout.pieces[at]).trim()}”: ${factsOf(rollout, at).words}`;
  }
  block.tabIndex = 0;
  block.setAttribute("aria-label", `Tokens of rollout ${rollout.cell}`);
  block.addEventListener("click", (event) => {
    const place = [...block.children].indexOf(event.target);
    if (place >= 0) choose(place);
  });
  block.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation(); // elsewhere these keys go to the next problem
    choose(at + step);
  });
  return [block, told];
}

// Rollouts

function entry(pool, rollout) {
  const details = make("details");
  const summary = make("summary");
  summary.append(make("b", rollout.cell), make("span", WORDS[rollout.verdict], toneOf(rollout)));
  const answer = make("span");
  answer.append(answerOf(pool, rollout.answer));
  const facts = rollout.count ? [`${rollout.count} tokens`] : [];
  if (rollout.end !== "unknown") facts.push(rollout.end === "length" ? "cut off" : rollout.end);
  if (rollout.entropy !== undefined) facts.push(`${rollout.entropy} nats`);
  if (rollout.gated) {
    const changed = rollout.changed === undefined ? "" : `, ${rollout.changed} of them changed`;
    facts.push(`${rollout.gated} recursed${changed}`);
  }
  if (rollout.iterations) facts.push(`${rollout.iterations} iterations per token`);
  if (rollout.leaves !== undefined) facts.push(`leaves ${rollout.baseline} at token ${rollout.leaves}`);
  summary.append(answer, make("span", facts.join(" · "), "none"));
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(...textOf(rollout));
  });
  return details;
}

// Depths by temperatures; nothing for pools that are no grid.
function matrix(pool, entries) {
  const depths = [...new Set(pool.rollouts.map((rollout) => rollout.depth))];
  const names = [...new Set(pool.rollouts.map((rollout) => rollout.column))];
  if (depths.includes(undefined) || depths.length < 2) return [];
  const table = make("table", null, "matrix");
  const top = make("tr");
  top.append(make("th", ""), ...names.map((name) => Object.assign(make("th", name), { scope: "col" })));
  table.append(top);
  for (const depth of depths) {
    const line = make("tr");
    line.append(Object.assign(make("th", `${pool.axis} ${depth}`), { scope: "row" }));
    for (const name of names) {
      const number = pool.rollouts.findIndex((rollout) => rollout.depth === depth && rollout.column === name);
      const cell = make("td");
      if (number >= 0) {
        const rollout = pool.rollouts[number];
        const button = make("button", null, toneOf(rollout));
        button.type = "button";
        button.append(rollout.answer === null ? "–" : answerOf(pool, rollout.answer));
        if (rollout.leaves !== undefined) button.append(make("small", `≠ ${rollout.leaves}`));
        button.setAttribute("aria-label", `${rollout.cell}: ${rollout.answer ?? "no answer"}, ${WORDS[rollout.verdict]}`);
        button.addEventListener("click", () => {
          entries[number].open = true;
          entries[number].scrollIntoView({ block: "start" });
          entries[number].firstChild.focus();
        });
        cell.append(button);
      }
      line.append(cell);
    }
    table.append(line);
  }
  const wide = make("div", null, "wide");
  wide.append(table);
  return [wide];
}

function legendOf(pool) {
  const legend = make("div", null, "legend");
  const reference = make("span", "Reference: ");
  reference.append(pool.reference === null ? "none" : answerOf(pool, pool.reference));
  legend.append(reference);
  if (pool.rollouts.some((rollout) => rollout.leaves !== undefined)) {
    legend.append(make("span", `≠ 12: from token 12 on it differs from the rollout of ${pool.baseline} in its column`));
  }
  if (pool.rollouts.some((rollout) => rollout.pieces)) {
    if (pool.rollouts.some((rollout) => rollout.heat)) {
      legend.append(make("span", `entropy of the token: 0 to ${(9 * DATA.step).toFixed(2)} nats and more`, "scale"));
    }
    const marks = pool.rollouts.some((rollout) => [...(rollout.steps ?? "")].some((mark) => rollout.marked(parseInt(mark, 36))));
    if (marks) legend.append(make("span", pool.axis === "R" ? "token that took all its iterations" : "recursed token", "recursed"));
    if (pool.rollouts.some((rollout) => /[a-j]/.test(rollout.steps))) {
      legend.append(make("span", "token that recursion changed", "changed"));
    }
  }
  return legend;
}

function poolOf(pool) {
  const entries = pool.rollouts.map((rollout) => entry(pool, rollout));
  const all = make("button", "Open all rollouts");
  all.type = "button";
  all.addEventListener("click", () => {
    const closed = entries.some((each) => !each.open);
    for (const each of entries) each.open = closed;
    all.textContent = closed ? "Close all rollouts" : "Open all rollouts";
  });
  return [legendOf(pool), ...matrix(pool, entries), all, ...entries];
}

let opened = null; // the row whose pool is shown

async function open(row) {
  opened = row;
  byId("pool-title").textContent = `Problem ${row.id}`;
  byId("pool-body").replaceChildren(make("p", "Unpacking …"));
  byId("previous").disabled = kept.findIndex((each) => each.place === row.place) <= 0;
  byId("next").disabled = kept.findIndex((each) => each.place === row.place) + 1 >= kept.length;
  if (!byId("pool").open) byId("pool").showModal();
  await loaded;
  const pool = await unpack(current, row.place);
  if (opened !== row) return; // another one was asked for meanwhile
  const problem = make("pre", null, "statement");
  problem.append(...pool.problem.map(nodeOf));
  const other = otherRun();
  const away = other === null ? undefined : placeIn(other, row);
  if (away === undefined) {
    byId("pool-body").replaceChildren(problem, ...poolOf(pool));
    return;
  }
  const there = await unpack(other, away);
  if (opened !== row) return;
  const sides = make("div", null, "sides");
  for (const [number, each] of [[current, pool], [other, there]]) {
    const side = make("section");
    side.append(make("h4", DATA.runs[number].title), ...poolOf(each));
    sides.append(side);
  }
  byId("pool-body").replaceChildren(problem, sides);
}

// The problem beside the one that is open, in the table's order.
function step(by) {
  const place = kept.findIndex((row) => row.place === opened?.place);
  const row = kept[place + by];
  if (place >= 0 && row) location.hash = `problem=${row.id}`;
}

// #problem=36 opens a pool; without it none is open.
function follow() {
  const wanted = /^#problem=(\d+)$/.exec(location.hash)?.[1];
  const place = DATA.runs[current].problems.findIndex((row) => String(row.id) === wanted);
  if (place >= 0) open(kept.find((row) => row.place === place) ?? { ...DATA.runs[current].problems[place], place });
  else if (byId("pool").open) byId("pool").close();
}

byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => byId("pool").close());
byId("pool").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
byId("pool").addEventListener("close", () => {
  const id = opened?.id;
  opened = null;
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  // Back to where the reader came from.
  [...byId("problems").querySelectorAll("a")].find((link) => link.textContent === String(id))?.focus();
});
addEventListener("hashchange", follow);
