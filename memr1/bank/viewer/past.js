// The page of one bank. Words of a conversation become text nodes only, never markup.
// This part: the data, what the bank was at any operation, and how nodes are made.
"use strict";

const view = JSON.parse(document.getElementById("data").textContent);
const operations = view.operations; // operation number n is operations[n - 1]
const lastOfTurn = new Map(); // turn id → number of its last operation
const policies = [...new Set(operations.map((operation) => operation.source.policy))];
const held = [0]; // entries in the bank after each operation

const byId = (id) => document.getElementById(id);
const clock = (time) => time.slice(0, 16).replace("T", " ");
const counted = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

const decidedBy = (source) => (policies.length > 1 ? ` · decided by ${source.policy}` : ""); // else the heading says it

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function button(text, action) {
  const node = make("button", "link", text);
  node.type = "button";
  node.addEventListener("click", (event) => {
    event.stopPropagation();
    action();
  });
  return node;
}

function word(kind, text = kind) {
  return make("span", "word " + kind.toLowerCase(), text);
}

// Brings a node into its pane's view without moving the page.
function reveal(pane, node) {
  const frame = pane.getBoundingClientRect(), box = node.getBoundingClientRect();
  const top = frame.top + pane.firstElementChild.offsetHeight; // the heading stays where it is
  if (box.top < top) pane.scrollTop -= top - box.top;
  else if (box.bottom > frame.bottom) pane.scrollTop += Math.min(box.bottom - frame.bottom + 12, box.top - top);
}

function entryAt(id, number) {
  const states = view.states[id];
  let low = 0, high = states.length; // in the end `low` is the place of the first state behind `number`
  while (low < high) {
    const middle = (low + high) >> 1;
    if (states[middle].sequence <= number) low = middle + 1;
    else high = middle;
  }
  return low ? states[low - 1].entry : null;
}

// Ids of the entries that the operations behind `from`, up to `to`, add, change or remove.
function touched(from, to) {
  return new Set(operations.slice(from, to).map((operation) => operation.entry_id).filter((id) => id));
}

function indexOperations() {
  operations.forEach((operation, index) => {
    lastOfTurn.set(operation.source.turn_id, index + 1);
    const id = operation.entry_id;
    held.push(held[index] + (id ? Boolean(entryAt(id, index + 1)) - Boolean(entryAt(id, index)) : 0));
  });
}
