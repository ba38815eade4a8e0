"use strict";
// Which run is shown, in which theme.

function remembered() {
  try {
    return localStorage.getItem("eglr-theme");
  } catch {
    return null; // a page from a file may not be allowed to remember
  }
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
}

function show(number) {
  current = number;
  const grid = DATA.runs[number].grid;
  byId("solved-label").hidden = !grid;
  if (!grid) byId("solved").value = "";
  for (const section of document.querySelectorAll(".run")) {
    section.hidden = Number(section.dataset.run) !== number;
  }
  others();
  facets();
  arrange();
  draw();
}

byId("run").addEventListener("change", (event) => show(Number(event.target.value)));
byId("theme").addEventListener("click", () => {
  const chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  theme(chosen);
  draw();
  try {
    localStorage.setItem("eglr-theme", chosen);
  } catch {
    // It lasts as long as the page, then.
  }
});
theme(remembered() ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
show(0);
follow();
// Milliseconds from the opening of the page to its first use.
document.documentElement.dataset.ready = Math.round(performance.now());
