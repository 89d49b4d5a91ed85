// The two panes: the conversation, and the bank with the operations that are shown.

const turnNodes = new Map(); // turn id → its parts
const entryNodes = new Map(); // entry id → its parts
let span = { before: 0, until: 0 }; // the operations shown: those behind `before`, up to `until`
let reached = -1; // place of the turn that is read at this point
let picked = null; // id of the entry whose history is open
let evidence = []; // turn ids that a question points at
let marked = []; // turn ids that are highlighted

function buildTurns() {
  const list = document.createDocumentFragment();
  let sitting = null;
  view.turns.forEach((turn, place) => {
    const heading = [turn.session, clock(turn.time)].filter((part) => part).join(" · ");
    if (heading !== sitting) list.append(make("li", "sitting", heading));
    sitting = heading;
    const head = make("div", "", button(turn.id, () => goToTurn(place)), " ", make("b", "", turn.speaker));
    const node = make("li", "turn later", head);
    if (turn.text !== null) node.append(make("p", "", turn.text));
    if (turn.image_caption) node.append(make("p", "soft", `image: ${turn.image_caption}`));
    turnNodes.set(turn.id, { node, head, why: make("span", "why"), place });
    list.append(node);
  });
  for (const operation of operations) {
    const label = operation.source.failure !== null ? "UNREADABLE" : `${operation.kind} ${operation.entry_id}`.trim();
    turnNodes.get(operation.source.turn_id).head.append(" ", word(operation.kind, label));
  }
  turnNodes.forEach((turn) => turn.head.append(" ", turn.why));
  byId("turns").append(list);
  byId("no-words").hidden = view.knows_words;
}

function showReading() {
  const operation = operations[span.until - 1];
  const turn = operation ? turnNodes.get(operation.source.turn_id) : null;
  const former = reached;
  reached = turn ? turn.place : -1;
  for (let place = Math.max(Math.min(former, reached), 0); place <= Math.max(former, reached); place++) {
    const node = turnNodes.get(view.turns[place].id).node;
    node.classList.toggle("later", place > reached);
    node.classList.toggle("now", place === reached);
    node.ariaCurrent = place === reached ? "step" : null;
  }
  byId("reading").textContent = `${reached + 1} of ${counted(view.turns.length, "turn", "turns")}`;
  reveal(byId("conversation"), turn ? turn.node : byId("turns").firstElementChild);
}

// Marks the turns that the picked entry rests on, or those that a question points at.
function showBasis() {
  const entry = picked === null ? null : entryAt(picked, span.until) || entryAt(picked, span.before);
  const reasons = new Map(evidence.map((id) => [id, "evidence of the question"]));
  for (const id of entry ? entry.turn_ids : []) reasons.set(id, `entry ${entry.id} rests on this`);
  for (const id of new Set([...marked, ...reasons.keys()])) {
    const turn = turnNodes.get(id);
    if (!turn) continue; // evidence of a conversation that is not known here
    turn.node.classList.toggle("basis", reasons.has(id));
    turn.why.textContent = reasons.get(id) || "";
  }
  marked = [...reasons.keys()];
}

function revealBasis() {
  const first = document.querySelector(".turn.basis");
  if (first) reveal(byId("conversation"), first);
}

function buildEntries() {
  const list = document.createDocumentFragment();
  for (const id of Object.keys(view.states).sort((a, b) => a - b)) {
    const [mark, about, old, text] = [make("span"), make("span"), make("del"), make("p")];
    const [choose, oldLine, past] = [button(`entry ${id}`, () => pick(id)), make("p", "", old), make("ol", "history")];
    const node = make("li", "entry", make("div", "head", choose, " ", mark, about), oldLine, text, past);
    node.addEventListener("click", () => {
      if (!String(getSelection())) pick(id); // else the reader is selecting words
    });
    past.addEventListener("click", (event) => event.stopPropagation());
    node.dataset.id = id;
    entryNodes.set(id, { node, mark, about, old, oldLine, text, choose, past });
    drawEntry(id);
    showHistory(id);
    list.append(node);
  }
  byId("entries").append(list);
}

function drawEntry(id) {
  const parts = entryNodes.get(id);
  const before = entryAt(id, span.before), after = entryAt(id, span.until);
  const kind = before === after ? "" : !before ? "ADD" : after ? "UPDATE" : "DELETE";
  const shown = after || before;
  parts.node.hidden = !shown;
  parts.node.className = ["entry", kind && "changed", kind.toLowerCase(), id === picked && "picked"].filter(Boolean).join(" ");
  parts.node.dataset.change = kind;
  if (!shown) return;
  parts.mark.replaceChildren(...(kind ? [word(kind), " "] : []));
  parts.about.textContent = `${shown.speaker} · ${clock(shown.time)} · turns ${shown.turn_ids.join(", ")}`;
  parts.old.textContent = kind && before && (!after || after.text !== before.text) ? before.text : "";
  parts.oldLine.hidden = !parts.old.textContent;
  parts.text.textContent = after ? after.text : "";
  parts.text.hidden = !after;
}

// Opens an entry's history, or closes it; null closes the one that is open.
function pick(id) {
  const former = picked;
  picked = id === former ? null : id;
  evidence = [];
  for (const each of [former, picked]) if (each !== null) showHistory(each);
  showBasis();
  revealBasis();
}

function showHistory(id) {
  const parts = entryNodes.get(id), isOpen = id === picked;
  parts.choose.ariaExpanded = String(isOpen);
  parts.node.classList.toggle("picked", isOpen);
  parts.past.hidden = !isOpen;
  parts.past.replaceChildren(...(isOpen ? view.states[id].map((state) => historyLine(id, state)) : []));
}

function historyLine(id, state) {
  const { kind, source } = operations[state.sequence - 1];
  const isLater = state.sequence > span.until;
  const where = button(`operation ${state.sequence}`, () => goToNumber(state.sequence));
  const told = ` · turn ${source.turn_id} · ${clock(source.time)}${decidedBy(source)}${isLater ? " · later" : ""}`;
  const before = entryAt(id, state.sequence - 1);
  const words = state.entry ? state.entry.text : make("del", "", before ? before.text : "");
  return make("li", isLater ? "later" : "", word(kind), " ", where, told, make("div", "", words));
}

function showStep() {
  const shown = operations.slice(span.before, span.until);
  const lines = shown.map((operation, index) => stepLine(operation, span.before + index + 1));
  if (!shown.length) lines.push("Before the first operation.");
  for (const { source } of shown.slice(-1)) {
    const told = `turn ${source.turn_id} · ${source.speaker} · ${clock(source.time)}${decidedBy(source)}`;
    lines.push(make("div", "soft", told));
  }
  byId("step").replaceChildren(...lines);
}

function stepLine({ kind, entry_id: id, source }, number) {
  const before = id ? entryAt(id, number - 1) : null, after = id ? entryAt(id, number) : null;
  const line = make("div", kind.toLowerCase(), word(kind), id ? ` entry ${id}: ` : " The bank stays as it is.");
  if (before && (!after || after.text !== before.text)) line.append(make("del", "", before.text), after ? " → " : "");
  if (after) line.append(make("ins", "", after.text));
  if (source.failure !== null) line.append(" The output could not be read:", make("pre", "", source.failure));
  return line;
}
