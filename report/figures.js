// Figures can be opened large and kept as files.
(() => {
  "use strict";
  const dialog = document.createElement("dialog");
  const large = document.createElement("img");
  const close = document.createElement("button");
  dialog.className = "large";
  dialog.setAttribute("aria-label", "Figure, enlarged");
  close.type = "button";
  close.className = "tool";
  close.textContent = "Close";
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target !== close) dialog.close(); });
  dialog.append(close, large);
  document.body.append(dialog);

  const tool = (text, image, act) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "tool";
    button.textContent = text;
    button.addEventListener("click", () => act(image));
    return button;
  };
  const enlarge = (image) => {
    large.src = image.src;
    large.alt = image.alt;
    dialog.showModal();
  };
  const keep = async (image) => {
    const content = await (await fetch(image.src)).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content);
    link.download = `${image.closest("figure").id}.${content.type.includes("svg") ? "svg" : "webp"}`;
    link.click();
    URL.revokeObjectURL(link.href);
  };
  for (const figure of document.querySelectorAll("main figure")) {
    const image = figure.querySelector("img");
    const tools = document.createElement("span");
    tools.className = "tools";
    tools.append(tool("Enlarge", image, enlarge), tool("Download", image, keep));
    figure.querySelector("figcaption").append(" ", tools);
    image.addEventListener("click", () => enlarge(image));
  }
})();
