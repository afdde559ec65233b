// The claims can be filtered; without this script all rows stand there.
(function () {
  "use strict";
  const controls = document.querySelector(".claims-filter");
  if (!controls) return;
  const [verdict, chapter] = controls.querySelectorAll("select");
  const rows = Array.from(document.querySelectorAll(".claims-table tbody tr"));
  const shown = controls.querySelector("output");

  function filter() {
    let count = 0;
    for (const row of rows) {
      row.hidden = (verdict.value && row.dataset.verdict !== verdict.value) || (chapter.value && row.dataset.chapter !== chapter.value);
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count} of ${rows.length} claims`;
  }

  function showAll() {
    verdict.value = chapter.value = "";
    filter();
  }

  // A link to a claim must not lead to a row that is filtered out.
  function reveal() {
    const target = rows.find((row) => `#${row.id}` === location.hash);
    if (!target) return;
    if (target.hidden) showAll();
    target.scrollIntoView();
  }

  controls.addEventListener("change", filter);
  controls.querySelector("button").addEventListener("click", showAll);
  addEventListener("hashchange", reveal);
  controls.hidden = false;
  filter();
  reveal();
})();
