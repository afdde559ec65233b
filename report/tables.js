// Every table can be sorted by its column heads, copied, and kept as CSV.
(() => {
  "use strict";
  const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  const MINUS = /[−–-](?=[\d∞])/g;
  const MISSING = new Set(["", "–", "-"]);
  const LONG = 24;  // rows: a table with more shows the first of them
  const collator = new Intl.Collator("en", { numeric: true });

  const textOf = (cell, marks = true) => {
    const copy = cell.cloneNode(true);
    for (const small of copy.querySelectorAll("small, .mark")) small.before(" ");
    if (!marks) for (const mark of copy.querySelectorAll(".mark")) mark.remove();
    return copy.textContent.replace(/\s+/g, " ").trim();
  };

  // The number that a cell begins with: 1,024 or −0.3 % or 8.5·10⁷ or 415 [333, 518] or 2 min 3 s or ∞; else NaN.
  const numberOf = (text) => {
    const plain = text.replace(MINUS, "-").replace(/^\[/, "");
    if (/^-?∞/.test(plain)) return plain.startsWith("-") ? -Infinity : Infinity;
    const minutes = /^(\d+) min (\d+) s$/.exec(plain);
    if (minutes) return 60 * minutes[1] + Number(minutes[2]);
    const found = /^(-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)(?:·10(⁻?)([⁰¹²³⁴⁵⁶⁷⁸⁹]+))?(?![\w.-])/.exec(plain);
    if (!found) return NaN;
    const exponent = found[3] ? Number([...found[3]].map((digit) => SUPERSCRIPTS.indexOf(digit)).join("")) : 0;
    return Number(found[1].replaceAll(",", "")) * 10 ** (found[2] ? -exponent : exponent);
  };

  // What a row is sorted by: numbers before words before nothing, whichever way; words that tell equal numbers apart.
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    if (!cell || cell.colSpan > 1) return { rank: 2, number: 0, text: "" };
    const text = textOf(cell, false);
    const number = cell.dataset.value === undefined ? numberOf(text) : Number(cell.dataset.value);
    if (!Number.isNaN(number)) return { rank: 0, number, text };
    return { rank: MISSING.has(text) ? 2 : 1, number: 0, text };
  };
  const compare = (a, b) => {
    if (a.number !== b.number) return a.number < b.number ? -1 : 1;
    return collator.compare(a.text, b.text);
  };

  const sort = (table, column, direction, original) => {
    const keyed = original.map((row) => [keyOf(row, column), row]);
    const order = direction === "descending" ? -1 : 1;
    if (direction !== "none") keyed.sort(([a], [b]) => a.rank - b.rank || order * compare(a, b));
    table.tBodies[0].append(...keyed.map(([, row]) => row));
  };

  const heads = (table) => {
    const original = [...table.tBodies[0].rows];
    const cells = [...table.tHead.rows[0].cells];
    cells.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      head.scope = "col";
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const direction = before === "ascending" ? "descending" : before === "descending" ? "none" : "ascending";
        for (const other of cells) other.removeAttribute("aria-sort");
        if (direction !== "none") head.setAttribute("aria-sort", direction);
        sort(table, column, direction, original);
      });
    });
  };

  // Rows of texts as they stand; numbers lose the marks that programs don't read, and no text can pass for a formula.
  const rowsOf = (table) => [table.tHead.rows[0], ...table.tBodies[0].rows].map((row) =>
    [...row.cells].flatMap((cell) => [textOf(cell), ...Array(cell.colSpan - 1).fill("")]));
  const plain = (text) => {
    if (MISSING.has(text)) return "";
    if (/^−?[\d,]+(\.\d+)?$/.test(text)) return text.replace("−", "-").replaceAll(",", "");
    return /^[=+@\t\r-]/.test(text) ? `'${text}` : text;
  };
  const csv = (table) => rowsOf(table)
    .map((row) => row.map((text) => `"${plain(text).replaceAll('"', '""')}"`).join(",")).join("\r\n") + "\r\n";
  const tsv = (table) => rowsOf(table).map((row) => row.map(plain).join("\t")).join("\n") + "\n";

  const copy = async (button, table) => {
    let said = "Copied";
    try {
      await navigator.clipboard.writeText(tsv(table));
    } catch {
      getSelection().selectAllChildren(table);
      said = "Selected: press Ctrl+C";
    }
    button.textContent = said;
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };

  // Intervals go below their numbers, and the table scrolls, only where there is no room for more.
  const fit = (box, table) => {
    box.classList.remove("tight");
    box.classList.add("fits");
    const room = () => table.offsetWidth <= box.clientWidth;
    if (!room()) box.classList.add("tight");
    const fits = room();
    box.classList.toggle("fits", fits);
    if (fits) box.removeAttribute("tabindex");
    else box.tabIndex = 0;
  };
  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) fit(target, target.querySelector("table"));
  });

  for (const box of document.querySelectorAll(".scroll")) {
    const table = box.querySelector("table");
    if (!table?.tHead || !table.tBodies.length) continue;
    heads(table);
    const tools = document.createElement("div");
    tools.className = "tools";
    tools.append(
      toolButton("Copy", (button) => copy(button, table)),
      toolButton("CSV", () => keepFile(`${box.id}.csv`, new Blob([csv(table)], { type: "text/csv" }))),
    );
    const link = document.createElement("a");
    link.className = "here";
    link.href = `#${box.id}`;
    link.textContent = "#";
    link.setAttribute("aria-label", "Link to this table");
    tools.append(link);
    const rows = table.tBodies[0].rows.length;
    if (rows > LONG && table.dataset.whole === undefined && !box.closest("details")) {
      table.classList.add("long");
      tools.prepend(toolButton(`Show all ${rows} rows`, (button) => {
        const folded = table.classList.toggle("long");
        button.textContent = folded ? `Show all ${rows} rows` : "Show fewer rows";
      }));
    }
    box.before(tools);
    observer.observe(box);
  }
})();
