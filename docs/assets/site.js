// What a reader with a keyboard or a screen reader needs, and the theme leaves out.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  for (const code of document.querySelectorAll("pre > code")) {
    code.tabIndex = 0; // long lines scroll
  }
  // What is wider than its column scrolls, by the keyboard too.
  const scrolls = ".md-typeset__scrollwrap, .md-typeset div.arithmatex";
  setTimeout(() => document.querySelectorAll(scrolls).forEach((part) => (part.tabIndex = 0)), 0);
  // Parts of the page with one role need names of their own.
  const number = (selector, words) =>
    document.querySelectorAll(selector).forEach((part, k) => {
      part.removeAttribute("aria-labelledby");
      part.setAttribute("aria-label", `${words} ${k + 1}`);
    });
  number(".md-code__nav", "Buttons of code block");
  number(".md-nav[aria-labelledby]", "Pages, part");
  // Long names in tables may break after a point, a bracket or an underscore.
  for (const code of document.querySelectorAll("td code")) {
    if (code.children.length === 0) {
      const parts = code.textContent.split(/(?<=[._(,=])(?=\w)/);
      code.replaceChildren(...parts.flatMap((x, k) => (k ? [document.createElement("wbr"), x] : [x])));
    }
  }
});
