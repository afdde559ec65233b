// The contents follow the reader: the entry of the section and of the heading that is being read is marked.
(() => {
  "use strict";
  const side = document.querySelector(".side");
  const menu = side.querySelector(".menu");
  const links = new Map([...side.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const places = [...links.keys()].map((name) => document.getElementById(name));
  const wide = matchMedia("(min-width: 68rem)");

  const follow = () => {
    const line = innerHeight * 0.2;
    const passed = places.filter((place) => place.getBoundingClientRect().top <= line);
    const place = passed.at(-1);
    const current = new Set(place ? [place.id, place.closest("section").id] : []);
    for (const [name, link] of links) {
      if (!current.has(name)) link.removeAttribute("aria-current");
      else link.setAttribute("aria-current", link === links.get(place.id) ? "location" : "true");
    }
    const shown = links.get(place?.id);
    if (shown && wide.matches) {  // not scrollIntoView: it would stop the page's own scrolling
      const top = shown.getBoundingClientRect().top - side.getBoundingClientRect().top;
      if (top < 0 || top > side.clientHeight - 60) side.scrollTop += top - side.clientHeight / 2;
    }
  };
  const observer = new IntersectionObserver(follow, { rootMargin: "0px 0px -80% 0px" });
  for (const place of places) observer.observe(place.localName === "section" ? place.firstElementChild : place);
  follow();

  // A link into the page was followed before tables had their tools: once all stands, it is followed again.
  addEventListener("load", () => requestAnimationFrame(() => requestAnimationFrame(() => {
    document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView({ behavior: "instant" });
  })));

  const fold = () => { menu.open = wide.matches; };
  wide.addEventListener("change", fold);
  fold();
  side.addEventListener("click", (event) => {
    if (event.target.closest("a") && !wide.matches) menu.open = false;
  });
})();
