// Figures can be opened large and kept as files.
(() => {
  "use strict";
  const dialog = document.createElement("dialog");
  const large = document.createElement("img");
  const close = toolButton("Close", () => dialog.close());
  dialog.className = "large";
  dialog.setAttribute("aria-label", "Figure, enlarged");
  dialog.addEventListener("click", (event) => { if (event.target !== close) dialog.close(); });
  dialog.append(close, large);
  document.body.append(dialog);

  const enlarge = (image) => {
    large.src = image.src;
    large.alt = image.alt;
    dialog.showModal();
  };
  const keep = async (image) => {
    const content = await (await fetch(image.src)).blob();
    keepFile(`${image.closest("figure").id}.${content.type.includes("svg") ? "svg" : "webp"}`, content);
  };
  for (const figure of document.querySelectorAll("main figure:has(img)")) {
    const image = figure.querySelector("img");
    const tools = document.createElement("span");
    tools.className = "tools";
    tools.append(toolButton("Enlarge", () => enlarge(image)), toolButton("Download", () => keep(image)));
    figure.querySelector("figcaption").append(" ", tools);
    image.addEventListener("click", () => enlarge(image));
  }
})();
