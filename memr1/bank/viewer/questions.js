// The questions below the panes: gold answer, given answer, and the memories behind it.

function buildQuestions() {
  const answered = view.questions.filter((question) => question.answer);
  const right = answered.filter((question) => question.answer.is_right).length;
  byId("asked").hidden = !view.questions.length;
  byId("score").textContent = answered.length
    ? `${right} of ${answered.length} right; ${view.system} answered from the finished bank`
    : `${view.questions.length}, not asked here`;
  byId("questions").append(...view.questions.map(questionNode));
  byId("show").hidden = !answered.length;
  byId("shown").addEventListener("change", () => {
    const wanted = byId("shown").value;
    for (const node of byId("questions").children) node.hidden = Boolean(wanted) && node.dataset.outcome !== wanted;
  });
}

function questionNode(question) {
  const { answer, evidence: turns } = question;
  const outcome = !answer ? "unasked" : answer.is_right ? "right" : "wrong";
  const facts = make("dl");
  const tell = (name, ...values) => facts.append(make("dt", "", name), make("dd", "", ...values));
  tell("gold", question.gold);
  if (answer) {
    tell("answer", answer.failure !== null ? make("pre", "", `unreadable: ${answer.failure}`) : answer.text || "(empty)");
    tell("word F1", answer.f1.toFixed(2));
    tell("memories", ...memoryLines(answer));
  }
  if (turns.length) tell("evidence", ...turns.flatMap((id) => [button(id, () => pointAt(turns)), " "]));
  const head = make("div", "", word(outcome, answer ? outcome.toUpperCase() : "NOT ASKED"), " ", make("b", "", question.text));
  head.append(" ", make("span", "soft", `category ${question.category}`));
  const node = make("li", outcome, head, facts);
  node.dataset.outcome = outcome;
  return node;
}

function memoryLines(answer) {
  const lines = answer.memories.map((memory) => {
    const links = memory.entry_ids.flatMap((id) => [button(`entry ${id}`, () => showMemory(id)), " "]);
    return make("div", "", ...(links.length ? links : [make("i", "soft", "not in this bank: ")]), memory.text);
  });
  return [...lines, make("span", "soft", `${answer.memories.length} used of ${answer.num_retrieved} retrieved`)];
}

function showMemory(id) {
  go(stops.length - 1);
  if (picked !== id) pick(id);
  lookUp();
  reveal(byId("bank"), entryNodes.get(id).node);
}

function pointAt(turns) {
  if (picked !== null) pick(picked);
  evidence = turns;
  showBasis();
  lookUp();
  revealBasis();
}

function lookUp() {
  document.querySelector("main").scrollIntoView({ block: "start" });
}
