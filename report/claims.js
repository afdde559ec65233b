// The claims can be filtered; without this script all rows stand there.
(function () {
  "use strict";
  const form = document.querySelector(".claims-filter");
  if (!form) return;
  const rows = Array.from(document.querySelectorAll(".claims-table tbody tr"));
  const shown = form.querySelector("output");

  function filter() {
    const verdict = form.elements.verdict.value;
    const chapter = form.elements.chapter.value;
    let count = 0;
    for (const row of rows) {
      row.hidden = (verdict && row.dataset.verdict !== verdict) || (chapter && row.dataset.chapter !== chapter);
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count} of ${rows.length} rows shown`;
  }

  // A link to a claim must not lead to a row that is filtered out.
  function reveal() {
    const target = rows.find((row) => `#${row.id}` === location.hash);
    if (!target) return;
    if (target.hidden) {
      form.elements.verdict.value = form.elements.chapter.value = "";
      filter();
    }
    target.scrollIntoView();
  }

  form.addEventListener("change", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", reveal);
  form.hidden = false;
  filter();
  reveal();
})();
