// Through time. A move draws the entries that the operations between the two points touch, and no others.

let stops = []; // where the slider may stand: numbers of operations
let place = 0; // of the present stop
let waiting = 0; // the timer that writes the address: browsers refuse too many changes of it

function listStops(unit) {
  stops = [0];
  operations.forEach((operation, index) => {
    if (unit === "operation" || operation.num_following === 0) stops.push(index + 1);
  });
  byId("slider").max = String(stops.length - 1);
}

function goToNumber(number) {
  const found = stops.findIndex((stop) => stop >= number);
  go(found < 0 ? stops.length - 1 : found);
}

// The bank once the turn was read. Turns that left no operation change nothing.
function goToTurn(index) {
  for (let at = index; at >= 0; at--) {
    const number = lastOfTurn.get(view.turns[at].id);
    if (number !== undefined) return goToNumber(number);
  }
  return go(0);
}

function goToHash() {
  const number = location.hash === "" ? operations.length : Number(location.hash.slice(1));
  goToNumber(Number.isInteger(number) ? number : operations.length);
}

function go(target) {
  const former = span;
  place = Math.max(0, Math.min(target, stops.length - 1));
  span = { before: place ? stops[place - 1] : 0, until: stops[place] };
  touched(Math.min(former.before, span.before), Math.max(former.until, span.until)).forEach(drawEntry);
  evidence = [];
  if (picked !== null) showHistory(picked);
  showPlace();
  showStep();
  showBasis();
  showReading();
  for (const id of touched(span.before, span.until)) {
    if (!entryNodes.get(id).node.hidden) reveal(byId("bank"), entryNodes.get(id).node);
  }
}

function showPlace() {
  const unit = byId("unit").value;
  const where = `${unit} ${place} of ${stops.length - 1}` + (unit === "turn" ? ` · operation ${span.until}` : "");
  byId("slider").value = String(place);
  byId("slider").ariaValueText = where;
  byId("where").textContent = where;
  byId("count").textContent = counted(held[span.until], "entry", "entries");
  byId("empty").hidden = held[span.until] > 0;
  byId("first").disabled = byId("previous").disabled = place === 0;
  byId("last").disabled = byId("next").disabled = place === stops.length - 1;
  clearTimeout(waiting);
  waiting = setTimeout(() => history.replaceState(null, "", `#${span.until}`), 300);
}

function moveByKey(event) {
  const isTaken = event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.target.matches("select, input");
  const target = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: stops.length - 1 }[event.key];
  if (isTaken || target === undefined) return;
  event.preventDefault();
  go(target);
}

function listen() {
  byId("slider").addEventListener("input", () => go(Number(byId("slider").value)));
  byId("first").addEventListener("click", () => go(0));
  byId("previous").addEventListener("click", () => go(place - 1));
  byId("next").addEventListener("click", () => go(place + 1));
  byId("last").addEventListener("click", () => go(stops.length - 1));
  byId("unit").addEventListener("change", () => {
    listStops(byId("unit").value);
    goToNumber(span.until);
  });
  addEventListener("hashchange", goToHash);
  addEventListener("keydown", moveByKey);
}

function start() {
  const decided = `${counted(operations.length, "operation", "operations")}, decided by ${policies.join(", ")}`;
  byId("about").textContent = `${decided} · journal ${view.place}`;
  indexOperations();
  buildTurns();
  buildEntries();
  buildQuestions();
  listStops("operation");
  listen();
  goToHash();
}

start();
