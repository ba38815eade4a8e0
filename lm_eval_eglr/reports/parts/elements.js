"use strict";
// What all parts of the page use. Text of models reaches the document through textContent only, never as markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const MATHEMATICS = "http://www.w3.org/1998/Math/MathML";
let current = 0;

// The plotting library and the pools come after the scripts.
const loaded = new Promise((resolve) => addEventListener("load", resolve));

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  if (className) element.className = className;
  return element;
}

// Control characters and marks that reorder text are shown as one sign.
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

// Text, or [name, children, attributes] of mathematics; the names were checked when the page was made.
function nodeOf(node) {
  if (typeof node === "string") return document.createTextNode(visible(node));
  const [name, children, attributes] = node;
  const element = document.createElementNS(MATHEMATICS, name);
  for (const [key, value] of Object.entries(attributes ?? {})) element.setAttribute(key, value);
  element.append(...children.map(nodeOf));
  return element;
}

function save(name, type, content) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// Compares numbers as numbers where both are; what is not known comes last either way.
function ordered(x, y, down) {
  const none = (value) => value === null || value === undefined || value === "–" || value === "";
  if (none(x) || none(y)) return none(x) - none(y);
  const [a, b] = [parseFloat(x), parseFloat(y)];
  const sign = down ? -1 : 1;
  if (!Number.isNaN(a) && !Number.isNaN(b) && a !== b) return sign * (a - b);
  return sign * String(x).localeCompare(String(y), undefined, { numeric: true });
}
