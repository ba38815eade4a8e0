"use strict";
// The plots, their files, and the table of selectors.

async function draw() {
  await loaded;
  const section = document.querySelector(`.run[data-run="${current}"]`);
  const colour = getComputedStyle(document.documentElement).getPropertyValue("--soft").trim();
  for (const place of section.querySelectorAll(".plot")) {
    const plot = DATA.runs[current].plots[place.dataset.plot];
    const layout = structuredClone(plot.layout);
    layout.font = { ...layout.font, color: colour };
    place.setAttribute("aria-label", plot.alt);
    Plotly.react(place, plot.data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
  }
}

function quoted(value) {
  const text = value === null || value === undefined ? "" : String(value);
  // A spreadsheet would run a cell that begins like a formula.
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}

function csvOf(plot) {
  const lines = [["trace", "label", "x", "y", "value"]];
  // Numbers that plotly has packed are taken from what it drew.
  for (const trace of plot.data) {
    if (trace.type === "heatmap") {
      trace.y.forEach((y, row) => trace.x.forEach((x, column) => lines.push(["", "", x, y, trace.z[row][column]])));
    } else if (trace.hoverinfo !== "skip") {
      Array.from(trace.x ?? []).forEach((x, i) => {
        lines.push([trace.name ?? "", trace.customdata?.[i]?.[0] ?? "", x, trace.y[i], ""]);
      });
    }
  }
  return lines.map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
}

document.querySelector("main").addEventListener("click", async (event) => {
  const kind = event.target.dataset?.file;
  if (!kind) return;
  await loaded;
  const place = event.target.closest("figure").querySelector(".plot");
  const name = place.dataset.plot;
  if (kind === "csv") save(`${name}.csv`, "text/csv", csvOf({ data: place.data }));
  else Plotly.downloadImage(place, { format: "png", filename: name, width: 900, height: 540, scale: 2 });
});

for (const table of document.querySelectorAll(".strategies")) {
  table.querySelector("thead").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const heads = [...table.querySelectorAll("th")];
    const column = heads.indexOf(button.parentElement);
    // Names first from A, figures first from the largest.
    const down = heads[column].ariaSort === "descending" ? false : heads[column].ariaSort === "ascending" || column > 0;
    for (const head of heads) head.ariaSort = head === heads[column] ? (down ? "descending" : "ascending") : "none";
    const body = table.querySelector("tbody");
    const text = (row) => row.children[column].textContent;
    body.append(...[...body.children].sort((a, b) => ordered(text(a), text(b), down)));
  });
}
