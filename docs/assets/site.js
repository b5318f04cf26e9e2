// What a reader with a keyboard or a screen reader needs, and the theme leaves out.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  for (const code of document.querySelectorAll("pre > code")) {
    code.tabIndex = 0; // long lines scroll
  }
});
