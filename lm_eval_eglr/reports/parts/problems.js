"use strict";
// The table of problems: search, filters, order, pages, and another run beside this one.

const PER_PAGE = 100;
let order = { key: "id", down: false };
let firstShown = 0;
let kept = []; // the rows that match, in order

const truth = (value) => (value === null || value === undefined ? "–" : value ? "right" : "wrong");
const tone = (value) => (value === null || value === undefined ? "none" : value ? "right" : "wrong");

const ALL_COLUMNS = [
  { key: "id", name: "#", meaning: "The problem's number in its data file. Click a row to see its rollouts." },
  { key: "problem", name: "Problem", meaning: "The beginning of the problem." },
  { key: "reference", name: "Reference", meaning: "The reference answer." },
  { key: "correct", name: "Correct", meaning: "How many rollouts have a right answer.", show: (row) => `${row.correct} of ${row.rollouts}` },
  { key: "majority", name: "Majority", meaning: "Whether the most frequent answer is right.", show: (row) => truth(row.majority), tone: (row) => tone(row.majority) },
  { key: "there", name: "There", other: true, meaning: "Whether the most frequent answer of the other run is right.", show: (row) => truth(row.there), tone: (row) => tone(row.there) },
  { key: "solved", name: "Solved by", grid: true, meaning: "" }, // the run says which axes it has,
  { key: "answers", name: "Answers", meaning: "How many different answers the rollouts have." },
  { key: "unanswered", name: "No answer", meaning: "Rollouts in which no answer was found." },
  { key: "truncated", name: "Cut off", meaning: "Rollouts that the token limit ended." },
  { key: "entropy", name: "Entropy", meaning: "Mean entropy of the plain next-token distribution, nats." },
];
let columns = ALL_COLUMNS;

const sameProblem = (a, b) => a.id === b.id && a.problem === b.problem && a.reference === b.reference;

function otherRun() {
  return byId("other").value === "" ? null : Number(byId("other").value);
}

// The same problem's index in another run; undefined where that run does not have it.
function placeIn(run, row) {
  const place = DATA.runs[run].problems.findIndex((each) => sameProblem(each, row));
  return place < 0 ? undefined : place;
}

function matches(row) {
  const wanted = byId("search").value.trim().toLowerCase();
  const [solved, majority, both] = ["solved", "majority", "both"].map((id) => byId(id).value);
  if (wanted && !`${row.id} ${row.problem} ${row.reference}`.toLowerCase().includes(wanted)) return false;
  if (solved && row.solved !== solved) return false;
  if (majority && String(row.majority) !== majority) return false;
  if (otherRun() !== null && both && `${row.majority},${row.there}` !== both) return false;
  for (const select of byId("facets").querySelectorAll("select")) {
    if (select.value && row.facets[select.dataset.facet] !== select.value) return false;
  }
  return true;
}

function select() {
  const other = otherRun();
  kept = DATA.runs[current].problems.map((row, place) => {
    const away = other === null ? undefined : placeIn(other, row);
    return { ...row, place, there: away === undefined ? undefined : DATA.runs[other].problems[away].majority };
  }).filter(matches).sort((a, b) => ordered(a[order.key], b[order.key], order.down) || a.id - b.id);
  firstShown = 0;
  fill();
}

function fill() {
  const body = document.createDocumentFragment();
  for (const row of kept.slice(firstShown, firstShown + PER_PAGE)) {
    const line = make("tr");
    for (const column of columns) {
      const cell = make("td", null, column.tone ? column.tone(row) : "");
      if (column.key === "id") {
        const link = make("a", String(row.id));
        link.href = `#problem=${row.id}`;
        link.setAttribute("aria-label", `Open the pool of problem ${row.id}`);
        cell.append(link);
      } else if (column.key === "problem" && row.nodes) cell.append(...row.nodes.map(nodeOf));
      else if (column.key === "reference" && row.formula) cell.append(nodeOf(row.formula));
      else cell.textContent = column.show ? column.show(row) : row[column.key] ?? "–";
      line.append(cell);
    }
    line.addEventListener("click", (event) => {
      if (!event.target.closest("a") && !getSelection().toString()) location.hash = `problem=${row.id}`;
    });
    body.append(line);
  }
  byId("problems").replaceChildren(body);
  const all = DATA.runs[current].problems.length;
  byId("shown").textContent = `${kept.length} of ${all} problems`;
  byId("pages").hidden = kept.length <= PER_PAGE;
  byId("before").disabled = firstShown === 0;
  byId("after").disabled = firstShown + PER_PAGE >= kept.length;
  byId("range").textContent = `${firstShown + 1} to ${Math.min(kept.length, firstShown + PER_PAGE)} of ${kept.length}`;
}

function head() {
  byId("columns").replaceChildren(...columns.map((column) => {
    const cell = make("th");
    const chosen = order.key === column.key;
    const button = make("button", column.name + (chosen ? (order.down ? " ▾" : " ▴") : ""));
    button.type = "button";
    button.title = column.meaning;
    button.addEventListener("click", () => {
      order = { key: column.key, down: chosen ? !order.down : false };
      head();
      select();
      byId("columns").children[columns.indexOf(column)].firstChild.focus();
    });
    cell.scope = "col";
    cell.setAttribute("aria-sort", chosen ? (order.down ? "descending" : "ascending") : "none");
    cell.append(button);
    return cell;
  }));
  byId("meanings").replaceChildren(...columns.map((column) => {
    const pair = make("div");
    pair.append(make("dt", column.name), make("dd", column.meaning));
    return pair;
  }));
}

function facets() {
  const { facets: names, problems } = DATA.runs[current];
  byId("facets").replaceChildren(...names.map((name) => {
    const choice = make("select");
    choice.dataset.facet = name;
    const values = [...new Set(problems.map((row) => row.facets[name]))];
    values.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    choice.append(new Option("any", ""), ...values.map((value) => new Option(value, value)));
    const label = make("label", name);
    label.append(choice);
    return label;
  }));
}

// Runs of the same task that share at least one problem with this one.
function others() {
  const { task, problems } = DATA.runs[current];
  const shared = DATA.runs.map((run, number) => [run, number]).filter(
    ([run, number]) => number !== current && run.task === task && problems.some((row) => placeIn(number, row) !== undefined),
  );
  byId("other").replaceChildren(new Option("no other run", ""), ...shared.map(([run, number]) => new Option(run.title, String(number))));
  byId("other-label").hidden = shared.length === 0;
}

function arrange() {
  const compared = otherRun() !== null;
  const { grid, axes } = DATA.runs[current];
  columns = ALL_COLUMNS.filter((column) => (!column.grid || grid) && (!column.other || compared));
  columns = columns.map((column) => (column.key === "solved" ? { ...column, meaning: axes } : column));
  byId("both-label").hidden = !compared;
  if (!compared) byId("both").value = "";
  head();
  select();
}

byId("filters").addEventListener("input", (event) => (event.target.id === "other" ? arrange() : select()));
byId("filters").addEventListener("submit", (event) => event.preventDefault());
function turn(pages) {
  firstShown += pages * PER_PAGE;
  fill();
  byId("columns").scrollIntoView({ block: "nearest" });
}
byId("before").addEventListener("click", () => turn(-1));
byId("after").addEventListener("click", () => turn(1));
