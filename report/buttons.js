// What the page's scripts share, joined before all of them: a button, and a file for the reader to keep.
const toolButton = (text, act) => {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "tool";
  button.textContent = text;
  button.addEventListener("click", () => act(button));
  return button;
};
const keepFile = (name, content) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
};
