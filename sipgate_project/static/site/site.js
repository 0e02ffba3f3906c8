/* An enhancement only: a form that was sent shows that it runs, and is not sent twice. Everything works without it. */
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.getAttribute("aria-busy")) {
    event.preventDefault();
    return;
  }
  form.setAttribute("aria-busy", "true");
});
/* Back in history: the page may come out of the browser's memory as it was left. */
window.addEventListener("pageshow", () => {
  document.querySelectorAll("form[aria-busy]").forEach((form) => form.removeAttribute("aria-busy"));
});
