"use strict";
// The first time that a section uses a word of the glossary, the word becomes a link to its entry, and pointing at it or
// reaching it by keyboard shows what it means. The page's own glossary is all that this reads.
(function () {
  const PROSE = "p, li, caption, figcaption";
  const LEAVE = "a, abbr, blockquote, button, code, h1, h2, h3, h4, label, math, pre, select, summary, .mark, .tokens, #formulas, #glossary";
  const AWAY_MS = 150; // time to move the pointer from the word to what is shown

  const entries = new Map();
  for (const entry of document.querySelectorAll("dl.glossary dt[id]")) {
    for (const spelling of entry.dataset.spellings.split("|")) {
      entries.set(spelling, entry);
    }
  }
  if (!entries.size) {
    return;
  }
  // Ordinary words may begin a sentence; names such as SQNR are written in one way.
  for (const [spelling, entry] of [...entries]) {
    if (spelling === spelling.toLowerCase()) {
      entries.set(spelling[0].toUpperCase() + spelling.slice(1), entry);
    }
  }
  const longestFirst = [...entries.keys()].sort((one, other) => other.length - one.length);
  const escaped = longestFirst.map((spelling) => spelling.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const words = new RegExp(`(?<![\\p{L}\\p{N}_-])(?:${escaped.join("|")})(?![\\p{L}\\p{N}_-])`, "gu");

  function link(word) {
    const made = document.createElement("a");
    made.className = "term";
    made.href = `#${entries.get(word).id}`;
    made.textContent = word;
    return made;
  }

  function mark(text, seen) {
    const parts = [];
    let end = 0;
    for (const found of text.data.matchAll(words)) {
      const entry = entries.get(found[0]);
      if (!seen.has(entry)) {
        seen.add(entry);
        parts.push(text.data.slice(end, found.index), link(found[0]));
        end = found.index + found[0].length;
      }
    }
    if (parts.length) {
      text.replaceWith(...parts, text.data.slice(end));
    }
  }

  for (const section of document.querySelectorAll("section")) {
    const walker = document.createTreeWalker(section, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, (node) => {
      if (node.nodeType === Node.ELEMENT_NODE) {
        return node.matches(LEAVE) ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_SKIP;
      }
      return node.parentElement.closest(PROSE) ? NodeFilter.FILTER_ACCEPT : NodeFilter.FILTER_SKIP;
    });
    const texts = [];
    while (!section.matches(LEAVE) && walker.nextNode()) {
      texts.push(walker.currentNode);
    }
    const seen = new Set();
    texts.forEach((text) => mark(text, seen));
  }

  const shown = document.createElement("div");
  shown.id = "term";
  shown.setAttribute("role", "tooltip");
  shown.hidden = true;
  document.body.append(shown);
  let owner = null;
  let leaving = 0;

  function hide() {
    clearTimeout(leaving);
    shown.hidden = true;
    if (owner) {
      owner.removeAttribute("aria-describedby");
      owner = null;
    }
  }

  function show(word) {
    if (owner === word) {
      clearTimeout(leaving);
      return;
    }
    hide();
    owner = word;
    shown.textContent = entries.get(word.textContent).nextElementSibling.textContent;
    shown.hidden = false;
    word.setAttribute("aria-describedby", shown.id);
    const place = word.getClientRects()[0];
    const room = document.documentElement.clientWidth - shown.offsetWidth - 16;
    const above = place.top - shown.offsetHeight - 2;
    shown.style.left = `${window.scrollX + Math.max(16, Math.min(place.left, room))}px`;
    shown.style.top = `${window.scrollY + (above > 0 ? above : place.bottom + 2)}px`;
  }

  function leave() {
    clearTimeout(leaving);
    leaving = setTimeout(() => document.activeElement !== owner && hide(), AWAY_MS);
  }

  document.addEventListener("mouseover", (event) => {
    const word = event.target.closest("a.term");
    if (word) {
      show(word);
    } else if (event.target === shown) {
      clearTimeout(leaving);
    } else if (owner) {
      leave();
    }
  });
  document.addEventListener("focusin", (event) => (event.target.matches("a.term") ? show(event.target) : hide()));
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
})();
