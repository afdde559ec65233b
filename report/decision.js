"use strict";
// The reader's limits against the rows of the table of candidates: what fits, what is best, what can't be told.
(() => {
  const section = document.getElementById("decision");
  const panel = section && section.querySelector(".limits");
  if (!panel) return;
  const rows = [...section.querySelectorAll("tbody tr")];
  const fields = [...panel.querySelectorAll("[data-limit]")];
  const goal = panel.querySelector("[data-goal]");
  const verdict = panel.querySelector(".verdict");

  // What is known of a row's quantity as [value, low, high], or nothing.
  const known = (row, key) => {
    const found = ["", "-low", "-high"].map((end) => row.getAttribute(`data-${key}${end}`));
    return found[0] === null ? null : found.map(Number);
  };

  const judge = (row, { key, most, limit }) => {
    const [, low, high] = known(row, key) || [];
    if (low === undefined) return "unknown";
    if (most ? low >= limit : high <= limit) return "fits";
    return (most ? high < limit : low > limit) ? "no" : "may";
  };

  // The gravest verdict over all limits counts, and the quantities that it is due to are named.
  const status = (row, limits) => {
    const judged = limits.map((limit) => [judge(row, limit), limit.name]);
    const worst = ["no", "unknown", "may", "fits"].find((word) => judged.some(([own]) => own === word)) || "fits";
    return { row, worst, why: judged.filter(([own]) => own === worst).map(([, name]) => name) };
  };

  const WORDS = { fits: "fits", may: "may fit", unknown: "can't be told", no: "does not fit" };
  const counted = (found, word) => found.filter((one) => one.worst === word).length;
  const names = (some) => some.map((row) => row.dataset.name).join(", ");
  const cell = (row, key) => row.querySelector(`[data-of="${key}"]`).textContent;

  // The best of the rows that fit by the goal, those that it can't be told from, and those that may fit and be as good.
  const choose = (found, key, most) => {
    const of = (word) => found.filter((one) => one.worst === word && known(one.row, key)).map((one) => one.row);
    const value = (row) => known(row, key)[0] * (most ? -1 : 1);
    const fitting = of("fits");
    const least = Math.min(...fitting.map(value));
    const best = fitting.filter((row) => value(row) === least);
    const surelyWorse = (row) =>
      best.length > 0 &&
      best.every((other) => {
        const [[, low, high], [, bestLow, bestHigh]] = [known(row, key), known(other, key)];
        return most ? high < bestLow : low > bestHigh;
      });
    const alike = fitting.filter((row) => !best.includes(row) && !surelyWorse(row));
    return { best, alike, open: of("may").filter((row) => !surelyWorse(row)) };
  };

  const update = () => {
    const limits = fields
      .filter((field) => field.value !== "")
      .map((field) => ({
        key: field.dataset.limit,
        most: field.dataset.better === "most",
        limit: Number(field.value),
        name: field.dataset.name,
      }));
    const found = rows.map((row) => status(row, limits));
    const chosen = fields.find((field) => field.dataset.limit === goal.value);
    const { best, alike, open } = choose(found, goal.value, chosen.dataset.better === "most");
    for (const { row, worst, why } of found) {
      const own = best.includes(row) ? "best" : alike.includes(row) ? "fits, alike" : WORDS[worst];
      row.dataset.verdict = best.includes(row) ? "best" : worst;
      row.querySelector("[data-status]").textContent = why.length && worst !== "fits" ? `${own}: ${why.join(", ")}` : own;
    }
    const aim = goal.selectedOptions[0].textContent;
    const said = [
      `Of ${rows.length} candidates ${counted(found, "fits")} fit, ${counted(found, "may")} may fit, ` +
        `${counted(found, "no")} do not, and of ${counted(found, "unknown")} it can't be told.`,
    ];
    if (best.length) said.push(`Best (${aim}) is ${names(best)}: ${cell(best[0], goal.value)}.`);
    else said.push(counted(found, "may") ? "None fits for certain." : "None fits.");
    if (alike.length) said.push(`The study can't tell whether it is better than ${names(alike)}.`);
    if (open.length) said.push(`${best.length ? "As good or better, should they fit" : "May fit"}: ${names(open)}.`);
    verdict.textContent = said.join(" ");
  };

  panel.hidden = false;
  section.querySelectorAll("[data-status]").forEach((one) => (one.hidden = false));
  panel.addEventListener("input", update);
  panel.querySelector("[data-clear]").addEventListener("click", () => {
    fields.forEach((field) => (field.value = ""));
    update();
  });
  update();
})();
